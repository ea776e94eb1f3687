"""A model that no pass touches comes out as it went in."""

from __future__ import annotations

import keras
import pytest

import keras_custom as custom
from keras_models import MODELS, build
from keras_same import assert_same_model, assert_same_outputs, inputs_for
from tfpasses.frontends.keras import from_keras, write
from tfpasses.graph.check import check_shapes, check_structure

NOT_FED = ("optional_and_sparse_inputs",)
"""What they take is no array."""

NOT_DESCRIBED = ("activation_that_cannot_be_described", "masks_joined", "shared_weightless_layer")
"""The first one's configuration cannot be had; the others call a shared layer in another order, which makes no difference."""


def test_weights_tied_across_layers_are_one_in_the_graph_and_copies_in_the_model_with_a_note():
    x, embedding = keras.Input((5,), dtype="int32"), keras.layers.Embedding(3, 4, name="table")
    model, notes = keras.Model(x, custom.Tied(embedding, name="tied")(embedding(x))), []
    graph = from_keras(model)
    assert list(graph.weights) == ["table/w0"]
    again, _ = write(graph, notes.append)
    assert notes == ["layer tied has a copy of table/w0, which it shared with layer table"]
    assert_same_outputs(again, model, inputs_for(model))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_leaves_as_it_came(name):
    model, notes = build(name), []
    graph = from_keras(model)
    check_structure(graph)
    check_shapes(graph)
    again, renamed = write(graph, notes.append)
    assert notes == []
    assert renamed == {}
    assert_same_model(again, model, described=name not in NOT_DESCRIBED)
    assert from_keras(again).digest == graph.digest
    if name not in NOT_FED:
        assert_same_outputs(again, model, inputs_for(model), training=False)
        assert_same_outputs(again, model, inputs_for(model))
        assert_same_outputs(again, model, inputs_for(model), training=True)


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_a_quantized_layer_is_opaque_and_keeps_its_weights_and_scales(mode):
    x = keras.Input((16,), name="x")
    model = keras.Model(x, keras.layers.Dense(16)(keras.layers.Dense(16, activation="relu")(x)))
    model.quantize(mode)
    graph = from_keras(model)
    assert [node.op for node in graph.nodes.values()] == ["Input", "keras.Dense", "keras.Dense"]
    again, _ = write(graph)
    assert_same_outputs(again, model, inputs_for(model))
    assert {v.path: v.numpy().tobytes() for v in again.weights} == {v.path: v.numpy().tobytes() for v in model.weights}


def test_models_that_slice_differently_are_different_graphs():
    x = keras.Input((6,), name="x")
    digests = set()
    for part in (x[:, 0:2], x[:, 1:3], x[:, 0:4:2]):
        part._keras_history.operation.name = "slice"
        digests.add(from_keras(keras.Model(x, part)).digest)
    assert len(digests) == 3
