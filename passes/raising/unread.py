"""Nodes that no output depends on: what is left of inlined functions, and what only training reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from tfpasses.graph import OUTPUT, Edit
from tfpasses.passes.raising.cluster import waits

__all__ = ["alive", "remove_training", "remove_unread"]

PLUMBING = frozenset({"Const", "Variable", "Input"})
"""What initialising, saving and other networks read too."""


def alive(edit: Edit) -> set[str]:
    """The nodes that the graph's outputs depend on, by way of values and of waiting."""
    found: set[str] = set()
    stack = [ref.node for ref in edit.outputs]
    while stack:
        name = stack.pop()
        if name in found or name not in edit.nodes:
            continue
        found.add(name)
        node = edit.nodes[name]
        stack += [ref.node for ref in node.inputs]
        stack += waits(node, edit)
    return found


def remove_unread(edit: Edit) -> None:
    """Remove what inlining brought in and nothing reads: a function computes more than its caller may ask for."""
    functions = edit.source.functions
    if functions is None:
        return
    stack = [name for name in edit.nodes if name not in edit.source.nodes]
    while stack:
        node = edit.nodes.get(stack.pop())
        if node is None or node.name in edit.source.nodes or edit.users[node.name] or functions.waiting(node.name):
            continue
        if not functions.has_effects(node):
            stack += [ref.node for ref in node.inputs]
            edit.remove(node)


def remove_training(edit: Edit, needed: Collection[str]) -> Counter[str]:
    """Remove the nodes that no output needs and that read, however indirectly, what a needed node computes: losses, gradients, the
    updates of moving averages. Gives how many there were, by operation.
    """
    reached: set[str] = set()
    stack = [name for name in needed if edit.nodes[name].op not in PLUMBING]
    while stack:
        for user, _ in edit.users[stack.pop()]:
            if user != OUTPUT and user not in needed and user not in reached:
                reached.add(user)
                stack.append(user)
    gone = Counter(edit.nodes[name].op for name in reached)
    ends = [name for name in reached if not edit.users[name]]
    while ends:
        node = edit.nodes[ends.pop()]
        edit.remove(node)
        ends += [name for name in dict.fromkeys(ref.node for ref in node.inputs) if name in reached and not edit.users[name]]
    return gone
