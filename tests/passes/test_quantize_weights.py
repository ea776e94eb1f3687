"""quantize-weights on Keras models and on tf.Graphs: which kernels, how, and which not."""

from __future__ import annotations

import json

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import tfpasses
from graph_defs import built, compute, frozen
from graphs import graph, node
from keras_layers import randomize, single
from tfpasses.graph import ChannelStats
from tfpasses.manager import PassError, Pipeline, PipelineError
from tfpasses.passes.quantization.encodings import save_encodings
from tfpasses.passes.quantization.kernels import encodings
from tfpasses.passes.quantization.quantizer import Quantizer
from tfpasses.passes.quantize_weights import QuantizeWeights

KINDS = {
    "conv1d": (lambda: L.Conv1D(6, 3, name="linear"), (9, 4)),
    "conv2d": (lambda: L.Conv2D(6, 3, activation="relu", name="linear"), (9, 8, 4)),
    "conv2d grouped": (lambda: L.Conv2D(6, 3, groups=2, name="linear"), (9, 8, 4)),
    "conv3d": (lambda: L.Conv3D(3, 2, name="linear"), (5, 6, 7, 2)),
    "depthwise1d": (lambda: L.DepthwiseConv1D(3, depth_multiplier=2, name="linear"), (9, 4)),
    "depthwise2d": (lambda: L.DepthwiseConv2D(3, depth_multiplier=2, name="linear"), (9, 8, 4)),
    "transposed": (lambda: L.Conv2DTranspose(5, 3, name="linear"), (5, 6, 4)),
    "separable": (lambda: L.SeparableConv2D(5, 3, depth_multiplier=2, name="linear"), (9, 8, 4)),
    "dense": (lambda: L.Dense(7, name="linear"), (6,)),
}


def channels_of(kernel, layer):
    """A kernel, its channels' axes first."""
    name = type(layer).__name__
    if "Depthwise" in name or ("Separable" in name and kernel.shape[0] > 1):
        return np.moveaxis(kernel, (-2, -1), (0, 1))
    return np.moveaxis(kernel, -2 if "Transpose" in name else -1, 0)


def expected(kernel, bits, symmetric=False):
    """min/max quantization, in float64."""
    low, high = min(kernel.min(), 0.0), max(kernel.max(), 0.0)
    high = max(high, low + 0.01)
    if symmetric:
        delta = max(-low, high) / (2 ** (bits - 1) - 1)
        return np.clip(np.rint(kernel / delta), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * delta
    delta = (high - low) / (2**bits - 1)
    offset = np.rint(low / delta)
    return np.clip(np.rint(kernel / delta), offset, offset + 2**bits - 1) * delta


def wanted(layer, bits, symmetric, per_channel):
    """The weights that a layer should have."""
    arrays = []
    for variable in layer.weights:
        array = np.asarray(variable, np.float64)
        if "kernel" in variable.name and per_channel:
            depthwise = "depthwise" in variable.name or "Depthwise" in type(layer).__name__
            view = channels_of(array, layer)
            for place in np.ndindex(view.shape[: 2 if depthwise else 1]):
                view[place] = expected(view[place].copy(), bits, symmetric)
        elif "kernel" in variable.name:
            array = expected(array, bits, symmetric)
        arrays.append(array.astype("float32"))
    return arrays


def line(*layers, shape=(8, 8, 3)):
    """A model of layers in a row, with random weights."""
    y = x = keras.Input(shape, name="x")
    for layer in layers:
        y = layer(y)
    model = keras.Model(x, y)
    randomize(model)
    return model


def kernel_of(model, layer):
    return np.asarray(model.get_layer(layer).weights[0])


def missed(result):
    return {remark.node: remark.reason for remark in result.remarks if remark.kind == "missed"}


def batch(model, size=4):
    return np.random.default_rng(0).standard_normal((size, *model.inputs[0].shape[1:])).astype("float32")


# every kind of layer, either frontend


@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("symmetric", [False, True], ids=["asymmetric", "symmetric"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kernel_of_a_keras_model_is_quantized_and_no_bias(kind, symmetric, per_channel):
    make, shape = KINDS[kind]
    model = single(make(), shape)
    before = model.get_weights()
    options = f"bits=5 symmetric={str(symmetric).lower()} per-channel={str(per_channel).lower()}"
    result = tfpasses.run(model, f"quantize-weights{{{options}}}")
    layer = model.get_layer("linear")
    for got, want in zip(result.model.get_layer("linear").weights, wanted(layer, 5, symmetric, per_channel), strict=True):
        np.testing.assert_array_max_ulp(np.asarray(got), want, maxulp=1)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    layer.set_weights(wanted(layer, 5, symmetric, per_channel))
    np.testing.assert_allclose(result.model(batch(model)), model(batch(model)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kernel_of_a_graph_def_is_quantized_and_no_bias(kind, per_channel):
    make, shape = KINDS[kind]
    model = single(make(), shape)
    definition = frozen(model)
    given = definition.SerializeToString(deterministic=True)
    result = tfpasses.run(definition, f"quantize-weights{{bits=5 per-channel={str(per_channel).lower()}}}")
    assert definition.SerializeToString(deterministic=True) == given
    layer = model.get_layer("linear")
    layer.set_weights(wanted(layer, 5, False, per_channel))
    (got,) = compute(result.model, {"in_0": batch(model)}, ["Identity"])
    np.testing.assert_allclose(got, model(batch(model)), rtol=1e-4, atol=1e-5)


def test_a_graph_def_keeps_its_nodes_but_for_the_kernels():
    definition = frozen(single(KINDS["conv2d"][0](), KINDS["conv2d"][1]))
    new = tfpasses.run(definition, "quantize-weights{bits=3}").model
    old = {one.name: one for one in definition.node}
    changed = [one.name for one in new.node if one != old[one.name]]
    assert len(new.node) == len(definition.node)
    assert len(changed) == 1
    array = tf.make_ndarray(next(one for one in new.node if one.name == changed[0]).attr["value"].tensor)
    assert array.shape == (3, 3, 4, 6)
    assert len(np.unique(array)) <= 8


@pytest.mark.parametrize(
    "options", ["scheme=tf_enhanced", "scheme=tf_enhanced symmetric=true per-channel=true", "rounding=stochastic seed=7"]
)
def test_the_pass_does_what_its_quantizer_does(options):
    model = line(L.Conv2D(6, 3, name="conv"), L.DepthwiseConv2D(3, name="depthwise"))
    pipeline = Pipeline.parse(f"quantize-weights{{bits=4 {options}}}")
    quantizer = pipeline.passes[0].quantizer
    result = tfpasses.run(model, str(pipeline))
    assert np.array_equal(kernel_of(result.model, "conv"), quantizer.quantized(kernel_of(model, "conv"), (-1,), "conv/kernel"))
    wants = quantizer.quantized(kernel_of(model, "depthwise"), (-2, -1), "depthwise/kernel")
    assert np.array_equal(kernel_of(result.model, "depthwise"), wants)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "mixed_float16"])
def test_a_kernel_keeps_its_dtype(dtype):
    model = line(L.Conv2D(6, 3, name="conv", dtype=dtype))
    result = tfpasses.run(model, "quantize-weights{bits=4}")
    old, new = kernel_of(model, "conv"), kernel_of(result.model, "conv")
    assert new.dtype == old.dtype
    assert len(np.unique(new.astype("float64"))) <= 16
    exact = expected(old.astype("float64"), 4)
    assert (np.abs(new.astype("float64") - exact) <= np.abs(exact) * float(ml_dtypes.finfo(old.dtype).eps)).all()


# what the result says


def test_the_journal_says_bits_range_and_the_largest_change():
    model = line(L.Conv2D(6, 3, name="conv"), L.SeparableConv2D(5, 3, name="separable"))
    result = tfpasses.run(model, "quantize-weights{bits=4}")
    assert [rewrite.payload["weight"] for rewrite in result.rewrites] == [
        "conv/kernel",
        "separable/depthwise_kernel",
        "separable/pointwise_kernel",
    ]
    old = np.asarray(model.get_layer("conv").weights[0], np.float64)
    low, high, delta = old.min(), old.max(), (old.max() - old.min()) / 15
    note = result.rewrites[0].payload
    assert note["bits"] == 4
    assert note["min"] == pytest.approx(np.rint(low / delta) * delta)
    assert note["max"] == pytest.approx(np.rint(low / delta) * delta + high - low)
    assert note["largest_change"] == pytest.approx(np.abs(expected(old, 4) - old).max())
    assert "channels" not in note
    assert result.rewrites[0].changed == ("conv",)


def test_per_channel_the_journal_says_the_widest_range_and_how_many_channels():
    model = line(L.Dense(6, name="dense"), shape=(40,))
    (rewrite,) = tfpasses.run(model, "quantize-weights{per-channel=true symmetric=true}").rewrites
    assert rewrite.payload["channels"] == 6
    assert rewrite.payload["max"] == pytest.approx(np.abs(kernel_of(model, "dense")).max())


def test_a_kernel_on_its_grid_is_left_alone():
    model = line(L.Conv2D(6, 3, name="conv"))
    once = tfpasses.run(model, "quantize-weights{symmetric=true}").model
    again = tfpasses.run(once, "quantize-weights{symmetric=true}")
    assert not again.rewrites
    assert [(remark.kind, remark.reason) for remark in again.remarks] == [("note", "its kernel is on the grid already")]


def test_facts_of_the_network_stay():
    model = line(L.Conv2D(6, 3, name="conv"), L.BatchNormalization(name="bn"))
    result = tfpasses.run(model, "quantize-weights,fold-batch-norms")
    assert [rewrite.pass_name for rewrite in result.rewrites] == ["fold-batch-norms", "quantize-weights"]  # what folds goes first
    assert len(list(result.graph.facts_of(ChannelStats))) == 1
    assert len(np.unique(kernel_of(result.model, "conv"))) > 16


def test_stochastic_rounding_does_not_depend_on_which_other_layers_there_are():
    model = line(*(L.Conv2D(4, 3, name=f"conv{number}") for number in range(3)))
    whole = tfpasses.run(model, "quantize-weights{rounding=stochastic}").model
    part = tfpasses.run(model, "quantize-weights{rounding=stochastic only=conv2}").model
    assert np.array_equal(kernel_of(whole, "conv2"), kernel_of(part, "conv2"))
    assert not np.array_equal(kernel_of(whole, "conv2"), kernel_of(tfpasses.run(model, "quantize-weights").model, "conv2"))


# encodings


@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
def test_encodings_are_those_of_the_pass_by_the_weights_keys(tmp_path, per_channel):
    model = line(L.Conv2D(6, 3, name="conv"), L.SeparableConv2D(5, 3, name="separable"))
    pass_ = QuantizeWeights(bits=6, per_channel=per_channel)
    found = encodings(tfpasses.from_keras(model), pass_.quantizer)
    counts = (6, 6, 5) if per_channel else (1, 1, 1)
    keys = ("conv/kernel", "separable/depthwise_kernel", "separable/pointwise_kernel")
    assert {key: len(each) for key, each in found.items()} == dict(zip(keys, counts, strict=True))
    result = tfpasses.run(model, pass_)
    for each, rewrite in zip(found.values(), result.rewrites, strict=True):
        assert (min(one.min for one in each), max(one.max for one in each)) == (rewrite.payload["min"], rewrite.payload["max"])
    quantized = np.asarray(result.model.get_layer("conv").weights[0], np.float64).reshape(-1, 6).T
    for channel, one in zip(quantized, found["conv/kernel"] * (1 if per_channel else 6), strict=True):
        level = channel / one.delta
        assert np.abs(level - np.rint(level)).max() < 1e-5
        assert {int(place) for place in np.rint(level)} <= set(range(one.offset, one.offset + 64))
    save_encodings(tmp_path / "m.encodings", found)
    assert list(json.loads((tmp_path / "m.encodings").read_text())["param_encodings"]) == list(keys)


def test_encodings_of_a_tf_graph_go_by_the_names_of_its_constants():
    definition = frozen(line(L.Conv2D(6, 3, name="conv")))
    found = encodings(tfpasses.run(definition, "canonicalize").graph, Quantizer())
    (name,) = found
    assert tf.make_ndarray(next(one for one in definition.node if one.name == name).attr["value"].tensor).shape == (3, 3, 3, 6)


def test_a_kernel_that_is_left_alone_has_no_encodings():
    model = line(L.Conv2D(4, 3, name="good"), L.Conv2D(4, 3, name="bad"))
    model.get_layer("bad").kernel.assign(np.full((3, 3, 4, 4), np.nan))
    assert list(encodings(tfpasses.from_keras(model), Quantizer())) == ["good/kernel"]


# shared kernels


def test_a_layer_that_is_used_twice_is_quantized_once():
    conv = L.Conv2D(3, 3, padding="same", name="conv")
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, L.Add()([conv(conv(x)), x]))
    randomize(model)
    result = tfpasses.run(model, "quantize-weights{bits=4 rounding=stochastic}")
    (rewrite,) = result.rewrites
    assert set(rewrite.changed) == {"conv", "conv#1"}
    quantizer = Quantizer(bits=4, rounding="stochastic")
    assert np.array_equal(kernel_of(result.model, "conv"), quantizer.quantized(kernel_of(model, "conv"), key="conv/kernel"))


def two_readers(other, slot="kernel", **config):
    """A Conv and another node that read one kernel."""
    kernel = np.random.default_rng(0).standard_normal((1, 1, 4, 4)).astype("float32")
    params = {slot: "k"} if other != "SeparableConv" else {"depthwise_kernel": "d", slot: "k"}
    weights = {"k": kernel} | ({"d": kernel[..., :1]} if other == "SeparableConv" else {})
    conv = node("conv", "Conv", "x", params={"kernel": "k"}, config={"groups": 1})
    return graph(node("x", "Input"), conv, node("other", other, "conv", params=params, config=config), outputs=["other"], weights=weights)


def test_a_kernel_read_in_two_layouts_is_quantized_per_tensor():
    before = two_readers("ConvTranspose")
    result = tfpasses.run(before, "quantize-weights{bits=4}", verify="off")
    (rewrite,) = result.rewrites
    assert set(rewrite.changed) == {"conv", "other"}
    np.testing.assert_array_max_ulp(
        result.graph.weights["k"], expected(before.weights["k"].astype("float64"), 4).astype("float32"), maxulp=1
    )


def test_a_kernel_read_in_two_layouts_is_not_quantized_per_channel():
    before = two_readers("ConvTranspose")
    result = tfpasses.run(before, "quantize-weights{per-channel=true}", verify="off")
    assert not result.rewrites
    assert missed(result) == {
        "conv": "it shares its kernel with other, a ConvTranspose, for which other axes of it are the channels",
    }


def test_a_kernel_that_fills_another_slot_elsewhere_is_not_quantized():
    result = tfpasses.run(two_readers("SeparableConv", "pointwise_kernel"), "quantize-weights", verify="off")
    assert [rewrite.payload["weight"] for rewrite in result.rewrites] == ["d"]
    assert missed(result) == {"conv": "it shares its kernel with other, a SeparableConv, which uses it in another way"}


def test_a_kernel_that_something_else_reads_is_not_quantized():
    result = tfpasses.run(two_readers("keras.Lookup", "table"), "quantize-weights", verify="off")
    assert not result.rewrites
    assert missed(result) == {"conv": "it shares its kernel with other, a keras.Lookup, which is no linear layer"}


def test_a_constant_of_a_graph_def_that_two_convolutions_read_is_quantized_once():
    kernel = np.random.default_rng(0).standard_normal((3, 3, 4, 4)).astype("float32")

    def build(x):
        shared = tf.constant(kernel, name="k")
        return tf.nn.conv2d(tf.nn.relu(tf.nn.conv2d(x, shared, 1, "SAME")), shared, 1, "SAME")

    definition = built(build, x=(None, 8, 8, 4))
    result = tfpasses.run(definition, "quantize-weights{bits=4}", outputs=["out"])
    assert sum(rewrite.pass_name == "quantize-weights" for rewrite in result.rewrites) == 1
    x = np.random.default_rng(1).standard_normal((2, 8, 8, 4)).astype("float32")
    (got,) = compute(result.model, {"x": x}, ["out"])
    new = expected(kernel.astype("float64"), 4).astype("float32")
    np.testing.assert_allclose(got, tf.nn.conv2d(tf.nn.relu(tf.nn.conv2d(x, new, 1, "SAME")), new, 1, "SAME"), rtol=1e-4, atol=1e-4)


# only


def test_only_the_named_layers_are_quantized():
    model = line(*(L.Conv2D(4, 3, activation="relu", name=f"conv{number}") for number in range(3)))
    result = tfpasses.run(model, 'quantize-weights{bits=4 only="conv0 conv2"}')
    assert [rewrite.root for rewrite in result.rewrites] == ["conv0", "conv2"]
    assert np.array_equal(kernel_of(result.model, "conv1"), kernel_of(model, "conv1"))


def test_an_unnamed_layer_is_not_remarked_on():
    model = line(L.Conv2D(4, 3, name="good"), L.Conv2D(4, 3, name="bad"))
    model.get_layer("bad").kernel.assign(np.full((3, 3, 4, 4), np.nan))
    assert not tfpasses.run(model, "quantize-weights{only=good}").remarks


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("conv9", "there is no layer 'conv9'"),
        ("relu", "relu is no linear layer"),
        ("bad", "bad cannot be quantized: its kernel is not finite"),
    ],
)
def test_a_named_layer_that_cannot_be_quantized_is_an_error(name, message):
    model = line(L.Conv2D(4, 3, name="conv"), L.ReLU(name="relu"), L.Conv2D(4, 3, name="bad"))
    model.get_layer("bad").kernel.assign(np.full((3, 3, 4, 4), np.inf))
    with pytest.raises(PassError, match=f"^pass quantize-weights: only='{name}': {message}"):
        tfpasses.run(model, f"quantize-weights{{only={name}}}")


def test_a_layer_named_without_the_one_that_shares_its_kernel_is_an_error():
    before = two_readers("ConvTranspose")
    with pytest.raises(PassError, match="only='conv': conv shares its kernel with other; name both"):
        tfpasses.run(before, "quantize-weights{only=conv}", verify="off")
    assert len(tfpasses.run(before, 'quantize-weights{only="conv other"}', verify="off").rewrites) == 1


# what stays


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_kernel_that_is_not_finite_stays_with_the_reason(bad):
    model = line(L.Conv2D(4, 3, name="good"), L.Conv2D(4, 3, name="bad"))
    kernel = kernel_of(model, "bad").copy()
    kernel[0, 0, 0, 0] = bad
    model.get_layer("bad").kernel.assign(kernel)
    result = tfpasses.run(model, "quantize-weights")
    assert [rewrite.root for rewrite in result.rewrites] == ["good"]
    assert missed(result) == {"bad": "its kernel is not finite (NaN or infinity)"}
    assert np.array_equal(kernel_of(result.model, "bad"), kernel, equal_nan=True)


def test_a_model_without_linear_layers_stays():
    result = tfpasses.run(line(L.ReLU(), L.BatchNormalization()), "quantize-weights")
    assert not result.rewrites
    assert not result.remarks


@pytest.mark.parametrize(
    ("options", "message"),
    [("bits=1", "bits=1: a kernel is quantized to 2 to 16 bits"), ("seed=-1", "seed=-1"), ("scheme=mse", r"is not tf\|tf_enhanced")],
)
def test_a_choice_that_is_none_is_refused_before_anything_runs(options, message):
    with pytest.raises(PipelineError, match=message):
        Pipeline.parse(f"quantize-weights{{{options}}}")
