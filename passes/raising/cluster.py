"""Raising a cluster of nodes to one canonical node, which bears the name of the cluster's last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfpasses.graph import OUTPUT, Array, Edit, Node, Owner, Ref, Spec, View
from tfpasses.graph.shapes import infer_shape
from tfpasses.pattern import Match, Miss

__all__ = ["Raising", "vector_axis", "waits"]

MOST_NODES = 64
"""No cluster has more nodes: where a walk finds more, it has left the cluster."""
FLOATS = ("float16", "bfloat16", "float32", "float64")
Shape = tuple[int, ...]


class Raising:
    """What the raising of one graph has to remember."""

    def __init__(self) -> None:
        self.reshaped: dict[str, str] = {}
        """Key of an array that is another's in another shape -> that one's key."""

    def __call__(
        self,
        match: Match,
        edit: Edit,
        op: str,
        inputs: Sequence[Ref],
        config: Mapping[str, Any] | None = None,
        params: Mapping[str, tuple[Node | str, Shape]] | None = None,
        computed: Mapping[str, Array] | None = None,
        outside: Sequence[Ref] = (),
    ) -> Miss | None:
        """Let the root of a match be a canonical node that stands for all between it and `inputs`.

        `params`: slot -> a constant (its node, or the key of its array) and the shape that the slot asks for. `computed`: arrays that no
        constant holds. `outside`: values that the cluster reads and the canonical node does not (a variable's handle). Gives a `Miss`,
        and leaves all as it is, where an inner value is used from outside, or a node waits for another.
        """
        root = edit.nodes[match.root.name]
        if op != "Const" and root.specs[0].dtype not in FLOATS:
            return match.miss(f"it computes in {root.specs[0].dtype}")
        if any(edit.users[root.name].values()):
            return match.miss("another of its outputs than the first is used")
        if any(edit.spec(ref).shape is None for ref in inputs):
            return match.miss("the rank of what it reads is not known")
        found = self.cluster(root, [*inputs, *outside], edit)
        if isinstance(found, str):
            return match.miss(found)
        inner, constants = found
        keys: dict[str, str] = {}
        arrays = dict(computed or {})
        for slot, (constant, shape) in (params or {}).items():
            key = constant if isinstance(constant, str) else constant.params["value"]
            base = self.reshaped.get(key, key)
            if edit.weights[base].size != np.prod(shape, dtype=int):
                return match.miss(f"its {slot} has {edit.weights[base].size} elements, not shape {list(shape)}")
            if edit.weights[base].shape == shape:
                keys[slot] = base
            else:
                arrays[slot] = edit.weights[base].reshape(shape)
        sources = self.sources([*constants, *inner, root], inputs)
        owner = Owner(root.name, 0, View(sources, op, dict(config or {}), tuple(inputs), keys))
        spec = self.spec(root, op, inputs, owner.source.config, {**keys}, arrays, edit)
        if isinstance(spec, str):
            return match.miss(spec)
        node = edit.change(root, op=op, inputs=tuple(inputs), config=owner.source.config, params=keys, specs=(spec,), owner=owner)
        if arrays:
            edit.set_params(node, arrays)
            node = edit.nodes[root.name]
            derived = {node.params[slot]: edit.weights[node.params[slot]] for slot in arrays}
            view = View(sources, op, owner.source.config, tuple(inputs), node.params, derived)
            edit.change(node, owner=Owner(root.name, 0, view))
            for slot, (constant, _) in (params or {}).items():
                if slot in arrays:
                    key = constant if isinstance(constant, str) else constant.params["value"]
                    self.reshaped[node.params[slot]] = self.reshaped.get(key, key)
        for one in reversed([*constants, *inner]):
            if not edit.users[one.name]:
                edit.remove(one)
        return None

    def cluster(self, root: Node, inputs: Sequence[Ref], edit: Edit) -> tuple[list[Node], list[Node]] | str:
        """The nodes between a root and some values, and the constants they read, producers first; or why they are no cluster."""
        nodes, boundary = edit.nodes, set(inputs)
        inner: dict[str, Node] = {}
        constants: dict[str, Node] = {}
        if waits(root, edit):
            return f"it waits for {waits(root, edit)[0]}"
        stack = [(ref.node, False) for ref in root.inputs if ref not in boundary]
        while stack:
            name, done = stack.pop()
            node = nodes[name]
            if waits(node, edit):
                return f"{name}, a part of it, waits for {waits(node, edit)[0]}"
            if node.op == "Const":
                constants[name] = node
                continue
            if done:
                inner[name] = node
                continue
            if name in inner:
                continue
            if len(inner) + len(stack) > MOST_NODES or node.op in ("Input", "Variable"):
                return f"it reads {name}, which is no part of it"
            stack.append((name, True))
            stack += [(ref.node, False) for ref in node.inputs if ref not in boundary]
        for name in inner:
            for user, _ in edit.users[name]:
                if user not in inner and user != root.name:
                    return f"{name}, a part of it, {'is an output' if user == OUTPUT else f'is used by {user}'}"
        return list(inner.values()), list(constants.values())

    def sources(self, cluster: Iterable[Node], inputs: Sequence[Ref]) -> tuple[Node, ...]:
        """The nodes as they were read that the nodes of a cluster stand for, fed as those are now."""
        sources: dict[str, Node] = {}
        for node in cluster:
            view = None if node.owner is None else node.owner.source
            if not isinstance(view, View):
                sources[node.name] = node
                continue
            moved = {old: new for old, new in zip(view.inputs, node.inputs, strict=True) if old != new}
            for one in view.sources:
                touched = moved and any(ref in moved for ref in one.inputs)
                sources.setdefault(one.name, one.fed_by(tuple([moved.get(ref, ref) for ref in one.inputs])) if touched else one)
        return tuple(sources.values())

    def spec(
        self,
        root: Node,
        op: str,
        inputs: Sequence[Ref],
        config: Mapping[str, Any],
        keys: Mapping[str, str],
        arrays: Mapping[str, Array],
        edit: Edit,
    ) -> Spec | str:
        """What is known of the canonical node's value, from its operation and from the root; or why these do not fit."""
        specs = [edit.spec(ref) for ref in inputs]
        shapes = {slot: edit.weights[key].shape for slot, key in keys.items()} | {slot: array.shape for slot, array in arrays.items()}
        known = root.specs[0].shape
        try:
            inferred = infer_shape(root.but(op=op, config=config), [spec.shape for spec in specs], shapes)
        except ValueError as error:
            return str(error)
        if inferred is None:
            return root.specs[0] if known is not None else "the rank of its value is not known"
        if known is None:
            return Spec(inferred, root.specs[0].dtype)
        if len(known) != len(inferred) or any(a != b for a, b in zip(known, inferred, strict=True) if a is not None and b is not None):
            return f"as {op} it would give {list(inferred)}, not {list(known)}"
        return Spec(tuple(b if a is None else a for a, b in zip(known, inferred, strict=True)), root.specs[0].dtype)


def waits(node: Node, edit: Edit) -> Sequence[str]:
    """The nodes that a node waits for without reading them, without those that do nothing: constants, and what waits for such alone."""
    return [name for name in node.config.get("_control", ()) if name in edit.nodes and not does_nothing(name, edit)]


QUIET = ("Const", "Variable", "tf.VarHandleOp")


def does_nothing(name: str, edit: Edit) -> bool:
    """Whether waiting for a node is waiting for nothing."""
    seen: set[str] = set()
    stack = [name]
    while stack:
        node = edit.nodes.get(stack.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op not in (*QUIET, "tf.NoOp"):
            return False
        stack += node.config.get("_control", ())
    return True


def vector_axis(shape: Sequence[int | None], rank: int) -> int | None:
    """Along which axis of a value of `rank` axes a constant of this shape differs, where that is one; None for anything else.

    A vector, and what has one element for all along every axis, lies along the last.
    """
    long = [place for place, size in enumerate(shape) if size != 1]
    if len(shape) > rank or not shape or len(long) > 1 or (not long and len(shape) not in (1, rank)):
        return None
    return rank - len(shape) + long[0] if long else rank - 1
