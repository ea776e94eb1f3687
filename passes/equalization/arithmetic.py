"""The arithmetic of cross-layer equalization, as pure functions over `LinearView`s: used by every pass and interface that equalizes.

Sources: Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction", arXiv 1906.04721, sections 4.1 and
4.1.2; AIMET for the closed form of three layers in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import erf

import numpy as np

from tfpasses.graph import Array, KernelView, LinearView

__all__ = [
    "absorbable",
    "balanced",
    "expected_shortfall",
    "in_ranges",
    "out_ranges",
    "scaled",
    "scaled_in",
    "scaled_out",
    "share_above",
    "to_power_of_two",
]

REACH = 2.0**16
"""No scale is larger, or smaller than its inverse, where nothing else is asked: ranges may be as small as 1e-30."""


def out_ranges(linear: LinearView) -> Array:
    """The largest magnitude of the kernel for each output channel, float64."""
    return np.asarray(linear.kernels[-1].magnitudes.max(axis=0, initial=0.0).reshape(-1), np.float64)


def in_ranges(linear: LinearView) -> Array:
    """The largest magnitude of the kernel for each input channel, float64."""
    first = linear.kernels[0]
    return np.asarray(first.of_in(first.magnitudes.max(axis=2, initial=0.0)), np.float64)


def balanced(ranges: Sequence[Array], reach: float = REACH) -> list[Array]:
    """The scales that make the ranges of layers in a row equal, channel by channel.

    `ranges` are those of the output channels of the first layer, of depthwise layers in the middle, and of the input channels of the last.
    The result has one scale s fewer: the first is divided by s[0], a middle one multiplied by s[k-1]/s[k], the last multiplied by s[-1];
    all are then their geometric mean. Of two layers that is s = r1/sqrt(r1·r2); of three s12 = r1/cbrt(r1·r2·r3) and
    s23 = cbrt(r1·r2·r3)/r3. All are 1 where any range is 0 or no number, and between 1/reach and reach.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log2(np.asarray(ranges, np.float64))
    known = np.isfinite(logs).all(axis=0)
    logs = np.where(known, logs, 0.0)
    steps = np.cumsum(logs - logs.mean(axis=0), axis=0)[:-1]  # log2 of s[k] is the sum of what the layers up to k lie above the mean
    return [np.exp2(np.clip(step, -np.log2(reach), np.log2(reach))) for step in steps]


def to_power_of_two(scale: Array, least: Array | float = 0.0, most: float = np.inf) -> Array:
    """The power of two, from `least` (1 or less) to `most` (1 or more), that is nearest to each scale (by their logarithms): dividing by
    it rounds nothing.
    """
    with np.errstate(divide="ignore"):
        low, high = np.ceil(np.log2(least)), np.floor(np.log2(most))
    return np.exp2(np.clip(np.round(np.log2(scale)), low, high))


def scaled_out(linear: LinearView, scale: Array) -> dict[str, Array]:
    """New parameters of a linear node such that it gives what it gave divided by `scale`, one a channel: W' = W/s, b' = b/s."""
    last = linear.kernels[-1]
    new = {last.slot: scaled(last, last.per_out(1.0 / scale))}
    if linear.bias is not None:
        new["bias"] = (np.asarray(linear.bias, np.float64) / scale).astype(linear.bias.dtype)
    return new


def scaled_in(linear: LinearView, scale: Array) -> dict[str, Array]:
    """New parameters of a linear node such that it gives of x/s what it gave of x: W' = W·s over the input channels."""
    first = linear.kernels[0]
    return {first.slot: scaled(first, first.per_in(scale))}


def scaled(kernel: KernelView, factors: Array) -> Array:
    """A kernel times float64 factors that broadcast against [in, groups, out]: rounded to the kernel's dtype, then multiplied."""
    stored = kernel.kernel
    wide = np.promote_types(stored.dtype, np.float32)
    whole = np.broadcast_to(factors, kernel.shape) if factors.size > 1 else factors.reshape(1, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        placed = kernel.as_stored(whole.astype(wide)) if factors.size > 1 else whole.astype(wide)
        return np.asarray((stored * placed).astype(stored.dtype, copy=False))


# pre-activations that are normally distributed


def absorbable(mean: Array, std: Array, rectified: bool, sigmas: float = 3.0) -> Array:
    """How much of each channel may move from one bias into the next: the mean where nothing lies between, and behind a ReLU what all but
    a few values exceed, max(0, mean - sigmas·std).
    """
    return np.asarray(np.maximum(0.0, mean - sigmas * std) if rectified else mean, np.float64)


def _below(bound: Array, mean: Array, std: Array) -> Array:
    """E[max(0, bound - z)] of a normal variable z."""
    safe = np.where(std > 0, std, 1.0)
    at = (bound - mean) / safe
    return np.asarray(np.where(std > 0, (bound - mean) * normal(at) + std * density(at), np.maximum(0.0, bound - mean)))


def expected_shortfall(shift: Array, mean: Array, std: Array) -> Array:
    """By how much a ReLU of z - shift, and the shift again, is on average more than a ReLU of z, which is normally distributed."""
    return np.asarray(_below(shift, mean, std) - _below(np.zeros_like(shift), mean, std))


def share_above(limit: Array, mean: Array, std: Array) -> Array:
    """Which share of a normally distributed variable is above a limit."""
    safe = np.where(std > 0, std, 1.0)
    return np.asarray(np.where(std > 0, 1.0 - normal((limit - mean) / safe), np.asarray(mean > limit, np.float64)))


def normal(x: Array) -> Array:
    """The distribution function of the standard normal variable."""
    return np.asarray(0.5 * (1.0 + np.vectorize(erf, otypes=[np.float64])(np.asarray(x) / np.sqrt(2.0))))


def density(x: Array) -> Array:
    """Its density."""
    return np.asarray(np.exp(-0.5 * np.asarray(x) ** 2) / np.sqrt(2.0 * np.pi))
