"""Lists of tensors, as recurrent layers and `tf.map_fn` go through: in float64, too, they are run in their own precision."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpasses
from tfpasses.frontends.graph_def import from_concrete_function, graph_def_evaluator
from tfpasses.graph import Ref

L = keras.layers
X = np.random.default_rng(2).normal(size=(3, 6, 4)).astype("float32")


def function_of(call):
    return tf.function(call).get_concrete_function(tf.TensorSpec((None, 6, 4), name="x"))


def test_a_list_that_a_loop_goes_through_is_run_in_its_own_precision():
    graph = from_concrete_function(function_of(lambda x: tf.map_fn(lambda row: tf.tanh(row) / 3, 2 * x)))
    (value,) = graph_def_evaluator(graph).compile(graph, [Ref("x")], graph.outputs, "float64")({Ref("x"): X.astype("float64")})
    np.testing.assert_allclose(value, np.tanh(2 * X.astype("float64")) / 3, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", [L.LSTM, L.GRU, L.SimpleRNN])
def test_what_lies_around_a_recurrent_layer_of_a_graph_is_rewritten_and_proven(layer):
    x = keras.Input((6, 4))
    model = keras.Model(x, L.Dense(3)(layer(5)(L.Dense(4, activation="relu")(L.Dense(4)(x)))))
    result = tfpasses.run(function_of(model), "cross-layer-scaling", verify="numeric")
    assert [rewrite for rewrite in result.rewrites if rewrite.rule == "scale"]
    np.testing.assert_allclose(result.model(tf.constant(X)), model(X), rtol=1e-4, atol=1e-5)
