"""The numbers that the integers of a quantized kernel stand for, and rounding to them."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np

from tfpasses.graph import Array
from tfpasses.passes.quantization.encodings import Encoding

__all__ = ["Grid"]

CHUNK = 1 << 18
"""So many elements are rounded at a time: what is held in float64 meanwhile does not grow with the kernel."""
LARGEST = float(np.finfo(np.float64).max)


@attrs.frozen(eq=False)
class Grid:
    """One grid for a whole kernel, or one for each of its channels: the numbers delta·q for q from offset to offset + 2**bits - 1."""

    delta: Array
    """float64, one number a channel."""
    offset: Array
    """int64, from -(2**bits - 1) to 0, one a channel: 0 is on every grid."""
    bits: int
    symmetric: bool
    axes: tuple[int, ...] = ()
    """The axes of the kernel, counted from its first, that count the channels together; none for one grid in all."""

    @property
    def min(self) -> Array:
        """The smallest number of each grid."""
        return self.at(self.offset)

    @property
    def max(self) -> Array:
        """The largest number of each grid."""
        return self.at(self.offset + 2**self.bits - 1)

    def at(self, level: Array) -> Array:
        """The number at one place of each grid; what float64 cannot hold is its largest number."""
        with np.errstate(over="ignore"):
            return np.asarray(np.clip(self.delta * level, -LARGEST, LARGEST))

    @property
    def encodings(self) -> list[Encoding]:
        """The grids one by one."""
        columns = (array.tolist() for array in (self.min, self.max, self.delta, self.offset))
        return [Encoding(low, high, delta, offset, self.bits, self.symmetric) for low, high, delta, offset in zip(*columns, strict=True)]

    def quantized(self, kernel: Array, generator: np.random.Generator | None = None) -> Array:
        """Each element's number on its grid, in the kernel's own dtype; what lies beyond the grid becomes its first or last.

        To the nearest, of two that are equally near the even one: that has no bias, and treats a kernel and its negative alike on a
        symmetric grid. (ONNX rounds so, too; AIMET and TensorFlow's fake quantization round up where we round to even.) With a generator,
        to one of the two around it, the nearer the likelier, so that the mean is the element itself; what is on the grid stays, in so far
        as the dtype tells. A number that the dtype cannot hold gives way to the next smaller one.
        """
        if not kernel.size:
            return kernel.copy()
        first = min(self.axes, default=kernel.ndim)
        shape = kernel.shape[first:]
        sizes = [size if axis in self.axes else 1 for axis, size in enumerate(kernel.shape)][first:]
        delta, low = (np.broadcast_to(part.reshape(sizes), shape).reshape(-1) for part in (self.delta, self.offset.astype(np.float64)))
        rows = kernel.reshape(-1, math.prod(shape))
        rounded = np.empty_like(rows)
        count = max(1, CHUNK // delta.size)
        for start in range(0, len(rows), count):
            part = rows[start : start + count]
            place = part.astype(np.float64) / delta
            nearest = np.clip(np.rint(place), low, low + (2**self.bits - 1))
            stored = as_stored(nearest, delta, part.dtype)
            if generator is not None:
                drawn = np.clip(np.floor(place + generator.random(place.shape)), low, low + (2**self.bits - 1))
                stored = np.where(stored == part, stored, as_stored(drawn, delta, part.dtype))
            rounded[start : start + count] = stored
        return np.asarray(rounded.reshape(kernel.shape))


def as_stored(level: Array, delta: Array, dtype: np.dtype[Any]) -> Array:
    """The numbers at some places of grids, in a dtype."""
    with np.errstate(over="ignore"):
        stored = (level * delta).astype(dtype)
        lost = ~np.isfinite(stored)
        if lost.any():
            stored = np.where(lost, ((level - np.sign(level)) * delta).astype(dtype), stored)
    return np.asarray(stored)
