"""Real GraphDefs, for tests that damage them: frozen layers, functions, what TensorFlow 1 wrote."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from keras import layers as L

from graph_defs import frozen
from zoo.fresh_names import fresh_names

__all__ = ["SOURCES", "source"]


@cache
def source(name: str) -> Any:
    """A sound GraphDef; not to be changed."""
    with fresh_names():
        keras.utils.set_random_seed(1)
        return renumbered(SOURCES[name]())


def renumbered(definition: Any) -> Any:
    """The same, its functions and nameless constants numbered from 0: TensorFlow counts on from what a process made before."""
    counted = [re.fullmatch(r"(.*_)(\d+)", function.signature.name) for function in definition.library.function]
    counted += [re.fullmatch(r"(.*/)(\d+)", node.name) for node in definition.node]
    text = text_format.MessageToString(definition)
    for place, name in enumerate(sorted(filter(None, counted), key=lambda name: int(name[2]))):
        text = text.replace(f'"{name[0]}"', f'"{name[1]}{place}"')
    again = text_format.Parse(text, tf.compat.v1.GraphDef())
    functions = sorted(again.library.function, key=lambda function: str(function.signature.name))
    del again.library.function[:]
    again.library.function.extend(functions)
    return again


def layers_of_keras() -> Any:
    """Every layer that folding knows, with a grouped convolution, which is a call that has to be compiled."""
    x = inputs = keras.Input((8, 8, 4))
    y = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(4, 3, padding="same", dilation_rate=2)(x)))
    y = L.BatchNormalization(scale=False)(L.DepthwiseConv2D(3, padding="same")(y))
    x = L.Activation("hard_swish")(L.Add()([x, y]))
    x = L.Concatenate()([L.Conv2D(4, 2, strides=2, groups=2)(x), L.SeparableConv2D(4, 2, strides=2)(x)])
    x = L.Conv2DTranspose(3, 2)(L.PReLU(shared_axes=[1, 2])(L.ZeroPadding2D(1)(x)))
    x = L.LeakyReLU()(L.Cropping2D(1)(L.AveragePooling2D(2)(x)))
    x = L.Dense(3, activation="softmax")(L.Dropout(0.5)(L.Flatten()(x)))
    return frozen(keras.Model(inputs, x))


def calls() -> Any:
    """Functions that call functions, branches and loops, values with several outputs, texts, control inputs."""

    @tf.function
    def inner(x: Any) -> Any:
        a, b, c = tf.split(x, 3, -1)
        tf.debugging.assert_all_finite(a, "finite")
        return tf.nn.relu(a + b), c

    @tf.function
    def outer(x: Any, y: Any) -> Any:
        a, c = inner(x)
        b, _ = inner(x * y)
        return tf.cond(tf.reduce_sum(a) > 0.0, lambda: a + b, lambda: b - c)

    def call(x: Any) -> Any:
        y = outer(x, tf.constant(np.arange(6, dtype="float32")))
        y = tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, outer(tf.tile(y, [1, 3]), 0.5)), [0, y])[1]
        parts = tf.unstack(tf.reshape(y, tf.stack([tf.shape(x)[0], 1, 2])), axis=-1)
        name = tf.strings.join(["a text", tf.strings.as_string(parts[0])])
        return {"name": name, "value": tf.nn.bias_add(y, tf.constant([1.0, 2.0])), "part": tf.concat(parts, 1)}

    return tf.function(call).get_concrete_function(tf.TensorSpec((None, 6), tf.float32)).graph.as_graph_def()


def first_graph() -> Any:
    """As TensorFlow 1 writes them: fused batch norms, a switch, shapes told by the file or packed from numbers, blocks of a batch."""
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 4), "x")
        training = tf.compat.v1.placeholder_with_default(False, (), "training")
        y = tf.nn.conv2d(x, tf.cast(tf.constant(np.ones((3, 3, 4, 4), "float16")), tf.float32), 1, [[0, 0], [1, 1], [1, 1], [0, 0]])
        moments = [tf.constant(np.full(4, value, "float32")) for value in (1, 0, 0.5, 2)]
        out, into = tf.raw_ops.Switch(data=y, pred=training)
        into = tf.raw_ops.FusedBatchNormV3(x=into, scale=moments[0], offset=moments[1], mean=[], variance=[], is_training=True).y
        out = tf.raw_ops.FusedBatchNormV3(
            x=out, scale=moments[0], offset=moments[1], mean=moments[2], variance=moments[3], is_training=False
        ).y
        y = tf.raw_ops.Merge(inputs=[out, into]).output
        y = tf.batch_to_space(tf.nn.relu(tf.space_to_batch(y, [2, 2], [[0, 0], [0, 0]])), [2, 2], [[0, 0], [0, 0]])
        y = tf.nn.atrous_conv2d(y, tf.ones((2, 2, 4, 4)), 2, "SAME")
        y = tf.nn.max_pool2d(tf.transpose(y, [0, 3, 1, 2]), 2, 2, "VALID", data_format="NCHW")
        y = tf.squeeze(tf.expand_dims(tf.reduce_mean(tf.pad(y, [[0, 0], [0, 0], [1, 0], [0, 1]]), [2, 3], keepdims=True), -1), [2, 3, 4])
        y = tf.reshape(y, tf.stack([tf.shape(y)[0], tf.constant(2) * 2]))
        y = tf.nn.bias_add(tf.matmul(y, tf.ones((3, 4)), transpose_b=True), [1.0, 2.0, 3.0])
        tf.identity(tf.image.resize(y[:, None, :, None], [2, 5])[:, 0, ::2, 0], "Identity")
    return graph.as_graph_def(add_shapes=True)


def old_loops() -> Any:
    """Loops of TensorFlow 1, whose nodes form cycles: one in another, with a branch inside."""
    tf.compat.v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default() as graph:
            x = tf.compat.v1.placeholder(tf.float32, (None, 4), "x")

            def inner(i: Any, y: Any) -> Any:
                return i + 1, tf.cond(tf.reduce_sum(y) > 0.0, lambda: y * 2.0, lambda: y - 1.0)

            def outer(i: Any, y: Any) -> Any:
                return i + 1, tf.nn.relu(tf.while_loop(lambda i, y: i < 2, inner, [0, y])[1]) + x

            tf.identity(tf.while_loop(lambda i, y: i < 3, outer, [0, x * 0.5])[1], "Identity")
    finally:
        tf.compat.v1.enable_control_flow_v2()
    return graph.as_graph_def()


SOURCES: dict[str, Callable[[], Any]] = {"layers": layers_of_keras, "calls": calls, "first graph": first_graph, "old loops": old_loops}
