"""Grids found the slow way: exact fractions, a loop over every candidate, another over every value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

__all__ = ["Candidate", "all_candidates", "cost", "spanning"]


class Candidate(NamedTuple):
    delta: Fraction
    offset: int


def spanning(values: Iterable[float], bits: int, symmetric: bool) -> Candidate:
    """The grid of the range of some numbers and 0, at least 0.01 wide."""
    numbers = [0.0, *map(float, values)]
    low, high = Fraction(min(numbers)), Fraction(max(numbers))
    high = max(high, low + Fraction(0.01))
    if symmetric:
        return Candidate(max(-low, high) / (2 ** (bits - 1) - 1), -(2 ** (bits - 1)))
    delta = (high - low) / (2**bits - 1)
    return Candidate(delta, round(low / delta))  # of a Fraction, too, half to even


def all_candidates(values: Iterable[float], bits: int, symmetric: bool) -> list[Candidate]:
    """That grid first, then those that AIMET's search goes through, in its words: 17 deltas, 21 offsets, clamped to what was observed;
    or 101 deltas. The symmetric ones are fractions of the first.
    """
    observed, steps = spanning(values, bits, symmetric), 2**bits - 1
    found = [observed]
    if symmetric:
        return found + [Candidate(observed.delta * Fraction(k, 100), observed.offset) for k in range(1, 102)]
    observed_min, observed_max = observed.delta * observed.offset, observed.delta * (observed.offset + steps)
    for k in range(1, 18):
        for i in range(21):
            delta = observed.delta * Fraction(k, 16)
            offset = math.trunc(-steps + Fraction(steps * i, 20))
            low, high = delta * offset, delta * (offset + steps)
            if low < observed_min and high > observed_max:
                continue
            low, high = max(low, observed_min), min(high, observed_max)
            if low != high:
                delta = (high - low) / steps
                found.append(Candidate(delta, round(low / delta)))
    return found


def cost(values: Sequence[float], grid: Candidate, bits: int, unit: Fraction) -> float:
    """What a grid costs some numbers, in squares of a unit: squared errors within its range, 3 times the squared distances beyond."""
    first, last = grid.offset, grid.offset + 2**bits - 1
    ratio, total = float(grid.delta / unit), []
    for number in values:
        place = number / float(unit) / ratio
        within = min(max(place, first), last)
        total.append((within - round(within)) ** 2 + 3 * (place - within) ** 2)
    return math.fsum(total) * ratio**2
