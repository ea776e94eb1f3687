"""MobileNetV2 of the same weights in three forms, for `graph_fold.py`: as Keras 3 writes it in a GraphDef (each batch norm in parts), as
TensorFlow 1 wrote it (FusedBatchNormV3), and as ONNX.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

INPUT = "x"
OUTPUT = "Identity"
"""What Keras 3 calls it, too."""
Weights = dict[str, np.ndarray[Any, Any]]
Build = Callable[[Any, Weights, list[Any]], Any]
"""(layer, its weights by name, the values that it reads) -> the value that it gives."""


def network() -> keras.Model:
    """As it might be trained: as built, a batch norm does next to nothing. Without a softmax, which would hide what is wrong."""
    model = keras.applications.MobileNetV2(weights=None, classifier_activation=None)
    drawn = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([drawn.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


def weights_of(model: keras.Model) -> list[Weights]:
    """The weights of each layer."""
    return [{weight.name: weight.numpy() for weight in layer.weights} for layer in model.layers]


def walk(model: keras.Model, weights: list[Weights], x: Any, build: Build) -> Any:
    """Build a model layer by layer, in its order."""
    values = {id(model.inputs[0]): x}
    for layer, arrays in zip(model.layers, weights, strict=True):
        if not isinstance(layer, keras.layers.InputLayer):
            values[id(layer.output)] = build(layer, arrays, [values[id(one)] for one in keras.tree.flatten(layer.input)])
    return values[id(model.outputs[0])]


# Keras 3, frozen


def decomposed(model: keras.Model) -> Any:
    function = tf.function(lambda x: model(x, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec(model.inputs[0].shape, tf.float32, name=INPUT))
    return convert_variables_to_constants_v2(concrete).graph.as_graph_def()


# TensorFlow 1, frozen


def fused(model: keras.Model) -> Any:
    weights = weights_of(model)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, model.inputs[0].shape, INPUT)
        tf.identity(walk(model, weights, x, legacy), name=OUTPUT)
    return graph.as_graph_def()


def legacy(layer: Any, arrays: Weights, values: list[Any]) -> Any:
    """One layer with each weight as freezing leaves it: a constant that an Identity reads."""
    x, kind, name = values[0], type(layer).__name__, layer.name
    w = [tf.identity(tf.constant(array, name=f"{name}/{slot}"), f"{name}/{slot}/read") for slot, array in arrays.items()]
    if kind == "Conv2D":
        return tf.nn.conv2d(x, w[0], layer.strides, layer.padding.upper(), name=f"{name}/Conv2D")
    if kind == "DepthwiseConv2D":
        return tf.nn.depthwise_conv2d(x, w[0], [1, *layer.strides, 1], layer.padding.upper(), name=f"{name}/depthwise")
    if kind == "BatchNormalization":
        options = {"epsilon": layer.epsilon, "is_training": False, "name": f"{name}/FusedBatchNormV3"}
        return tf.compat.v1.nn.fused_batch_norm(x, *w, **options)[0]
    if kind == "ReLU":
        return tf.nn.relu6(x, name=f"{name}/Relu6")
    if kind == "ZeroPadding2D":
        return tf.pad(x, [(0, 0), *layer.padding, (0, 0)], name=f"{name}/Pad")
    if kind == "Add":
        return tf.add(*values, name=f"{name}/add")
    if kind == "GlobalAveragePooling2D":
        return tf.reduce_mean(x, [1, 2], name=f"{name}/Mean")
    assert kind == "Dense", kind
    return tf.nn.bias_add(tf.matmul(x, w[0], name=f"{name}/MatMul"), w[1], name=f"{name}/BiasAdd")


# ONNX


def onnx_model(model: keras.Model) -> Any:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    initializers: list[Any] = []

    def node(op: str, name: str, inputs: list[str], **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def weight(name: str, array: Any) -> str:
        initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def build(layer: Any, arrays: Weights, values: list[str]) -> str:
        x, kind, name = values[0], type(layer).__name__, layer.name
        if kind in ("Conv2D", "DepthwiseConv2D"):
            (kernel,) = arrays.values()
            deep = kind == "DepthwiseConv2D"
            turned = weight(f"{name}/kernel", kernel.transpose((2, 3, 0, 1) if deep else (3, 2, 0, 1)))
            padding = "SAME_UPPER" if layer.padding == "same" else "VALID"
            return node("Conv", name, [x, turned], auto_pad=padding, strides=layer.strides, group=kernel.shape[2] if deep else 1)
        if kind == "BatchNormalization":
            slots = [weight(f"{name}/{slot}", array) for slot, array in arrays.items()]
            return node("BatchNormalization", name, [x, *slots], epsilon=layer.epsilon)
        if kind == "ReLU":
            limits = [weight(f"{name}/{end}", np.float32(value)) for end, value in (("min", 0), ("max", layer.max_value))]
            return node("Clip", name, [x, *limits])
        if kind == "ZeroPadding2D":
            (top, bottom), (left, right) = layer.padding
            return node("Pad", name, [x, weight(f"{name}/pads", np.array([0, 0, top, left, 0, 0, bottom, right]))])
        if kind == "Add":
            return node("Add", name, values)
        if kind == "GlobalAveragePooling2D":
            return node("Flatten", name, [node("GlobalAveragePool", f"{name}/pool", [x])])
        assert kind == "Dense", kind
        return node("Gemm", name, [x, *(weight(f"{name}/{slot}", array) for slot, array in arrays.items())])

    _, height, width, channels = model.inputs[0].shape
    node("Identity", OUTPUT, [walk(model, weights_of(model), INPUT, build)])
    ends = ((INPUT, ["n", channels, height, width]), (OUTPUT, ["n", *model.outputs[0].shape[1:]]))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends)
    graph = helper.make_graph(nodes, model.name, [x], [y], initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(made)
    return made
