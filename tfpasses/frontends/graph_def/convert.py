"""Models as another kind than they are: Keras models and graphs as GraphDefs of constants, and as SavedModels."""

from __future__ import annotations

import re
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tfpasses.frontends.evaluator import eagerly
from tfpasses.frontends.graph_def.containers.loop_contexts import tell_loops
from tfpasses.frontends.graph_def.containers.saved_model import RewrittenSavedModel
from tfpasses.frontends.graph_def.protos.node_defs import identity
from tfpasses.frontends.graph_def.protos.parts import needed, node_of, with_nodes, without_lost_colocations
from tfpasses.frontends.graph_def.writing.writer import Written, write
from tfpasses.graph import Graph

__all__ = ["as_function", "as_saved_model", "frozen"]

SIGNATURE = "serving_default"
NOT_IN_NAMES = re.compile(r"\W")


def as_function(model: keras.Model) -> Any:
    """A Keras model in inference mode, as a `ConcreteFunction` of its inputs in order, under their names; a list of its outputs."""
    specs = [tf.TensorSpec(x.shape, x.dtype, name=identifier(x.name)) for x in model.inputs]

    def call(*tensors: Any) -> Any:
        return keras.tree.flatten(model(keras.tree.pack_sequence_as(model._inputs_struct, list(tensors)), training=False))

    return tf.function(call, input_signature=specs).get_concrete_function()


def frozen(graph: Graph) -> Any:
    """A GraphDef that computes a graph, with its variables as constants; inputs and outputs go by the names that the graph gives them.

    Raises `UnsupportedModelError` for a graph that was not read from TensorFlow.
    """
    written = write(graph)
    if not written.variables:
        return written.definition
    function, _ = serving(graph, written)
    constant = convert_variables_to_constants_v2(function, lower_control_flow=False)
    definition = constant.graph.as_graph_def()
    taken = {node.name for node in definition.node}
    results = dict(
        zip(sorted(map(identifier, graph.output_names)), constant.outputs, strict=True)
    )  # a dict's values, as TensorFlow gives them
    for name in graph.output_names:
        if name not in taken and ":" not in name:
            tensor = results[identifier(name)]
            definition.node.append(identity(name, tensor.name, tensor.dtype.name))
    return definition


def as_saved_model(graph: Graph) -> RewrittenSavedModel:
    """A SavedModel in memory of one signature, `serving_default`, whose arguments and results have the names of the graph's inputs and
    outputs (with `_` for what is no letter and no digit).
    """
    function, variables = serving(graph, write(graph))
    return RewrittenSavedModel({SIGNATURE: function}, variables, (), None)


@eagerly
def serving(graph: Graph, written: Written) -> tuple[Any, list[Any]]:
    """A ConcreteFunction from tensors to a dict of what a graph gives, and the new variables that it reads."""
    variables = {
        name: tf.Variable(one.value, trainable=one.trainable, name=identifier(one.name)) for name, one in written.variables.items()
    }
    specs = [tf.TensorSpec(*spec_of(graph, name), name=identifier(name)) for name in graph.inputs]
    results = [identifier(name) for name in graph.output_names]
    references = {node.name for node in written.definition.node if node.op in ("Variable", "VariableV2")}
    own = needed(written.definition.node, map(node_of, written.outputs))
    nodes = without_lost_colocations(node for node in own if node.name not in variables and node.name not in written.inputs)
    definition = with_nodes(written.definition, nodes)

    def serve(*tensors: Any) -> Any:
        inside = tf.compat.v1.get_default_graph()
        fed = {f"{name}:0": tensor for name, tensor in zip(written.inputs, tensors, strict=True)}
        for name, variable in variables.items():
            inside.watch_variable(variable)
            fed[f"{name}:0"] = variable.value() if name in references else inside.capture(variable.handle)
        wanted = [text for text in dict.fromkeys(written.outputs) if text not in fed]
        found = dict(zip(wanted, tf.graph_util.import_graph_def(definition, input_map=fed, return_elements=wanted, name=""), strict=True))
        tell_loops(inside, nodes)
        return dict(zip(results, [(fed | found)[text] for text in written.outputs], strict=True))

    return tf.function(serve, input_signature=specs).get_concrete_function(), list(variables.values())


def spec_of(graph: Graph, name: str) -> tuple[Any, str]:
    spec = graph.nodes[name].specs[0]
    return spec.shape, spec.dtype


def identifier(name: str) -> str:
    """A name as a SavedModel's signature may have it."""
    return NOT_IN_NAMES.sub("_", name)
