"""Which range a grid spans: that of the values (`tf`), or the one that errs least, cutting off a few (`tf_enhanced`).

Source: AIMET's quantization schemes of these names. Grids here are pairs of float64 arrays, a channel an element: the step delta, and
the offset, which is a whole number (see `Encoding`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tfpasses.graph import Array

__all__ = ["tf", "tf_enhanced"]

NARROWEST = 0.01
"""No range is narrower, so that no step is 0."""
SATURATED = 3.0
"""How much more the squared error of a value beyond the grid counts than that of one within."""
BINS = 512
"""Of the histogram that stands for the values of a channel, if these are more than twice as many."""
FINALISTS = 4
"""So many of its best candidates are then tried on the values themselves: of six distributions and 4 to 16 bits, the best of all was
always among them, the best by the histogram alone erred up to 7 % more.
"""
ROUNDING = 1e-9
"""What errs less than the grid of `tf` by this share does not err less."""
CHUNK = 1 << 18
"""So many values, or points that stand for some, are looked at at a time."""
CACHE = 1 << 16
"""So many errors are computed at a time: float64, they and their temporaries stay in a core's cache."""


def tf(low: Array, high: Array, bits: int, symmetric: bool) -> tuple[Array, Array]:
    """The grids that span values from `low` to `high` (float64, one a channel; low <= 0 <= high).

    delta = (high - low)/(2**bits - 1), offset = round(low/delta); symmetric, with r the larger magnitude, delta = r/(2**(bits-1) - 1)
    and offset = -2**(bits-1), the whole range of a signed integer (AIMET's "not strict", "not unsigned"). Before that, a range is made
    at least 0.01 wide.
    """
    high = np.maximum(high, low + NARROWEST)
    if symmetric:
        delta = np.maximum(-low, high) / (2 ** (bits - 1) - 1)
        return delta, np.full_like(delta, -(2 ** (bits - 1)))
    half = high / 2 - low / 2  # the widest range of float64 would be none
    levels = 2**bits - 1
    return half / levels * 2, np.rint(low / 2 / half * levels)  # of a range with 0 in its middle, exactly half the levels


def tf_enhanced(values: Array, low: Array, high: Array, bits: int, symmetric: bool) -> tuple[Array, Array]:
    """The grids that err least: of the candidates, the one with the smallest sum of (x - q(x))² over the values on its range plus three
    times the squares of the distances of those beyond.

    `values`: [channels, values of each], of any floating dtype; `low` and `high` as for `tf`. The candidates: the grid of `tf`, which stays
    where no other errs less; and around it, for 17 steps from delta/16 to delta·17/16, the ranges that 21 offsets give, cut at its
    ends; or, symmetric, 101 steps from delta/100 to delta·101/100. Of many values the best four by a histogram, and the grid of `tf`, are
    compared on the values themselves, so that it never errs more than that.

    AIMET differs in two things. Its 512 bins lie over three times the range, so that a step of 8 bits is less than a bin: on normal,
    Laplace, Student's t and uniform values its choice errs up to 1.2 times as much as the best candidate at 8 bits, and 1.6 to 400 times at
    16. And its symmetric steps are fractions of 2·r/(2**bits - 1), by which none reaches a largest positive value at up to 6 bits.
    """
    delta, offset = tf(low, high, bits, symmetric)
    channels, size = values.shape
    count = max(1, CHUNK // max(1, min(size, 2 * BINS)))
    for start in range(0, channels if size else 0, count):
        rows = slice(start, start + count)
        ratios, offsets = candidates(offset[rows], bits, symmetric)
        best = search(values[rows], delta[rows], ratios, offsets, bits)
        delta[rows] *= np.take_along_axis(ratios, best, axis=1)[:, 0]
        offset[rows] = np.take_along_axis(offsets, best, axis=1)[:, 0]
    return delta, offset


def candidates(offset: Array, bits: int, symmetric: bool) -> tuple[Array, Array]:
    """The grids to try for each channel, [channels, candidates], the one of `tf` first: steps, in steps of that one, and offsets."""
    levels = 2**bits - 1
    first = offset[:, None]
    if symmetric:
        ratios = np.r_[100, 1:100, 101] / 100
        return np.tile(ratios, (len(offset), 1)), np.broadcast_to(first, (len(offset), ratios.size))
    steps = np.repeat(np.arange(1, 18) / 16, 21)
    lows = np.tile(np.trunc(levels * np.arange(-20, 1) / 20), 17)
    start, end = steps * lows, steps * (lows + levels)
    wider = (start < first) & (end > first + levels)
    start, end = np.maximum(start, first), np.minimum(end, first + levels)
    known = ~wider & (end > start)
    ratios = np.where(known, (end - start) / levels, 1.0)
    offsets = np.where(known, np.rint(start / ratios), first)
    return np.concatenate([np.ones_like(first), ratios], axis=1), np.concatenate([first, offsets], axis=1)


def search(values: Array, delta: Array, ratios: Array, offsets: Array, bits: int) -> Array:
    """Which candidate errs least, for each channel: the number of one, [channels, 1]; the first where no other errs less."""
    if values.shape[1] <= 2 * BINS:
        points = values.astype(np.float64) / delta[:, None]
        found = promising_errors(points, np.ones(points.shape), ratios, offsets, bits)
        found[:, 0] *= 1 - ROUNDING
        return np.asarray(found.argmin(axis=1)[:, None])
    ranking = promising_errors(*histogram(values, delta, offsets[:, 0], bits), ratios, offsets, bits).argsort(axis=1, kind="stable")
    finalists = np.concatenate([np.zeros_like(ranking[:, :1]), ranking[:, :FINALISTS]], axis=1)
    ratios, offsets = (np.take_along_axis(array, finalists, axis=1) for array in (ratios, offsets))
    found = np.zeros(finalists.shape)
    for points in columns(values, delta, CACHE):
        found += errors(points, np.ones(points.shape), ratios, offsets, bits)
    found[:, 0] *= 1 - ROUNDING
    return np.take_along_axis(finalists, found.argmin(axis=1)[:, None], axis=1)


def columns(values: Array, delta: Array, chunk: int) -> Iterator[Array]:
    """The values of each channel in steps of delta, float64, as many at a time as make a chunk."""
    count = max(1, chunk // len(values))
    for start in range(0, values.shape[1], count):
        yield values[:, start : start + count].astype(np.float64) / delta[:, None]


def histogram(values: Array, delta: Array, offset: Array, bits: int) -> tuple[Array, Array]:
    """Points that stand for the values of each channel, in steps of delta, and how many values each stands for: [channels, points].

    Two a bin, of its values' mean and variance: as long as a step is not less than a bin, they err as the values do. The bins lie over
    the range of the grid and half a step more at either end.
    """
    channels, width = len(values), 2**bits / BINS
    moments = np.zeros((3, channels * BINS))
    base = np.arange(channels)[:, None] * BINS
    for points in columns(values, delta, CHUNK):
        place = (points - (offset[:, None] - 0.5)) / width
        bins = np.clip(np.floor(place), 0, BINS - 1)
        within = (place - bins - 0.5).reshape(-1)
        index = (bins.astype(np.intp) + base).reshape(-1)
        for power in range(len(moments)):
            moments[power] += np.bincount(index, within**power, channels * BINS)
    counts, *sums = moments.reshape(3, channels, BINS)
    mean, square = (part / np.maximum(counts, 1) for part in sums)
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    middle = np.arange(BINS) + 0.5 + mean
    points = np.concatenate([middle - spread, middle + spread], axis=1) * width + (offset[:, None] - 0.5)
    return points, np.concatenate([counts, counts], axis=1) / 2


def promising_errors(points: Array, weights: Array, ratios: Array, offsets: Array, bits: int) -> Array:
    """As `errors`, but infinite for candidates of which the values beyond alone cost more than the first candidate does: of normal values
    at 8 bits 99 in 100 (symmetric 95), at 4 bits 91 (62).
    """
    found = np.full(ratios.shape, np.inf)
    found[:, :1] = errors(points, weights, ratios[:, :1], offsets[:, :1], bits)
    start = ratios * offsets
    promising = SATURATED * squares_beyond(points, weights, start, start + ratios * (2**bits - 1)) <= found[:, :1]
    for candidate in range(1, ratios.shape[1]):
        rows = np.flatnonzero(promising[:, candidate])
        if rows.size:
            one = rows[:, None], candidate
            found[one] = errors(points[rows], weights[rows], ratios[one], offsets[one], bits)
    return found


def squares_beyond(points: Array, weights: Array, start: Array, end: Array) -> Array:
    """The sum of the squares of the distances by which points lie outside of ranges: [channels, points], [channels, ranges] ->
    [channels, ranges]; from sums over the points in order, without going through them for each range.
    """
    order = points.argsort(axis=1)
    points, weights = np.take_along_axis(points, order, axis=1), np.take_along_axis(weights, order, axis=1)
    sums = np.zeros((3, points.shape[0], points.shape[1] + 1))
    for power in range(len(sums)):
        np.cumsum(weights * points**power, axis=1, out=sums[power, :, 1:])
    first, last = points[:, :1], points[:, -1:]
    apart = np.arange(len(points))[:, None] * (1 + 2 * np.abs(points).max())  # so that the points of all channels are in order
    flat, base = (points + apart).reshape(-1), np.arange(len(points))[:, None] * points.shape[1]

    def squares(end: Array, total: Array) -> Array:
        below = np.searchsorted(flat, np.clip(end, first, last) + apart) - base
        count, one, two = np.take_along_axis(sums, np.broadcast_to(below, (3, *below.shape)), axis=2) - total
        return np.asarray(np.abs(count * end**2 - 2 * end * one + two))

    return squares(np.maximum(start, first), np.zeros((3, 1, 1))) + squares(np.minimum(end, last), sums[:, :, -1:])


def errors(points: Array, weights: Array, ratios: Array, offsets: Array, bits: int) -> Array:
    """What each candidate costs each channel: [channels, points] (each point so often as its weight), [channels, candidates] ->
    [channels, candidates], all in steps of the grid of `tf`.
    """
    found = np.empty(ratios.shape)
    count = max(1, CACHE // max(1, points.size))
    for start in range(0, ratios.shape[1], count):
        some = slice(start, start + count)
        low = offsets[:, some, None]
        beyond = points[:, None] * (1 / ratios[:, some, None])  # in half the time of a division
        within = np.maximum(beyond, low)
        np.minimum(within, low + (2**bits - 1), out=within)
        beyond -= within
        beyond *= beyond
        beyond *= SATURATED
        within -= np.rint(within)
        within *= within
        within += beyond
        found[:, some] = np.einsum("rkp,rp->rk", within, weights)  # a product of matrices would start threads for it, and wait for them
    return np.asarray(found * ratios**2)
