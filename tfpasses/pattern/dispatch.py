"""Which patterns are worth trying at a node, told by the operations of the node and of those nearest below it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from tfpasses.graph import Node
from tfpasses.pattern.language import Alternatives, Anything, OpPattern, Optional, Pattern, Repeated, Roots

__all__ = ["Around", "may_match", "ops_around"]

Around = tuple[str, str, str, str]
"""The operations of a node, of its first input, of that one's first input, and of the node's second input; "" where there is none."""
Seen = tuple[str, tuple["Seen", ...]]
"""A node's operation, and as many of its inputs as were looked at."""


def ops_around(node: Node, nodes: Mapping[str, Node]) -> Around:
    """The operations around a node. Few distinct ones are met in a graph, however large, so that what they rule out is found once."""
    inputs = node.inputs
    if not inputs:
        return node.op, "", "", ""
    first = nodes[inputs[0].node]
    below = first.inputs
    return node.op, first.op, nodes[below[0].node].op if below else "", nodes[inputs[1].node].op if len(inputs) > 1 else ""


def may_match(pattern: Pattern, around: Around) -> bool:
    """Whether a pattern can match at a node with these operations around it. Where this says no, trying it would fail."""
    op, first, below, second = around
    inputs: tuple[Seen, ...] = ()
    if first:
        inputs = ((first, ((below, ()),) if below else ()),)
    if second:
        inputs += ((second, ()),)
    return fits(pattern, (op, inputs))


def fits(pattern: Pattern, seen: Seen) -> bool:
    """Whether nothing that was seen rules the pattern out."""
    op, inputs = seen
    if isinstance(pattern, OpPattern):
        if op not in pattern.ops:
            return False
        if pattern.every is not None:
            return all(fits(pattern.every, below) for below in inputs)
        if pattern.inputs is None:
            return True
        orders = itertools.permutations(pattern.inputs, len(inputs)) if pattern.commutes else (pattern.inputs,)
        return any(all(map(fits, order, inputs)) for order in orders)
    if isinstance(pattern, Alternatives):
        return any(fits(option, seen) for option in pattern.options)
    if isinstance(pattern, Optional):
        return fits(pattern.wrapper(pattern.inner), seen) or fits(pattern.inner, seen)
    if isinstance(pattern, Repeated):
        stepped_over = op in pattern.wrapper.ops and all(fits(pattern, below) for below in inputs)
        return stepped_over or fits(pattern.inner, seen)
    if isinstance(pattern, Roots):
        return fits(pattern.patterns[0], seen)
    assert isinstance(pattern, Anything)
    return True
