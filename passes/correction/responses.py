"""What a linear node gives on average, less its bias, and what other kernels change of that."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs
import numpy as np

from tfpasses.graph import Array, KernelView, LinearView

__all__ = ["change", "reads", "response", "whole"]

ROWS = 1 << 12
"""So many rows of a kernel are taken to float64 at a time."""


def response(kernel: KernelView, means: Array) -> Array:
    """The sum over taps and input channels of kernel times mean, float64, one number an output channel.

    `means` is [taps, input channels] or [1, input channels], NaN where a mean is not known: so is then what reads it, by a weight other
    than 0.
    """
    unknown = np.isnan(means)
    found = summed(kernel, np.where(unknown, 0.0, means))
    return np.where(reads(kernel, unknown), np.nan, found)


def reads(kernel: KernelView, wanted: Array) -> Array:
    """Whether each output channel has a weight other than 0 for a tap and input channel that is wanted ([taps, input channels])."""
    if not wanted.any():
        return np.zeros(kernel.out_channels, bool)
    told = (kernel.kernel != 0).astype(np.float32)
    return summed(attrs.evolve(kernel, kernel=told), wanted.astype(np.float64)) > 0


def summed(kernel: KernelView, means: Array) -> Array:
    taps = kernel.kernel.reshape(math.prod(kernel.kernel.shape[:-2]), *kernel.kernel.shape[-2:])
    means = np.broadcast_to(means, (len(taps), means.shape[1]))
    inputs, groups, outputs = kernel.shape
    found = np.zeros((groups, outputs))
    for tap, mean in zip(taps, means, strict=True):
        if kernel.depthwise:
            found += tap.astype(np.float64) * mean[:, None]
        elif kernel.transposed:
            found += (tap.astype(np.float64) @ mean)[None]
        else:
            apart = mean.reshape(groups, inputs)
            for start in range(0, inputs, ROWS):
                rows = np.asarray(tap[start : start + ROWS], np.float64).reshape(-1, groups, outputs)
                found += np.einsum("igo,gi->go", rows, apart[:, start : start + ROWS])
    return found.reshape(-1)


def change(view: LinearView, new: Mapping[str, Array], means: Array) -> Array:
    """What a linear node gives on average with other kernels (by slot) less what it gives with its own: sum of (W' - W)·mean.

    Of a separable convolution, W2'·(W1' - W1)·mean + (W2' - W2)·W1·mean. `means` as for `response`.
    """
    first, *others = view.kernels
    before, moved = response(first, means), response(difference(first, new), means)
    for kernel in others:
        after = attrs.evolve(kernel, kernel=new.get(kernel.slot, kernel.kernel))
        moved = response(after, moved[None]) + response(difference(kernel, new), before[None])
        before = response(kernel, before[None])
    return moved


def difference(kernel: KernelView, new: Mapping[str, Array]) -> KernelView:
    """By what a kernel changes."""
    old = kernel.kernel
    wide = np.promote_types(old.dtype, np.float32)
    return attrs.evolve(kernel, kernel=np.subtract(new.get(kernel.slot, old), old, dtype=wide))


def whole(view: LinearView, new: Mapping[str, Array], means: Array) -> Array:
    """What a linear node gives on average, less its bias, with other kernels (by slot). `means` as for `response`."""
    for kernel in view.kernels:
        means = response(attrs.evolve(kernel, kernel=new.get(kernel.slot, kernel.kernel)), means)[None]
    return np.asarray(means[0])
