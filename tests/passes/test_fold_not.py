"""Where folding must not happen: the model stays as it is, bit by bit, and a remark gives the reason."""

from __future__ import annotations

import attrs
import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import tfpasses
from fold_cases import batch, bite

SHAPE = (8, 8, 4)


def conv(name="linear", **options):
    return L.Conv2D(4, 3, padding="same", name=name, **options)


def norm(name="bn", **options):
    return L.BatchNormalization(name=name, **options)


class Subclass(L.Conv2D):
    pass


class NormSubclass(L.BatchNormalization):
    pass


class Scale(L.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], name="scale")

    def call(self, x):
        return x * self.scale


def used_twice(x):
    y = conv()(x)
    return L.Add(name="add")([norm()(y), L.ReLU(name="relu")(y)])


def used_by_one_consumer_twice(x):
    y = conv()(x)
    return [norm()(y), L.Add(name="add")([y, y])]


def used_by_the_same_addition(x):
    y = conv()(x)
    return L.Add(name="add")([norm()(y), y])


def output_in_between(x):
    y = conv()(x)
    return [norm()(y), y]


def output_twice_in_between(x):
    y = conv()(x)
    return [norm()(y), y, y]


def output_behind_dropout(x):
    y = L.Dropout(0.5, name="drop")(conv()(x))
    return [norm()(y), y]


def dropout_used_twice(x):
    y = L.Dropout(0.5, name="drop")(conv()(x))
    return L.Add(name="add")([norm()(y), L.ReLU(name="relu")(y)])


def conv_used_twice_before_dropout(x):
    y = conv()(x)
    return L.Add(name="add")([norm()(L.Dropout(0.5, name="drop")(y)), L.ReLU(name="relu")(y)])


def quantized(x):
    layer = L.Dense(4, name="linear")
    y = layer(x)
    layer.quantize("int8")
    return norm()(y)


def with_lora(x):
    layer = L.Dense(4, name="linear")
    y = layer(x)
    layer.enable_lora(2)
    return norm()(y)


def two_branches(x):
    return norm()(L.Add(name="add")([conv("c1")(x), conv("c2")(x)]))


TRAINING = "it is called with training=True, so it has no fixed scale and shift"

MUST_NOT = {
    "second consumer": (used_twice, "linear: it has 2 uses: bn, relu"),
    "one consumer twice": (used_by_one_consumer_twice, "linear: it has 3 uses: add, add, bn"),
    "consumer of conv and batch norm": (used_by_the_same_addition, "linear: it has 2 uses: bn, add"),
    "graph output": (output_in_between, "linear: it has 2 uses: bn, a graph output"),
    "graph output twice": (output_twice_in_between, "linear: it has 3 uses: bn, a graph output, a graph output"),
    "graph output behind dropout": (output_behind_dropout, "drop: it has 2 uses: bn, a graph output"),
    "dropout with a second consumer": (dropout_used_twice, "drop: it has 2 uses: bn, relu"),
    "conv with a second consumer before dropout": (conv_used_twice_before_dropout, "linear: it has 2 uses: drop, relu"),
    "dropout in training": (
        lambda x: norm()(L.Dropout(0.5, name="drop")(conv()(x), training=True)),
        "drop: it is called with training=True, so it changes its input",
    ),
    "noise in training": (
        lambda x: norm()(L.GaussianNoise(0.5, name="drop")(conv()(x), training=True)),
        "drop: it is called with training=True, so it changes its input",
    ),
    "activation layer": (lambda x: norm()(L.ReLU(name="relu")(conv()(x))), "relu: it is Relu, not a linear op"),
    "activation argument": (lambda x: norm()(conv(activation="tanh")(x)), "linear.activation: it is Tanh, not a linear op"),
    "foreign activation argument": (
        lambda x: norm()(conv(activation=keras.activations.mish)(x)),
        "linear.activation: it is keras.activation, not a linear op",
    ),
    "activation operation": (lambda x: norm()(ops.sigmoid(conv()(x))), "sigmoid: it is Sigmoid, not a linear op"),
    "activation behind dropout": (
        lambda x: norm()(L.Dropout(0.5)(L.ReLU(name="relu")(conv()(x)))),
        "relu: it is Relu, not a linear op",
    ),
    "padding": (lambda x: norm()(L.ZeroPadding2D(name="pad")(conv()(x))), "pad pads with zeros, which the batch norm would shift"),
    "pooling": (
        lambda x: norm()(L.MaxPooling2D(name="pool")(L.Conv2D(16, 3, name="linear")(x))),
        "pool takes the largest value, and 7 of the channels have a negative scale",
    ),
    "average of many": (
        lambda x: norm()(L.GlobalAveragePooling2D(name="pool")(conv()(x))),
        "pool averages 64 elements, where a shift that each of them holds loses digits",
    ),
    "average of a large window": (
        lambda x: norm()(L.AveragePooling2D(5, name="pool")(conv()(x))),
        "pool averages 25 elements, where a shift that each of them holds loses digits",
    ),
    "concatenation": (lambda x: norm()(L.Concatenate(name="cat")([conv()(x), x])), "x: it is Input, not a linear op"),
    "addition": (two_branches, "add: it is Add, not a linear op"),
    "flatten": (lambda x: norm()(L.Flatten(name="flat")(conv()(x))), "flat: it is Flatten, not a linear op"),
    "another axis": (lambda x: norm(axis=1)(conv()(x)), "it normalises axis 1; the channels of linear are on axis 3"),
    "another axis of a dense layer": (
        lambda x: norm(axis=-2)(L.Dense(8, name="linear")(x)),
        "it normalises axis -2; the channels of linear are on axis 3",
    ),
    "last axis of channels first": (
        lambda x: norm()(L.Conv2D(8, 1, data_format="channels_first", name="linear")(x)),
        "it normalises axis -1; the channels of linear are on axis 1",
    ),
    "training": (lambda x: norm()(conv()(x), training=True), TRAINING),
    "subclass of a convolution": (lambda x: norm()(Subclass(4, 3, name="linear")(x)), "linear: it is keras.Subclass, not a linear op"),
    "custom layer": (lambda x: norm()(Scale(name="linear")(x)), "linear: it is keras.Scale, not a linear op"),
    "recurrent layer": (
        lambda x: norm()(L.LSTM(4, return_sequences=True, name="linear")(L.Reshape((8, 32))(x))),
        "linear: it is keras.LSTM, not a linear op",
    ),
    "wrapped dense layer": (
        lambda x: norm()(L.TimeDistributed(L.Dense(4), name="linear")(x)),
        "linear: it is keras.TimeDistributed, not a linear op",
    ),
    "lambda": (lambda x: norm()(L.Lambda(lambda y: y * 2, name="linear")(x)), "linear: it is keras.Lambda, not a linear op"),
    "quantized dense layer": (quantized, "linear: it is keras.Dense, not a linear op"),
    "dense layer with lora": (with_lora, "linear: it is keras.Dense, not a linear op"),
    "input": (lambda x: L.Identity()(norm()(x)), "x: it is Input, not a linear op"),
}


NOT_COMPARED = {"last axis of channels first", "dropout in training", "noise in training"}
"""A CPU cannot run the first; the others draw other numbers each time."""


@pytest.mark.parametrize("which", MUST_NOT)
def test_must_not_fold(which):
    build, reason = MUST_NOT[which]
    x = keras.Input(SHAPE, name="x")
    assert_unchanged(bite(keras.Model(x, build(x))), {"bn": reason}, run=which not in NOT_COMPARED)


def assert_unchanged(model, reasons, run=True):
    result = tfpasses.run(model, "fold-batch-norms{direction=backward}", verify="numeric")
    assert not result.rewrites
    assert not result.verdicts
    assert {remark.node: remark.reason for remark in result.remarks if remark.kind == "missed"} == reasons
    assert [layer.name for layer in result.model.layers] == [layer.name for layer in model.layers]
    if run:
        for new, old in zip(outputs(result.model), outputs(model), strict=True):
            np.testing.assert_array_equal(new, old)
    return result


def outputs(model):
    return [np.asarray(value) for value in keras.tree.flatten(model(batch(model), training=False))]


def test_a_subclass_of_batch_norm_is_left_alone():
    x = keras.Input(SHAPE, name="x")
    assert_unchanged(bite(keras.Model(x, NormSubclass(name="bn")(conv()(x)))), {})


def test_a_model_called_in_training_is_left_alone():
    x = keras.Input(SHAPE, name="x")
    inner = keras.Sequential([keras.Input(SHAPE), conv(), norm()], name="inner")
    result = tfpasses.run(bite(keras.Model(x, inner(x, training=True))), "fold-batch-norms{direction=backward}")
    assert [(remark.node, remark.reason) for remark in result.remarks] == [("inner/bn", TRAINING)]


NOT_FINITE = "its weights, or the scale or shift they give, are not finite (NaN, infinity, or a negative variance)"
BAD_WEIGHTS = {
    "gamma of NaN": ("bn", "gamma", np.nan, NOT_FINITE),
    "gamma of infinity": ("bn", "gamma", np.inf, NOT_FINITE),
    "beta of NaN": ("bn", "beta", np.nan, NOT_FINITE),
    "beta of infinity": ("bn", "beta", -np.inf, NOT_FINITE),
    "mean of NaN": ("bn", "moving_mean", np.nan, NOT_FINITE),
    "mean of infinity": ("bn", "moving_mean", np.inf, NOT_FINITE),
    "variance of NaN": ("bn", "moving_variance", np.nan, NOT_FINITE),
    "variance of infinity": ("bn", "moving_variance", np.inf, NOT_FINITE),
    "negative variance": ("bn", "moving_variance", -0.5, NOT_FINITE),
    "kernel of NaN": ("linear", "kernel", np.nan, "the weights of linear are not finite (NaN or infinity)"),
    "kernel of infinity": ("linear", "kernel", np.inf, "the weights of linear are not finite (NaN or infinity)"),
    "bias of NaN": ("linear", "bias", np.nan, "the weights of linear are not finite (NaN or infinity)"),
}


@pytest.mark.parametrize("which", BAD_WEIGHTS)
def test_weights_that_are_no_numbers(which):
    layer, attribute, value, reason = BAD_WEIGHTS[which]
    x = keras.Input(SHAPE, name="x")
    model = bite(keras.Model(x, norm()(conv()(x))))
    variable = getattr(model.get_layer(layer), attribute)
    array = np.asarray(variable).copy()
    array.flat[1] = value
    variable.assign(array)
    assert_unchanged(model, {"bn": reason})


def overflowing(gamma, policy, norm_policy=None):
    x = keras.Input(SHAPE, name="x")
    model = bite(keras.Model(x, norm(dtype=norm_policy or policy)(conv(dtype=policy)(x))))
    model.get_layer("bn").gamma.assign(np.full(4, gamma))
    return model


@pytest.mark.parametrize(("policy", "dtype"), [("float16", "float16"), ("mixed_float16", "float16")])
def test_weights_that_would_overflow_half_precision(policy, dtype):
    model = overflowing(6e4, policy)
    model.get_layer("linear").kernel.assign(np.full((3, 3, 4, 4), 7.0))
    result = tfpasses.run(model, "fold-batch-norms{direction=backward}")
    assert not result.rewrites
    assert [remark.reason for remark in result.remarks] == [f"the folded weights of linear would not be finite in {dtype}"]


def test_weights_that_would_overflow_float32():
    model = overflowing(1e38, "float32")
    model.get_layer("linear").kernel.assign(np.full((3, 3, 4, 4), 1e3))
    assert_unchanged(model, {"bn": "the folded weights of linear would not be finite in float32"}, run=False)


@pytest.mark.parametrize(("policy", "norm_policy"), [("mixed_float16", "float32"), ("float32", "mixed_float16"), ("bfloat16", "float32")])
def test_a_batch_norm_of_another_precision(policy, norm_policy):
    computed = {"float32": "float32", "mixed_float16": "float16", "bfloat16": "bfloat16"}
    result = tfpasses.run(overflowing(1.0, policy, norm_policy), "fold-batch-norms{direction=backward}")
    assert not result.rewrites
    assert [remark.reason for remark in result.remarks] == [f"it computes in {computed[norm_policy]}, linear in {computed[policy]}"]


def test_one_that_folds_beside_one_that_does_not():
    x = keras.Input(SHAPE, name="x")
    y = norm("bn1")(conv("c1")(x))
    model = bite(keras.Model(x, norm("bn2")(L.ReLU(name="relu")(y))))
    result = tfpasses.run(model, "fold-batch-norms{direction=backward}", verify="numeric")
    assert [layer.name for layer in result.model.layers] == ["x", "c1", "relu", "bn2"]
    assert [(remark.node, remark.reason) for remark in result.remarks] == [("bn2", "relu: it is Relu, not a linear op")]


def tied(one, two, *slots):
    """A graph of two layers, each behind a batch norm of the same parameters, with some of their weights made one."""
    x = keras.Input(SHAPE, name="x")
    norms = [L.BatchNormalization(name=name) for name in ("bn1", "bn2")]
    model = bite(keras.Model(x, L.Subtract(name="y")([norms[0](one(x)), norms[1](two(x))])))
    norms[1].set_weights(norms[0].get_weights())
    graph = tfpasses.from_keras(model)
    second = graph.nodes[two.name]
    params = {**second.params, **{slot: graph.nodes[one.name].params[slot] for slot in slots}}
    return attrs.evolve(graph, nodes={**graph.nodes, two.name: attrs.evolve(second, params=params)})


@pytest.mark.parametrize(
    ("one", "two", "slots"),
    [
        (L.Dense(4, name="one"), L.Dense(4, name="two"), ["bias"]),
        (L.Dense(4, name="one"), L.Dense(4, name="two"), ["kernel"]),
        (conv("one", use_bias=False), L.Conv2DTranspose(4, 3, padding="same", use_bias=False, name="two"), ["kernel"]),
    ],
    ids=["a bias", "a kernel without its bias", "a kernel used transposed"],
)
def test_weights_tied_between_layers_that_use_them_differently_stay(one, two, slots):
    graph = tied(one, two, *slots)
    result = tfpasses.run(graph, "fold-batch-norms{direction=backward}", verify="numeric")
    assert not result.rewrites
    assert {remark.node: remark.reason for remark in result.remarks} == {
        "bn1": "one shares a weight with two, which uses it in another way",
        "bn2": "two shares a weight with one, which uses it in another way",
    }
