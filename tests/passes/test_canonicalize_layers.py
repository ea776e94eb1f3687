"""Keras layers as TensorFlow's operations: raised to what the layer is, folded to the weights of the arithmetic, the function kept."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

import tfpasses
from fold_cases import CASES, batch, bite, chain, expected_weights
from graph_defs import canonical, compute, frozen, ops_of, passed
from tfpasses.frontends.graph_def import from_graph_def, to_graph_def
from tfpasses.graph import Edit, check_shapes, check_structure, has_trait

FOLD = "canonicalize,fold-batch-norms"
OUT = ["Identity"]


def case_model(name, use_bias):
    case = CASES[name]
    return chain(case.make(use_bias), L.BatchNormalization(axis=case.axis, name="bn"), L.ReLU(), shape=case.shape)


def like_keras(model):
    """What the Keras frontend reads, with what TensorFlow makes of it: two operations for a separable convolution over an image, a padding
    and a convolution for a causal one.
    """
    ops = []
    for node in tfpasses.from_keras(model).nodes.values():
        if node.op == "SeparableConv" and len(node.specs[0].dims) == 4 and node.config["data_format"] == "channels_last":
            ops += ["DepthwiseConv", "Conv"]
        elif node.config.get("padding") == "causal":
            ops += ["Pad", node.op]
        elif node.op not in ("Input", "Identity", "Dropout"):
            ops.append(node.op)
    return ops


@pytest.mark.parametrize("use_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_raised_to_what_it_is(name, use_bias):
    model = case_model(name, use_bias)
    definition = frozen(model)
    graph = canonical(definition)
    check_structure(graph)
    check_shapes(graph)
    assert ops_of(graph) == like_keras(model)
    assert sorted(map(str, to_graph_def(graph).node)) == sorted(map(str, definition.node))


@pytest.mark.parametrize("use_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_folded_to_the_weights_of_the_arithmetic(name, use_bias):
    model = case_model(name, use_bias)
    definition = frozen(model)
    graph = passed(from_graph_def(definition), FOLD)
    assert "BatchNorm" not in ops_of(graph)
    linear = [node for node in graph.nodes.values() if has_trait(node, "linear")]
    keys = [
        node.params[slot] for slot in ("depthwise_kernel", "kernel", "pointwise_kernel", "bias") for node in linear if slot in node.params
    ]
    for key, wanted in zip(keys, expected_weights(model.get_layer("linear"), model.get_layer("bn")), strict=True):
        np.testing.assert_array_max_ulp(graph.weights[key].reshape(wanted.shape), wanted, maxulp=1)
    x = batch(model)
    (old,), (new,) = (compute(one, {"in_0": x}, OUT) for one in (definition, to_graph_def(graph)))
    assert np.abs(new - old).max() <= 1e-5 * np.abs(old).max()
    assert np.abs(old).max() > 0.1


POSITIONS = {
    "flatten": lambda x: L.Dense(3)(L.Flatten()(x)),
    "reshape": lambda x: L.Conv1D(3, 2)(L.Reshape((16, 4))(x)),
    "global average": lambda x: L.Dense(3)(L.GlobalAveragePooling2D()(x)),
    "global average keeping axes": lambda x: L.Conv2D(3, 1)(L.GlobalAveragePooling2D(keepdims=True)(x)),
    "global max": lambda x: L.Dense(3)(L.GlobalMaxPooling2D()(x)),
    "average pool": lambda x: L.Conv2D(3, 2)(L.AveragePooling2D(2)(x)),
    "max pool same": lambda x: L.Conv2D(3, 2)(L.MaxPooling2D(2, padding="same")(x)),
    "crop": lambda x: L.Conv2D(3, 2)(L.Cropping2D(((1, 0), (0, 2)))(x)),
    "pad": lambda x: L.Conv2D(3, 2)(L.ZeroPadding2D(((1, 0), (0, 2)))(x)),
    "concat": lambda x: L.Concatenate()([L.Conv2D(3, 1)(x), L.Conv2D(2, 1)(x)]),
    "add": lambda x: L.Add()([L.Conv2D(3, 1)(x), L.Conv2D(3, 1)(x)]),
    "multiply": lambda x: L.Multiply()([L.Conv2D(3, 1)(x), L.Conv2D(3, 1)(x)]),
    "relu6": L.ReLU(6.0),
    "leaky relu": L.LeakyReLU(0.1),
    "PRelu": L.PReLU(),
    "PRelu with shared axes": L.PReLU(shared_axes=[1, 2]),
    "silu": L.Activation("silu"),
    "sigmoid": L.Activation("sigmoid"),
    "softmax": L.Softmax(),
    "pools of one axis": lambda x: L.AveragePooling1D(2)(L.MaxPooling1D(3, strides=1, padding="same")(L.Reshape((16, 4))(x))),
    "pools of three axes": lambda x: L.AveragePooling3D(2)(L.MaxPooling3D(1)(L.Reshape((4, 4, 2, 2))(x))),
    "up to three axes and back": lambda x: L.Flatten()(L.Conv3D(2, 2)(L.Reshape((4, 4, 2, 2))(x))),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_what_has_no_kernel_is_raised_to_what_it_is(name):
    x = keras.Input((4, 4, 4), name="x")
    model = bite(keras.Model(x, POSITIONS[name](L.BatchNormalization(name="bn")(x))))
    graph = canonical(frozen(model))
    check_shapes(graph)
    assert sorted(ops_of(graph)) == sorted(like_keras(model))


@pytest.mark.parametrize("sizes", [(None, None), (7, None)])
def test_images_of_unknown_size(sizes):
    x = keras.Input((*sizes, 4), name="x")
    y = L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(x))
    y = L.GlobalAveragePooling2D()(L.BatchNormalization()(L.DepthwiseConv2D(3)(L.ReLU()(y))))
    model = bite(keras.Model(x, y))
    assert ops_of(canonical(frozen(model))) == like_keras(model)


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "mixed_bfloat16"])
def test_a_batch_norm_in_float32_of_half_precision_is_one_with_its_casts(policy):
    model = chain(L.Conv2D(6, 3, dtype=policy), L.BatchNormalization(dtype=policy), L.ReLU(dtype=policy), shape=(9, 8, 4))
    definition = frozen(model)
    graph = canonical(definition)
    check_shapes(graph)
    assert [op for op in ops_of(graph) if op != "tf.Cast"] == ["Conv", "BatchNorm", "Relu"]
    assert {graph.spec(ref).dtype for node in graph.nodes.values() if node.op == "BatchNorm" for ref in node.inputs} != {"float32"}
    assert sorted(map(str, to_graph_def(graph).node)) == sorted(map(str, definition.node))
    assert "BatchNorm" not in ops_of(passed(from_graph_def(definition), FOLD))


def test_a_batch_norm_between_casts_of_single_precision_keeps_them():
    model = chain(L.Conv2D(6, 3), L.BatchNormalization(dtype="float64"), L.ReLU(), shape=(9, 8, 4))
    assert ops_of(canonical(frozen(model))) == ["Conv", "tf.Cast", "BatchNorm", "tf.Cast", "Relu"]


def test_a_mean_that_half_precision_takes_in_float32_is_one_with_its_casts():
    model = chain(
        L.BatchNormalization(dtype="float16"), L.GlobalAveragePooling2D(dtype="float16"), L.Dense(3, dtype="float16"), shape=(3, 3, 4)
    )
    definition = frozen(model)
    graph = canonical(definition)
    check_shapes(graph)
    assert [op for op in ops_of(graph) if op != "tf.Cast"] == ["BatchNorm", "GlobalAvgPool", "Dense"]
    assert sorted(map(str, to_graph_def(graph).node)) == sorted(map(str, definition.node))


def test_a_batch_norm_called_twice_proves_itself():
    x = keras.Input((6, 4), name="x")
    norm, y = L.BatchNormalization(), L.Conv1D(4, 1)(x)
    model = bite(keras.Model(x, [norm(y), norm(L.ReLU()(y))]))
    result = tfpasses.run(frozen(model), FOLD, verify="numeric")
    assert ops_of(result.graph).count("BatchNorm") == 2
    assert all(verdict.ok for verdict in result.verdicts)


@pytest.mark.parametrize(("axis", "shape"), [(1, (1, 6, 4)), (2, (5, 1, 4)), (3, (5, 6, 1)), (1, (1, 4)), (1, (1,))])
def test_a_batch_norm_over_an_axis_of_size_one(axis, shape):
    definition = frozen(chain(L.BatchNormalization(axis=axis), shape=shape))
    (norm,) = [node for node in canonical(definition).nodes.values() if node.op == "BatchNorm"]
    assert norm.config["axis"] == axis


OTHERWISE = ("group", "separable1d", "channels first")
"""What is written as other operations: convolutions of each group, of a depthwise and a pointwise kernel, between transpositions."""
ANEW = {
    **{name: lambda x, make=case.make: make(True)(x) for name, case in CASES.items() if not any(one in name for one in OTHERWISE)},
    "leaky relu": L.LeakyReLU(0.1),
    "PRelu": L.PReLU("random_normal"),
    "relu6": L.ReLU(6.0),
    "batch norm": L.BatchNormalization(),
}


@pytest.mark.parametrize("name", ANEW)
def test_what_is_written_anew_is_raised_to_what_it_was(name):
    x = keras.Input(CASES[name].shape if name in CASES else (5, 6, 4), name="x")
    model = bite(keras.Model(x, ANEW[name](x)))
    graph = canonical(frozen(model))
    edit = Edit(graph)
    for node in graph.nodes.values():
        if not node.op.startswith("tf.") and node.op not in ("Input", "Const"):
            edit.change(node, owner=None, call=None)
    definition = to_graph_def(edit.freeze())
    again = canonical(definition)
    assert ops_of(again) == ops_of(graph)
    data = batch(model)
    (old,), (new,) = (compute(one, {"in_0": data}, OUT) for one in (frozen(model), definition))
    np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5)
