"""Raising a cluster of nodes to one canonical node, which bears the name of the cluster's last."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from tfpasses.graph import OUTPUT, Array, Edit, Node, Owner, Ref, Spec, View
from tfpasses.graph.node import EMPTY
from tfpasses.graph.shapes import infer_shape
from tfpasses.pattern import Match, Miss

__all__ = ["Raising", "vector_axis", "waits"]

MOST_NODES = 64
"""No cluster has more nodes: where a walk finds more, it has left the cluster."""
FLOATS = ("float16", "bfloat16", "float32", "float64")
Shape = tuple[int, ...]


class Raising:
    """What rules raise nodes with."""

    def __init__(self) -> None:
        self.reshapes: WeakKeyDictionary[Edit, dict[str, str]] = WeakKeyDictionary()

    def reshaped(self, edit: Edit) -> dict[str, str]:
        """Key of an array of this edit that is another's in another shape -> that one's key."""
        return self.reshapes.setdefault(edit, {})

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
        nodes, users, weights = edit.nodes, edit.users, edit.weights
        name, inputs, params, config = match.root.name, tuple(inputs), params or EMPTY, dict(config or EMPTY)
        root = nodes[name]
        if op != "Const" and root.specs[0].dtype not in FLOATS:
            return match.miss(f"it computes in {root.specs[0].dtype}")
        if any(edit.users[root.name].values()):
            return match.miss("another of its outputs than the first is used")
        specs = [nodes[producer].specs[index] for producer, index in inputs]
        for spec in specs:
            if spec.shape is None:
                return match.miss("the rank of what it reads is not known")
        cluster = self.cluster(root, {*inputs, *outside}, edit)
        if isinstance(cluster, str):
            return match.miss(cluster)
        keys: dict[str, str] = {}
        arrays = dict(computed or EMPTY)
        bases = self.bases(params, edit)
        for slot, base in bases.items():
            array, shape = weights[base], params[slot][1]
            if array.shape == shape:
                keys[slot] = base
            elif array.size == math.prod(shape):
                arrays[slot] = array.reshape(shape)
            else:
                return match.miss(f"its {slot} has {array.size} elements, not shape {list(shape)}")
        given = {slot: weights[key] for slot, key in keys.items()} | arrays
        found = root.specs[0] if op == "Const" else self.spec(root, op, config, specs, given)
        if isinstance(found, str):
            return match.miss(found)
        sources = self.sources([*cluster, root])
        view = View(sources, op, config, inputs, keys)
        origin = root.origin or (name,)
        node = edit.put(Node(name, op, inputs, config, keys, (found,), root.call, Owner(name, 0, view), origin, edit.made_by))
        if arrays:
            edit.set_params(node, arrays)
            node = nodes[name]
            derived = {node.params[slot]: weights[node.params[slot]] for slot in arrays}
            edit.change(node, owner=Owner(name, 0, View(sources, op, config, inputs, node.params, derived)))
            self.reshaped(edit).update({node.params[slot]: base for slot, base in bases.items() if slot in arrays})
        for one in reversed(cluster):
            if not users[one.name]:
                edit.remove(one)
        return None

    def constant(self, match: Match, edit: Edit, key: str, outside: Sequence[Ref] = ()) -> Miss | None:
        """The same where the root gives a constant's value on, of which a frozen network has one for every array: these take a third of
        the time, looked at by themselves.
        """
        name = match.root.name
        root = edit.nodes[name]
        inner = edit.nodes[root.inputs[0].node]
        known = self.reshapes and key in self.reshaped(edit)
        if len(root.inputs) > 1 or inner.op != "Const" or len(root.specs) > 1 or known or waits(root, edit) or waits(inner, edit):
            return self(match, edit, "Const", (), params={"value": (key, edit.weights[key].shape)}, outside=outside)
        keys = {"value": key}
        view = View(self.sources((inner, root)), "Const", EMPTY, (), keys)
        edit.put(Node(name, "Const", (), EMPTY, keys, root.specs, root.call, Owner(name, 0, view), root.origin or (name,), edit.made_by))
        if not edit.users[inner.name]:
            edit.remove(inner)
        return None

    def bases(self, params: Mapping[str, tuple[Node | str, Shape]], edit: Edit) -> dict[str, str]:
        """Slot -> the key of the array that a constant holds, as the graph had it."""
        keys = {slot: one if isinstance(one, str) else one.params["value"] for slot, (one, _) in params.items()}
        if not self.reshapes:
            return keys
        reshaped = self.reshaped(edit)
        return {slot: reshaped.get(key, key) for slot, key in keys.items()}

    def absorb(
        self,
        match: Match,
        edit: Edit,
        op: str,
        inputs: Sequence[Ref],
        inner: Node,
        config: Mapping[str, Any],
        more: Mapping[str, tuple[Node | str, Shape]] | None = None,
    ) -> Miss | None:
        """The same with the parameters of a canonical node within the cluster, and more."""
        view = inner.owner.source if inner.owner is not None else None
        derived: Mapping[str, Array] = getattr(view, "derived", {})
        params: dict[str, tuple[Node | str, Shape]] = {}
        computed: dict[str, Array] = {}
        for slot, key in inner.params.items():
            if key in derived and key not in self.reshaped(edit):
                computed[slot] = edit.weights[key]
            else:
                params[slot] = (key, edit.weights[key].shape)
        return self(match, edit, op, inputs, config, {**params, **(more or {})}, computed)

    def cluster(self, root: Node, boundary: Collection[Ref], edit: Edit) -> list[Node] | str:
        """The constants that are read between some values and a root, then the nodes there, producers first; or why they are no cluster."""
        nodes, users = edit.nodes, edit.users
        inner: dict[str, Node] = {}
        constants: dict[str, Node] = {}
        opened: set[str] = set()
        held = waits(root, edit)
        if held:
            return f"it waits for {held[0]}"
        stack = [ref.node for ref in root.inputs if ref not in boundary]
        while stack:
            name = stack.pop()
            if name in inner or name in constants:
                continue
            node = nodes[name]
            if name in opened:  # all that it reads has been looked at
                inner[name] = node
                continue
            held = waits(node, edit)
            if held:
                return f"{name}, a part of it, waits for {held[0]}"
            if node.op == "Const":
                constants[name] = node
                continue
            if len(inner) + len(stack) > MOST_NODES or node.op in ("Input", "Variable"):
                return f"it reads {name}, which is no part of it"
            opened.add(name)
            stack.append(name)
            stack += [ref.node for ref in node.inputs if ref not in boundary]
        for name in inner:
            for user, _ in users[name]:
                if user not in inner and user != root.name:
                    return f"{name}, a part of it, {'is an output' if user == OUTPUT else f'is used by {user}'}"
        return [*constants.values(), *inner.values()]

    def sources(self, cluster: Iterable[Node]) -> tuple[Node, ...]:
        """The nodes as they were read that the nodes of a cluster stand for, fed as those are now."""
        sources: dict[str, Node] = {}
        for node in cluster:
            view = None if node.owner is None else node.owner.source
            if not isinstance(view, View):
                sources[node.name] = node
                continue
            if view.inputs is node.inputs:
                for one in view.sources:
                    sources.setdefault(one.name, one)
                continue
            moved = {old: new for old, new in zip(view.inputs, node.inputs, strict=True) if old != new}
            for one in view.sources:
                touched = moved and any(ref in moved for ref in one.inputs)
                sources.setdefault(one.name, one.fed_by(tuple([moved.get(ref, ref) for ref in one.inputs])) if touched else one)
        return tuple(sources.values())

    def spec(self, root: Node, op: str, config: Mapping[str, Any], inputs: Sequence[Spec], params: Mapping[str, Array]) -> Spec | str:
        """What is known of the canonical node's value, from its operation and from the root; or why these do not fit."""
        known = root.specs[0].shape
        shapes = {slot: array.shape for slot, array in params.items()}
        try:
            inferred = infer_shape(Node(root.name, op, root.inputs, config), [spec.shape for spec in inputs], shapes)
        except ValueError as error:
            return str(error)
        if inferred is None or inferred == known:
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


def vector_axis(shape: Sequence[int | None], dims: Sequence[int | None]) -> int | None:
    """Along which axis of a value of sizes `dims` a constant of this shape differs, where that is one; None for anything else.

    A vector lies along the last; a single element along an axis of size 1, the last of those that the constant has.
    """
    start = len(dims) - len(shape)
    long = [start + place for place, size in enumerate(shape) if size != 1]
    if start < 0 or len(long) > 1:
        return None
    return long[0] if long else next((place for place in range(len(dims) - 1, max(start, 1) - 1, -1) if dims[place] == 1), None)
