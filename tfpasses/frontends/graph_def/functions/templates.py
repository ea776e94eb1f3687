"""A function, read for arguments of which something is known: what is alike in all calls of it, under the function's own names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from tfpasses.frontends.graph_def.functions.function_defs import Flat
from tfpasses.frontends.graph_def.protos.node_defs import node_def
from tfpasses.frontends.graph_def.reading.loops import Loops
from tfpasses.frontends.graph_def.reading.nodes import Given, Reading, Variable, narrowed
from tfpasses.frontends.graph_def.reading.wiring import Wiring, by_name, wired
from tfpasses.graph import Array, GraphError, Node, Ref, Spec
from tfpasses.graph.order import sort_keys

__all__ = ["Template", "control_of", "template_of"]


@attrs.frozen(eq=False)
class Template:
    """A function as nodes. Their specs, and their NodeDefs with inputs as a GraphDef has them, are those of any call alike."""

    arguments: Mapping[str, Spec]
    nodes: Mapping[str, Node]
    """Without the arguments."""
    weights: Mapping[str, Array]
    loops: Loops
    results: tuple[Ref, ...]
    result_names: tuple[str, ...]
    result_specs: tuple[Spec, ...]
    waits: Mapping[str, Sequence[str]]
    """The nodes that wait for others, with those."""
    loose: frozenset[str]
    """The constants that wait for nothing."""
    idle: Mapping[str, frozenset[str]]
    """Of the nodes that others of the function wait for, those by which nothing has been done, nor read of what others write; with the
    arguments that come before them. To wait for one of these is to wait for its arguments.
    """
    acts: bool
    """Whether it does more than give its values."""
    ends: tuple[str, ...]
    """The nodes that somebody waits for who waits for the call."""
    unseen: tuple[tuple[str, ...], ...]
    """For each result, the nodes that do more than give their values, and do not come before it."""


def template_of(
    flat: Flat,
    given: Sequence[Given],
    read: Callable[[Wiring, Mapping[str, Variable]], Reading],
    acts: Callable[[Any], bool],
    is_stateful: Callable[[Any], bool],
) -> Template:
    """Read a function for these arguments. `acts` says whether a NodeDef does more than give its values, `is_stateful` whether somebody may
    wait for it.

    Raises `GraphError`, one line without the function's name, where its nodes form a cycle or are malformed.
    """
    specs = {
        argument.name: Spec(narrowed(spec.shape, argument.shape), argument.dtype)
        for argument, (spec, _) in zip(flat.arguments, given, strict=True)
    }
    handles = {
        argument.name: Variable(argument.name, np.broadcast_to(np.float32(0), [size or 0 for size in shape]))
        for argument, (_, shape) in zip(flat.arguments, given, strict=True)
        if shape is not None and None not in shape
    }
    wiring = wired(by_name([*(placeholder(name, spec) for name, spec in specs.items()), *flat.nodes]))
    loops, standing = wiring.loops, wiring.loops.standing
    reading = read(wiring, handles)
    results = [loops.exits.get(ref.node, ref) for ref in flat.results]
    result_specs = []
    for (name, index), dtype in zip(results, flat.result_dtypes, strict=True):
        if loops.inside.get(name, name) != name:
            raise GraphError(f"node {name}: a result, and inside of a loop")
        spec = dict(enumerate(reading.nodes[name].specs)).get(index)
        if spec is None or spec.dtype not in (dtype, "unknown"):
            raise GraphError(f"node {name}: its output {index}, a result of {dtype}, {f'is {spec.dtype}' if spec else 'does not exist'}")
        result_specs.append(Spec(spec.shape, dtype))
    nodes = {name: node for name, node in reading.nodes.items() if name not in specs}
    sources = {one.name: one for one in flat.nodes}
    waits: dict[str, list[str]] = {}
    for name, one in sources.items():
        if others := [other for other in map(standing, control_of(one)) if other != standing(name)]:
            waits.setdefault(standing(name), []).extend(others)
    before = {name: [*(ref.node for ref in reading.nodes[name].inputs), *waits.get(name, ())] for name in reading.nodes}
    order = sort_keys(before, before.__getitem__)
    acting = list(dict.fromkeys([standing(name) for name, one in sources.items() if acts(one)]))
    reached = reach(order, before, {name: 1 << place for place, name in enumerate(acting)})
    stateful = [standing(name) for name, one in sources.items() if is_stateful(one)]
    waited = {other for others in waits.values() for other in others if other in nodes}
    places = {name: 1 << place for place, name in enumerate(specs, 1)}
    comes_after = reach(order, before, {**places, **dict.fromkeys(stateful, 1)}) if waited else {}
    ends = [*stateful, *map(standing, flat.last), *(ref.node for ref in results if ref.node in nodes)]
    return Template(
        specs,
        nodes,
        {name: array for name, array in reading.weights.items() if name in nodes},
        loops,
        tuple(results),
        flat.result_names,
        tuple(result_specs),
        waits,
        frozenset(name for name, node in nodes.items() if node.op == "Const" and name not in waits),
        {
            name: frozenset(argument for argument, place in places.items() if comes_after[name] & place)
            for name in waited
            if not comes_after[name] & 1
        },
        bool(acting),
        tuple(dict.fromkeys(ends)),
        tuple([tuple([name for bit, name in enumerate(acting) if not reached[ref.node] >> bit & 1]) for ref in results]),
    )


def reach(order: Sequence[str], before: Mapping[str, Sequence[str]], bits: Mapping[str, int]) -> dict[str, int]:
    """For each node the bits of all that come before it, and of itself."""
    reached: dict[str, int] = {}
    for name in order:
        found = bits.get(name, 0)
        for other in before[name] if bits else ():
            found |= reached[other]
        reached[name] = found
    return reached


def placeholder(name: str, spec: Spec) -> Any:
    """The NodeDef that stands for an argument."""
    shape = tf.compat.v1.AttrValue(shape=tf.TensorShape(spec.shape).as_proto())
    return node_def(name, "Placeholder", dtype=spec.dtype, shape=shape)


def control_of(one: Any) -> list[str]:
    """The nodes that a NodeDef waits for."""
    return [text[1:] for text in one.input if text[:1] == "^"]
