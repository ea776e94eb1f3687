"""The text form: a line a node in topological order, a line a weight. Stable and diffable, and what `golden/` holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tfpasses.graph.graph import Array, Graph
from tfpasses.graph.node import Node
from tfpasses.graph.values import Ref, Slot

__all__ = ["digest", "format_value", "node_line", "to_text", "weight_line"]


def to_text(graph: Graph) -> str:
    """The whole graph as text, ending in a newline."""
    return "\n".join(lines(graph)) + "\n"


def lines(graph: Graph) -> Iterator[str]:
    """The text form line by line."""
    yield f"graph {graph.name}"
    yield f"inputs {format_value(graph.input_structure, graph.inputs)}"
    for node in graph.nodes.values():
        yield f"  {node_line(node)}"
    yield f"outputs {format_value(graph.output_structure, list(map(str, graph.outputs)))}"
    if graph.weights:
        yield "weights"
        keys = dict.fromkeys(key for node in graph.nodes.values() for key in node.params.values())
        for key in {**keys, **graph.weights}:  # in the order of use, so that a pass's new weights stand where a reader expects them
            yield f"  {weight_line(key, graph.weights[key])}"
    if graph.facts:
        yield "facts"
        for (ref, kind), fact in graph.facts.items():
            values = (f"{field}={summary(value)}" for field, value in _fields(fact))
            yield f"  {ref} {kind} {' '.join(values)}"


def node_line(node: Node) -> str:
    """`name = Op(inputs) {config} <params> : specs`."""
    parts = [f"{node.name} = {node.op}({arguments(node)})"]
    if node.config:
        parts.append("{" + " ".join(f"{key}={format_value(value)}" for key, value in sorted(node.config.items())) + "}")
    if node.params:
        parts.append("<" + " ".join(f"{slot}={key}" for slot, key in node.params.items()) + ">")
    return " ".join(parts) + f" : {', '.join(map(str, node.specs))}"


def weight_line(key: str, array: Array) -> str:
    """`key dtype[shape] min/max/mean` to four significant digits."""
    return f"{key} {array.dtype.name}[{','.join(map(str, array.shape))}] {summary(array)}"


def summary(array: Array) -> str:
    """`min/max/mean` (of complex numbers, of their magnitudes), to four significant digits; the count of non-finite values where there
    are any.
    """
    if array.size == 0:
        return "empty"
    if array.dtype.names or not (np.issubdtype(array.dtype, np.number) or array.dtype.kind in "bV"):
        return str(array.dtype)
    with np.errstate(all="ignore"):  # any bits can stand in a file
        finite = np.abs(array).astype(np.float64) if array.dtype.kind == "c" else array.astype(np.float64)
        bad = int(finite.size - np.isfinite(finite).sum())
        if bad:
            finite = finite[np.isfinite(finite)]
        if finite.size == 0:
            return f"{bad} not finite"
        numbers = "/".join(f"{value:.4g}" for value in (finite.min(), finite.max(), finite.mean()))
    return f"{numbers} and {bad} not finite" if bad else numbers


def arguments(node: Node) -> str:
    """The call as it was written, with the inputs' names in their places."""
    names = [str(ref) for ref in node.inputs]
    if node.call is None:
        return ", ".join(names)
    args = [format_value(value, names) for value in node.call.args]
    args += [f"{key}={format_value(value, names)}" for key, value in node.call.kwargs.items()]
    return ", ".join(args)


def format_value(value: Any, names: Iterable[str] = ()) -> str:
    """A configuration value as text that does not depend on addresses or hash seeds."""
    names = list(names)
    if isinstance(value, Slot):
        return names[value.index] if names else f"${value.index}"
    if isinstance(value, Ref):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + " ".join(f"{key}={format_value(v, names)}" for key, v in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + ",".join(format_value(v, names) for v in value) + ")"
    if isinstance(value, list):
        return "[" + ",".join(format_value(v, names) for v in value) + "]"
    if isinstance(value, slice):
        return f"slice({value.start},{value.stop},{value.step})"
    if isinstance(value, np.ndarray):
        return f"array({value.dtype.name}[{','.join(map(str, value.shape))}] {hashlib.blake2b(value.tobytes(), digest_size=6).hexdigest()})"
    if isinstance(value, float):
        return repr(float(value))
    if value is None or isinstance(value, str | bytes | int | bool | np.generic):
        return str(value)
    name = getattr(value, "__qualname__", None) or getattr(value, "name", None) or type(value).__qualname__
    return f"<{name}>"


def digest(graph: Graph) -> str:
    """A BLAKE2 hash of nodes, wiring, configuration and weights (dtype, shape and bytes), in hexadecimal. The functions of a frontend
    (`Functions`) count by what they do, not by their names.
    """
    state = hashlib.blake2b(digest_size=16)
    keys = dict.fromkeys(key for node in graph.nodes.values() for _, key in sorted(node.params.items()))
    order = {key: number for number, key in enumerate(keys)}
    contents = {} if graph.functions is None else graph.functions.contents

    def told(value: Any) -> str:
        """A value of a configuration, which may name functions."""
        if isinstance(value, list):
            return f"[{','.join(map(told, value))}]"
        return contents[value] if isinstance(value, str) and value in contents else format_value(value)

    for node in graph.nodes.values():
        config = " ".join(f"{key}={told(value)}" for key, value in sorted(node.config.items()))
        params = " ".join(f"{slot}={order[key]}" for slot, key in sorted(node.params.items()))
        op = contents.get(node.op.removeprefix("tf."), node.op)
        state.update(f"{node.name}|{op}|{arguments(node)}|{config}|{params}|{node.specs}\n".encode())
    state.update(f"{graph.inputs}|{[str(ref) for ref in graph.outputs]}\n".encode())
    for key in order:
        array = graph.weights[key]
        state.update(f"{array.dtype.name}{array.shape}".encode())
        state.update(elements(array))
    return state.hexdigest()


def elements(array: Array) -> Any:
    """What decides what an array holds, as bytes."""
    if array.size == 0:
        return b""
    if array.dtype.hasobject:  # texts, of which the array holds addresses
        return repr(array.tolist()).encode()
    return np.ascontiguousarray(array).view(np.uint8).data


def _fields(fact: Any) -> Iterator[tuple[str, Array]]:
    import attrs

    for field in attrs.fields(type(fact)):
        yield field.name, getattr(fact, field.name)
