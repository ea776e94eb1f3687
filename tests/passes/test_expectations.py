"""What is known of values without data, held against a million samples of networks whose pre-activations really are normal."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import tfpasses
from normal_networks import BETA, assert_mean, branch, normal_inputs, settle
from tfpasses.graph import ChannelStats, Ref
from tfpasses.passes.correction.expectations import Expectations

LIMITS = np.float32([0.3, 1.0, 2.0, 6.0, 2.0, 1.0, 5.0])

ACTIVATIONS = {
    "none": lambda: lambda x: x,
    "relu": L.ReLU,
    "relu6": lambda: L.ReLU(6.0),
    "relu with a limit per channel": lambda: lambda x: ops.minimum(L.ReLU()(x), LIMITS),
    "leaky relu": lambda: L.LeakyReLU(0.2),
    "leaky relu with a limit": lambda: L.ReLU(1.5, negative_slope=0.3),
    "relu with a threshold": lambda: L.ReLU(threshold=0.25),
    "relu with all three": lambda: L.ReLU(2.0, negative_slope=0.1, threshold=0.25),
    "prelu": lambda: L.PReLU(alpha_initializer="random_uniform", shared_axes=None),
    "hard sigmoid": lambda: L.Activation("hard_sigmoid"),
    "sigmoid": lambda: L.Activation("sigmoid"),
    "tanh": lambda: L.Activation("tanh"),
    "silu": lambda: L.Activation("silu"),
    "hard silu": lambda: L.Activation("hard_silu"),
    "softplus": lambda: L.Activation("softplus"),
    "the smaller of it and a number": lambda: lambda x: ops.minimum(x, 0.4),
    "the larger of it and numbers": lambda: lambda x: ops.maximum(x, LIMITS - 2),
    "relu of a multiple and a sum": lambda: lambda x: L.ReLU()(x * -0.5 + LIMITS),
    "a number less it, rectified and limited": lambda: lambda x: ops.minimum(L.ReLU()(1.0 - x), 0.8) * 3.0 - 1.0,
    "relu of a relu": lambda: lambda x: L.ReLU(0.7)(L.LeakyReLU(0.5)(x) - 0.1),
    "a band": lambda: lambda x: ops.maximum(ops.minimum(-2.0 * x, 1.0), -0.5),
    "several bent in different ways, joined and limited": lambda: (
        lambda x: ops.minimum(L.Concatenate()([L.ReLU()(x), x, L.ReLU(1.0, negative_slope=0.5)(x)]), 0.7)
    ),
    "reshaped between two": lambda: lambda x: L.ReLU(1.0)(L.Flatten()(L.Reshape((7, 1))(L.LeakyReLU(0.5)(x))) + 0.1),
    "the same twice": lambda: lambda x: L.ReLU()(L.Add()([x, x])),
}


def known(model, inputs=None, pipeline="fold-batch-norms"):
    """The moments of the output, one number a channel."""
    graph = tfpasses.run(model, pipeline).graph if pipeline else tfpasses.from_keras(model)
    found = Expectations.of(graph, inputs)
    (ref,) = graph.outputs
    value = found.values[ref]
    return value, found.reasons.get(ref, "")


def after(act, shape=(4,)):
    x = keras.Input(shape, name="x")
    return settle(keras.Model(x, L.Identity(name="y")(act(branch(x, "a")))))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_mean_and_deviation_behind_an_activation(name):
    model = after(ACTIVATIONS[name]())
    value, _ = known(model)
    samples = model.predict(normal_inputs(model)[0], batch_size=100_000, verbose=0).astype(np.float64)
    assert_mean(samples, value.mean)
    squares = (samples - samples.mean(axis=0)) ** 2
    assert_mean(squares, value.std**2, floor=1e-5)


@pytest.mark.parametrize("name", ["relu", "relu6", "leaky relu", "sigmoid", "a band"])
def test_a_channel_that_does_not_vary_is_the_activation_of_its_mean(name):
    model = after(ACTIVATIONS[name]())
    value, _ = known(model)
    wanted = np.asarray(ACTIVATIONS[name]()(np.float32([BETA])))[0]
    np.testing.assert_allclose(value.mean[[2, 5]], wanted[[2, 5]], rtol=1e-6)
    np.testing.assert_array_equal(value.std[[2, 5]], 0.0)


def test_the_closed_form_of_a_relu_is_the_published_one_with_the_size_of_gamma():
    """m = 0.5, gamma = -1: 0.698, where gamma's sign left in gives -0.198."""
    value, _ = known(after(L.ReLU()))
    assert abs(value.mean[1] - 0.6978) < 1e-4
    assert abs(value.mean[0] - 0.6978) < 1e-4


# sums


def two(join):
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    a, b = branch(x, "a"), branch(y, "b", BETA[::-1], (0.5, -1.5, 1.0, 0.0, 0.3, 0.2, 1.0))
    return settle(keras.Model([x, y], L.ReLU()(join(a, b))))


@pytest.mark.parametrize("join", [lambda a, b: L.Add()([a, b]), lambda a, b: L.Subtract()([a, b]), lambda a, b: L.Add()([a, b, a])])
def test_an_activation_of_a_sum_of_independent_values(join):
    model = two(join)
    value, _ = known(model)
    assert_mean(model.predict(normal_inputs(model), batch_size=100_000, verbose=0), value.mean)
    assert len(value.assumes) == 1


def test_a_sum_of_what_depends_on_one_value_has_a_mean_and_no_deviation():
    value, _ = known(after(lambda z: L.Add()([z, L.ReLU()(z)])))
    alone, _ = known(after(L.ReLU()))
    np.testing.assert_allclose(value.mean, alone.mean + np.array(BETA))
    assert np.isnan(value.std).all()
    _, reason = known(after(lambda z: L.ReLU(name="late")(L.Add(name="sum")([z, L.ReLU()(z)]))))
    assert reason == "late: it is Relu, and how sum spreads around its mean is not known"


# what mixes and moves elements: exact on what is the same everywhere

MEANS = (0.3, -1.2, 0.8, 2.0)
BATCHED = {
    "dense": (lambda: L.Dense(3), (4,)),
    "conv same": (lambda: L.Conv2D(5, 3, padding="same"), (7, 6, 4)),
    "two convs": (lambda: lambda x: L.Conv2D(5, 3, padding="same")(L.Conv2D(5, 1)(x)), (7, 6, 4)),
    "pad, then conv": (lambda: lambda x: L.Conv2D(5, 3)(L.ZeroPadding2D(((1, 2), (0, 3)))(x)), (7, 6, 4)),
    "pad, then strided conv": (lambda: lambda x: L.Conv2D(5, 3, strides=2, padding="same")(L.ZeroPadding2D(2)(x)), (7, 6, 4)),
    "pad, then dilated conv": (lambda: lambda x: L.Conv2D(5, 3, dilation_rate=2, padding="same")(L.ZeroPadding2D(2)(x)), (7, 6, 4)),
    "pad, then transposed conv": (lambda: lambda x: L.Conv2DTranspose(5, 3, strides=2, padding="same")(L.ZeroPadding2D(1)(x)), (7, 6, 4)),
    "pad, then average pool": (lambda: lambda x: L.AveragePooling2D(3, 2)(L.ZeroPadding2D(1)(x)), (7, 6, 4)),
    "pad, then padded average pool": (lambda: lambda x: L.AveragePooling2D(3, 2, padding="same")(L.ZeroPadding2D(1)(x)), (7, 6, 4)),
    "pad, then global pool": (lambda: lambda x: L.GlobalAveragePooling2D()(L.ZeroPadding2D(2)(x)), (7, 6, 4)),
    "pad and crop": (lambda: lambda x: L.Cropping2D(((2, 0), (0, 1)))(L.ZeroPadding2D(1)(x)), (7, 6, 4)),
    "pad and repeat": (lambda: lambda x: L.Conv2D(2, 2)(L.UpSampling2D((2, 3))(L.ZeroPadding2D(1)(x))), (7, 6, 4)),
    "pad and dense": (lambda: lambda x: L.Dense(3)(L.ZeroPadding2D(2)(x)), (7, 6, 4)),
    "pad, flatten, dense": (lambda: lambda x: L.Dense(3)(L.Flatten()(L.ZeroPadding2D(1)(x))), (3, 2, 4)),
    "average pool": (lambda: L.AveragePooling2D(3, 2, padding="same"), (7, 6, 4)),
    "global pool, kept": (lambda: L.GlobalAveragePooling2D(keepdims=True), (7, 6, 4)),
    "bilinear": (lambda: L.UpSampling2D(2, interpolation="bilinear"), (7, 6, 4)),
    "flatten, dense": (lambda: lambda x: L.Dense(3)(L.Flatten()(x)), (3, 2, 4)),
    "reshape, dense": (lambda: lambda x: L.Dense(3)(L.Reshape((4, 6))(x)), (3, 2, 4)),
    "reshape, conv": (lambda: lambda x: L.Conv1D(3, 2)(L.Reshape((6, 4))(x)), (3, 2, 4)),
    "concat": (lambda: lambda x: L.Concatenate()([x, L.Dense(2)(x), x * 2.0]), (4,)),
    "concat of images": (lambda: lambda x: L.Conv2D(2, 3)(L.Concatenate(axis=2)([x, L.ZeroPadding2D(((0, 0), (1, 1)))(x)])), (7, 6, 4)),
    "sums and products with constants": (lambda: lambda x: L.Dense(3)((x - np.float32([1, 2, 3, 4])) * np.float32([1, -1, 0, 2])), (4,)),
    "add": (lambda: lambda x: L.Add()([L.Dense(4)(x), x]), (4,)),
    "broadcast add": (lambda: lambda x: L.Add()([x, L.GlobalAveragePooling2D(keepdims=True)(x)]), (4, 4, 4)),
    "dropout and identity": (lambda: lambda x: L.Identity()(L.Dropout(0.5)(x)), (4,)),
    "separable": (lambda: L.SeparableConv2D(3, 3, padding="same", depth_multiplier=2), (7, 6, 4)),
    "causal": (lambda: L.Conv1D(3, 3, padding="causal", dilation_rate=2), (7, 4)),
    "channels first": (lambda: L.DepthwiseConv2D(3, padding="same", data_format="channels_first"), (4, 7, 6)),
}


def per_channel(value, axis):
    """The mean over the places of each channel of a value without its batch."""
    value = np.asarray(value, np.float64)
    return value.mean(axis=tuple(place for place in range(value.ndim) if place != axis % value.ndim))


@pytest.mark.parametrize("name", BATCHED)
def test_the_mean_goes_through(name):
    make, shape = BATCHED[name]
    x = keras.Input(shape, name="x")
    model = settle(keras.Model(x, make()(x)))
    axis = 0 if name == "channels first" else -1
    places = [1] * len(shape)
    places[axis] = 4
    means = np.reshape(MEANS, places)
    value, reason = known(model, {"x": means}, "")
    got = model(np.broadcast_to(means, (1, *shape)).astype("float32"))[0]
    found = np.broadcast_to(value.mean, got.shape)
    np.testing.assert_allclose(per_channel(found, axis), per_channel(got, axis), rtol=2e-5, atol=2e-5)
    assert not reason


# where it ends

ENDS = {
    "max pool": (lambda: L.MaxPooling2D(name="late"), "late: the mean of the largest of several elements depends on how like"),
    "global max pool": (lambda: L.GlobalMaxPooling2D(name="late"), "late: the mean of the largest of several elements"),
    "a gate": (
        lambda: lambda z: L.Multiply(name="late")([z, L.Activation("sigmoid")(z)]),
        "late: the mean of a product of values depends on",
    ),
    "the larger of two": (
        lambda: lambda z: L.Maximum(name="late")([z, z * -1.0]),
        "late: the mean of the larger of two values depends on how they",
    ),
    "softmax": (lambda: L.Softmax(name="late"), "late: it is Softmax, through which no mean is followed"),
    "an opaque layer": (lambda: L.LayerNormalization(name="late"), "late: it is keras.LayerNormalization, through which"),
    "relu of a layer without statistics": (
        lambda: lambda z: L.ReLU(name="late")(L.Conv2D(3, 1, name="bare")(z)),
        "late: it is Relu, and how bare spreads around its mean is not known",
    ),
    "relu of a pool": (lambda: lambda z: L.ReLU(name="late")(L.AveragePooling2D(2, name="p")(z)), "late: it is Relu, and how p spreads"),
    "sigmoid of a pool": (
        lambda: lambda z: L.Activation("sigmoid", name="late")(L.AveragePooling2D(2, name="p")(z)),
        "late: it is Sigmoid, and how p",
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_it_ends_where_nothing_follows_and_says_why(name):
    make, wanted = ENDS[name]
    value, reason = known(after(make(), (6, 6, 4)))
    varies = np.array(GAMMA_VARIES)
    assert np.isnan(value.mean.reshape(-1)[varies] if value.mean.size == len(varies) else value.mean).all()
    assert reason.startswith(wanted)


GAMMA_VARIES = [True, True, False, True, True, False, True]


@pytest.mark.parametrize("pool", [L.MaxPooling2D, L.GlobalMaxPooling2D])
def test_the_largest_of_equal_elements_is_known(pool):
    value, _ = known(after(lambda z: pool()(L.ReLU()(z)), (6, 6, 4)))
    np.testing.assert_allclose(value.mean.reshape(-1)[[2, 5]], [0.7, 0.0], rtol=1e-6)
    assert np.isnan(value.mean.reshape(-1)[[0, 1, 3, 4, 6]]).all()


@pytest.mark.parametrize("pool", [lambda: L.MaxPooling2D(3, 2), L.GlobalMaxPooling2D])
def test_the_largest_of_what_was_padded_is_known_where_it_is_zero(pool):
    value, _ = known(after(lambda z: L.Identity()(pool()(L.ZeroPadding2D(1)(L.ReLU()(z)))), (6, 6, 4)))
    assert np.isnan(value.mean.reshape(-1)).tolist() == [True] * 5 + [False, True]
    assert value.mean.reshape(-1)[5] == 0


def test_what_a_layer_reads_behind_a_padded_pool_is_asked_for_without_fail():
    x = keras.Input((9, 9, 4), name="x")
    y = L.Conv2D(3, 3)(L.MaxPooling2D(3, 2)(L.ZeroPadding2D(1)(L.ReLU()(branch(x, "a")))))
    value, reason = known(settle(keras.Model(x, y)))
    assert np.isnan(value.mean).all()
    assert "the mean of the largest of several elements" in reason


def test_what_reads_an_unknown_channel_is_unknown_and_nothing_else():
    x, y = keras.Input((4,), name="x"), keras.Input((2,), name="y")
    joined = L.Concatenate()([L.ReLU()(branch(x, "a")), y])
    model = settle(keras.Model([x, y], L.Dense(3, name="b")(joined)))
    kernel = np.asarray(model.get_layer("b").kernel).copy()
    kernel[7:, 1] = 0.0
    model.get_layer("b").kernel.assign(kernel)
    value, reason = known(model)
    assert np.isnan(value.mean).tolist() == [True, False, True]
    assert reason == "the mean of the input y is not known"


# statistics


def test_a_batch_norm_that_stays_says_what_a_fact_would():
    x = keras.Input((4,), name="x")
    z = L.BatchNormalization(name="stays")(L.Activation("relu")(x))
    model = keras.Model(x, L.ReLU()(z))
    model.get_layer("stays").set_weights([np.float32([1, -1, 0, 2]), np.float32([0.5, 0.5, -0.7, 1]), np.zeros(4), np.ones(4)])
    value, _ = known(model)
    np.testing.assert_allclose(value.mean, [0.697797, 0.697797, 0.0, 1.395593], rtol=1e-5)


def test_a_channel_without_a_kernel_is_its_bias_whatever_the_statistics_say():
    model = after(L.ReLU())
    kernel = np.asarray(model.get_layer("a").kernel).copy()
    kernel[:, 0] = 0.0
    model.get_layer("a").kernel.assign(kernel)
    model.get_layer("a_bn").moving_mean.assign([0.25, 0, 0, 0, 0, 0, 0])
    variance = float(model.get_layer("a_bn").moving_variance[0]) + 1e-3
    value, _ = known(model)
    np.testing.assert_allclose(value.mean[0], max(0.0, 0.5 - 0.25 / np.sqrt(variance)), rtol=1e-6)
    assert value.std[0] == 0


@pytest.mark.parametrize("mean, std", [(np.nan, 1.0), (np.inf, 1.0), (0.0, np.nan), (0.0, -1.0)])
def test_statistics_that_are_no_numbers_say_nothing(mean, std):
    graph = tfpasses.run(after(L.ReLU()), "fold-batch-norms").graph
    fact = graph.facts[Ref("a"), ChannelStats.kind]
    means, stds = fact.mean.copy(), fact.std.copy()
    means[0], stds[0] = mean, std
    graph.facts[Ref("a"), ChannelStats.kind] = ChannelStats(means, stds)
    found = Expectations.of(graph).values[Ref("a")]
    assert np.isnan(found.mean).tolist() == [True] + [False] * 6


def test_channels_first_statistics_lie_on_the_first_axis():
    x = keras.Input((3, 5, 7), name="x")
    z = L.BatchNormalization(axis=1, name="n")(L.DepthwiseConv2D(1, data_format="channels_first", use_bias=False)(x))
    model = keras.Model(x, L.ReLU()(z))
    model.get_layer("n").beta.assign([1.0, 2.0, 3.0])
    value, _ = known(model)
    assert value.mean.shape == (3, 1, 1)
    assert_mean(np.maximum(np.random.default_rng(0).normal([1.0, 2.0, 3.0], 1.0, (1_000_000, 3)), 0), value.mean.reshape(-1))


def test_limits_scaled_with_their_channels_give_scaled_means():
    x = keras.Input((4,), name="x")
    model = settle(keras.Model(x, L.Dense(3, name="b")(L.ReLU(6.0)(branch(x, "a")))))
    scaled = tfpasses.run(model, "fold-batch-norms,cross-layer-scaling").graph
    (b,) = [node for node in scaled.nodes.values() if node.name == "b"]
    plain = tfpasses.run(model, "fold-batch-norms").graph
    before = Expectations.of(plain).values[plain.nodes["b"].inputs[0]].mean
    after_ = Expectations.of(scaled).values[b.inputs[0]].mean
    (kernel_before, kernel_after) = (np.asarray(g.params(g.nodes["b"])["kernel"], np.float64) for g in (plain, scaled))
    assert not np.allclose(before, after_)
    np.testing.assert_allclose(after_[:, None] * kernel_after, before[:, None] * kernel_before, rtol=1e-5, atol=1e-9)
