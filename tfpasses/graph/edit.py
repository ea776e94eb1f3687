"""The edit: one mutable view of a graph, for the length of one pass, frozen into a new graph once at the end.

Every change is logged, so that a rewrite that fails is rolled back to its savepoint, and journaled as a `Rewrite` when it succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import attrs
import numpy as np

from tfpasses.graph.errors import GraphError
from tfpasses.graph.facts import Fact, FactKey
from tfpasses.graph.graph import Array, Graph, Scope
from tfpasses.graph.journal import Rewrite, follow
from tfpasses.graph.node import EMPTY, Node
from tfpasses.graph.order import sort_nodes
from tfpasses.graph.shapes import infer_shape
from tfpasses.graph.values import Ref, Spec

__all__ = ["Edit"]

FEW_USES = 4


class Edit:
    """A graph under change. Reads like a `Graph` (nodes, weights, users, ..); `freeze` gives the new one. The source is never touched."""

    def __init__(self, graph: Graph, made_by: str = "") -> None:
        self.source = graph
        self.made_by = made_by
        self.nodes: dict[str, Node] = dict(graph.nodes)
        self.weights: dict[str, Array] = dict(graph.weights)
        self.facts: dict[FactKey, Fact] = dict(graph.facts)
        self.journal: list[Rewrite] = []
        self._users: dict[str, Mapping[tuple[str, int], int]] = dict(graph.users)
        self._owned: set[str] = set()
        self._outputs = list(graph.outputs)
        self._output_places: dict[Ref, set[int]] = {}
        for place, ref in enumerate(graph.outputs):
            self._output_places.setdefault(ref, set()).add(place)
        self._output_uses: dict[str, int] = dict(graph.output_uses)
        self._used_once: set[str] = set(graph.used_once)
        self._weight_users: dict[str, tuple[str, ...]] | None = None
        self._redirects: list[tuple[Ref, Ref]] = []
        self._straddled: set[str] = set()
        self._log: list[Callable[[], None]] = []
        self._made: dict[str, None] = {}
        self._changed: dict[str, None] = {}
        self._removed: dict[str, None] = {}
        self._fresh = 0
        self._begin()

    # reading

    @property
    def outputs(self) -> tuple[Ref, ...]:
        """As `Graph.outputs`."""
        return tuple(self._outputs)

    @property
    def users(self) -> Mapping[str, Mapping[tuple[str, int], int]]:
        """As `Graph.users`."""
        return self._users

    @property
    def output_uses(self) -> Mapping[str, int]:
        """As `Graph.output_uses`."""
        return self._output_uses

    @property
    def used_once(self) -> AbstractSet[str]:
        """As `Graph.used_once`."""
        return self._used_once

    @property
    def redirects(self) -> Mapping[Ref, Ref]:
        """Every value that was redirected -> what stands for it (which may have been redirected in turn, see `follow`)."""
        return dict(self._redirects)

    @property
    def weight_users(self) -> Mapping[str, tuple[str, ...]]:
        """As `Graph.weight_users`."""
        return self._weight_index()

    def params(self, node: Node) -> dict[str, Array]:
        """The node's parameters by slot."""
        return {slot: self.weights[key] for slot, key in node.params.items()}

    def spec(self, ref: Ref) -> Spec:
        """What is known of a value."""
        return self.nodes[ref.node].specs[ref.index]

    def fresh_name(self, base: str) -> str:
        """`base`, or `base_1`, `base_2`, .. : a name no node has."""
        name = base
        while name in self.nodes:
            self._fresh += 1
            name = f"{base}_{self._fresh}"
        return name

    # changing

    def add(self, node: Node, origin: Sequence[Node] = ()) -> Node:
        """Add a node. A canonical one may leave its specs to be inferred (dtype of its first input). Gives the node as added."""
        if node.name in self.nodes:
            raise GraphError(f"node {node.name}: the graph has a node of that name already; use `fresh_name`")
        for ref in node.inputs:
            if ref.node not in self.nodes:
                raise GraphError(f"node {node.name}: input {ref} is not in the graph")
        origins = tuple(dict.fromkeys(name for source in origin for name in source.origin or (source.name,)))
        specs = node.specs or self._infer(node)
        node = Node(
            node.name, node.op, node.inputs, node.config, node.params, specs, node.call, node.owner, node.origin or origins, self.made_by
        )
        self._put(node)
        for position, ref in enumerate(node.inputs):
            self._add_use(ref, node.name, position)
        self._mark(self._made, node.name)
        return node

    def change(self, node: Node, **fields: Any) -> Node:
        """Change fields of a node (not its name or inputs). Gives the changed node."""
        if {"name", "inputs"} & set(fields):
            raise GraphError(f"node {node.name}: `change` takes neither name nor inputs; use `redirect` or `set_input`")
        current = self._current(node)
        changed = attrs.evolve(current, **{"origin": current.origin or (current.name,), "made_by": self.made_by, **fields})
        self._put(changed)
        self._mark(self._changed, node.name)
        return changed

    def set_params(self, nodes: Node | Sequence[Node], arrays: Mapping[str, Array]) -> None:
        """Give parameters new values, by slot; a slot the node lacks is added.

        `nodes` must be all the nodes that share the weights: a weight is never changed behind another node's back.
        """
        group = [self._current(node) for node in ([nodes] if isinstance(nodes, Node) else nodes)]
        names = {node.name for node in group}
        for slot, array in arrays.items():
            keys = {node.params[slot] for node in group if slot in node.params}
            if len(keys) > 1:
                raise GraphError(f"node {group[0].name}: {slot} is not one weight among {', '.join(sorted(names))}")
            key = keys.pop() if keys else self._fresh_key(f"{group[0].owner.layer if group[0].owner else group[0].name}/{slot}")
            others = [name for name in self.weight_users.get(key, ()) if name not in names]
            if others:
                raise GraphError(f"node {group[0].name}: {slot} is shared with {', '.join(others)}; change all of them or none")
            self._set_weight(key, array)
            for i, node in enumerate(group):
                params = node.params if slot in node.params else {**node.params, slot: key}
                group[i] = self.change(node, params=params)

    def set_input(self, node: Node, position: int, ref: Ref) -> Node:
        """Feed one input of a node from another value."""
        current = self._current(node)
        if ref.node not in self.nodes:
            raise GraphError(f"node {node.name}: input {ref} is not in the graph")
        self._rewire(current.name, position, ref)
        self._mark(self._changed, node.name)
        return self.nodes[node.name]

    def redirect(self, old: Ref, new: Ref) -> None:
        """Let every user of one value (graph outputs among them) take another instead."""
        if new.node not in self.nodes:
            raise GraphError(f"cannot redirect {old} to {new}, which is not in the graph")
        for (consumer, position), index in list(self._users.get(old.node, {}).items()):
            if index == old.index and consumer != new.node:
                self._rewire(consumer, position, new)
        places = tuple(self._output_places.get(old, ()))
        if places:
            self._set_outputs(places, new)
            self._released[old.node] = None
            self._log.append(lambda: self._set_outputs(places, old))
        self._redirects.append((old, new))
        self._log.append(lambda: (self._redirects.pop(), None)[-1])

    def remove(self, node: Node) -> None:
        """Remove a node that nothing uses. Raises `GraphError` where something does, and for a graph input."""
        name = node.name
        if name in self.source.inputs:
            raise GraphError(f"node {name} cannot be removed: it is a graph input")
        if self._users.get(name):
            raise GraphError(f"node {name} cannot be removed: {next(iter(self._users[name]))[0]} uses it")
        if self._output_uses.get(name):
            raise GraphError(f"node {name} cannot be removed: it is a graph output")
        current = self._current(node)
        for position, ref in enumerate(current.inputs):
            self._drop_use(ref, name, position)
        del self.nodes[name]
        self._log.append(lambda: self.nodes.__setitem__(name, current))
        self._touch_weights(current, None)
        self._removed[name] = None

    def replace(self, node: Node, by: Node | Ref) -> None:
        """Let another node's first output (or a value) stand for `node`'s, and remove `node`. Facts about its value stay with the other."""
        new = by if isinstance(by, Ref) else Ref(by.name)
        self.redirect(Ref(node.name), new)
        self.remove(node)

    def add_fact(self, ref: Ref | Node, fact: Fact) -> None:
        """Leave a fact about a value behind, in place of an older one of its kind."""
        key = (ref if isinstance(ref, Ref) else Ref(ref.name), fact.kind)
        before = self.facts.get(key)
        self.facts[key] = fact
        self._log.append(lambda: self._undo(self.facts, key, before))

    # rewrites

    def savepoint(self) -> None:
        """Set the point that `rollback` goes back to."""
        if not self._log and not self._payload:
            return  # nothing has happened since the last one
        self._begin()

    def _begin(self) -> None:
        self._made, self._changed, self._removed = {}, {}, {}
        self._payload: dict[str, Any] = {}
        self._rewired: dict[str, None] = {}
        self._released: dict[str, None] = {}
        self._unshared: dict[str, None] = {}
        self._log.clear()
        self._first_fresh = self._fresh
        self._first_redirect = len(self._redirects)

    def rollback(self) -> None:
        """Undo everything since the last savepoint."""
        while self._log:
            self._log.pop()()
        self._fresh = self._first_fresh
        self._begin()

    def note(self, **payload: Any) -> None:
        """Say something about the rewrite that is being made, for the journal."""
        self._payload.update(payload)

    def commit(self, rule: str, root: str) -> Rewrite:
        """Journal what happened since the last savepoint as one rewrite."""
        made = tuple(name for name in self._made if name in self.nodes)
        changed = tuple(name for name in self._changed if name in self.nodes and name not in self._made)
        removed = tuple(name for name in self._removed if name not in self._made)
        if self.source.scopes:
            self._note_scopes([*made, *changed, *removed])
        redirects = tuple(self._redirects[self._first_redirect :])
        rewrite = Rewrite(
            self.made_by, len(self.journal) + 1, rule, root, made, changed, removed, redirects, self._touched(), self._payload
        )
        self.journal.append(rewrite)
        self._begin()
        return rewrite

    def freeze(self) -> Graph:
        """The new graph (the source itself if nothing changed), sorted topologically. Raises `GraphError` on a cycle."""
        if self._log:
            self.commit("edit", next(iter({**self._made, **self._changed, **self._removed}), ""))
        if not self.journal:
            return self.source
        places = dict.fromkeys(name for name in self.source.nodes if name in self.nodes)  # a removal rolled back has lost its place
        nodes = sort_nodes({name: self.nodes[name] for name in (*places, *self.nodes)})
        used = {key for node in nodes.values() for key in node.params.values()}
        weights = {key: array for key, array in self.weights.items() if key in used}
        facts = {key: fact for key, fact in self.facts.items() if key[0].node in nodes}
        moved = self.redirects
        scopes = {path: self._follow(path, scope, moved) for path, scope in self.source.scopes.items()}
        return attrs.evolve(self.source, nodes=nodes, weights=weights, outputs=self.outputs, facts=facts, scopes=scopes)

    # inside

    def _infer(self, node: Node) -> tuple[Spec, ...]:
        inputs = [self.spec(ref) for ref in node.inputs]
        shape = infer_shape(node, [spec.shape for spec in inputs], {slot: self.weights[key].shape for slot, key in node.params.items()})
        if shape is None:
            raise GraphError(f"node {node.name}: give its specs; {node.op} has no shape rule")
        return (Spec(shape, inputs[0].dtype),)

    def _current(self, node: Node) -> Node:
        try:
            return self.nodes[node.name]
        except KeyError:
            raise GraphError(f"node {node.name} is not in the graph (any more)") from None

    def _mark(self, names: dict[str, None], name: str) -> None:
        names[name] = None

    def _undo(self, mapping: dict[Any, Any], key: Any, before: Any) -> None:
        if before is None:
            mapping.pop(key, None)
        else:
            mapping[key] = before

    def _set_outputs(self, places: Sequence[int], new: Ref) -> None:
        for place in places:
            old, self._outputs[place] = self._outputs[place], new
            self._output_places[old].remove(place)
            self._output_places.setdefault(new, set()).add(place)
            self._count_output(old.node, -1)
            self._count_output(new.node, +1)

    def _count_output(self, name: str, change: int) -> None:
        count = self._output_uses.pop(name, 0) + change
        if count:
            self._output_uses[name] = count
        self._count(name)

    def _put(self, node: Node) -> None:
        before = self.nodes.get(node.name)
        self.nodes[node.name] = node
        self._log.append(lambda: self._undo(self.nodes, node.name, before))
        self._touch_weights(before, node)

    def _weight_index(self) -> dict[str, tuple[str, ...]]:
        if self._weight_users is None:
            self._weight_users = dict(self.source.weight_users)
        return self._weight_users

    def _touch_weights(self, before: Node | None, after: Node | None) -> None:
        old, new = (node.params if node else EMPTY for node in (before, after))
        if old is new:
            return
        name = (before or after).name  # type: ignore[union-attr]  # one of the two is a node
        gone = [key for key in old.values() if key not in new.values()] if old else ()
        come = [key for key in new.values() if key not in old.values()] if new else ()
        index = self._weight_index()
        for key in dict.fromkeys((*gone, *come)):
            users = index.get(key, ())
            index[key] = tuple(user for user in users if user != name) if key in gone else (*users, name)
            if key in gone and len(index[key]) <= FEW_USES:
                self._unshared.update(dict.fromkeys(index[key]))
            self._log.append(lambda key=key, users=users: index.__setitem__(key, users))  # type: ignore[misc]

    def _set_weight(self, key: str, array: Array) -> None:
        array = np.asarray(array).view()  # a view, so that the caller's own array stays as it was
        array.setflags(write=False)
        before = self.weights.get(key)
        self.weights[key] = array
        self._log.append(lambda: self._undo(self.weights, key, before))

    def _fresh_key(self, base: str) -> str:
        key, number = base, 0
        while key in self.weights:
            number += 1
            key = f"{base}_{number}"
        return key

    def _own(self, name: str) -> dict[tuple[str, int], int]:
        if name not in self._owned:
            self._users[name] = dict(self._users.get(name, {}))
            self._owned.add(name)
        return self._users[name]  # type: ignore[return-value]  # what is owned is a dict

    def _add_use(self, ref: Ref, consumer: str, position: int) -> None:
        self._set_use(ref.node, (consumer, position), ref.index)
        self._log.append(lambda: self._set_use(ref.node, (consumer, position), None))

    def _drop_use(self, ref: Ref, consumer: str, position: int) -> None:
        self._set_use(ref.node, (consumer, position), None)
        self._released[ref.node] = None
        self._log.append(lambda: self._set_use(ref.node, (consumer, position), ref.index))

    def _set_use(self, name: str, use: tuple[str, int], index: int | None) -> None:
        uses = self._own(name)
        if index is None:
            del uses[use]
        else:
            uses[use] = index
        self._count(name)

    def _count(self, name: str) -> None:
        if len(self._users.get(name, ())) + self._output_uses.get(name, 0) == 1:
            self._used_once.add(name)
        else:
            self._used_once.discard(name)

    def _rewire(self, consumer: str, position: int, new: Ref) -> None:
        node = self.nodes[consumer]
        self._rewired[consumer] = None
        old = node.inputs[position]
        self._drop_use(old, consumer, position)
        self._add_use(new, consumer, position)
        self._put(node.fed_by((*node.inputs[:position], new, *node.inputs[position + 1 :])))

    def _touched(self) -> tuple[str, ...]:
        """The nodes that are new, changed or fed anew; those that lost a use, and their users, where so few are left that a count may
        just have come down to what a pattern asks; those that are now among few to read a weight.
        """
        touched = {**self._made, **self._changed, **self._rewired}
        for name in self._released:
            uses = self._users.get(name, {})
            if len(uses) <= FEW_USES:
                touched[name] = None
                for user, _ in uses:
                    touched[user] = None
        touched.update(self._unshared)
        return tuple([name for name in touched if name in self.nodes])

    def _note_scopes(self, touched: list[str]) -> None:
        """A rewrite with nodes inside and outside a nested model straddles its border; all uses of one model count as inside."""
        reached: dict[str, str] = {}
        inside: dict[str, int] = {}
        for name in touched:
            paths = [name[:end] for end, sign in enumerate(name) if sign == "/"]
            around = {path: self.source.scopes[path].layer for path in paths if path in self.source.scopes}
            reached.update(around)
            for layer in set(around.values()):
                inside[layer] = inside.get(layer, 0) + 1
        self._straddled.update(path for path, layer in reached.items() if inside[layer] < len(touched))

    def _follow(self, path: str, scope: Scope, moved: Mapping[Ref, Ref]) -> Scope:
        return attrs.evolve(
            scope,
            inputs=tuple(follow(ref, moved) for ref in scope.inputs),
            outputs=tuple(follow(ref, moved) for ref in scope.outputs),
            straddled=scope.straddled or path in self._straddled,
        )
