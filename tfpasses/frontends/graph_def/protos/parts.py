"""Parts of GraphDefs, and GraphDefs put together. Nothing that is handed in is changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from tfpasses.graph import Ref

__all__ = ["CLASS", "copied", "needed", "node_of", "renamed", "value_name", "with_nodes", "without_lost_colocations", "without_returns"]

CLASS = "_class"
"""The attribute that says beside which other nodes a node shall be placed, as `loc:@node`."""
BESIDE = b"loc:@"
RETURN = re.compile(r"Identity(_\d+)?")
"""How TensorFlow names the Identities that it puts behind the results of a function."""


def node_of(text: str) -> str:
    """The node that an input `node`, `node:1` or `^node` names."""
    return text.lstrip("^").partition(":")[0]


def value_name(ref: Ref) -> str:
    """A value as NodeDefs name it."""
    return ref.node if ref.index == 0 else f"{ref.node}:{ref.index}"


def with_nodes(definition: Any, nodes: Iterable[Any]) -> Any:
    """A GraphDef with other nodes, its functions and versions the same."""
    new = tf.compat.v1.GraphDef()
    for field in ("versions", "library"):
        if definition.HasField(field):
            getattr(new, field).CopyFrom(getattr(definition, field))
    new.node.extend(nodes)
    return new


def copied(node: Any) -> Any:
    """A NodeDef of one's own."""
    new = type(node)()
    new.CopyFrom(node)
    return new


def needed(nodes: Iterable[Any], ends: Iterable[str]) -> list[Any]:
    """The NodeDefs, in their order, that those of the given names need, control inputs counted in."""
    definitions = {node.name: node for node in nodes}
    found: set[str] = set()
    waiting = [name for name in ends if name in definitions]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [before for before in map(node_of, definitions[name].input) if before in definitions]
    return [node for name, node in definitions.items() if name in found]


def renamed(node: Any, name: Callable[[str], str]) -> Any:
    """A NodeDef by another name, which reads nodes, and lies beside nodes, by their other names."""
    new = copied(node)
    new.name = name(node.name)
    del new.input[:]
    for text in node.input:
        before = node_of(text)
        new.input.append(text.replace(before, name(before), 1))
    if CLASS in new.attr:
        beside = new.attr[CLASS].list.s
        beside[:] = [BESIDE + name(one[len(BESIDE) :].decode()).encode() if one.startswith(BESIDE) else one for one in beside]
    return new


def without_lost_colocations(nodes: Iterable[Any], keep: Collection[str] = ()) -> list[Any]:
    """The NodeDefs with no wish to lie beside nodes that are not among them (nor among `keep`), which TensorFlow refuses to import."""
    nodes = list(nodes)
    there = {node.name for node in nodes} | set(keep)

    def lost(one: bytes) -> bool:
        return one.startswith(BESIDE) and one[len(BESIDE) :].decode() not in there

    def found(node: Any) -> Any:
        if CLASS not in node.attr or not any(map(lost, node.attr[CLASS].list.s)):
            return node
        new = copied(node)
        new.attr[CLASS].list.s[:] = [one for one in node.attr[CLASS].list.s if not lost(one)]
        if not new.attr[CLASS].list.s:
            del new.attr[CLASS]
        return new

    return list(map(found, nodes))


def without_returns(nodes: Sequence[Any], outputs: Sequence[str]) -> tuple[list[Any], list[str]]:
    """The NodeDefs without the Identities that TensorFlow put behind a function's results, and what those results are then.

    `tf.function` puts such there again; by this a function that is traced anew has as many nodes as it had. One that waits for more
    than operations with effects, which TensorFlow lets it wait for again, stays.
    """
    definitions = {node.name: node for node in nodes}
    readers: dict[str, set[str]] = {}
    for node in nodes:
        for text in node.input:
            readers.setdefault(node_of(text), set()).add(node.name)

    def comes_again(name: str) -> bool:
        node = definitions.get(name)
        if node is None or node.op != "Identity" or not RETURN.fullmatch(name) or name in readers:
            return False
        waits = [definitions.get(node_of(text)) for text in node.input if text[:1] == "^"]
        return all(one is not None and one.op == "NoOp" and waits_for_effects(one) for one in waits)

    def waits_for_effects(node: Any) -> bool:
        return all(node_of(text) in definitions and has_effects(definitions[node_of(text)]) for text in node.input)

    gone = {node_of(text) for text in outputs if comes_again(node_of(text))}
    results = [value_of(definitions[node_of(text)].input[0]) if node_of(text) in gone else text for text in outputs]
    waited = {node_of(text) for name in gone for text in definitions[name].input if text[:1] == "^"}
    gone |= {name for name in waited if readers[name] <= gone}
    return [node for node in nodes if node.name not in gone], results


def value_of(text: str) -> str:
    """An input `node` or `node:1` as `node:0` or `node:1`."""
    return text if ":" in text else f"{text}:0"


def has_effects(node: Any) -> bool:
    """Whether TensorFlow says that an operation has effects, or reads what effects change."""
    definition = op_def_registry.get(node.op)
    return definition is not None and bool(definition.is_stateful)
