"""AIMET's bias correction in sessions by what batch norms tell, before cross-layer equalization and after it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from correction_by_hand import (
    TF,
    X,
    added,
    assert_biases,
    between,
    biases,
    expected_shifts,
    normed,
    on_grid,
    params,
    silent,
    spread,
    statistics_of,
)
from keras2_sessions import in_session
from tfpasses.passes.aimet.batch_norm_fold import fold_all_batch_norms
from tfpasses.passes.aimet.bias_correction import (
    ActivationType,
    BiasCorrection,
)
from tfpasses.passes.aimet.cross_layer_equalization import CrossLayerScaling, GraphSearchUtils, HighBiasFold, equalize_model
from tfpasses.passes.aimet.statistics import statistics
from tfpasses.passes.aimet.utils.graph_saver import save_and_load_graph
from tfpasses.passes.aimet.utils.op.conv import BiasUtils

tf_keras = pytest.importorskip("tf_keras", reason="Keras 2 is not installed (pip install tf-keras)")

v1 = tf.compat.v1
no_warning = silent  # for all tests here


@pytest.mark.parametrize("limit", [None, 6.0])
def test_convolutions_behind_batch_norms_are_found_with_what_lies_between(limit):
    model = in_session(lambda: normed(limit))
    found = BiasCorrection.find_all_convs_bn_with_activation(model.session, model.source, [model.target])
    kind = ActivationType.relu if limit is None else ActivationType.relu6
    told = {op.name: (info.input_bn.name, info.in_activation_type) for op, info in found.items()}
    assert told == {
        "b/depthwise": ("a_bn/cond", kind),
        "c/Conv2D": ("b_bn/cond", kind),
        "d/Conv2D": ("c_bn/cond", ActivationType.no_activation),
    }
    assert all(op.graph is model.session.graph and info.input_bn.get_module().graph is op.graph for op, info in found.items())
    assert all(info.output_bn is None and info.out_activation_type is ActivationType.no_activation for info in found.values())


def test_convolutions_behind_what_was_folded_are_found_where_the_session_remembers():
    model = in_session(normed)
    folded, _ = fold_all_batch_norms(model.session, model.source, model.target)
    found = BiasCorrection.find_all_convs_bn_with_activation(folded, model.source, model.target)
    told = {op.name: (info.input_bn.name, info.in_activation_type.name) for op, info in found.items()}
    assert told == {
        "b/depthwise": ("a/Conv2D", "relu"),
        "c/Conv2D": ("b/depthwise", "relu"),
        "d/Conv2D": ("c/Conv2D", "no_activation"),
    }
    assert all(folded.graph.get_operation_by_name(name) in found for name in told)
    folded.graph.clear_collection("tfpasses/channel_statistics")
    assert BiasCorrection.find_all_convs_bn_with_activation(folded, model.source, model.target) == {}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("leaky ReLU", set()),
        ("another limit", set()),
        ("pool", set()),
        ("addition", set()),
        ("padding", {"b/Conv2D"}),
        ("dropout", {"b/Conv2D"}),
        ("two readers", {"b/Conv2D", "c/Conv2D"}),
    ],
)
def test_what_may_lie_between_and_what_not(kind, names):
    model = in_session(lambda: between(kind))
    assert {op.name for op in BiasCorrection.find_all_convs_bn_with_activation(model.session, model.source, model.target)} == names


@pytest.mark.parametrize("way", ["as it is", "folded", "folded, saved and loaded"])
@pytest.mark.parametrize("limit", [None, 6.0])
def test_layers_with_statistics_are_corrected_by_them_and_the_others_on_data(limit, way):
    """Negative gammas, padding; the statistics are not those of the data, so that the two kinds differ."""
    model = spread(in_session(lambda: normed(limit)))
    session = model.session
    if way != "as it is":
        session, _ = fold_all_batch_norms(model.session, model.source, model.target)
    if "saved" in way:
        session = save_and_load_graph("./temp", session)
    start = BiasUtils.initialize_model_with_bias(session, model.source, model.target)
    before = biases(start, "abcde")
    new = BiasCorrection.correct_bias(session, params(model), TF, X, perform_only_empirical_bias_corr=False)
    shifts = expected_shifts(model, limit, session)
    assert_biases(biases(new, "bcd"), {name: before[name] - shift for name, shift in shifts.items()}, before)
    assert_on_data(model, start, {name: before[name] - shift for name, shift in shifts.items()}, new)


def assert_on_data(model, start, given, new):
    """The first layer and the last have the biases of the published procedure, with those given of the others."""
    other = save_and_load_graph("", start)
    with other.graph.as_default():
        variables = {one.name.removesuffix(":0"): one for one in v1.global_variables()}

    def put(variable, value):
        other.run(variable.initializer, {variable.initializer.inputs[1]: value})

    for name, variable in variables.items():
        if "kernel" in name:
            put(variable, on_grid(other.run(variable), True))

    def add(session, name):
        (found,) = [one for one in session.graph.get_operations() if one.type == "BiasAdd" and one.name.startswith(f"{name}/")]
        return found

    def set_bias(name, value):
        handle = add(other, name).inputs[1].op.inputs[0].op.name
        put(variables[handle], value)

    def measured(name):
        values = [one.run(add(one, name).outputs[0], {f"{model.source}:0": X}).astype(np.float64) for one in (other, start)]
        more = values[0] - values[1]
        return added(start, name) - more.mean(axis=tuple(range(more.ndim - 1)))

    first = measured("a")
    set_bias("a", first)
    for name, value in given.items():
        set_bias(name, value)
    assert_biases(biases(new, "ae"), {"a": first, "e": measured("e")}, biases(start, "ae"))


def test_without_a_dict_it_is_the_one_that_is_found():
    model = spread(in_session(normed))
    found = BiasCorrection.find_all_convs_bn_with_activation(model.session, model.source, model.target)
    news = [
        BiasCorrection.correct_bias(model.session, params(model), TF, X, conv_bn_dict=given, perform_only_empirical_bias_corr=False)
        for given in (None, found, {})
    ]
    np.testing.assert_array_equal(*(one.run(f"{model.target}:0", {f"{model.source}:0": X}) for one in news[:2]))
    only = BiasCorrection.correct_bias(model.session, params(model), TF, X, found)
    np.testing.assert_array_equal(*(one.run(f"{model.target}:0", {f"{model.source}:0": X}) for one in (only, news[2])))
    assert np.abs(added(news[2], "b") - added(news[0], "b")).max() > 1e-3


def test_a_dict_says_which_layers_are_corrected_by_statistics():
    model = spread(in_session(normed))
    found = BiasCorrection.find_all_convs_bn_with_activation(model.session, model.source, model.target)
    some = {op: info for op, info in found.items() if op.name == "c/Conv2D"}
    new = BiasCorrection.correct_bias(model.session, params(model), TF, X, some, perform_only_empirical_bias_corr=False)
    whole = BiasCorrection.correct_bias(model.session, params(model), TF, X)
    assert_biases(biases(new, "c"), {"c": model.value("c/bias") - expected_shifts(model)["c"]})
    np.testing.assert_array_equal(added(new, "b"), added(whole, "b"))


# after cross-layer equalization


def test_a_dict_of_before_equalization_serves_after_it_with_the_statistics_as_they_are_then():
    model = spread(in_session(lambda: normed(6.0), lifted=True))
    found = BiasCorrection.find_all_convs_bn_with_activation(model.session, model.source, model.target)
    assert {info.in_activation_type for info in found.values()} == {ActivationType.relu6, ActivationType.no_activation}
    after = equalize_model(model.session, model.source, model.target)
    new = BiasCorrection.correct_bias(after, params(model), TF, X, found, perform_only_empirical_bias_corr=False)
    folded, pairs = fold_all_batch_norms(model.session, model.source, model.target)
    without = GraphSearchUtils(folded.graph, model.source, model.target).find_and_replace_relu6_with_relu(folded)
    _, infos = CrossLayerScaling.scale_model(without, model.source, model.target)
    scales = dict(zip("abcd", [pair.scale_factor for one in infos for pair in one.cls_pair_info_list], strict=True))

    def known(model, name):
        """beta / s less what was moved, |gamma| / s."""
        beta, gamma = statistics_of(model, name)
        moved = np.maximum(0, beta - 3 * gamma) if name != "c" else beta
        return (beta - moved) / scales[name], gamma / scales[name]

    shifts = expected_shifts(model, None, after, known)
    before = biases(after, "abcde")
    assert_biases(biases(new, "bcd"), {name: before[name] - shift for name, shift in shifts.items()}, {**before, "d": before["d"] + 1})
    assert len(pairs) == 4


def test_a_session_knows_its_statistics_scaled_and_moved():
    model = in_session(normed, lifted=True)
    folded, pairs = fold_all_batch_norms(model.session, model.source, model.target)
    scaled, infos = CrossLayerScaling.scale_model(folded, model.source, model.target)
    moved = HighBiasFold.bias_fold(scaled, pairs, infos)
    scales = [pair.scale_factor for one in infos for pair in one.cls_pair_info_list]
    told = [{ref.node: stats for ref, stats in statistics(one).items()} for one in (folded, scaled, moved)]
    for name, ref, scale in zip("abcd", ("a/Conv2D", "b/depthwise", "c/BiasAdd", "d/BiasAdd"), scales, strict=True):
        beta, gamma = statistics_of(model, name)
        for place, (mean, std) in enumerate([(beta, gamma), (beta / scale, gamma / scale)]):
            np.testing.assert_allclose(told[place][ref].mean, mean, rtol=1e-12)
            np.testing.assert_allclose(told[place][ref].std, std, rtol=1e-12)
        shift = np.maximum(0, beta - 3 * gamma) if name != "c" else beta
        np.testing.assert_allclose(told[2][ref].mean, (beta - shift) / scale, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(told[2][ref].std, gamma / scale, rtol=1e-12)


def test_scaling_in_the_session_itself_is_remembered_too_even_of_a_finalized_graph():
    model = in_session(normed)
    folded, _ = fold_all_batch_norms(model.session, model.source, model.target)
    layers = [model.op(name, folded) for name in ("a/Conv2D", "b/depthwise", "c/Conv2D")]
    (one, two) = CrossLayerScaling.scale_cls_set_with_depthwise_layers(folded, layers)
    folded.graph.finalize()
    again = CrossLayerScaling.scale_cls_set_with_conv_layers(folded, [model.op(f"{name}/Conv2D", folded) for name in "cd"])
    told = {ref.node: stats for ref, stats in statistics(folded).items()}
    for name, ref, scale in (("a", "a/Conv2D", one), ("b", "b/depthwise", two), ("c", "c/BiasAdd", again), ("d", "d/BiasAdd", 1.0)):
        beta, gamma = statistics_of(model, name)
        np.testing.assert_allclose(told[ref].mean, beta / scale, rtol=1e-12)
        np.testing.assert_allclose(told[ref].std, gamma / scale, rtol=1e-12)


def test_a_layer_whose_statistics_are_gone_is_corrected_on_data_with_a_warning():
    model = spread(in_session(normed))
    found = BiasCorrection.find_all_convs_bn_with_activation(model.session, model.source, model.target)
    folded, _ = fold_all_batch_norms(model.session, model.source, model.target)
    folded.graph.clear_collection("tfpasses/channel_statistics")
    with pytest.warns(UserWarning, match="it is corrected on data, since nothing tells what it reads on average: ") as caught:
        new = BiasCorrection.correct_bias(folded, params(model), TF, X, found, perform_only_empirical_bias_corr=False)
    assert [str(one.message).partition(": ")[0] for one in caught] == ["b/depthwise", "c/BiasAdd", "d/BiasAdd"]
    assert {one.filename for one in caught} == {__file__}
    empirical = BiasCorrection.correct_bias(folded, params(model), TF, X)
    assert_biases(biases(new, "abcde"), biases(empirical, "abcde"))
