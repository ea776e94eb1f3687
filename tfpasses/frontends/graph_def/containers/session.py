"""Sessions of TensorFlow 1 in and out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import tensorflow as tf
from tensorflow.python.framework.meta_graph import import_scoped_meta_graph

from tfpasses.frontends.graph_def.containers.meta_graph import exported, load_values, rewritten, variable_defs
from tfpasses.frontends.graph_def.containers.traced import variable_of
from tfpasses.frontends.graph_def.protos.parts import needed, node_of
from tfpasses.frontends.graph_def.read import Variable, from_graph_def
from tfpasses.frontends.graph_def.writing.writer import Written
from tfpasses.graph import Graph, GraphError, UnsupportedModelError

__all__ = ["SessionContainer", "from_session", "imported_session", "read_session"]

Keys = tf.compat.v1.GraphKeys


@attrs.frozen(eq=False)
class SessionContainer:
    """The session that a graph was read from."""

    meta: Any
    """The MetaGraphDef of its graph."""
    config: Any
    """Its ConfigProto; None for the usual."""

    def rebuilt(self, written: Written) -> Any:
        """A new session in this process, on a new `tf.Graph` with the same collections, its variables loaded and its tables filled.

        A variable that was not initialized is not either; what other resources hold (queues, mutable tables) is not carried over.
        """
        meta = self.new_meta(written)
        session = imported_session(meta, self.config, written.variables)
        with session.graph.as_default():
            if meta.HasField("saver_def") and not tf.compat.v1.get_collection(Keys.SAVERS):
                tf.compat.v1.add_to_collection(Keys.SAVERS, tf.compat.v1.train.Saver(saver_def=meta.saver_def))
        tables = session.graph.get_collection(Keys.TABLE_INITIALIZERS)
        try:
            session.run(tables)
        except tf.errors.OpError as error:
            raise UnsupportedModelError(f"a lookup table cannot be filled: {' '.join(error.message.split())}") from error
        return session

    def new_meta(self, written: Written) -> Any:
        """The meta graph around another GraphDef; without savers where those would not save a new variable."""
        meta = rewritten(self.meta, written.definition, written.variables)
        if written.variables.keys() - variable_defs(self.meta).keys():
            meta.ClearField("saver_def")
            meta.collection_def.pop(Keys.SAVERS, None)
        return meta


def imported_session(meta: Any, config: Any, variables: Mapping[str, Variable]) -> Any:
    """A new session on a new graph, with these variables loaded. Raises `UnsupportedModelError` where TensorFlow does not take it."""
    graph = tf.Graph()
    try:
        with graph.as_default():
            import_scoped_meta_graph(meta)
    except (ValueError, KeyError) as error:
        raise UnsupportedModelError(f"TensorFlow does not import the graph ({' '.join(str(error).split())})") from error
    session = tf.compat.v1.Session(graph=graph, config=config)
    load_values(session, meta, variables)
    return session


def from_session(session: Any, inputs: Sequence[str] | None, outputs: Sequence[str], name: str = "session") -> Graph:
    """Read the whole graph of a `tf.compat.v1.Session`, whose variables, by handle and by reference, are weights.

    `inputs` are names of placeholders, None for those that the outputs need; `outputs` names of values (`node`, `node:1`). Neither
    the session nor its graph is changed.

    Raises `UnsupportedModelError` for a closed session, a graph beyond 2 GB, and a variable that an output needs and that is not
    initialized; `GraphError` for names that are not there.
    """
    if not isinstance(session, tf.compat.v1.Session | tf.compat.v1.InteractiveSession):
        raise UnsupportedModelError(f"a {type(session).__name__} is no tf.compat.v1.Session")
    try:
        session.run([])
    except RuntimeError as error:
        raise UnsupportedModelError("the session is closed; read it while it is open") from error
    meta = exported(session.graph)
    return read_session(session, meta, inputs, outputs, name, SessionContainer(meta, session._config))


def read_session(session: Any, meta: Any, inputs: Sequence[str] | None, outputs: Sequence[str], name: str, container: Any) -> Graph:
    """The graph of a session whose meta graph was exported; see `from_session`."""
    nodes = {node.name: node for node in meta.graph_def.node}
    placeholders = [node.name for node in nodes.values() if node.op == "Placeholder"]
    if not outputs:
        raise GraphError("name the outputs of a session's graph")
    for text in outputs:
        check_name("output", text, nodes, list(nodes))
    for text in inputs or ():
        check_name("input", text, placeholders, placeholders)
    on_path = needed(nodes.values(), map(node_of, outputs))
    there = {node.name for node in on_path}
    fed = [node_of(text) for text in inputs] if inputs is not None else [text for text in placeholders if text in there]
    defs = variable_defs(meta)
    values = values_of(session, {text: one.snapshot_name for text, one in defs.items() if text in nodes})
    for text in defs:
        if text in there and text not in values:
            raise UnsupportedModelError(f"variable {text} is not initialized in the session; run its initializer or restore it first")
    trainable = {node_of(one.variable_name) for one in defs.values() if one.trainable}
    variables = {text: variable_of(text, value, text in trainable) for text, value in values.items()}
    return from_graph_def(meta.graph_def, fed, [str(text) for text in outputs], name, variables, container)


def check_name(what: str, text: str, there: Mapping[str, Any] | Sequence[str], candidates: Sequence[str]) -> None:
    """Raise `GraphError` for a name that is not there, with those that it may stand for."""
    if node_of(text) in there:
        return
    close = difflib.get_close_matches(node_of(text), candidates, 4, 0.5) or candidates[:8]
    raise GraphError(f"{what} {text}: there is no such {'placeholder' if what == 'input' else 'node'}; there are {', '.join(close)}")


def values_of(session: Any, reads: Mapping[str, str]) -> dict[str, Any]:
    """The values of variables, by their nodes, of those that are initialized; `reads` are the values that read them."""
    try:
        return dict(session.run(dict(reads)))
    except tf.errors.FailedPreconditionError:
        pass
    values: dict[str, Any] = {}
    for name, read in reads.items():
        try:
            values[name] = session.run(read)
        except tf.errors.FailedPreconditionError:  # not initialized
            continue
    return values
