"""AIMET's bias correction of one layer, in its session; and what is refused."""

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
    chain,
    expected_shifts,
    kernel_of,
    naively,
    normed,
    outputs,
    params,
    quantize,
    silent,
    spread,
    twin_of,
)
from keras2_sessions import in_session
from tfpasses.graph import TfpassesError
from tfpasses.manager import DataError
from tfpasses.passes.aimet.batch_norm_fold import fold_all_batch_norms
from tfpasses.passes.aimet.bias_correction import (
    BiasCorrection,
    BiasCorrectionParams,
    ConvBnInfoType,
    QuantParams,
)
from tfpasses.passes.aimet.utils.op.conv import BiasUtils

tf_keras = pytest.importorskip("tf_keras", reason="Keras 2 is not installed (pip install tf-keras)")

v1 = tf.compat.v1
no_warning = silent  # for all tests here


# one layer, on data


def test_one_layer_is_quantized_and_corrected_in_the_session_itself():
    model = spread(in_session(lambda: chain(True)))
    before = model.values()
    given = BiasCorrection.bias_correction_per_layer(
        reference_model=model.session,
        corrected_model=model.session,
        bias_correct_params=params(model),
        layer_name_to_be_corrected="c/Conv2D",
        quant_params=TF,
        data_set=tf.data.Dataset.from_tensor_slices(X).batch(4),
    )
    assert given is model.session
    twin = in_session(lambda: chain(True))
    for name, value in before.items():
        twin.set(name.removesuffix(":0"), value)
    wanted = naively(twin, chain, "c", X)
    assert_biases({"c": model.value("c/bias")}, wanted, {"c": before["c/bias:0"]})
    after = model.values()
    assert [name for name in before if not np.array_equal(before[name], after[name])] == ["c/bias:0"]


def test_data_that_can_be_read_only_once_are_read_once():
    model, twin = (spread(in_session(lambda: chain(True))) for _ in range(2))
    once = (part for part in np.split(X, 5))
    for one, data in ((model, once), (twin, X)):
        BiasCorrection.bias_correction_per_layer(one.session, one.session, params(one), "c/Conv2D", data, TF)
    np.testing.assert_array_equal(model.value("c/bias"), twin.value("c/bias"))


@pytest.mark.parametrize("order", ["newer", "older"])
def test_both_orders_of_arguments_are_taken(order):
    model = spread(in_session(lambda: chain(True)))
    twin = spread(in_session(lambda: chain(True)))
    rest = (X, TF) if order == "newer" else (TF, X)
    BiasCorrection.bias_correction_per_layer(model.session, model.session, params(model), "c/Conv2D", *rest)
    BiasCorrection.bias_correction_per_layer(twin.session, twin.session, params(twin), "c/Conv2D", data_set=X, quant_params=TF)
    np.testing.assert_array_equal(model.value("c/bias"), twin.value("c/bias"))


def test_layer_by_layer_against_a_float_reference_it_is_the_whole_procedure():
    reference, quantized = (spread(in_session(lambda: chain(True))) for _ in range(2))
    wanted = naively(reference, chain, "abcde", X)
    quantize(quantized, "abcde")
    for name in ("a/Conv2D", "b/depthwise", "c/Conv2D", "d/MatMul", "e/MatMul"):
        BiasCorrection.bias_correction_per_layer(reference.session, quantized.session, params(reference), name, X)
    assert_biases({name: quantized.value(f"{name}/bias") for name in "abcde"}, wanted)


def test_weights_that_operations_quantize_in_the_graph_are_seen():
    """As a simulation of quantization has them."""

    def network(simulated):
        kernels = [np.random.default_rng(seed).normal(size=(3, 3, 3, 3)).astype("float32") for seed in (3, 4)]
        with tf.Graph().as_default() as graph:
            y = v1.placeholder("float32", (None, 12, 12, 3), "x")
            for name, values in zip("ab", kernels, strict=True):
                kernel = v1.get_variable(f"{name}/kernel", initializer=values, use_resource=True)
                bias = v1.get_variable(f"{name}/bias", initializer=np.zeros(3, "float32"), use_resource=True)
                if simulated:
                    kernel = tf.quantization.fake_quant_with_min_max_args(kernel, -4, 4, num_bits=4)
                y = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(y, kernel, 1, "SAME", name=f"{name}/Conv2D"), bias, name=f"{name}/BiasAdd"))
            tf.identity(y, "y")
            session = v1.Session(graph=graph)
            session.run(v1.global_variables_initializer())
        return session

    reference, simulated = network(False), network(True)
    values = [one.run("b/BiasAdd:0", {"x:0": X}).astype(np.float64) for one in (simulated, reference)]
    given = BiasCorrectionParams(20, 20, 20, ["x"], ["y"])
    BiasCorrection.bias_correction_per_layer(reference, simulated, given, "b/Conv2D", X)
    wanted = -(values[0] - values[1]).mean(axis=(0, 1, 2))
    assert np.abs(wanted).max() > 1e-2
    np.testing.assert_allclose(simulated.run("b/BiasAdd/ReadVariableOp:0"), wanted, rtol=0, atol=1e-5)


def test_one_layer_whose_bias_several_operations_add_is_corrected_by_the_mean_over_them():
    def make(bias=True):
        layers = tf_keras.layers
        x = tf_keras.Input((12, 12, 3))
        a = layers.Conv2D(3, 3, padding="same", name="a")
        return tf_keras.Model(x, layers.Dense(3, name="b")(layers.GlobalAveragePooling2D()(layers.ReLU()(a(layers.ReLU()(a(x)))))))

    model = spread(in_session(make))
    reference, other = twin_of(model, make), twin_of(model, make)
    quantize(other, "a")
    BiasCorrection.bias_correction_per_layer(model.session, model.session, params(model), "a_1/Conv2D", X, TF)
    values = [[one.session.run(f"{name}/BiasAdd:0", {f"{model.source}:0": X}) for name in ("a", "a_1")] for one in (other, reference)]
    wanted = reference.value("a/bias") - np.mean(np.float64(values[0]) - np.float64(values[1]), axis=(0, 1, 2, 3))
    assert_biases({"a": model.value("a/bias")}, {"a": wanted}, {"a": reference.value("a/bias")})


def test_two_identical_models_are_an_error_that_says_so():
    model = spread(in_session(lambda: chain(True)))
    twin = spread(in_session(lambda: chain(True)))
    before = model.values()
    for other in (model, twin):
        with pytest.raises(TfpassesError, match=r"^reference_model and corrected_model are identical as far as c/BiasAdd.*quant_params="):
            BiasCorrection.bias_correction_per_layer(model.session, other.session, params(model), "c/Conv2D", X)
    assert all(np.array_equal(value, before[name]) for name, value in model.values().items())


def test_a_layer_that_gained_a_bias_is_corrected_by_its_convolutions_name():
    model = spread(in_session(lambda: chain(False)))
    session = BiasUtils.initialize_model_with_bias(model.session, [model.source], [model.target])
    for name, op in zip("abcde", ("a/Conv2D", "b/depthwise", "c/Conv2D", "d/MatMul", "e/MatMul"), strict=True):
        BiasCorrection.bias_correction_per_layer(model.session, session, params(model), op, X, TF)
        reference, other = twin_of(model, chain), twin_of(model, chain)
        for place in "abcde"["abcde".index(name) :: -1]:
            other.set(f"{place}/bias", added(session, place) if place != name else np.zeros_like(added(session, place)))
        quantize(other, name)
        more = outputs(other, name, X) - outputs(reference, name, X)
        np.testing.assert_allclose(added(session, name), -more.mean(axis=tuple(range(more.ndim - 1))), rtol=0, atol=1e-5)


# one layer, by statistics


@pytest.mark.parametrize("way", ["as it is", "folded"])
def test_one_layer_is_corrected_by_statistics_in_the_session_itself(way):
    model = spread(in_session(lambda: normed(6.0)))
    found = BiasCorrection.find_all_convs_bn_with_activation(model.session, model.source, model.target)
    session = model.session
    if way == "folded":
        session, _ = fold_all_batch_norms(session, model.source, model.target)
    session = BiasUtils.initialize_model_with_bias(session, model.source, model.target)
    before, kernels = biases(session, "abcde"), [kernel_of(model, name, session) for name in "abcde"]
    shifts = expected_shifts(model, 6.0, session)
    for op, info in found.items():
        given = BiasCorrection.analytical_bias_correction_per_layer(session, session.graph.get_operation_by_name(op.name), info, TF)
        assert given is session
    assert_biases(biases(session, "bcd"), {name: before[name] - shift for name, shift in shifts.items()}, before)
    for name, kernel in zip("abcde", kernels, strict=True):
        np.testing.assert_array_equal(kernel_of(model, name, session), kernel)
    assert_biases(biases(session, "ae"), {name: before[name] for name in "ae"})


def test_the_first_convolution_reads_0_on_average_and_stays():
    model = spread(in_session(lambda: chain(True)))
    before = model.values()
    BiasCorrection.analytical_bias_correction_per_layer(model.session, model.op("a/Conv2D"), None, TF, is_first_conv=True)
    assert all(np.array_equal(value, before[name]) for name, value in model.values().items())


def test_one_layer_without_statistics_is_an_error():
    model = in_session(lambda: chain(True))
    info = ConvBnInfoType(model.op("a/Conv2D"))
    with pytest.raises(TfpassesError, match=r"^c/BiasAdd cannot be corrected without data: the mean of the input"):
        BiasCorrection.analytical_bias_correction_per_layer(model.session, model.op("c/Conv2D"), info, TF)
    with pytest.raises(ValueError, match=r"^c/Conv2D: preceeding_bn_layer_info names no batch norm, and it is not the first"):
        BiasCorrection.analytical_bias_correction_per_layer(model.session, model.op("c/Conv2D"), None, TF)


# errors


def correct(model, data=X, quant=TF, layers=None, **names):
    given = {"input_op_names": [model.source], "output_op_names": [model.target], **names}
    return BiasCorrection.correct_bias(model.session, BiasCorrectionParams(4, 4, 8, **given), quant, data, layers, False)


def one_layer(model, layer="c/Conv2D", reference=None, quant=TF, **names):
    given = {"input_op_names": [model.source], "output_op_names": [model.target], **names}
    reference = (reference or model).session
    return BiasCorrection.bias_correction_per_layer(reference, model.session, BiasCorrectionParams(4, 4, 8, **given), layer, X, quant)


def by_statistics(model, layer="c/Conv2D", quant=TF):
    operation = model.op(layer) if isinstance(layer, str) else layer
    return BiasCorrection.analytical_bias_correction_per_layer(model.session, operation, None, quant, True)


class Other:
    name, type = "elsewhere/Conv2D", "Conv2D"


def other_dict():
    other = in_session(lambda: between("padding"))
    found = BiasCorrection.find_all_convs_bn_with_activation(other.session, other.source, other.target)
    return {Other(): info for info in found.values()}


EMPTY = X[:0]
ERRORS = {
    "input": (lambda m: correct(m, input_op_names=["image"]), TfpassesError, r"^input image: there is no such placeholder; there are"),
    "output": (lambda m: correct(m, output_op_names=["top"]), TfpassesError, r"^output top: there is no such node; there are"),
    "no output": (lambda m: correct(m, output_op_names=[]), TfpassesError, r"^name the outputs"),
    "ignored": (
        lambda m: correct(m, quant=QuantParams(ops_to_ignore=["z"])),
        ValueError,
        r"^ops_to_ignore names z, which is no operation of the session's graph$",
    ),
    "ignored number": (lambda m: correct(m, quant=QuantParams(ops_to_ignore=[3])), ValueError, r"^ops_to_ignore holds 3, which is neither"),
    "empty array": (lambda m: correct(m, EMPTY), DataError, r"with at least one sample is expected$"),
    "empty dataset": (lambda m: correct(m, tf.data.Dataset.from_tensor_slices(EMPTY)), DataError, r"^the dataset holds no samples$"),
    "no data": (lambda m: correct(m, None), DataError, r"^data is of type NoneType; give"),
    "shape": (lambda m: correct(m, X[:, :5]), DataError, r"^data for input input_\d+ has shape \(20, 5, 12, 3\)"),
    "not a number": (lambda m: correct(m, np.full_like(X, np.nan)), DataError, r"has NaN in sample 0"),
    "another graph": (
        lambda m: correct(m, layers=other_dict()),
        TfpassesError,
        r"^conv_bn_dict names elsewhere/Conv2D, which is no convolution .* it was found on another graph$",
    ),
    "no dict": (lambda m: correct(m, layers=[1]), ValueError, r"^conv_bn_dict is of type list"),
    "dict of names": (lambda m: correct(m, layers={"c": None}), ValueError, r"^conv_bn_dict holds 'c': None; its keys are operations"),
    "quant_params": (lambda m: correct(m, quant="tf"), ValueError, r"^quant_params is of type str; give a QuantParams$"),
    "params": (
        lambda m: BiasCorrection.correct_bias(m.session, TF, TF, X),
        ValueError,
        r"^bias_correct_params is of type QuantParams; give a BiasCorrectionParams$",
    ),
    "mode": (lambda m: QuantParams("enhanced"), ValueError, r"^quant_mode='enhanced'; write one of tf, post_training_tf, "),
    "mode set later": (lambda m: setattr(QuantParams(), "quant_mode", 1), ValueError, r"^quant_mode=1; write one of"),
    "rounding": (lambda m: QuantParams(round_mode="up"), ValueError, r"^round_mode='up'; write one of nearest"),
    "samples": (lambda m: BiasCorrectionParams(1, 1, 0, [], []), ValueError, r"^num_bias_correct_samples=0; it is a number of samples"),
    "batch": (lambda m: BiasCorrectionParams(0.5, 1, 1, [], []), ValueError, r"^batch_size=0.5; it is a number of samples, at least 1$"),
    "layer": (lambda m: one_layer(m, "z/Conv2D"), ValueError, r"^z/Conv2D is no operation of the session's graph$"),
    "no layer": (lambda m: one_layer(m, "re_lu/Relu6"), ValueError, r"^re_lu/Relu6, a Relu6, is part of no convolution"),
    "layer of another": (
        lambda m: one_layer(m, reference=in_session(lambda: between("padding"))),
        TfpassesError,
        r"^input input_\d+: there is no such placeholder|^output .*: there is no such node|^reference_model has no layer c/BiasAdd",
    ),
    "layer beyond the outputs": (
        lambda m: one_layer(m, output_op_names=["a/BiasAdd"]),
        (TfpassesError, ValueError),
        r"^c/BiasAdd does not lie between the given operations|^c/Conv2D, a .*, is part of no convolution",
    ),
    "ignored layer": (
        lambda m: one_layer(m, quant=QuantParams(ops_to_ignore=["c/Conv2D"])),
        TfpassesError,
        r"^c/BiasAdd is to be corrected, and ops_to_ignore names it$",
    ),
    "statistics of no operation": (lambda m: by_statistics(m, 3), ValueError, r"^3 is no operation; give a convolution"),
    "statistics of an activation": (
        lambda m: by_statistics(m, "re_lu/Relu6"),
        ValueError,
        r"^re_lu/Relu6, a Relu6, is part of no convolution",
    ),
    "statistics and quant_params": (lambda m: by_statistics(m, quant=None), ValueError, r"^quant_params is of type NoneType"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_is_wrong_is_an_error_of_one_line_and_nothing_has_changed(name):
    model = in_session(lambda: chain(True))
    before = model.values()
    act, kind, text = ERRORS[name]
    with pytest.raises(kind, match=text) as caught:
        act(model)
    assert "\n" not in str(caught.value)
    assert all(np.array_equal(value, before[key]) for key, value in model.values().items())


def test_a_layer_without_a_bias_cannot_be_corrected_in_its_session():
    model = in_session(lambda: chain(False))
    for act in (one_layer, by_statistics):
        with pytest.raises(TfpassesError, match=r"^c/Conv2D.* has no bias in corrected_model; BiasUtils.initialize_model_with_bias gives"):
            act(model)


def test_a_bias_that_is_a_constant_cannot_change_in_its_session():
    with tf.Graph().as_default() as graph:
        kernel = np.random.default_rng(3).normal(size=(3, 3, 3, 2)).astype("float32")
        x = v1.placeholder("float32", (None, 12, 12, 3), "x")
        tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME", name="c"), tf.constant([1.0, 1.0]), name="b"), "y")
    session = v1.Session(graph=graph)
    given = BiasCorrectionParams(4, 4, 8, "x", "y")
    with pytest.raises(TfpassesError, match=r"is no variable of the session.*correct_bias gives a new session$"):
        BiasCorrection.bias_correction_per_layer(session, session, given, "c", X, TF)
    new = BiasCorrection.correct_bias(session, given, TF, X)
    assert np.abs(BiasUtils.get_bias_as_numpy_data(new, new.graph.get_operation_by_name("c")) - 1).max() > 1e-5


def test_a_layer_that_cannot_be_corrected_is_left_with_a_warning():
    """Something else computes with its bias."""
    with tf.Graph().as_default() as graph:
        kernel, bias = np.random.default_rng(3).normal(size=(3, 3, 3, 2)).astype("float32"), v1.get_variable("b", (2,))
        x = v1.placeholder("float32", (None, 12, 12, 3), "x")
        y = tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME", name="c"), bias)
        tf.nn.relu(y * tf.reduce_sum(bias), "y")
        session = v1.Session(graph=graph)
        session.run(v1.global_variables_initializer())
    with pytest.warns(UserWarning, match="^BiasAdd: it shares its bias with"):
        new = BiasCorrection.correct_bias(session, BiasCorrectionParams(4, 4, 8, "x", "y"), TF, X)
    np.testing.assert_array_equal(new.run("y:0", {"x:0": X}), session.run("y:0", {"x:0": X}))
