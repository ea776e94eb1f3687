"""Every kind of layer goes into a graph and comes out as it was."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from keras_layers import CANONICAL, LAYERS
from keras_same import assert_same_model, assert_same_outputs, inputs_for
from tfpasses.frontends.keras import from_keras, to_keras
from tfpasses.graph import VOCABULARY
from tfpasses.graph.check import check_shapes, check_structure

NOT_ON_CPU = ("conv2d channels first", "transpose2d dilated")
"""TensorFlow has no kernel for them, but they are read and written all the same."""


@pytest.mark.parametrize("case", LAYERS)
def test_a_layer_leaves_as_it_came(case):
    model = LAYERS[case].model()
    graph = from_keras(model)
    check_structure(graph)
    check_shapes(graph)
    again = to_keras(graph)
    assert_same_model(again, model)
    assert from_keras(again).digest == graph.digest
    if case not in NOT_ON_CPU:
        assert_same_outputs(again, model, inputs_for(model))
        assert_same_outputs(again, model, inputs_for(model), training=True)


@pytest.mark.parametrize("case", LAYERS)
def test_only_the_kinds_of_the_table_become_canonical(case):
    nodes = [node for node in from_keras(LAYERS[case].model()).nodes.values() if node.op != "Input"]
    assert all(node.op in VOCABULARY for node in nodes) == (case in CANONICAL)


@pytest.mark.parametrize("name", ["relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "softplus", "softmax"])
@pytest.mark.parametrize("there", [keras.ops, tf.nn], ids=["keras.ops", "tf.nn"])
def test_a_function_that_is_an_activation_of_keras_may_be_given_as_one(there, name):
    function = getattr(there, name)
    x = keras.Input((4,))
    layers = [keras.layers.Dense(5, activation=function), keras.layers.Activation(function)]
    model = keras.Model(x, layers[1](layers[0](x)))
    graph = from_keras(model)
    assert all(node.op in VOCABULARY for node in graph.nodes.values())
    again = to_keras(graph)
    assert [layer.activation for layer in again.layers[1:]] == [function, function]
    assert_same_outputs(again, model, inputs_for(model))
    keras_own = from_keras(keras.Model(x, keras.layers.Activation(name)(layers[0](x))))
    ops = [[(node.op, dict(node.config)) for node in one.nodes.values()] for one in (graph, keras_own)]
    assert ops[0] == ops[1]
