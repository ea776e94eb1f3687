"""Whole numbers that are known only when a graph runs, as sums of the sizes of its values: what shapes, paddings and crops are made of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import attrs
import numpy as np

from tfpasses.graph import Array, Edit, Node, Ref

__all__ = ["Sum", "elements_of", "sizes_of"]

MOST = 64
"""A value of more elements is not looked into."""
MOST_STEPS = 32
"""So far is the way from a number to what it is made of looked along."""
Term = tuple[str, Ref, tuple[int, ...]]
"""A number that is not known: `size` of a value along an axis, or `element` of an integer value at a place."""


@attrs.frozen
class Sum:
    """A constant, and unknown numbers, each so many times."""

    constant: int = 0
    terms: Mapping[Term, int] = attrs.field(factory=dict)

    def __add__(self, other: Sum) -> Sum:
        counts = Counter(self.terms)
        counts.update(other.terms)
        return Sum(self.constant + other.constant, {term: count for term, count in counts.items() if count})

    def __mul__(self, other: Sum) -> Sum:
        if other.terms and self.terms:
            return NotImplemented
        a, number = (other, self.constant) if other.terms else (self, other.constant)
        return Sum(a.constant * number, {term: count * number for term, count in a.terms.items() if number})

    def __sub__(self, other: Sum) -> Sum:
        return self + other * Sum(-1)

    @property
    def known(self) -> int | None:
        """The number where it is a constant."""
        return None if self.terms else self.constant


def sizes_of(ref: Ref, edit: Edit) -> Sequence[Sum]:
    """The sizes of a value whose rank is known."""
    return [Sum(size) if size is not None else Sum(0, {("size", ref, (place,)): 1}) for place, size in enumerate(edit.spec(ref).dims)]


def elements_of(ref: Ref, edit: Edit) -> Array | None:
    """The elements of an integer value, as an array of sums; None where it is large, or its shape is not known."""
    return elements(ref, edit, {}, MOST_STEPS)


def elements(ref: Ref, edit: Edit, found: dict[Ref, Array | None], steps: int) -> Array | None:
    if ref not in found:
        made = made_of(edit.nodes[ref.node], edit, found, steps - 1) if steps else None
        if made is None or made.size > MOST:
            shape = edit.spec(ref).shape
            known = shape is not None and None not in shape and math.prod(size or 0 for size in shape) <= MOST
            made = unknown(ref, tuple(size or 0 for size in shape or ())) if known else None
        found[ref] = made
    return found[ref]


def unknown(ref: Ref, shape: tuple[int, ...]) -> Array:
    """Elements of which nothing is known, but that they are themselves."""
    array = np.empty(shape, object)
    for place in np.ndindex(shape):
        array[place] = Sum(0, {("element", ref, place): 1})
    return array


def made_of(node: Node, edit: Edit, found: dict[Ref, Array | None], steps: int) -> Array | None:
    """What an operation makes of the elements of its inputs; None for others than these, and where it makes no sums."""
    if node.op == "Const":
        array = edit.weights[node.params["value"]]
        return as_sums(array) if array.dtype.kind in "iu" and array.size <= MOST else None
    if node.op == "tf.Shape":
        return None if edit.spec(node.inputs[0]).shape is None else vector(sizes_of(node.inputs[0], edit))
    rule = RULES.get(node.op)
    parts = [elements(one, edit, found, steps) for one in node.inputs] if rule is not None else []
    if rule is None or any(part is None for part in parts):
        return None
    try:
        return np.asarray(rule(node, [part for part in parts if part is not None]), object)
    except (TypeError, ValueError, IndexError):  # no sum, or no such part: TensorFlow will tell
        return None


def as_sums(array: Array) -> Array:
    return vector([Sum(int(number)) for number in array.ravel()]).reshape(array.shape)


def vector(sums: Sequence[Sum]) -> Array:
    array = np.empty(len(sums), object)
    array[:] = sums
    return array


def numbers(array: Array) -> Array:
    """The same as numbers. Raises TypeError where they are not known."""
    return np.asarray([int(one.known) for one in array.ravel()]).reshape(array.shape)


def strided_slice(node: Node, parts: Sequence[Array]) -> Array:
    begins, ends, strides = map(numbers, parts[1:])
    masks = {name: int(node.config.get(f"{name}_mask", 0)) for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    index: list[int | slice] = []
    if masks["ellipsis"] or masks["new_axis"]:
        raise ValueError("an axis that is not named")
    for place, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=True)):
        has = {name: bool(mask >> place & 1) for name, mask in masks.items()}
        whole = slice(None if has["begin"] else begin, None if has["end"] else end, stride)
        index.append(int(begin) if has["shrink_axis"] else whole)
    sliced: Array = parts[0][tuple(index)]
    return sliced


RULES: Mapping[str, Callable[[Node, Sequence[Array]], Array]] = {
    **dict.fromkeys(("tf.Identity", "Identity", "tf.Cast"), lambda node, parts: parts[0]),
    **dict.fromkeys(("tf.AddV2", "tf.Add"), lambda node, parts: parts[0] + parts[1]),
    "tf.Sub": lambda node, parts: parts[0] - parts[1],
    "tf.Mul": lambda node, parts: parts[0] * parts[1],
    "tf.Pack": lambda node, parts: np.stack(list(parts), int(node.config.get("axis", 0))),
    "tf.ConcatV2": lambda node, parts: np.concatenate(list(parts[:-1]), int(numbers(parts[-1]))),
    "tf.GatherV2": lambda node, parts: np.take(parts[0], numbers(parts[1]), int(numbers(parts[2]))),
    "tf.StridedSlice": strided_slice,
}
