"""analytical-bias-correction: with quantized kernels, means are what they were. Against a million samples, and exactly where inputs are the
same everywhere.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from keras import ops

import tfpasses
from eager_groups import eager_groups
from fold_cases import CASES, bite
from graph_defs import compute, frozen
from normal_networks import assert_mean, branch, normal_inputs, on_grid, settle
from tfpasses.manager import PassError, PipelineError
from tfpasses.passes.analytical_bias_correction import AnalyticalBiasCorrection
from tfpasses.passes.quantize_weights import QuantizeWeights

NAME = "analytical-bias-correction"
REAL = Path(__file__).parents[3] / "shared" / "real" / "networks.py"


def correct(model, options="bits=4", before="fold-batch-norms", **keywords):
    return tfpasses.run(model, f"{before},{NAME}{{{options}}}", **keywords)


def corrected(model, options="bits=4", **keywords):
    """The model with corrected biases, and the same with quantized kernels."""
    result = correct(model, options, **keywords)
    shared = " ".join(part for part in options.split() if not part.startswith("input-mean"))
    return result.model, tfpasses.run(result.model, f"quantize-weights{{{shared}}}").model


def bias_of(model, name):
    return np.asarray(model.get_layer(name).bias, np.float64)


def remarks(result, kind="missed"):
    return {remark.node: remark.reason for remark in result.remarks if remark.kind == kind and remark.pass_name == NAME}


def channel_means(value, axis):
    value = np.asarray(value, np.float64)[0]
    return value.mean(axis=tuple(place for place in range(value.ndim) if place != axis % value.ndim))


# a million samples

HEADS = {
    "none": lambda: lambda x: x,
    "relu": L.ReLU,
    "relu6": lambda: L.ReLU(6.0),
    "limits per channel": lambda: lambda x: ops.minimum(L.ReLU()(x), np.float32([0.3, 1, 2, 6, 2, 1, 5])),
    "leaky relu": lambda: L.LeakyReLU(0.2),
    "prelu": lambda: L.PReLU(shared_axes=[1, 2]),
    "silu": lambda: L.Activation("silu"),
}


def image_model(head, padding="same", use_bias=True, size=7):
    """7x7 places of independent normal numbers, an activation, and a 3x3 kernel."""
    x = keras.Input((size, size, 3), name="x")
    y = head()(branch(x, "a"))
    return settle(keras.Model(x, L.Conv2D(4, 3, padding=padding, use_bias=use_bias, name="b")(y)))


def shift_samples(model, x, bits=4):
    """What a quantized kernel of the last layer adds to each element of its output: the layer of W' - W on what it reads."""
    layer = model.get_layer("b")
    inner = keras.Model(model.inputs, layer.input)
    change = on_grid(layer.kernel, bits).astype(np.float64) - np.asarray(layer.kernel, np.float64)
    read = inner.predict(x, batch_size=4096, verbose=0)
    return np.concatenate(
        [
            tf.nn.conv2d(read[start : start + 4096], change.astype("float32"), 1, layer.padding.upper()).numpy()
            for start in range(0, len(read), 4096)
        ]
    )


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("name", HEADS)
def test_what_is_taken_from_a_bias_is_what_a_quantized_kernel_adds_on_average(name, padding):
    model = image_model(HEADS[name], padding)
    taken = bias_of(model, "b") - bias_of(correct(model).model, "b")
    assert_mean(shift_samples(model, normal_inputs(model)[0]), taken)


def test_a_kernel_with_same_padding_counts_as_many_taps_as_it_sees():
    """Of a 3x3 kernel on 7x7, (19/7)^2 = 7.37 of 9."""
    x = keras.Input((7, 7, 1), name="x")
    model = keras.Model(x, L.Conv2D(2, 3, padding="same", name="b")(x))
    kernel = np.zeros((3, 3, 1, 2), "float32")
    kernel[..., 0], kernel[0, 0, 0, 1] = 0.4, 1.5  # on a grid of 0.5: 0.4 becomes 0.5
    model.get_layer("b").set_weights([kernel, np.zeros(2, "float32")])
    got = bias_of(correct(model, "bits=2 input-mean=2").model, "b")
    np.testing.assert_allclose(got, [-0.1 * 2 * (19 / 7) ** 2, 0.0], rtol=1e-6, atol=1e-9)


# exactly, where an input is the same everywhere

MEANS = (0.3, -1.2, 0.8, 2.0)
TOLD = '"0.3,-1.2,0.8,2"'


def means_for(count):
    return [MEANS[place % 4] + place // 4 for place in range(count)]


@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_layer_gives_what_it_gave_of_its_input_s_mean(name, use_bias):
    case = CASES[name]
    x = keras.Input(case.shape, name="x")
    model = bite(keras.Model(x, case.make(use_bias)(x)))
    means = means_for(case.shape[case.axis - (case.axis == 1)])
    places = [1] * len(case.shape)
    places[case.axis - (case.axis == 1)] = len(means)
    image = np.broadcast_to(np.reshape(means, places), (1, *case.shape)).astype("float32")
    told = '"' + ",".join(map(str, means)) + '"'
    with eager_groups():
        float_model, quantized = corrected(model, f"bits=3 input-mean={told}")
        axis = 0 if case.axis == 1 else -1
        wanted, got, alone = (channel_means(m(image), axis) for m in (model, quantized, float_model))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    assert np.abs(alone - wanted).max() > 0.01
    before, after = ([np.asarray(w) for w in m.layers[1].weights if "kernel" in w.name] for m in (model, float_model))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("options", ["symmetric=true", "per-channel=true", "scheme=tf_enhanced", "rounding=stochastic seed=3"])
def test_the_options_are_those_of_quantize_weights(options):
    x = keras.Input((6, 5, 4), name="x")
    model = bite(keras.Model(x, L.Conv2D(6, 3, padding="same", name="b")(x)))
    _, quantized = corrected(model, f"bits=3 {options} input-mean={TOLD}")
    image = np.broadcast_to(np.float32(MEANS), (1, 6, 5, 4))
    np.testing.assert_allclose(channel_means(quantized(image), -1), channel_means(model(image), -1), rtol=1e-4, atol=1e-4)


def test_the_defaults_are_those_of_quantize_weights():
    ours, theirs = AnalyticalBiasCorrection(), QuantizeWeights()
    assert ours.quantizer == theirs.quantizer
    assert not ours.quantizer.symmetric
    assert not ours.quantizer.per_channel


# a whole network


def network():
    """A layer, ReLU6, padding, a depthwise layer in between, a sum, and two layers behind."""
    x = keras.Input((7, 7, 3), name="x")
    y = L.ReLU(6.0)(branch(x, "a"))
    z = L.DepthwiseConv2D(3, padding="same", name="d")(y)
    return settle(keras.Model(x, L.Conv2D(4, 1, name="b")(L.Add()([z, y]))))


@pytest.mark.parametrize("before", ["fold-batch-norms", "cle", "cle{relu6=skip}"])
def test_a_network_s_outputs_keep_their_means(before):
    """Only what lies behind the first layer is quantized: its own error would make what follows another variable."""
    model = network()
    options = 'bits=4 only="d b"'
    result = tfpasses.run(model, f"{before},{NAME}{{{options}}},quantize-weights{{{options}}}")
    plain = tfpasses.run(model, f"{before},quantize-weights{{{options}}}").model
    x = normal_inputs(model)[0]
    wanted, got, without = (m.predict(x, batch_size=4096, verbose=0).astype(np.float64) for m in (model, result.model, plain))
    floor = 5e-3 if before.startswith("cle") else 1e-5  # the high-bias fold, which approximates
    assert_mean(got - wanted, 0.0, floor)
    assert np.abs((without - wanted).mean(axis=(0, 1, 2))).max() > 10 * floor


def test_a_frozen_graph_def_is_corrected_as_the_model_is():
    model = image_model(lambda: L.ReLU(6.0), use_bias=False)
    definition = frozen(model)
    pipeline = f"fold-batch-norms,{NAME}{{bits=4}},quantize-weights{{bits=4}}"
    result, keras_result = tfpasses.run(definition, pipeline), tfpasses.run(model, pipeline)
    x = np.random.default_rng(0).standard_normal((16, 7, 7, 3)).astype("float32")
    name = result.graph.outputs[0].node
    (got,) = compute(result.model, {"in_0": x}, [name])
    np.testing.assert_allclose(got, keras_result.model(x), rtol=1e-4, atol=1e-4)
    assert [rewrite.root for rewrite in keras_result.rewrites if rewrite.pass_name == NAME] == ["b"]


def test_facts_of_an_earlier_run_serve(tmp_path):
    model = image_model(L.ReLU)
    folded = tfpasses.run(model, "fold-batch-norms")
    tfpasses.save(folded, tmp_path / "folded.keras", facts=tmp_path / "facts.npz")
    graph = tfpasses.load(tmp_path / "folded.keras", tmp_path / "facts.npz")
    again = tfpasses.run(graph, f"{NAME}{{bits=4}}").graph.to_keras()
    np.testing.assert_array_equal(bias_of(again, "b"), bias_of(correct(model).model, "b"))


# one bias, several layers


def shared(known=True):
    x, y = keras.Input((3,), name="x"), keras.Input((3,), name="y")
    both = L.Dense(4, name="b")
    a = L.ReLU()(branch(x, "a"))
    other = L.ReLU(0.5)(branch(y, "c", (1, 0, 2, -1, 0, 1, 1), (0.5,) * 7)) if known else L.Dense(7, name="c")(y)
    return settle(keras.Model([x, y], [both(a), both(other)]))


def test_a_layer_called_twice_is_corrected_by_the_mean_over_its_calls():
    model = shared()
    taken = bias_of(model, "b") - bias_of(correct(model).model, "b")
    layer = model.get_layer("b")
    change = on_grid(layer.kernel).astype(np.float64) - np.asarray(layer.kernel, np.float64)
    x = normal_inputs(model)
    read = [keras.Model(model.inputs, tensor).predict(x, batch_size=100_000, verbose=0) for tensor in reads_of(model)]
    assert_mean(np.mean(read, axis=0) @ change, taken)
    assert np.abs((read[0].mean(axis=0) - read[1].mean(axis=0)) @ change).max() > 0.05


def reads_of(model):
    return [node.input_tensors[0] for node in model.get_layer("b")._inbound_nodes]


def test_a_layer_called_twice_is_not_corrected_where_one_call_s_input_is_not_known():
    model = shared(known=False)
    result = correct(model)
    np.testing.assert_array_equal(bias_of(result.model, "b"), bias_of(model, "b"))
    assert remarks(result)["b"] == "the mean of the input y is not known"


def test_two_convolutions_of_one_kernel_in_a_graph_have_biases_of_their_own():
    kernel = np.random.default_rng(0).normal(size=(1, 1, 2, 3)).astype("float32")
    with tf.Graph().as_default() as graph:
        x, y = (tf.compat.v1.placeholder("float32", (None, 4, 4, 2), name=name) for name in "xy")
        weight = tf.constant(kernel)
        for name, value in (("p", x), ("q", y)):
            tf.nn.bias_add(tf.nn.conv2d(value, weight, 1, "SAME"), tf.zeros(3) + 0.5, name=name)
    definition = graph.as_graph_def()
    result = tfpasses.run(definition, f'canonicalize,fold-batch-norms,{NAME}{{bits=4 input-mean="x:1 y:-2"}}', outputs=["p", "q"])
    change = (on_grid(kernel).astype(np.float64) - kernel)[0, 0].sum(axis=0)
    got = compute(result.model, {"x": np.zeros((1, 4, 4, 2)), "y": np.zeros((1, 4, 4, 2))}, ["p", "q"])
    np.testing.assert_allclose(got[0][0, 0, 0], 0.5 - change, rtol=1e-5)
    np.testing.assert_allclose(got[1][0, 0, 0], 0.5 + 2 * change, rtol=1e-5)


# what is told


def test_the_first_layer_stays_where_its_input_is_not_told():
    result = correct(image_model(L.ReLU))
    assert remarks(result) == {"a": "the mean of the input x is not known"}
    (remark,) = [one for one in result.remarks if one.kind == "missed"]
    assert remark.remedy == "input-mean= tells it"


def test_what_reads_zero_on_average_stays_and_says_so():
    result = correct(image_model(L.ReLU), "bits=4 input-mean=0")
    assert remarks(result, "note")["a"] == "what it reads is 0 on average"
    assert not remarks(result)


def test_the_journal_and_a_remark_say_how_far_it_changes():
    model = image_model(L.ReLU)
    result = correct(model)
    taken = np.abs(bias_of(model, "b") - bias_of(result.model, "b")).max()
    (rewrite,) = [one for one in result.rewrites if one.pass_name == NAME]
    assert rewrite.payload["channels"] == 4
    np.testing.assert_allclose(rewrite.payload["largest"], taken, rtol=1e-4)
    (note,) = remarks(result, "note").values()
    assert note == f"1 of 2 layers corrected, by up to {taken:.3g} (b)"


def test_what_rests_on_sums_is_told():
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    late = L.ReLU()(L.Add(name="sum")([branch(x, "a"), branch(y, "c")]))
    result = correct(settle(keras.Model([x, y], L.Dense(3, name="b")(late))))
    (note,) = remarks(result, "note").values()
    assert note.endswith("; 1 of them take for independent what sum adds, and the sum for normal")
    assert result.rewrites[-1].payload["assumes"] == ("sum",)


def test_a_part_of_the_channels_may_be_known():
    x, y = keras.Input((5, 5, 3), name="x"), keras.Input((5, 5, 2), name="y")
    model = settle(keras.Model([x, y], L.DepthwiseConv2D(3, name="b")(L.Concatenate()([L.ReLU()(branch(x, "a")), y]))))
    result = correct(model)
    changed = bias_of(model, "b") != bias_of(result.model, "b")
    assert not changed[7:].any()
    assert changed[[0, 1, 2, 3, 4, 6]].all()
    assert remarks(result)["b"] == "2 of its 9 channels are not corrected: the mean of the input y is not known"


def test_an_image_of_unknown_size_is_taken_for_large():
    x = keras.Input((None, None, 4), name="x")
    model = bite(keras.Model(x, L.Conv2D(3, 3, padding="same", name="b")(x)))
    result = correct(model, f"bits=4 input-mean={TOLD}")
    kernel = np.asarray(model.get_layer("b").kernel, np.float64)
    wanted = np.einsum("hwio,i->o", on_grid(kernel.astype("float32")) - kernel, MEANS)
    np.testing.assert_allclose(bias_of(model, "b") - bias_of(result.model, "b"), wanted, rtol=1e-4, atol=1e-5)
    assert remarks(result, "note")["b"].startswith("the size of the image that it reads is not known")


# what is left alone


def test_a_kernel_on_the_grid_needs_nothing():
    model = image_model(L.ReLU)
    layer = model.get_layer("b")
    layer.kernel.assign(np.random.default_rng(0).integers(-8, 8, layer.kernel.shape).astype("float32"))
    result = correct(model)
    assert remarks(result, "note")["b"] == "its kernel is on the grid already"
    np.testing.assert_array_equal(bias_of(result.model, "b"), bias_of(model, "b"))


def test_no_bias_is_made_where_nothing_is_to_correct():
    result = correct(image_model(L.ReLU, use_bias=False), "bits=4 input-mean=0 only=b")
    assert result.model.get_layer("b").bias is not None
    x = keras.Input((4,), name="x")
    model = bite(keras.Model(x, L.Dense(3, use_bias=False, name="b")(x)))
    assert correct(model, "bits=4 input-mean=0").model.get_layer("b").bias is None


@pytest.mark.parametrize("weight, what", [(0, "kernel"), (1, "bias")])
def test_weights_that_are_no_numbers_stay(weight, what):
    model = image_model(L.ReLU)
    layer = model.get_layer("b")
    arrays = layer.get_weights()
    arrays[weight].reshape(-1)[0] = np.nan
    layer.set_weights(arrays)
    result = correct(model)
    assert remarks(result)["b"] == f"its {what} is not finite (NaN or infinity)"
    np.testing.assert_array_equal(bias_of(result.model, "b"), bias_of(model, "b"))


def test_a_bias_that_its_dtype_cannot_hold_stays():
    x = keras.Input((4,), name="x", dtype="float16")
    model = bite(keras.Model(x, L.Dense(3, name="b", dtype="float16")(x)))
    assert bias_of(correct(model, "bits=2 input-mean=5").model, "b").dtype == np.float64
    assert correct(model, "bits=2 input-mean=5").model.get_layer("b").bias.dtype == "float16"
    result = correct(model, "bits=2 input-mean=1e6")
    assert remarks(result)["b"] == "its corrected bias would not be finite in its dtype"


@pytest.mark.parametrize("use_bias", [True, False])
def test_keras_would_add_a_bias_to_the_wrong_axis(use_bias):
    x = keras.Input((4, 6, 3), name="x")
    layer = L.Conv2D(3, 1, use_bias=use_bias, data_format="channels_first", name="b")
    model = bite(keras.Model(x, layer(x)))
    result = correct(model, "bits=4 input-mean=1")
    assert "adds a channels-first layer's bias to the wrong axis" in remarks(result)["b"]
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), result.model.get_weights(), strict=True))


# options


def test_only_corrects_the_layers_that_it_names():
    model = network()
    result = correct(model, "bits=4 only=d")
    assert [rewrite.root for rewrite in result.rewrites if rewrite.pass_name == NAME] == ["d"]
    np.testing.assert_array_equal(bias_of(result.model, "b"), bias_of(model, "b"))


@pytest.mark.parametrize(
    "only, message",
    [
        ("nothing", "there is no layer 'nothing'"),
        ("re_lu", "re_lu is no linear layer"),
        ("a", "a cannot be corrected: the mean of the input x is not known"),
    ],
)
def test_only_refuses_what_cannot_be_corrected(only, message):
    with pytest.raises(PassError, match=message):
        correct(network(), f"only={only}")


@pytest.mark.parametrize(
    "means, message",
    [
        ("z:1", "there is no input 'z'; there are x"),
        ("1,2", "2 numbers are given for x, which has 3 channels"),
    ],
)
def test_means_that_fit_no_input_are_refused(means, message):
    with pytest.raises(PassError, match=message):
        correct(network(), f'input-mean="{means}"')


@pytest.mark.parametrize("options", ["bits=1", "scheme=max", "input-mean=a", "input-mean=nan", 'input-mean="1,,2"', 'input-mean="1 2"'])
def test_options_that_are_none_are_refused(options):
    with pytest.raises(PipelineError, match=NAME):
        correct(network(), options)


def test_it_is_refused_where_no_statistics_can_be():
    with pytest.raises(PipelineError, match="put fold-batch-norms before it, or load facts saved by an earlier run"):
        tfpasses.run(network(), NAME)


def test_it_goes_before_quantize_weights_however_they_are_written():
    result = tfpasses.run(network(), f"fold-batch-norms,quantize-weights{{bits=4}},{NAME}{{bits=4}}")
    assert [record.pass_.name for record in result.journal][-2:] == [NAME, "quantize-weights"]


# a real network


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="the trained networks (../shared/real) are not at hand")
@pytest.mark.parametrize("before", ["cle", "fold-batch-norms"])
def test_mobilenet_v2_is_no_worse_for_it(before, record_property):
    spec = importlib.util.spec_from_file_location("real_networks", REAL)
    networks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(networks)
    model, preprocess = networks.mobilenet_v2()
    images, labels = networks.images(preprocess)
    graph = tfpasses.run(model, before).graph

    def right(pipeline):
        found = tfpasses.run(graph, pipeline).graph.to_keras()
        return float((found.predict(images, batch_size=50, verbose=0).argmax(axis=-1) == labels).mean())

    without, with_it = right("quantize-weights"), right(f"{NAME},quantize-weights")
    record_property("top-1", (without, with_it))
    assert with_it >= without - 0.015
    assert with_it >= (0.865 if before == "cle" else 0.5)
