"""Bias correction as published, done naively on networks of Keras 2 in sessions: both networks run anew for every layer, in float64."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from keras2_sessions import in_session
from tfpasses.passes.aimet.bias_correction import BiasCorrectionParams, QuantParams

tf_keras = pytest.importorskip("tf_keras", reason="Keras 2 is not installed (pip install tf-keras)")

__all__ = [
    "TF",
    "X",
    "added",
    "assert_biases",
    "between",
    "biases",
    "chain",
    "expected_shifts",
    "joined",
    "kernel_of",
    "naively",
    "normed",
    "on_grid",
    "outputs",
    "params",
    "quantize",
    "silent",
    "spread",
    "statistics_of",
    "twin_of",
]

X = np.random.default_rng(1).normal(0.4, 1.0, (20, 12, 12, 3)).astype("float32")
TF = QuantParams("tf")


@pytest.fixture(autouse=True)
def silent():
    """What can be corrected is corrected without a word."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        yield


# networks


def chain(bias):
    """Padding, strides, a depthwise layer of two outputs a channel, dilation, dense."""
    layers = tf_keras.layers
    x = tf_keras.Input((12, 12, 3))
    y = layers.ReLU(6.0)(layers.Conv2D(6, 3, strides=2, padding="same", use_bias=bias, name="a")(x))
    y = layers.LeakyReLU(0.3)(layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, use_bias=bias, name="b")(y))
    y = layers.ReLU()(layers.Conv2D(5, 2, dilation_rate=2, use_bias=bias, name="c")(y))
    y = layers.Activation("tanh")(layers.Dense(7, use_bias=bias, name="d")(layers.GlobalAveragePooling2D()(y)))
    return tf_keras.Model(x, layers.Dense(4, use_bias=bias, name="e")(y))


def joined(bias):
    """A residual, a concatenation, a pool."""
    layers = tf_keras.layers
    x = tf_keras.Input((12, 12, 3))
    a = layers.ReLU()(layers.Conv2D(6, 3, padding="same", use_bias=bias, name="a")(x))
    b = layers.ReLU()(layers.Conv2D(6, 3, padding="same", use_bias=bias, name="b")(a))
    y = layers.ReLU()(layers.Add()([a, layers.Conv2D(6, 1, use_bias=bias, name="c")(b)]))
    y = layers.Concatenate()([y, layers.ReLU()(layers.Conv2D(2, 5, padding="same", use_bias=bias, name="d")(x))])
    return tf_keras.Model(x, layers.Dense(3, use_bias=bias, name="e")(layers.Flatten()(layers.MaxPooling2D(4)(y))))


def normed(limit=None):
    """Convolution, depthwise, pointwise, convolution, each with a batch norm, then a pool and a dense layer."""
    layers = tf_keras.layers
    x = y = tf_keras.Input((12, 12, 3))
    made = [layers.Conv2D(4, 3, use_bias=False, name="a"), layers.DepthwiseConv2D(3, use_bias=False, name="b")]
    for layer in [*made, layers.Conv2D(5, 1, name="c"), layers.Conv2D(4, 3, padding="same", name="d")]:
        y = layers.BatchNormalization(name=f"{layer.name}_bn")(layer(y))
        if layer.name != "c":
            y = layers.ReLU(limit, name=f"{layer.name}_relu")(y)
    return tf_keras.Model(x, layers.Dense(3, name="e")(layers.GlobalAveragePooling2D()(y)))


def spread(model, seed=5):
    """Give each kernel one element far beyond the others, so that 8 bits are coarse."""
    generator = np.random.default_rng(seed)
    for name, value in model.values().items():
        if "kernel" in name:
            wide = value.copy()
            wide.flat[generator.integers(value.size)] = 12 * np.abs(value).max()
            model.set(name.removesuffix(":0"), wide)
    return model


def twin_of(model, make):
    """The same network with a bias in every layer, of zeros where there was none, in another session."""
    twin = in_session(lambda: make(bias=True))
    values = model.values()
    for name, value in twin.values().items():
        twin.set(name.removesuffix(":0"), values.get(name, np.zeros_like(value)))
    return twin


# the published procedure


def on_grid(kernel, symmetric):
    """The kernel on the 8-bit grid of its range, in float64 arithmetic."""
    kernel = np.asarray(kernel, np.float64)
    low, high = min(kernel.min(), 0.0), max(kernel.max(), 0.0)
    if symmetric:
        delta, first = max(-low, high) / 127, -128
    else:
        delta = (high - low) / 255
        first = np.round(low / delta)
    return delta * np.clip(np.round(kernel / delta), first, first + 255)


def quantize(model, names, change=lambda kernel: on_grid(kernel, True)):
    """Quantize kernels of layers in a session."""
    for name, value in model.values().items():
        if "kernel" in name and name.partition("/")[0] in names:
            model.set(name.removesuffix(":0"), change(value))


def outputs(model, name, x):
    return model.session.run(f"{name}/BiasAdd:0", {f"{model.source}:0": x}).astype(np.float64)


def naively(model, make, order, x, quantized=None, given=None, **how):
    """The biases by layer: run both networks as far as each layer, take the mean difference from its bias, go on with the next."""
    reference, other = twin_of(model, make), twin_of(model, make)
    quantize(other, order if quantized is None else quantized, **how)
    for name in order:
        more = outputs(other, name, x) - outputs(reference, name, x)
        shift = more.mean(axis=tuple(range(more.ndim - 1))) if given is None or name not in given else given[name]
        other.set(f"{name}/bias", other.value(f"{name}/bias") - shift)
    return {name: other.value(f"{name}/bias") for name in order}


def params(model, samples=20, batch=20, **how):
    return BiasCorrectionParams(batch, 1, samples, [model.source], [model.target], **how)


def added(session, name):
    """The one bias that is added within a layer."""
    (found,) = [one for one in session.graph.get_operations() if one.type == "BiasAdd" and one.name.startswith(f"{name}/")]
    return session.run(found.inputs[1]).astype(np.float64)


def biases(session, names):
    return {name: added(session, name) for name in names}


def assert_biases(got, wanted, before=None):
    """Close, to what rounding leaves of means of float32 numbers of some tens; and not what they were."""
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=3e-5 * max(1, np.abs(value).max()), err_msg=name)
        if before is not None:
            assert np.abs(before[name] - value).max() > 1e-3, name


def between(kind):
    layers = tf_keras.layers
    x = tf_keras.Input((12, 12, 3))
    y = layers.BatchNormalization(name="a_bn")(layers.Conv2D(4, 3, name="a")(x))
    made = {
        "leaky ReLU": layers.LeakyReLU(0.3),
        "another limit": layers.ReLU(4.0),
        "pool": lambda y: layers.MaxPooling2D(2)(layers.ReLU()(y)),
        "addition": lambda y: layers.ReLU()(layers.Add()([y, y])),
        "padding": lambda y: layers.ZeroPadding2D(1)(layers.ReLU()(y)),
        "dropout": lambda y: layers.Dropout(0.5)(layers.ReLU()(y)),
        "two readers": lambda y: y,
    }[kind](y)
    end = layers.Conv2D(2, 1, name="b")(made)
    return tf_keras.Model(x, layers.Add()([end, layers.Conv2D(2, 1, name="c")(made)]) if kind == "two readers" else end)


# statistics


def normal_mean(mean, std, kind):
    """E[x] behind a ReLU of a limit (None for no limit), or of nothing, of normal numbers."""

    def below(x):
        return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    def density(x):
        return np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)

    if kind == "none":
        return mean
    whole = mean * below(mean / std) + std * density(mean / std)
    if kind is None:
        return whole
    beyond = mean - kind
    return whole - (beyond * below(beyond / std) + std * density(beyond / std))


def statistics_of(model, name):
    """Mean and deviation of what a batch norm gives."""
    return model.value(f"{name}_bn/beta"), np.abs(model.value(f"{name}_bn/gamma"))


def seen(size=4):
    """The share of the output's places at which each tap of a 3x3 kernel sees the input, `same` padding."""
    return np.array([[sum(0 <= place + i < size for place in range(size)) for i in (-1, 0, 1)]]) / size


def shift_of(kernel, means, padded=None):
    """(sum over the taps of Wq - W)·E[x], asymmetric."""
    more = on_grid(kernel, False) - np.asarray(kernel, np.float64)
    if kernel.shape[-1] == 1:  # depthwise
        return more.sum((0, 1))[:, 0] * means
    shares = np.ones(kernel.shape[:2]) if padded is None else padded.T * padded
    return means @ np.tensordot(shares, more, ((0, 1), (0, 1)))


def kernel_of(model, name, session=None):
    return model.value(f"{name}/{'depthwise_' * (name == 'b')}kernel", session)


def expected_shifts(model, limit=None, session=None, known=statistics_of):
    """Those of the three convolutions that read what a batch norm gives."""
    found = {}
    for before, name, kind in (("a", "b", limit), ("b", "c", limit), ("c", "d", "none")):
        means = normal_mean(*known(model, before), kind)
        found[name] = shift_of(kernel_of(model, name, session), means, seen(8) if name == "d" else None)
    return found
