"""Functions that are linear in pieces, of a normally distributed variable: what ReLUs of all kinds, limits and multiples make of one.

Elementwise: every array is laid out as `equalization.layouts` says, and all that meet broadcast against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import numpy as np

from tfpasses.graph import Array
from tfpasses.passes.equalization.arithmetic import density, normal

__all__ = ["IDENTITY", "Piece", "above_limit", "affine", "below_limit", "moments", "rectified", "smooth_moments"]


@attrs.frozen(eq=False)
class Piece:
    """What a function is between two ends: offset + slope·z for low < z <= high. There is nothing of it where low >= high."""

    low: Array
    high: Array
    offset: Array
    slope: Array

    def then(self, offset: Array | float, slope: Array | float) -> Piece:
        """With offset + slope·x for what it gave as x."""
        return Piece(self.low, self.high, np.asarray(offset + slope * self.offset), np.asarray(slope * self.slope))

    @property
    def arrays(self) -> tuple[Array, Array, Array, Array]:
        """Its four arrays."""
        return self.low, self.high, self.offset, self.slope


Pieces = Sequence[Piece]

IDENTITY: Pieces = (Piece(np.asarray(-np.inf), np.asarray(np.inf), np.asarray(0.0), np.asarray(1.0)),)
"""z itself."""


def split(pieces: Pieces, at: Array | float) -> tuple[list[Piece], list[Piece]]:
    """The pieces where the function is at most a number, and where it is more."""
    below, above = [], []
    for piece in pieces:
        with np.errstate(divide="ignore", invalid="ignore"):
            meets = (at - piece.offset) / piece.slope
        flat, falling = piece.slope == 0, piece.slope < 0
        cut = np.clip(np.where(flat, np.where(piece.offset <= at, np.inf, -np.inf), meets), piece.low, piece.high)
        below.append(Piece(np.where(falling, cut, piece.low), np.where(falling, piece.high, cut), piece.offset, piece.slope))
        above.append(Piece(np.where(falling, piece.low, cut), np.where(falling, cut, piece.high), piece.offset, piece.slope))
    return below, above


def kept(pieces: Sequence[Piece]) -> Pieces:
    """Without those of which there is nothing anywhere."""
    return tuple(piece for piece in pieces if not (piece.low >= piece.high).all())


def affine(pieces: Pieces, offset: Array | float, slope: Array | float) -> Pieces:
    """offset + slope·x of what the pieces give."""
    return tuple(piece.then(offset, slope) for piece in pieces)


def rectified(pieces: Pieces, slope: Array | float, threshold: float = 0.0, limit: float | None = None) -> Pieces:
    """A ReLU of what the pieces give: limit if x >= limit, x if x > threshold, else slope·(x - threshold)."""
    rest, high = (list(pieces), []) if limit is None else split(pieces, limit)
    below, above = split(rest, threshold)
    return kept([*affine(below, -slope * threshold, slope), *above, *affine(high, limit or 0.0, 0.0)])


def below_limit(pieces: Pieces, limit: Array | float) -> Pieces:
    """The smaller of what the pieces give and a number."""
    below, above = split(pieces, limit)
    return kept([*below, *affine(above, limit, 0.0)])


def above_limit(pieces: Pieces, limit: Array | float) -> Pieces:
    """The larger of what the pieces give and a number."""
    below, above = split(pieces, limit)
    return kept([*affine(below, limit, 0.0), *above])


def moments(mean: Array, std: Array, pieces: Pieces) -> tuple[Array, Array]:
    """The mean and the standard deviation of a function of a normal variable of mean `mean` and deviation `std`.

    With a and b the ends of a piece in deviations from the mean, and P = Phi(b) - Phi(a), the mean is the sum over the pieces of
    (offset + slope·mean)·P + slope·std·(phi(a) - phi(b)); of max(0, z) that is mean·Phi(mean/std) + std·phi(mean/std). Where std is 0
    it is the function of the mean. NaN where either is NaN; of a function of one piece the mean is known without the deviation.
    """
    if len(pieces) == 1:
        (piece,) = pieces
        return np.asarray(piece.offset + piece.slope * mean), np.asarray(np.abs(piece.slope) * std)
    sure = std == 0
    safe = np.where(std > 0, std, 1.0)
    parts = [partial(mean, safe, sure, piece) for piece in pieces]
    centre = sum((part.offset * share + part.slope * first for part, share, first, _ in parts), np.zeros(()))
    spread = np.zeros(())
    for part, share, first, second in parts:
        offset = part.offset - centre
        spread = spread + offset**2 * share + 2 * offset * part.slope * first + part.slope**2 * second
    unknown = np.isnan(mean) | np.isnan(std)
    deviation = np.where(sure, 0.0, np.sqrt(np.maximum(spread, 0.0)))
    return np.where(unknown, np.nan, centre), np.where(unknown, np.nan, deviation)


def partial(mean: Array, std: Array, sure: Array, piece: Piece) -> tuple[Piece, Array, Array, Array]:
    """A piece as a function of the standard normal variable u, with what lies in it of 1, of u and of u squared."""
    a, b = (piece.low - mean) / std, (piece.high - mean) / std
    b = np.maximum(a, b)
    inside = (piece.low < mean) & (mean <= piece.high)
    share = np.where(sure, inside, np.maximum(normal(b) - normal(a), 0.0))
    first = np.where(sure, 0.0, density(a) - density(b))
    second = np.where(sure, 0.0, share + by_density(a) - by_density(b))
    offset = np.where(share > 0, piece.offset + piece.slope * mean, 0.0)  # a limit that is infinite has no share
    return Piece(piece.low, piece.high, offset, piece.slope * std), share, first, second


def by_density(x: Array) -> Array:
    """x·phi(x), 0 at infinity."""
    finite = np.where(np.isfinite(x), x, 0.0)
    return np.asarray(finite * density(finite))


REACH, POINTS, CHUNK = 9.0, 721, 4096


def smooth_moments(mean: Array, std: Array, function: Callable[[Array], Array]) -> tuple[Array, Array]:
    """The mean and the standard deviation of a smooth function of a normal variable, by the trapezoidal rule over nine deviations on
    either side: its error is below 1e-6 of the function's own range where that is smooth. NaN where either is NaN.
    """
    at = np.linspace(-REACH, REACH, POINTS)
    weights = density(at)
    weights /= weights.sum()
    means, deviations = np.broadcast_arrays(mean, std)
    found = np.empty((2, means.size))
    for start in range(0, means.size, CHUNK):
        part = slice(start, start + CHUNK)
        values = function(means.reshape(-1)[part, None] + deviations.reshape(-1)[part, None] * at)
        centre = values @ weights
        found[0, part], found[1, part] = centre, np.sqrt(((values - centre[:, None]) ** 2) @ weights)
    return found[0].reshape(means.shape), np.where(deviations == 0, 0.0, found[1].reshape(means.shape))
