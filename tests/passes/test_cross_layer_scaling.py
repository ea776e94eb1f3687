"""cross-layer-scaling: scales, weights and biases as the closed forms say, for every kind of layer and whatever lies between."""

from __future__ import annotations

import numpy as np
import pytest
from keras import layers as L
from keras import ops

from cle_by_hand import float64, given_range, pair_scale, read_range, scaled_given, scaled_read, triplet_scales
from fold_cases import CASES, FIRST, UNRUNNABLE
from scaling_check import assert_close, assert_kept, line, model, scaled

ALL = CASES | UNRUNNABLE
SEPARABLE = [name for name in ALL if "separable" in name]
PLAIN = [name for name in ALL if name not in SEPARABLE]
RUNNABLE = [name for name in PLAIN if name in CASES and "first" not in name]


def in_front(case, filters, **options):
    """A layer that gives so many channels to a case's layer."""
    if "dense" in case:
        return L.Dense(filters, name="first", **options)
    rank = len(ALL[case].shape) - 1
    return getattr(L, f"Conv{rank}D")(filters, 1, name="first", data_format=format_of(case), **options)


def behind(case):
    """A layer that reads what a case's layer gives."""
    if "dense" in case:
        return L.Dense(3, name="second")
    rank = len(ALL[case].shape) - 1
    return getattr(L, f"Conv{rank}D")(3, 2, name="second", data_format=format_of(case))


def format_of(case):
    return "channels_first" if "first" in case else "channels_last"


def as_input(case):
    """The shape of what a layer in front of a case's layer reads."""
    shape, axis = list(ALL[case].shape), ALL[case].axis
    channels, shape[0 if axis == 1 else -1] = shape[0 if axis == 1 else -1], 3
    return tuple(shape), channels


def linear(name, use_bias=True):
    return ALL[name].make(use_bias)


# pairs


@pytest.mark.parametrize("use_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("case", PLAIN)
def test_a_layer_that_gives_is_divided_by_the_scale_and_its_bias_too(case, use_bias):
    m = line(linear(case, use_bias), L.ReLU(), behind(case), shape=ALL[case].shape)
    first, second = m.get_layer("linear"), m.get_layer("second")
    s = pair_scale(first, second)
    new = scaled(m, "sweeps=1").model
    assert_close(new.get_layer("linear").kernel, scaled_given(first, s))
    assert_close(new.get_layer("second").kernel, scaled_read(second, s))
    assert_close(new.get_layer("second").bias, float64(second.bias))
    if use_bias:
        assert_close(new.get_layer("linear").bias, float64(first.bias) / s)
    np.testing.assert_allclose(given_range(new.get_layer("linear")), read_range(new.get_layer("second")), rtol=1e-6)


@pytest.mark.parametrize("case", PLAIN)
def test_a_layer_that_reads_is_multiplied_by_the_scale_and_its_bias_stays(case):
    shape, channels = as_input(case)
    m = line(in_front(case, channels), linear(case), shape=shape)
    first, second = m.get_layer("first"), m.get_layer("linear")
    s = pair_scale(first, second)
    new = scaled(m, "sweeps=1").model
    assert_close(new.get_layer("first").kernel, scaled_given(first, s))
    assert_close(new.get_layer("first").bias, float64(first.bias) / s)
    assert_close(new.get_layer("linear").kernel, scaled_read(second, s))
    assert_close(new.get_layer("linear").bias, float64(second.bias))


@pytest.mark.parametrize("case", RUNNABLE)
def test_the_function_is_kept(case):
    shape, channels = as_input(case)
    m = line(in_front(case, channels, activation="relu"), linear(case), L.ReLU(), behind(case), shape=shape)
    assert_kept(m, scaled(m))


def test_pairs_in_a_row_are_scaled_one_after_the_other():
    m = line(L.Conv2D(5, 3, name="a"), L.ReLU(), L.Conv2D(6, 3, name="b"), L.ReLU(), L.Conv2D(3, 1, name="c"))
    a, b, c = (m.get_layer(name) for name in "abc")
    new = scaled(m, "sweeps=1").model
    s = pair_scale(a, b)
    read = scaled_read(b, s)
    given = np.abs(read).max(axis=(0, 1, 2))
    t = np.sqrt(given / read_range(c))
    assert_close(new.get_layer("a").kernel, scaled_given(a, s))
    assert_close(new.get_layer("b").kernel, read / t)
    assert_close(new.get_layer("b").bias, float64(b.bias) / t)
    assert_close(new.get_layer("c").kernel, scaled_read(c, t))


# separable layers, which are two kernels


def inner_scale(layer):
    """Of the channels between the two kernels."""
    given = np.abs(float64(layer.depthwise_kernel)).reshape(-1, layer.pointwise_kernel.shape[-2]).max(axis=0)
    read = np.abs(float64(layer.pointwise_kernel)).reshape(given.size, -1).max(axis=1)
    return np.sqrt(given / read)


def by_inner(layer, s):
    """Its two kernels, with what lies between divided by s."""
    depthwise = float64(layer.depthwise_kernel)
    shape = [1] * (depthwise.ndim - 1)
    return depthwise / s.reshape(depthwise.shape[-2:]), float64(layer.pointwise_kernel) * s.reshape(*shape[1:], -1, 1)


@pytest.mark.parametrize("case", SEPARABLE)
def test_a_separable_layer_gives_by_its_pointwise_kernel_after_its_own_two_are_equal(case):
    m = line(linear(case), L.ReLU(), behind(case), shape=ALL[case].shape)
    first, second = m.get_layer("linear"), m.get_layer("second")
    new = scaled(m, "sweeps=1").model
    depthwise, pointwise = by_inner(first, inner_scale(first))
    s = np.sqrt(np.abs(pointwise).max(axis=tuple(range(pointwise.ndim - 1))) / read_range(second))
    assert_close(new.get_layer("linear").depthwise_kernel, depthwise)
    assert_close(new.get_layer("linear").pointwise_kernel, pointwise / s)
    assert_close(new.get_layer("linear").bias, float64(first.bias) / s)
    assert_close(new.get_layer("second").kernel, scaled_read(second, s))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_separable_layer_reads_as_a_triplet_of_which_it_is_two(data_format):
    where = {"data_format": data_format}
    shape = (3, 9, 8) if data_format == "channels_first" else (9, 8, 3)
    m = line(L.Conv2D(4, 1, name="first", **where), L.ReLU(), L.SeparableConv2D(5, 3, name="linear", **where), shape=shape)
    first, second = m.get_layer("first"), m.get_layer("linear")
    r1, r2 = given_range(first), np.abs(float64(second.depthwise_kernel)).max(axis=(0, 1, 3))
    r3 = np.abs(float64(second.pointwise_kernel)).max(axis=(0, 1, 3))
    root = np.cbrt(r1 * r2 * r3)
    s, t = r1 / root, root / r3
    new = scaled(m, "sweeps=1").model
    assert_close(new.get_layer("first").kernel, scaled_given(first, s))
    assert_close(new.get_layer("first").bias, float64(first.bias) / s)
    assert_close(new.get_layer("linear").depthwise_kernel, float64(second.depthwise_kernel) * (s / t)[:, None])
    assert_close(new.get_layer("linear").pointwise_kernel, float64(second.pointwise_kernel) * t[:, None])
    assert_close(new.get_layer("linear").bias, float64(second.bias))


@pytest.mark.parametrize("case", [name for name in SEPARABLE if "first" not in name])
def test_separable_layers_keep_the_function(case):
    shape, channels = as_input(case)
    m = line(in_front(case, channels), L.ReLU(), linear(case), L.LeakyReLU(), behind(case), shape=shape)
    assert_kept(m, scaled(m))


# triplets

MIDDLES = {
    "depthwise1d": (lambda: L.DepthwiseConv1D(3, name="middle"), (12, 3)),
    "depthwise2d": (lambda: L.DepthwiseConv2D(3, padding="same", name="middle"), (9, 8, 3)),
    "depthwise2d strided": (lambda: L.DepthwiseConv2D(3, strides=2, name="middle"), (9, 8, 3)),
    "depthwise2d dilated": (lambda: L.DepthwiseConv2D((2, 3), dilation_rate=2, name="middle"), (9, 8, 3)),
    "depthwise2d channels first": (lambda: L.DepthwiseConv2D(3, name="middle", **FIRST), (3, 9, 8)),
    "conv1d of as many groups": (lambda: L.Conv1D(4, 3, groups=4, name="middle"), (12, 3)),
    "conv2d of as many groups": (lambda: L.Conv2D(4, 3, groups=4, name="middle"), (9, 8, 3)),
}


def between(case, filters, name):
    shape = MIDDLES[case][1]
    return getattr(L, f"Conv{len(shape) - 1}D")(filters, 1, name=name, data_format=format_of(case))


@pytest.mark.parametrize("case", MIDDLES)
def test_three_layers_are_scaled_by_the_cube_root_of_their_ranges(case):
    make, shape = MIDDLES[case]
    m = line(between(case, 4, "first"), L.ReLU(), make(), L.ReLU(), between(case, 5, "last"), shape=shape)
    first, middle, last = (m.get_layer(name) for name in ("first", "middle", "last"))
    s, t = triplet_scales(first, middle, last)
    new = scaled(m, "sweeps=1").model
    assert_close(new.get_layer("first").kernel, scaled_given(first, s))
    assert_close(new.get_layer("first").bias, float64(first.bias) / s)
    assert_close(new.get_layer("middle").kernel, scaled_given(middle, t / s))
    assert_close(new.get_layer("middle").bias, float64(middle.bias) / t)  # by the second scale alone
    assert_close(new.get_layer("last").kernel, scaled_read(last, t))
    assert_close(new.get_layer("last").bias, float64(last.bias))
    if "first" not in case:
        assert_kept(m, scaled(m, "sweeps=1"))


def test_two_depthwise_layers_in_a_row_are_scaled_with_those_around_them_by_the_fourth_root():
    m = line(
        L.Conv2D(4, 1, name="a"),
        L.DepthwiseConv2D(3, name="b"),
        L.LeakyReLU(),
        L.DepthwiseConv2D(2, name="c"),
        L.Conv2D(3, 1, name="d"),
    )
    a, b, c, d = (m.get_layer(name) for name in "abcd")
    r = [given_range(a), given_range(b), given_range(c), read_range(d)]
    root = np.prod(r, axis=0) ** 0.25
    s = [r[0] / root, r[0] * r[1] / root**2, root / r[3]]
    new = scaled(m, "sweeps=1").model
    assert_close(new.get_layer("a").kernel, scaled_given(a, s[0]))
    assert_close(new.get_layer("b").kernel, scaled_given(b, s[1] / s[0]))
    assert_close(new.get_layer("b").bias, float64(b.bias) / s[1])
    assert_close(new.get_layer("c").kernel, scaled_given(c, s[2] / s[1]))
    assert_close(new.get_layer("d").kernel, scaled_read(d, s[2]))


def test_behind_a_depthwise_layer_of_two_channels_for_one_the_pairs_are_scaled_in_turn():
    m = line(L.Conv2D(4, 1, name="a"), L.ReLU(), L.DepthwiseConv2D(3, depth_multiplier=2, name="b"), L.ReLU(), L.Conv2D(3, 1, name="c"))
    a, b, c = (m.get_layer(name) for name in "abc")
    s = pair_scale(a, b)
    read = scaled_read(b, s)
    t = np.sqrt(np.abs(read).max(axis=(0, 1)).reshape(-1) / read_range(c))
    new = scaled(m, "sweeps=1").model
    assert_close(new.get_layer("a").kernel, scaled_given(a, s))
    assert_close(new.get_layer("b").kernel, scaled_given(b, t, read))
    assert_close(new.get_layer("b").bias, float64(b.bias) / t)
    assert_close(new.get_layer("c").kernel, scaled_read(c, t))
    assert_kept(m, scaled(m))


def test_a_convolution_of_one_input_channel_is_no_depthwise_one():
    m = line(L.Conv2D(1, 1, name="a"), L.ReLU(), L.Conv2D(4, 3, name="b"), L.ReLU(), L.Conv2D(3, 1, name="c"), shape=(8, 8, 3))
    a, b, c = (m.get_layer(name) for name in "abc")
    s = pair_scale(a, b)
    read = scaled_read(b, s)
    t = np.sqrt(np.abs(read).max(axis=(0, 1, 2)) / read_range(c))
    new = scaled(m, "sweeps=1").model
    assert_close(new.get_layer("b").kernel, read / t)
    assert_close(new.get_layer("a").bias, float64(a.bias) / s)


# what moves channels


def blocks(kernel, channels, channels_go_last=True):
    """The range of each channel's block of rows in a Dense kernel behind a Flatten."""
    rows = np.abs(float64(kernel)).max(axis=1)
    return rows.reshape(-1, channels).max(axis=0) if channels_go_last else rows.reshape(channels, -1).max(axis=1)


def test_behind_a_flatten_every_place_of_a_channel_has_its_scale():
    m = line(L.Conv2D(4, 3, strides=2, name="a"), L.ReLU(), L.MaxPooling2D(), L.Flatten(), L.Dense(5, name="b"), shape=(9, 12, 3))
    a, b = m.get_layer("a"), m.get_layer("b")
    s = np.sqrt(given_range(a) / blocks(b.kernel, 4))
    result = scaled(m, "sweeps=1")
    assert_close(result.model.get_layer("a").kernel, scaled_given(a, s))
    assert_close(result.model.get_layer("a").bias, float64(a.bias) / s)
    assert_close(result.model.get_layer("b").kernel, float64(b.kernel) * np.tile(s, b.kernel.shape[0] // 4)[:, None])
    assert_kept(m, result)


def test_behind_a_flatten_of_channels_first_their_places_follow_each_other():
    m = line(L.DepthwiseConv2D(3, name="a", **FIRST), L.ReLU(), L.Flatten(), L.Dense(5, name="b"), shape=(4, 5, 7))
    a, b = m.get_layer("a"), m.get_layer("b")
    s = np.sqrt(given_range(a) / blocks(b.kernel, 4, channels_go_last=False))
    result = scaled(m, "sweeps=1")
    assert_close(result.model.get_layer("a").kernel, scaled_given(a, s))
    assert_close(result.model.get_layer("b").kernel, float64(b.kernel) * np.repeat(s, b.kernel.shape[0] // 4)[:, None])
    assert_kept(m, result)


def test_channels_that_a_reshape_puts_into_one_have_one_scale():
    m = line(L.Dense(6, name="a"), L.ReLU(), L.Reshape((3, 2)), L.Dense(3, name="b"), shape=(5,))
    a, b = m.get_layer("a"), m.get_layer("b")
    pairs = given_range(a).reshape(3, 2).max(axis=0)
    s = np.sqrt(pairs / read_range(b))
    result = scaled(m, "sweeps=1")
    assert_close(result.model.get_layer("a").kernel, float64(a.kernel) / np.tile(s, 3))
    assert_close(result.model.get_layer("a").bias, float64(a.bias) / np.tile(s, 3))
    assert_close(result.model.get_layer("b").kernel, scaled_read(b, s))
    assert_kept(m, result)


def test_a_reshape_that_keeps_channels_apart_keeps_their_scales():
    m = line(L.Conv2D(4, 3, name="a"), L.Reshape((-1, 4)), L.Conv1D(3, 2, name="b"))
    a, b = m.get_layer("a"), m.get_layer("b")
    result = scaled(m, "sweeps=1")
    assert_close(result.model.get_layer("b").kernel, scaled_read(b, pair_scale(a, b)))
    assert_kept(m, result)


# what lies between

WAYS = {
    "nothing": lambda x: x,
    "relu": L.ReLU(),
    "relu operation": ops.relu,
    "relu as activation": L.Activation("relu"),
    "leaky relu": L.LeakyReLU(0.3),
    "prelu": L.PReLU(shared_axes=[1, 2]),
    "prelu of every place": L.PReLU(),
    "max pool": L.MaxPooling2D(),
    "max pool same": L.MaxPooling2D(3, strides=2, padding="same"),
    "average pool": L.AveragePooling2D(2),
    "average pool same": L.AveragePooling2D(3, strides=1, padding="same"),
    "zero padding": L.ZeroPadding2D((1, 2)),
    "cropping": L.Cropping2D(1),
    "upsampling": L.UpSampling2D(),
    "dropout": L.Dropout(0.5),
    "spatial dropout": L.SpatialDropout2D(0.5),
    "noise": L.GaussianNoise(0.5),
    "identity": L.Identity(),
    "global average pool keeping axes": L.GlobalAveragePooling2D(keepdims=True),
    "global max pool keeping axes": L.GlobalMaxPooling2D(keepdims=True),
    "several": lambda x: L.MaxPooling2D(padding="same")(L.LeakyReLU()(L.ZeroPadding2D()(x))),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_scale_passes_through(way):
    m = model(lambda x: L.Conv2D(3, 1, name="b")(WAYS[way](L.Conv2D(5, 3, name="a")(x))))
    a, b = m.get_layer("a"), m.get_layer("b")
    s = pair_scale(a, b)
    result = scaled(m, "sweeps=1")
    assert_close(result.model.get_layer("a").kernel, scaled_given(a, s))
    assert_close(result.model.get_layer("b").kernel, scaled_read(b, s))
    assert_kept(m, result)
    assert not [remark for remark in result.remarks if remark.kind == "missed"]


@pytest.mark.parametrize("pool", [L.GlobalAveragePooling2D, L.GlobalMaxPooling2D])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_scale_passes_through_a_pool_that_leaves_channels_alone(pool, data_format):
    where = {"data_format": data_format}
    m = line(L.DepthwiseConv2D(3, name="a", **where), L.ReLU(), pool(**where), L.Dense(3, name="b"), shape=(5, 6, 8))
    a, b = m.get_layer("a"), m.get_layer("b")
    result = scaled(m, "sweeps=1")
    assert_close(result.model.get_layer("b").kernel, scaled_read(b, pair_scale(a, b)))
    assert_kept(m, result)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_a_scale_passes_through_the_activation_of_a_layer(activation):
    m = line(L.Conv2D(5, 3, activation=activation, name="a"), L.Conv2D(3, 1, name="b"))
    result = scaled(m, "sweeps=1")
    s = pair_scale(m.get_layer("a"), m.get_layer("b"))
    assert_close(result.model.get_layer("a").kernel, scaled_given(m.get_layer("a"), s))
    assert result.model.get_layer("a").activation is m.get_layer("a").activation
    assert_kept(m, result)


def test_the_callers_model_stays_as_it_was():
    m = line(L.Conv2D(5, 3), L.ReLU(), L.Conv2D(3, 1))
    before = [np.array(weight) for weight in m.get_weights()]
    scaled(m)
    for now, then in zip(m.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


# what no scale passes through


def refused(build, shape=(8, 8, 4), options="", **keywords):
    m = model(build, shape, **keywords)
    result = scaled(m, options)
    assert not result.rewrites
    return {remark.node: remark.reason for remark in result.remarks if remark.kind == "missed"}


def a(x):
    return L.Conv2D(4, 3, name="a")(x)


def b(x):
    return L.Conv2D(3, 1, name="b")(x)


STOPS = {
    "sigmoid": (L.Activation("sigmoid", name="stop"), "it is Sigmoid, which no scale passes through"),
    "tanh": (L.Activation("tanh", name="stop"), "it is Tanh, which no scale passes through"),
    "softmax": (L.Softmax(name="stop"), "it is Softmax, which no scale passes through"),
    "swish": (L.Activation("silu", name="stop"), "it is Silu, which no scale passes through"),
    "gelu": (L.Activation("gelu", name="stop"), "which no scale passes through"),
    "batch norm": (L.BatchNormalization(name="stop"), "it is BatchNorm, which no scale passes through"),
    "layer norm": (L.LayerNormalization(name="stop"), "which no scale passes through"),
    "threshold": (L.ReLU(threshold=0.5, name="stop"), "it is a ReLU with a threshold, which no scale passes through"),
    "dropout in training": (lambda x: L.Dropout(0.5, name="stop")(x, training=True), "it is Dropout, called with training=True"),
    "another dtype": (L.ReLU(dtype="float64", name="stop"), "it computes in float32 and float64"),
}


@pytest.mark.parametrize("stop", STOPS)
def test_no_scale_passes_through(stop):
    function, why = STOPS[stop]
    reason = refused(lambda x: b(function(a(x))))["a"]
    assert reason.startswith("its channels keep their scale: stop: ")
    assert why in reason


def test_what_is_an_output_keeps_its_scale():
    def build(x):
        y = L.ReLU(name="relu")(a(x))
        return [y, b(y)]

    assert refused(build) == {"a": "its channels keep their scale: relu: it is an output"}


def test_the_last_layer_and_one_that_feeds_nothing_linear_are_no_near_misses():
    m = line(L.Conv2D(4, 3), L.Softmax())
    result = scaled(m)
    assert not result.rewrites
    assert not result.remarks


def test_a_layer_whose_weights_are_no_numbers_keeps_its_scale_and_so_do_those_around_it():
    m = line(L.Conv2D(4, 3, name="a"), L.ReLU(), L.Conv2D(4, 3, name="b"), L.ReLU(), L.Conv2D(4, 1, name="c"))
    for value in (np.nan, np.inf):
        kernel = np.asarray(m.get_layer("b").kernel).copy()
        kernel[0, 0, 0, 0] = value
        m.get_layer("b").kernel.assign(kernel)
        result = scaled(m, verify="shapes")
        assert not result.rewrites
        reasons = {remark.node: remark.reason for remark in result.remarks}
        assert reasons == {name: "its channels keep their scale: b: its kernel is not finite (NaN or infinity)" for name in "ab"}
