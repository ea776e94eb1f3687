"""The functions that a GraphDef calls, loaded under names of their own, so that it can be imported beside the one it came from."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.saved_model.function_deserialization import load_function_def_library

from tfpasses.frontends.graph_def.containers.custom_gradients import OwnGradient, bind, with_own_gradients
from tfpasses.frontends.graph_def.containers.loop_contexts import tell_loops
from tfpasses.frontends.graph_def.protos.parts import copied, with_nodes

__all__ = ["called", "imported", "with_own_functions"]

CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def with_own_functions(definition: Any, handles: Mapping[int, Any]) -> tuple[Any, dict[str, Any]]:
    """A GraphDef that calls new `ConcreteFunction`s, and those, by name. Functions that it does not call are left out.

    Under their old names they would be differentiated but once in a process: TensorFlow adds to the names of branches and loops.
    `handles` are those of new variables by the `id` of those of the old ones.
    """
    alone = tf.compat.v1.GraphDef(versions=definition.versions)
    library = used_library(definition)
    if not library.function:
        return with_nodes(alone, definition.node), {}
    gradients: dict[str, OwnGradient] = {}
    for function in library.function:
        nodes, made = with_own_gradients(function.node_def, handles)
        if made:
            del function.node_def[:]
            function.node_def.extend(nodes)
            gradients |= made
    with no_word_of_custom_gradients():
        loaded = load_function_def_library(library, load_shared_name_suffix="")
    for function in loaded.values() if gradients else ():
        bind(gradients, function.graph.get_operations())
    names = {old: function.name.decode() for old, function in loaded.items()}
    functions = {function.name.decode(): function for function in loaded.values()}
    return with_nodes(alone, [calling(node, names) for node in definition.node]), functions


def imported(
    graph: Any, body: Any, functions: Mapping[str, Any], handles: Mapping[int, Any], mapped: Mapping[str, Any], wanted: Sequence[str]
) -> list[Any]:
    """Import a GraphDef into the default graph, with the functions it calls; gives the values `wanted`."""
    for function in functions.values():
        function.add_to_graph(graph)
    before = len(graph.get_operations())
    nodes, gradients = with_own_gradients(body.node, handles)
    values: list[Any] = tf.import_graph_def(with_nodes(body, nodes), dict(mapped), list(wanted), name="")
    tell_loops(graph, nodes)
    made = graph.get_operations()[before:]
    bind(gradients, made)
    for operation in made:
        if operation.type in CALLS:
            # Without this TensorFlow asks for symbolic gradients in C++, which many operations do not have.
            operation._gradient_function = functions[operation.get_attr("f").name]._get_gradient_function()
    return values


def used_library(definition: Any) -> Any:
    """The functions that nodes call, and those that these call."""
    functions = {function.signature.name: function for function in definition.library.function}
    used: dict[str, None] = {}
    waiting = [name for node in definition.node for name in called(node)]
    while waiting:
        name = waiting.pop()
        if name in functions and name not in used:
            used[name] = None
            waiting += [other for node in functions[name].node_def for other in called(node)]
    library = type(definition.library)()
    library.function.extend(function for name, function in functions.items() if name in used)
    library.gradient.extend(one for one in definition.library.gradient if one.function_name in used and one.gradient_func in used)
    return library


def called(node: Any) -> Iterator[str]:
    """The names of the functions that a NodeDef may call, and of its operation, which may be one."""
    yield node.op
    for value in node.attr.values():
        yield from (function.name for function in functions_of(value))


def functions_of(value: Any) -> Iterable[Any]:
    kind = value.WhichOneof("value")
    return (value.func,) if kind == "func" else value.list.func if kind == "list" else ()


def calling(node: Any, names: Mapping[str, str]) -> Any:
    """A NodeDef that calls functions by their new names."""
    if not any(name in names for name in called(node)):
        return node
    new = copied(node)
    new.op = names.get(new.op, new.op)
    for value in new.attr.values():
        for function in functions_of(value):
            function.name = names.get(function.name, function.name)
    return new


@contextlib.contextmanager
def no_word_of_custom_gradients() -> Iterator[None]:
    """TensorFlow warns of custom gradients that a file does not hold. Here no file is read: they are registered in this process."""

    def other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Importing a function")

    logger = logging.getLogger("absl")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)
