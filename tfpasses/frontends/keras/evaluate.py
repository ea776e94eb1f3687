"""How an opaque Keras node is run: its source layer or operation is called, in inference mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfpasses.frontends.evaluator import TensorFlowEvaluator, cannot_compute
from tfpasses.graph import Array, Graph, GraphError, Node
from tfpasses.graph.values import fill

__all__ = ["call_model", "keras_evaluator"]


def run_opaque(node: Node, inputs: Sequence[Any], params: Sequence[Array]) -> Sequence[Any]:
    """The flat outputs of a node that came from a layer, an operation or an activation function. The source's own state stays as it is."""
    if node.owner is None:
        raise GraphError(f"node {node.name}: {node.op} has no source and no lowering, so it cannot be run")
    source = node.owner.source
    if node.owner.part == "activation":
        return [source.activation(*inputs)]
    if node.call is None:
        return list(keras.tree.flatten(source(*inputs)))
    args, kwargs = node.call.fill(lambda index: inputs[index])
    if "training" in node.config:
        kwargs["training"] = node.config["training"]
    weights = source.weights if isinstance(source, keras.Layer) else ()
    with keras.StatelessScope(list(zip(weights, params, strict=True))):
        return list(keras.tree.flatten(source(*args, **kwargs)))


def call_model(model: Any, graph: Graph, values: Sequence[Array]) -> list[Array]:
    """The flat outputs of a Keras model, called as it stands on one array an input; `graph` is the model as it was read. The model's
    own state (that of an RNN, statistics of a batch norm in training mode) stays as it is. Raises `GraphError` where it cannot be called.
    """
    inputs = fill(graph.input_structure, lambda index: values[index])
    try:
        outputs, _ = model.stateless_call(model.trainable_variables, model.non_trainable_variables, inputs)
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise cannot_compute(f"model {model.name}", error) from error
    return [np.asarray(keras.ops.convert_to_numpy(value)) for value in keras.tree.flatten(outputs)]


def keras_evaluator() -> TensorFlowEvaluator:
    """The evaluator for graphs that came from Keras models."""
    return TensorFlowEvaluator(run_opaque)
