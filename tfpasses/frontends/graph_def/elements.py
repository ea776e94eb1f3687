"""The elements of small integer values that are known before a graph is run: the shapes, axes and paddings that operations read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfpasses.graph import Array, Ref

__all__ = ["PASSED_ON", "elements_after", "elements_of"]

MOST = 64
"""A value of more elements is not looked into."""
PASSED_ON = frozenset({"Identity", "Cast", "Pack"})
"""The operations that hand elements on."""


def elements_of(array: Array) -> Any:
    """A number or nested lists; None for what is large or no integers."""
    return array.tolist() if array.size <= MOST and array.dtype.kind in "iu" else None


def elements_after(node: Any, inputs: Sequence[Ref], known: Mapping[str, Any]) -> Any:
    """The elements of the value of an operation of `PASSED_ON`, with None for those that are not known; None where none is."""
    if node.op != "Pack":
        return known.get(inputs[0].node) if inputs else None
    if len(inputs) > MOST:
        return None
    parts = [known.get(ref.node) for ref in inputs]
    if any(isinstance(part, list) for part in parts) and (node.attr["axis"].i if "axis" in node.attr else 0):
        return None
    return parts if sum(map(count, parts)) <= MOST else None


def count(elements: Any) -> int:
    """How many there are."""
    return sum(map(count, elements)) if isinstance(elements, list) else 1
