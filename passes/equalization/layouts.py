"""Arrays that say one thing of every element of a value: shaped to broadcast against the value's axes without the batch.

What is the same along an axis has size 1 there: of an image of channels last it is of shape (1, 1, channels).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tfpasses.graph import Array

__all__ = ["Dims", "along", "concatenated", "flattened", "of_channels", "reshaped", "rows"]

Dims = tuple[int | None, ...]


def along(vector: Array, axis: int, rank: int) -> Array:
    """One number a channel, for a value of `rank` axes whose channels are on `axis`."""
    shape = [1] * (rank - 1)
    shape[axis - 1] = -1
    return np.asarray(vector.reshape(shape))


def rows(layout: Array, axis: int, count: int) -> Array:
    """What is said of each of `count` channels on an axis (of the value), one column a channel: [places, count]."""
    moved = np.moveaxis(layout, axis - 1, -1)
    places = moved.shape[:-1]
    return np.asarray(np.broadcast_to(moved, (*places, count)).reshape(math.prod(places), count))


def of_channels(layout: Array, axis: int, count: int) -> Array | None:
    """What is said of each of `count` channels, where it is the same at every place; else None."""
    found = rows(layout, axis, count)
    return np.asarray(found[0]) if len(found) and (found == found[0]).all() else None


def flattened(layout: Array, dims: Dims) -> Array | None:
    """After all axes but the first of a value of these sizes became one; None where they are not known and would have to be."""
    return reshaped(layout, dims, (dims[0], None))


def reshaped(layout: Array, before: Dims, after: Dims) -> Array | None:
    """After a value was reshaped, its batch apart; None where its sizes are not known and would have to be."""
    if layout.size == 1:
        return np.asarray(layout.reshape((1,) * (len(after) - 1)))
    sizes = [size for size in before[1:] if size is not None]
    if len(sizes) < len(before) - 1:
        return None
    whole = np.broadcast_to(layout, sizes)
    known = [-1 if size is None else size for size in after[1:]]
    return None if known.count(-1) > 1 or 0 in known else shrunk(whole.reshape(known))


def shrunk(layout: Array) -> Array:
    """The same with size 1 along the axes on which nothing differs."""
    for axis in range(layout.ndim):
        first = layout.take([0], axis) if layout.shape[axis] else layout
        if layout.shape[axis] > 1 and same(layout, first):
            layout = first
    return layout


def same(a: Array, b: Array) -> bool:
    """Whether two arrays say the same, where NaN is NaN."""
    equal = a == b
    return bool((equal | ((a != a) & (b != b))).all())  # only NaN is not itself


def concatenated(layouts: Sequence[Array], axis: int, dims: Sequence[Dims]) -> Array | None:
    """Of values one after the other along an axis (of the values; not the batch); None where a size is not known and would have to be."""
    place = axis - 1
    if all(layout.shape[place] == 1 for layout in layouts) and all(
        same(*np.broadcast_arrays(layouts[0], layout)) for layout in layouts[1:]
    ):
        return max(layouts, key=lambda layout: layout.size)
    shapes = [list(layout.shape) for layout in layouts]
    common = [max(shape[k] for shape in shapes) if shapes else 1 for k in range(len(shapes[0]))]
    parts = []
    for layout, sizes in zip(layouts, dims, strict=True):
        size = sizes[axis]
        if size is None:
            return None
        parts.append(np.broadcast_to(layout, [*common[:place], size, *common[place + 1 :]]))
    return np.concatenate(parts, place)
