"""The elements of small integer values that are known before a graph is run: the shapes, axes and paddings that operations read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfpasses.frontends.graph_def.protos.attributes import Dims
from tfpasses.frontends.graph_def.reading.shapes import flag, integer
from tfpasses.graph import Array

__all__ = ["PASSED_ON", "elements_after", "elements_of"]

MOST = 64
"""A value of more elements is not looked into."""
Elements = Any
"""A number, or nested lists, with None for what is not known; None where nothing is."""


def elements_of(array: Array) -> Elements:
    """A number or nested lists; None for what is large or no integers."""
    return array.tolist() if array.size <= MOST and max(array.shape, default=0) <= MOST and array.dtype.kind in "iu" else None


def elements_after(node: Any, parts: Sequence[Elements], shape: Dims) -> Elements:
    """The elements of the value of an operation of `PASSED_ON`, from those of its inputs, and the shape of the first of them. A malformed
    node gives None: TensorFlow will refuse it.
    """
    if len(parts) > MOST:
        return None
    try:
        found = PASSED_ON[node.op](node, parts, shape)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError):
        return None
    return found if count(found) <= MOST and can_be(found) else None


def same(node: Any, parts: Sequence[Elements], shape: Dims) -> Elements:
    return parts[0]


def pack(node: Any, parts: Sequence[Elements], shape: Dims) -> Elements:
    deep = any(isinstance(part, list) for part in parts)
    return None if deep and integer(node, "axis") else list(parts)


def shape_of(node: Any, parts: Sequence[Elements], shape: Dims) -> Elements:
    return None if shape is None else list(shape)


def strided_slice(node: Any, parts: Sequence[Elements], shape: Dims) -> Elements:
    """One number, or one stretch, of a vector."""
    vector, (begin,), (end,), (stride,) = parts
    masks = {name: integer(node, f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    if masks["ellipsis"] or masks["new_axis"] or any(isinstance(one, list) for one in vector):
        return None
    if masks["shrink_axis"]:
        return vector[begin]
    return vector[slice(None if masks["begin"] else begin, None if masks["end"] else end, stride)]


def gather(node: Any, parts: Sequence[Elements], shape: Dims) -> Elements:
    vector, places, axis = parts
    if axis != 0 or not isinstance(vector, list):
        return None
    return [vector[place] for place in places] if isinstance(places, list) else vector[places]


def concat(node: Any, parts: Sequence[Elements], shape: Dims) -> Elements:
    *vectors, axis = parts
    return [one for vector in vectors for one in vector] if axis == 0 else None


def product(node: Any, parts: Sequence[Elements], shape: Dims) -> Elements:
    vector, _ = parts
    return None if flag(node, "keep_dims") or not isinstance(vector, list) or None in vector else math.prod(vector)


def reshape(node: Any, parts: Sequence[Elements], shape: Dims) -> Elements:
    """A number from a vector of one, or the other way round."""
    one = parts[0]
    while isinstance(one, list) and len(one) == 1:
        (one,) = one
    if isinstance(one, list) or parts[1] not in ([], [1], [-1]):
        return None
    return [one] if parts[1] else one


def multiply(node: Any, parts: Sequence[Elements], shape: Dims) -> Elements:
    """Two numbers."""
    a, b = parts
    return a * b if isinstance(a, int) and isinstance(b, int) else None


PASSED_ON: Mapping[str, Callable[[Any, Sequence[Elements], Dims], Elements]] = {
    "Identity": same,
    "Enter": same,
    "Cast": same,
    "Pack": pack,
    "Shape": shape_of,
    "StridedSlice": strided_slice,
    "GatherV2": gather,
    "ConcatV2": concat,
    "Prod": product,
    "Reshape": reshape,
    "Mul": multiply,
}
"""The operations that hand elements on."""


def can_be(elements: Elements) -> bool:
    """Whether these are numbers that a tensor can hold. Products of products would soon be longer than the file."""
    if isinstance(elements, list):
        return all(map(can_be, elements))
    return elements is None or -MOST_INTEGER <= elements < MOST_INTEGER


MOST_INTEGER = 1 << 64


def count(elements: Elements) -> int:
    """How many there are."""
    return sum(map(count, elements)) if isinstance(elements, list) else 1
