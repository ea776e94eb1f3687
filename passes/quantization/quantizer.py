"""The quantizer: the choices that decide a kernel's grid and how its elements are rounded to it. It knows no graph."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Literal

import attrs
import numpy as np

from tfpasses.graph import Array
from tfpasses.passes.quantization.encodings import Encoding
from tfpasses.passes.quantization.grids import Grid
from tfpasses.passes.quantization.ranges import tf, tf_enhanced

__all__ = ["FEWEST_BITS", "MOST_BITS", "Quantizer", "unsuitable"]

FEWEST_BITS, MOST_BITS = 2, 16


def unsuitable(kernel: Array) -> str:
    """Why a kernel has no grid, or nothing."""
    if "float" not in kernel.dtype.name:
        return f"its kernel is {kernel.dtype.name}, no floating-point numbers"
    return "" if np.isfinite(kernel).all() else "its kernel is not finite (NaN or infinity)"


@attrs.frozen
class Quantizer:
    """How kernels are quantized. Kernels are arrays of any shape and floating dtype; arithmetic is in float64.

    Raises `ValueError` for choices that are none.
    """

    bits: int = 8
    """2 to 16."""
    scheme: Literal["tf", "tf_enhanced"] = "tf"
    """Which range: see `ranges`."""
    symmetric: bool = False
    """Whether 0 lies in the middle of every grid."""
    per_channel: bool = False
    """Whether each output channel has a grid of its own."""
    rounding: Literal["nearest", "stochastic"] = "nearest"
    """See `Grid.quantized`."""
    seed: int = 0
    """What is drawn for a kernel in stochastic rounding depends on this and on its key, not on what was drawn before."""

    def __attrs_post_init__(self) -> None:
        if not FEWEST_BITS <= self.bits <= MOST_BITS:
            raise ValueError(f"bits={self.bits}: a kernel is quantized to {FEWEST_BITS} to {MOST_BITS} bits")
        if self.scheme not in ("tf", "tf_enhanced"):
            raise ValueError(f"scheme={self.scheme}: write tf or tf_enhanced")
        if self.rounding not in ("nearest", "stochastic"):
            raise ValueError(f"rounding={self.rounding}: write nearest or stochastic")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: a seed is not negative")

    def grid(self, kernel: Array, axes: Sequence[int] = (-1,)) -> Grid:
        """The grid of a kernel; `axes` are those that together count its output channels. Raises `ValueError` where it is not finite."""
        reason = unsuitable(kernel)
        if reason:
            raise ValueError(reason)
        kept = tuple(sorted(axis % kernel.ndim for axis in axes)) if self.per_channel else ()
        others = tuple(axis for axis in range(kernel.ndim) if axis not in kept)
        zero = kernel.dtype.type(0)  # 0 is on every grid
        low, high = (np.asarray(end(axis=others, initial=zero), np.float64).reshape(-1) for end in (kernel.min, kernel.max))
        if self.scheme == "tf":
            delta, offset = tf(low, high, self.bits, self.symmetric)
        else:
            channels = math.prod(kernel.shape[axis] for axis in kept)
            values = np.moveaxis(kernel, kept, range(len(kept))).reshape(channels, kernel.size // max(channels, 1))
            delta, offset = tf_enhanced(values, low, high, self.bits, self.symmetric)
        return Grid(delta, offset.astype(np.int64), self.bits, self.symmetric, kept)

    def encoding(self, kernel: Array, axes: Sequence[int] = (-1,)) -> list[Encoding]:
        """The encodings of a kernel: one, or one for each output channel. As `grid`."""
        return self.grid(kernel, axes).encodings

    def quantized(self, kernel: Array, axes: Sequence[int] = (-1,), key: str = "", grid: Grid | None = None) -> Array:
        """A new kernel whose elements lie on the grid (`grid`, or the kernel's own), dequantized, in the dtype that it has. `key` names the
        kernel for stochastic rounding.
        """
        generator = None
        if self.rounding == "stochastic":
            named = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16])
            generator = np.random.Generator(np.random.PCG64([self.seed, named]))
        return (grid or self.grid(kernel, axes)).quantized(kernel, generator)
