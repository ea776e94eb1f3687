"""The edit: one mutable view of a graph, for the length of one pass, frozen into a new graph once at the end.

Every change is logged, so that a rewrite that fails is rolled back to its savepoint, and journaled as a `Rewrite` when it succeeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from tfpasses.graph.errors import GraphError
from tfpasses.graph.facts import Fact, FactKey
from tfpasses.graph.graph import OUTPUT, Array, Graph, Scope, Use, index_weights
from tfpasses.graph.journal import Rewrite, follow
from tfpasses.graph.node import EMPTY, Node
from tfpasses.graph.order import sort_nodes
from tfpasses.graph.shapes import infer_shape
from tfpasses.graph.values import Ref, Spec

__all__ = ["Edit"]

FEW_USES = 4
ABSENT: Any = object()
new_tuple = tuple.__new__  # what Ref(name, 0) does, in a third of its time


class Edit:
    """A graph under change. Reads like a `Graph` (nodes, weights, users, ..); `freeze` gives the new one. The source is never touched."""

    def __init__(self, graph: Graph, made_by: str = "") -> None:
        self.source = graph
        self.made_by = made_by
        self.nodes: dict[str, Node] = dict(graph.nodes)
        self.weights: dict[str, Array] = dict(graph.weights)
        self.facts: dict[FactKey, Fact] = dict(graph.facts)
        self.journal: list[Rewrite] = []
        self._inputs = frozenset(graph.inputs)
        self._outputs = list(graph.outputs)
        self._users: dict[str, Mapping[Use, int]] = dict(graph.users)
        self._owned: set[str] = set()
        self._weight_users: dict[str, tuple[str, ...]] | None = None
        """Made when it is asked for, and kept up from then on."""
        self._reads_differ = False
        """Whether a node reads another weight than it did."""
        self._redirects: list[tuple[Ref, Ref]] = []
        self._straddled: set[str] = set()
        self._fresh = 0
        self._displaced = False
        self._before: dict[str, Node | None] = {}
        """Since the savepoint: the nodes that were written, as they were at it; None for a new one. The users follow from the nodes."""
        self._outputs_before: list[tuple[int, Ref]] = []
        self._log: list[tuple[dict[Any, Any], Any, Any]] = []
        """Since the savepoint: (a dict of weights, facts or their readers, the key, what stood there before)."""
        self._payload: Mapping[str, Any] = EMPTY
        self._changed: list[str] = []
        self._unshared: list[str] = []
        self._begin()

    # reading

    @property
    def outputs(self) -> tuple[Ref, ...]:
        """As `Graph.outputs`."""
        return tuple(self._outputs)

    @property
    def users(self) -> Mapping[str, Mapping[Use, int]]:
        """As `Graph.users`."""
        return self._users

    @property
    def redirects(self) -> Mapping[Ref, Ref]:
        """Every value that was redirected -> what stands for it (which may have been redirected in turn, see `follow`)."""
        return {old: new for rewrite in self.journal for old, new in rewrite.redirects} | dict(self._redirects)

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
        """Add a node. A canonical one may leave its specs to be inferred (dtype of its first input); one that has an owner gives what its
        specs say, which may be nothing. Gives the node as added.
        """
        name = node.name
        if name in self.nodes:
            raise GraphError(f"node {name}: the graph has a node of that name already; use `fresh_name`")
        for ref in node.inputs:
            if ref.node not in self.nodes:
                raise GraphError(f"node {name}: input {ref} is not in the graph")
        origins = node.origin or tuple(dict.fromkeys([one for source in origin for one in source.origin or (source.name,)]))
        specs = node.specs or (self._infer(node) if node.owner is None else ())
        node = Node(name, node.op, node.inputs, node.config, node.params, specs, node.call, node.owner, origins, self.made_by)
        if self._before.setdefault(name, None) is not None:  # removed in this very rewrite: another stands for it, in the last place
            self._changed.append(name)
            self._displaced = True
        self.nodes[name] = node
        self._users[name] = {}
        self._owned.add(name)
        for position, ref in enumerate(node.inputs):
            self._uses(ref.node)[name, position] = ref.index
        if node.params:
            self._move_weights(name, EMPTY, node.params)
        return node

    def change(self, node: Node, **fields: Any) -> Node:
        """Change fields of a node (not its name). Gives the changed node."""
        if "name" in fields:
            raise GraphError(f"node {node.name}: `change` gives no other name; add a node and `replace` this one by it")
        current = self._current(node)
        return self.put(current.but(**{"origin": current.origin or (current.name,), "made_by": self.made_by, **fields}))

    def put(self, changed: Node) -> Node:
        """Let a node take the place of the one of its name, as it is (`change` says where it comes from, and who made it)."""
        current, name = self._current(changed), changed.name
        if changed.inputs is not current.inputs:
            for ref in changed.inputs:
                if ref.node not in self.nodes:
                    raise GraphError(f"node {name}: input {ref} is not in the graph")
            for position, (producer, _) in enumerate(current.inputs):
                del self._uses(producer)[name, position]
            for position, (producer, index) in enumerate(changed.inputs):
                self._uses(producer)[name, position] = index
        self._before.setdefault(name, current)
        self.nodes[name] = changed
        if changed.params is not current.params:
            self._move_weights(name, current.params, changed.params)
        self._changed.append(name)
        return changed

    def add_weight(self, key: str, array: Array) -> None:
        """Add a weight, for nodes that are to be added. A read-only array is taken as it is: it stays the same object."""
        if key in self.weights and self.weights[key] is not array:
            raise GraphError(f"weight {key}: the graph has a weight of that key already")
        if array.flags.writeable:
            self._set_weight(key, array)
        else:
            self._write(self.weights, key, array)

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
            key = keys.pop() if keys else ""
            if not key or any(other == key and place != slot for node in group for place, other in node.params.items()):
                key = self._fresh_key(f"{group[0].owner.layer if group[0].owner else group[0].name}/{slot}")  # new, or another slot's too
            others = [name for name in self.weight_users.get(key, ()) if name not in names]
            if others:
                raise GraphError(f"node {group[0].name}: {slot} is shared with {', '.join(others)}; change all of them or none")
            self._set_weight(key, array)
            for i, node in enumerate(group):
                params = node.params if node.params.get(slot) == key else {**node.params, slot: key}
                group[i] = self.change(node, params=params)

    def set_input(self, node: Node, position: int, ref: Ref) -> Node:
        """Feed one input of a node from another value."""
        name = self._current(node).name
        if ref.node not in self.nodes:
            raise GraphError(f"node {name}: input {ref} is not in the graph")
        old = self.nodes[name].inputs[position]
        del self._uses(old.node)[name, position]
        self._feed((name, position), ref)
        self._uses(ref.node)[name, position] = ref.index
        self._changed.append(name)
        return self.nodes[name]

    def redirect(self, old: Ref, new: Ref) -> None:
        """Let every user of one value (graph outputs among them) take another instead."""
        if new.node not in self.nodes:
            raise GraphError(f"cannot redirect {old} to {new}, which is not in the graph")
        name, index = old
        uses = self._users.get(name)
        if uses:
            stay: dict[Use, int] = {}
            moved = stay if new.node == name else self._uses(new.node)
            for use, used in uses.items():
                if used == index and use[0] != new.node:
                    self._feed(use, new)
                    moved[use] = new.index
                else:
                    stay[use] = used
            self._users[name] = stay
            self._owned.add(name)
        self._redirects.append((old, new))

    def remove(self, node: Node) -> None:
        """Remove a node that nothing uses. Raises `GraphError` where something does, and for a graph input."""
        current = self._current(node)
        name = current.name
        if name in self._inputs:
            raise GraphError(f"node {name} cannot be removed: it is a graph input")
        uses = self._users[name]
        if uses:
            consumer = next(iter(uses))[0]
            raise GraphError(f"node {name} cannot be removed: {'it is a graph output' if consumer == OUTPUT else f'{consumer} uses it'}")
        for position, (producer, _) in enumerate(current.inputs):
            del self._uses(producer)[name, position]
        self._before.setdefault(name, current)
        del self.nodes[name], self._users[name]
        if current.params:
            self._move_weights(name, current.params, EMPTY)

    def replace(self, node: Node, by: Node | Ref) -> None:
        """Let another node's first output (or a value) stand for `node`'s, and remove `node`. Facts about its value stay with the other."""
        new = by if isinstance(by, Ref) else Ref(by.name)
        self.redirect(new_tuple(Ref, (node.name, 0)), new)
        self.remove(node)

    def add_fact(self, ref: Ref | Node, fact: Fact) -> None:
        """Leave a fact about a value behind, in place of an older one of its kind."""
        self._write(self.facts, (ref if isinstance(ref, Ref) else Ref(ref.name), fact.kind), fact)

    # rewrites

    def savepoint(self) -> None:
        """Set the point that `rollback` goes back to. What was not committed by then is journaled as an edit."""
        if self._before or self._outputs_before or self._log:
            self.commit("edit", next(iter(self._before), ""))

    def _begin(self) -> None:
        self._before = {}
        self._redirects = []
        self._first_fresh = self._fresh
        self._payload = EMPTY
        if self._changed:
            self._changed = []
        if self._outputs_before:
            self._outputs_before = []
        if self._log:
            self._log = []
        if self._unshared:
            self._unshared = []

    def rollback(self) -> None:
        """Undo everything since the last savepoint."""
        moved = dict(reversed(self._outputs_before))
        for place in moved:
            del self._uses(self._outputs[place].node)[OUTPUT, place]
        for name in self._before:
            if name in self.nodes:
                for position, ref in enumerate(self.nodes[name].inputs):
                    del self._uses(ref.node)[name, position]
        for name, was in self._before.items():
            if was is not None:
                self._displaced |= name not in self.nodes  # it comes back in the last place
                self.nodes[name] = was
                self._users.setdefault(name, {})
            elif name in self.nodes:
                del self.nodes[name], self._users[name]
        for name, was in self._before.items():
            for position, ref in enumerate(was.inputs if was is not None else ()):
                self._uses(ref.node)[name, position] = ref.index
        for place, ref in moved.items():
            self._outputs[place] = ref
            self._uses(ref.node)[OUTPUT, place] = ref.index
        for container, key, before in reversed(self._log):
            if before is ABSENT:
                del container[key]
            else:
                container[key] = before
        self._fresh = self._first_fresh
        self._begin()

    def note(self, **payload: Any) -> None:
        """Say something about the rewrite that is being made, for the journal."""
        self._payload = {**self._payload, **payload}

    def commit(self, rule: str, root: str) -> Rewrite:
        """Journal what happened since the last savepoint as one rewrite."""
        nodes = self.nodes
        there: list[str] = []
        made: list[str] = []
        removed: list[str] = []
        gained: dict[Ref, int] = {}
        for name, before in self._before.items():
            now = nodes.get(name)
            if now is not None:
                there.append(name)
                if before is None:
                    made.append(name)
                elif now.inputs is before.inputs:
                    continue
                for ref in now.inputs:
                    gained[ref] = gained.get(ref, 0) + 1
            if before is not None:
                for ref in before.inputs:
                    gained[ref] = gained.get(ref, 0) - 1
                if now is None:
                    removed.append(name)
        changed = [name for name in dict.fromkeys(self._changed) if name in nodes and self._before[name]] if self._changed else ()
        if self.source.scopes:
            self._note_scopes([*made, *changed, *removed])
        number, redirects, touched = len(self.journal) + 1, tuple(self._redirects), self._touched(there, gained)
        fields = (self.made_by, number, rule, root, tuple(made), tuple(changed), tuple(removed), redirects, touched, self._payload)
        rewrite = new_tuple(Rewrite, fields)
        self.journal.append(rewrite)
        self._begin()
        return rewrite

    def freeze(self) -> Graph:
        """The new graph (the source itself if nothing changed), sorted topologically. Raises `GraphError` on a cycle."""
        self.savepoint()
        if not self.journal:
            return self.source
        nodes = dict(self.nodes) if self._in_order() else sort_nodes(self.nodes, self.source.nodes)
        weights = dict(self.weights)
        if self._reads_differ:
            read = {key for node in nodes.values() for key in node.params.values()}
            weights = {key: array for key, array in weights.items() if key in read}
        facts = {key: fact for key, fact in self.facts.items() if key[0].node in nodes}
        moved: Mapping[Ref, Ref] = self.redirects if self.source.scopes else {}
        scopes = {path: self._follow(path, scope, moved) for path, scope in self.source.scopes.items()}
        return attrs.evolve(self.source, nodes=nodes, weights=weights, outputs=self.outputs, facts=facts, scopes=scopes)

    # inside

    def _infer(self, node: Node) -> tuple[Spec, ...]:
        inputs = [self.nodes[name].specs[index] for name, index in node.inputs]
        params = {slot: self.weights[key].shape for slot, key in node.params.items()} if node.params else EMPTY
        shape = infer_shape(node, [spec.shape for spec in inputs], params)
        if shape is None:
            raise GraphError(f"node {node.name}: give its specs; {node.op} has no shape rule, or an input no known rank")
        return (inputs[0] if shape is inputs[0].shape else Spec(shape, inputs[0].dtype),)

    def _in_order(self) -> bool:
        """Whether the nodes are in topological order still; those that no rewrite wrote are as they were."""
        if self._displaced:
            return False
        place = dict(zip(self.nodes, range(len(self.nodes)), strict=True))
        written = dict.fromkeys([name for rewrite in self.journal for name in rewrite.touched if name in self.nodes])
        return all(place[producer] < place[name] for name in written for producer, _ in self.nodes[name].inputs)

    def _current(self, node: Node) -> Node:
        try:
            return self.nodes[node.name]
        except KeyError:
            raise GraphError(f"node {node.name} is not in the graph (any more)") from None

    def _write(self, container: dict[Any, Any], key: Any, value: Any) -> None:
        self._log.append((container, key, container.get(key, ABSENT)))
        container[key] = value

    def _uses(self, name: str) -> dict[Use, int]:
        """The uses of a node, in a dict of this edit's own."""
        uses = self._users[name]
        if name not in self._owned:
            self._owned.add(name)
            self._users[name] = uses = dict(uses)
        return uses  # type: ignore[return-value]  # what is owned is a dict

    def _feed(self, use: Use, new: Ref) -> None:
        """Let one use (an input of a node, or a graph output) take another value. The index of users is for the caller to keep."""
        consumer, position = use
        if consumer == OUTPUT:
            self._outputs_before.append((position, self._outputs[position]))
            self._outputs[position] = new
            return
        node = self.nodes[consumer]
        inputs = node.inputs
        self._before.setdefault(consumer, node)
        self.nodes[consumer] = node.fed_by((*inputs[:position], new, *inputs[position + 1 :]) if len(inputs) > 1 else (new,))

    def _weight_index(self) -> dict[str, tuple[str, ...]]:
        if self._weight_users is None:
            if self._reads_differ:
                before = {name: node for name, node in (self.nodes | self._before).items() if node is not None}
                self._weight_users = index_weights(before)  # as it was at the savepoint, so that `rollback` finds what it needs
                for name, was in self._before.items():
                    now = self.nodes.get(name)
                    self._move_weights(name, EMPTY if was is None else was.params, EMPTY if now is None else now.params)
            else:
                self._weight_users = dict(self.source.weight_users)
        return self._weight_users

    def _move_weights(self, name: str, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        """Keep the index of weights when a node reads others than it did."""
        self._reads_differ = True
        index = self._weight_users
        if index is None:
            return
        before, after = tuple(old.values()), tuple(new.values())
        for key in before:
            readers = index[key]
            if key in after or name not in readers:  # read through two slots: it has left already
                continue
            left = tuple([reader for reader in readers if reader != name]) if len(readers) > 1 else ()
            self._write(index, key, left)
            if len(left) <= FEW_USES:
                self._unshared.extend(left)
        for key in dict.fromkeys(after):
            if key not in before:
                self._write(index, key, (*index.get(key, ()), name))

    def _set_weight(self, key: str, array: Array) -> None:
        array = np.asarray(array).view()  # a view, so that the caller's own array stays as it was
        array.setflags(write=False)
        self._write(self.weights, key, array)

    def _fresh_key(self, base: str) -> str:
        key, number = base, 0
        while key in self.weights:
            number += 1
            key = f"{base}_{number}"
        return key

    def _touched(self, there: list[str], gained: dict[Ref, int]) -> tuple[str, ...]:
        """The nodes that are new, changed or fed anew (`there`); those one of whose values lost a use by a node, or by the graph, and
        their users, where so few are left that a count may just have come down to what a pattern asks; those that are now among few to
        read a weight.
        """
        touched = there
        lost = [name for (name, _), gain in gained.items() if gain < 0]
        if self._outputs_before:
            lost = list(dict.fromkeys([*lost, *(name for _, (name, _) in self._outputs_before)]))
        for name in lost:
            if name in self._users and len(self._users[name]) <= FEW_USES:
                touched.append(name)
                touched.extend([consumer for consumer, _ in self._users[name] if consumer != OUTPUT])
        for name in self._unshared:
            if name in self.nodes:
                touched.append(name)
        return tuple(touched)

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
