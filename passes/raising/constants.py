"""What a constant is: a `Const`, the value of a variable that nothing writes, and either of them in another shape or precision."""

from __future__ import annotations

from collections.abc import Container, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from tfpasses.graph import Edit
from tfpasses.passes.raising.cluster import Raising
from tfpasses.passes.raising.unread import alive
from tfpasses.pattern import Match, Miss, Rule, op

__all__ = ["constant_rules"]

SAME = ("tf.Identity", "tf.StopGradient", "tf.PreventGradient")
SHAPED = ("tf.Reshape", "tf.Squeeze", "tf.ExpandDims")
FEW = 16
HANDLE = "resource"
READERS = ("tf.ReadVariableOp", "tf.Identity", "Const")


def constant_rules(raising: Raising) -> Sequence[Rule]:
    """The rules that make nodes of constant value `Const`. What nodes that no output depends on do with a variable of a session
    (initialising and saving it, say) does not count; a function does all that is in it at every call.
    """
    found: WeakKeyDictionary[Edit, Container[str]] = WeakKeyDictionary()

    def needed(edit: Edit) -> Container[str]:
        """The nodes that the graph's outputs depend on."""
        if edit not in found:
            found[edit] = alive(edit)
        return found[edit]

    def read(match: Match, edit: Edit) -> Miss | None:
        """The value of a variable, where nothing but reads of it is on the way to an output."""
        variable = match["variable"]
        on_the_way = needed(edit)
        if match.root.name not in on_the_way:
            return match.miss("no output depends on it")
        if match.root.specs[0].dtype == HANDLE:
            return match.miss("it gives the variable itself on, not its value")
        captured = variable.owner is not None and variable.owner.source.op == "Placeholder"
        for user, _ in edit.users[variable.name]:
            reads = edit.nodes[user].op in READERS and edit.nodes[user].specs[0].dtype != HANDLE
            if not reads and (captured or user in on_the_way):
                return match.miss(f"{variable.name} is also used by {user}, a {edit.nodes[user].op}, which may write it")
        return constant(match, edit, raising, str(variable.config["weight"]))

    def same(match: Match, edit: Edit) -> Miss | None:
        """A constant, in another shape or not."""
        return constant(match, edit, raising, match["constant"].params["value"])

    def joined(match: Match, edit: Edit) -> Miss | None:
        """Small whole numbers put together, as an order of axes is."""
        *parts, axis = [edit.weights[node.params["value"]] for node in match.all("parts")]
        if any(part.dtype.kind != "i" or part.ndim != 1 or part.size > FEW for part in parts) or axis.size != 1 or axis.any():
            return match.miss("they are no short vectors of whole numbers")
        return raising(match, edit, "Const", (), computed={"value": np.concatenate(parts)})

    def cast(match: Match, edit: Edit) -> Miss | None:
        """A constant in another precision: a node of that dtype with the array as it is stored."""
        node, key = match["constant"], match["constant"].params["value"]
        if any("float" not in spec.dtype for spec in (node.specs[0], match.root.specs[0])):
            return match.miss("it changes what kind of numbers they are")
        if node.specs[0].dtype != edit.weights[key].dtype.name:
            return match.miss("they were rounded to another precision before")
        return constant(match, edit, raising, key)

    return [
        Rule.of("read", op("tf.ReadVariableOp", "tf.Identity")(op("Variable")["variable"]), read),
        Rule.of("same", op(*SAME, "tf.Squeeze")(op("Const")["constant"]), same),
        Rule.of("shaped", op(*SHAPED)(op("Const")["constant"], op("Const")), same),
        Rule.of("joined", op("tf.ConcatV2").each(op("Const")["parts"]), joined),
        Rule.of("cast", op("tf.Cast")(op("Const")["constant"]), cast),
    ]


def constant(match: Match, edit: Edit, raising: Raising, key: str) -> Miss | None:
    """Let the root be a `Const` of an array that is there."""
    shape = match.root.specs[0].shape
    if shape is None or None in shape:
        return match.miss("its shape is not known")
    inputs = [ref for ref in edit.nodes[match.root.name].inputs if edit.nodes[ref.node].op == "Variable"]
    return raising.constant(match, edit, key, inputs)
