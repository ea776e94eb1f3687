"""Branches as TensorFlow 1 writes them: Switch sends a value one way, nodes that read the other way never run, Merge takes what comes."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from tfpasses.graph import OUTPUT, Edit, Node, Ref, Spec
from tfpasses.passes.raising.cluster import waits
from tfpasses.passes.raising.predicates import branch_taken, is_learning_phase, passed, truth
from tfpasses.pattern import Match, Miss, Rule, op

__all__ = ["switch_rules"]

MERGES = ("tf.Merge", "tf.RefMerge")


def switch_rules(training: bool | None) -> tuple[Rule, ...]:
    """`switch`: a Switch with a constant predicate hands its value on, and what reads its other side is removed, up to the Merges that now
    have one input. `merge`: a Merge of one input hands that on.
    """

    def switch(match: Match, edit: Edit) -> Miss | None:
        node = match.root
        data, predicate = node.inputs
        if node.op == "tf._SwitchN":
            taken = branch_taken(predicate, edit, len(node.specs))
        else:
            holds = truth(predicate, edit, training)
            taken = None if holds is None else int(holds)
        if taken is None:
            return unknown_predicate(match, predicate, edit, training)
        dead = Dead()
        reason = dead.follow([(node.name, index) for index in range(len(node.specs)) if index != taken], edit)
        if reason:
            return match.miss(reason)
        for name in dead.merged:
            join(edit.nodes[name], next(place for place in range(len(edit.nodes[name].inputs)) if place not in dead.merged[name]), edit)
        remove(dead.nodes, edit)
        hand_on(edit.nodes[node.name], taken, data, edit)
        return None

    def merge(match: Match, edit: Edit) -> Miss | None:
        if len(match.root.inputs) != 1:
            return match.miss(f"more than one of its inputs may come: {', '.join(map(str, match.root.inputs))}")
        join(match.root, 0, edit)
        return None

    return (
        Rule.of("switch", op("tf.Switch", "tf.RefSwitch", "tf._SwitchN"), switch),
        Rule.of("merge", op(*MERGES), merge),
    )


def unknown_predicate(match: Match, predicate: Ref, edit: Edit, training: bool | None) -> Miss:
    """What is said of a branch that depends on a value."""
    node = passed(predicate, edit)
    remedy = "training=false (or true) pins the learning phase" if training is None and is_learning_phase(node) else ""
    return match.miss(f"its predicate {predicate} is no constant", edit.nodes[predicate.node], remedy)


@attrs.define
class Dead:
    """The nodes that never run."""

    nodes: dict[str, None] = attrs.field(factory=dict)
    merged: dict[str, set[int]] = attrs.field(factory=dict)
    """Merge -> its inputs that never come, where others may."""

    def follow(self, sides: Sequence[tuple[str, int]], edit: Edit) -> str:
        """Find what never runs where these outputs never come. Gives the reason where the graph cannot do without it, or nothing."""
        functions = edit.source.functions
        values: list[tuple[str, int | None]] = list(sides)
        for name, index in values:  # grows while it is walked
            for (user, position), used in edit.users[name].items():
                if index is not None and used != index:
                    continue
                if user == OUTPUT:
                    return f"then the graph's output {Ref(name, used)} would never come"
                if edit.nodes[user].op in MERGES:
                    places = self.merged.setdefault(user, set())
                    places.add(position)
                    if len(places) < len(edit.nodes[user].inputs):
                        continue
                    del self.merged[user]
                values += self.dies(user)
            if index is None and functions is not None:
                for other in functions.waiting(name):
                    if other in edit.nodes and name in waits(edit.nodes[other], edit) and edit.nodes[other].op not in MERGES:
                        values += self.dies(other)
        for name in self.nodes:
            if edit.nodes[name].op == "Input":
                return f"then the input {name} would never come"
        for name, places in self.merged.items():
            if len(edit.nodes[name].inputs) - len(places) > 1:
                return f"{name} would still join several values"
        return ""

    def dies(self, name: str) -> list[tuple[str, None]]:
        """Count a node in: what is to be looked at for that."""
        if name in self.nodes:
            return []
        self.nodes[name] = None
        return [(name, None)]


def join(node: Node, place: int, edit: Edit) -> None:
    """Let the one input of a Merge that comes stand for it."""
    if any(index == 1 for index in edit.users[node.name].values()):
        number = Node(edit.fresh_name(f"{node.name}/value_index"), "Const", specs=(Spec((), "int32"),))
        number = edit.add(number, [node])
        edit.set_params(number, {"value": np.array(place, np.int32)})
        edit.redirect(Ref(node.name, 1), Ref(number.name))
    hand_on(node, 0, node.inputs[place], edit)


def hand_on(node: Node, index: int, value: Ref, edit: Edit) -> None:
    """Let a value stand for a node's output. Where somebody waits for the node, or it waits itself, it stays, as an Identity."""
    functions = edit.source.functions
    if functions is not None and (waits(node, edit) or any(other in edit.nodes for other in functions.waiting(node.name))):
        new = functions.passing(node, value, edit.spec(value))
        if index:
            edit.redirect(Ref(node.name, index), Ref(node.name))
        edit.change(node, op=new.op, inputs=new.inputs, config=new.config, specs=new.specs, owner=new.owner)
        return
    edit.redirect(Ref(node.name, index), value)
    edit.remove(node)


def remove(names: dict[str, None], edit: Edit) -> None:
    """Remove nodes that only one another use."""
    free = [name for name in names if not edit.users[name]]
    for name in free:  # grows while it is walked
        node = edit.nodes[name]
        edit.remove(node)
        free += [one for one in dict.fromkeys(ref.node for ref in node.inputs) if one in names and not edit.users[one]]
