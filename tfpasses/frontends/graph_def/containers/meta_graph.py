"""Meta graphs: a GraphDef with the collections that tell what its variables, their initializers and its contexts are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.python.framework import ops

from tfpasses.frontends.graph_def.containers.traced import fresh_name
from tfpasses.frontends.graph_def.protos.node_defs import const, node_def, read_variable
from tfpasses.frontends.graph_def.protos.parts import CLASS, needed, node_of, with_nodes, without_lost_colocations
from tfpasses.frontends.graph_def.read import Variable
from tfpasses.graph import UnsupportedModelError

__all__ = ["exported", "load_values", "rewritten", "variable_defs"]

Keys = tf.compat.v1.GraphKeys


def exported(graph: Any) -> Any:
    """The MetaGraphDef of a `tf.Graph`, which is not changed. Raises `UnsupportedModelError` beyond 2 GB."""
    try:
        with graph.as_default():
            return tf.compat.v1.train.export_meta_graph(graph=graph, graph_def=graph.as_graph_def())
    except ValueError as error:
        raise UnsupportedModelError(f"the session's graph cannot be written ({' '.join(str(error).split())}); use a SavedModel") from error


def variable_defs(meta: Any) -> dict[str, Any]:
    """The variables that any collection names, as VariableDefs by the nodes that hold them."""
    found: dict[str, Any] = {}
    for key in meta.collection_def:
        for one in protos(meta, key):
            if isinstance(one, VariableDef):
                found.setdefault(node_of(one.variable_name), one)
    return found


def protos(meta: Any, key: str) -> list[Any]:
    """What a collection holds, where TensorFlow knows what that is."""
    kind = ops.get_collection_proto_type(Keys.GLOBAL_VARIABLES if key == Keys.METRIC_VARIABLES else key)
    collection = meta.collection_def[key]
    if kind is None or collection.WhichOneof("kind") != "bytes_list":
        return []
    return [kind.FromString(data) for data in collection.bytes_list.value]


def rewritten(meta: Any, definition: Any, variables: Mapping[str, Variable]) -> Any:
    """A meta graph around another GraphDef, of which `variables` are the variables by their nodes.

    What tells of nodes that are gone is taken out, but what belongs to a variable that is still there is put back; a new variable gets
    an initializer and a place in the collections.
    """
    new = type(meta)()
    new.CopyFrom(meta)
    new.ClearField("graph_def")
    nodes = {node.name: node for node in definition.node}
    old = {node.name: node for node in meta.graph_def.node}
    defs = variable_defs(meta)
    for name, one in defs.items():
        if name in nodes:
            wanted = [node_of(text) for text in (one.initializer_name, one.snapshot_name, one.initial_value_name) if text]
            if any(text not in nodes for text in wanted):
                nodes |= {node.name: node for node in needed(old.values(), wanted) if node.name not in nodes}
    for name, variable in variables.items():
        if name not in defs:
            made, one = new_variable(nodes, name, variable)
            nodes |= {node.name: node for node in made}
            for key in (Keys.GLOBAL_VARIABLES, *((Keys.TRAINABLE_VARIABLES,) if variable.trainable else ())):
                new.collection_def[key].bytes_list.value.append(one.SerializeToString())
    gone = old.keys() - nodes.keys()
    if gone:
        prune(new, gone)
    new.graph_def.CopyFrom(with_nodes(definition, without_lost_colocations(nodes.values())))
    return new


def new_variable(nodes: Mapping[str, Any], name: str, variable: Variable) -> tuple[list[Any], Any]:
    """What belongs to a variable that is new, beside its own node: nodes, and a VariableDef."""
    handle = nodes[name]
    by_handle = handle.op == "VarHandleOp"
    value = const(fresh_name(f"{name}/initial_value", nodes), np.asarray(variable.value))
    dtype = variable.value.dtype.name
    beside = tf.compat.v1.AttrValue(list=tf.compat.v1.AttrValue.ListValue(s=[f"loc:@{name}".encode()]))
    if by_handle:
        assign = node_def(fresh_name(f"{name}/Assign", nodes), "AssignVariableOp", name, value.name, dtype=dtype)
    else:
        assign = node_def(fresh_name(f"{name}/Assign", nodes), "Assign", name, value.name, T=dtype)
    read = read_variable(fresh_name(f"{name}/Read/ReadVariableOp" if by_handle else f"{name}/read", nodes), handle, variable.value)
    for one in (assign, value, read):
        one.device = handle.device
        one.attr[CLASS].CopyFrom(beside)
    told = VariableDef(
        variable_name=f"{name}:0",
        initializer_name=assign.name,
        initial_value_name=f"{value.name}:0",
        snapshot_name=f"{read.name}:0",
        trainable=variable.trainable,
        is_resource=by_handle,
    )
    return [value, assign, read], told


def prune(meta: Any, gone: set[str]) -> None:
    """Take out of the collections what names nodes that are gone."""
    for key in list(meta.collection_def):
        collection = meta.collection_def[key]
        if collection.WhichOneof("kind") == "node_list":
            collection.node_list.value[:] = [text for text in collection.node_list.value if node_of(text) not in gone]
        elif any(gone.intersection(map(node_of, texts(one))) for one in protos(meta, key)):
            left = [one for one in protos(meta, key) if not gone.intersection(map(node_of, texts(one)))]
            collection.bytes_list.value[:] = [one.SerializeToString() for one in left]


def texts(message: Any) -> Iterator[str]:
    """Every text in a protocol buffer."""
    for field, value in message.ListFields():
        if isinstance(value, MutableMapping):
            entries = [*value, *value.values()]
        else:
            entries = list(value) if field.is_repeated else [value]
        for entry in entries:
            if isinstance(entry, str):
                yield entry
            elif hasattr(entry, "ListFields"):
                yield from texts(entry)


def load_values(session: Any, meta: Any, variables: Mapping[str, Variable]) -> None:
    """Give the variables of a session, whose graph was imported from a meta graph, their values.

    Raises `UnsupportedModelError` for one whose initializer is no assignment.
    """
    defs = variable_defs(meta)
    rounds: list[tuple[list[Any], dict[Any, Any]]] = []
    for name, variable in variables.items():
        initializer = session.graph.get_operation_by_name(node_of(defs[name].initializer_name))
        if initializer.type not in ("Assign", "AssignVariableOp"):
            raise UnsupportedModelError(f"variable {variable.name}: its initializer {initializer.name} is no assignment")
        fed = initializer.inputs[1].ref()
        # Two variables may begin with one tensor: then they are loaded one after the other.
        row = next((one for one in rounds if fed not in one[1]), None)
        if row is None:
            row = ([], {})
            rounds.append(row)
        row[0].append(initializer)
        row[1][fed] = variable.value
    for initializers, values in rounds:
        session.run(initializers, {fed.deref(): value for fed, value in values.items()})
