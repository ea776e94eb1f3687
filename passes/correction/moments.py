"""What is known of a value before it is computed: the mean of each of its channels, and how its elements are distributed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import numpy as np

from tfpasses.graph import Array, Ref
from tfpasses.passes.correction.piecewise import IDENTITY, Piece, moments

__all__ = ["Moments", "joined"]

Pieces = Sequence[Piece]


@attrs.frozen(eq=False)
class Moments:
    """The mean and standard deviation of a value's elements, float64, NaN where not known.

    Arrays are laid out as `equalization.layouts` says: what is the same along an axis has size 1 there, the batch is left out.
    """

    mean: Array
    std: Array
    base: tuple[Array, Array] | None = None
    """The mean and deviation of the normal variable that the value is a function of; None where it is of none."""
    pieces: Pieces = IDENTITY
    """That function."""
    sources: frozenset[Ref] = frozenset()
    """The values with statistics that go into an element, place by place."""
    sums: frozenset[str] = frozenset()
    """The nodes whose addends are taken to be independent, so that `std` or `base` is what it is."""
    assumes: frozenset[str] = frozenset()
    """Those on which even the mean rests."""

    @classmethod
    def normal(cls, mean: Array, std: Array, source: Ref) -> Moments:
        """Of normally distributed elements."""
        return cls(mean, std, (mean, std), IDENTITY, frozenset({source}))

    @classmethod
    def constant(cls, values: Array) -> Moments:
        """Of a constant; NaN is an unknown one."""
        std = np.where(np.isnan(values), np.nan, 0.0)
        return cls(values, std, (values, std))

    @classmethod
    def unknown(cls, rank: int) -> Moments:
        """Of a value of so many axes of which nothing is known."""
        return cls.constant(np.full((1,) * max(rank - 1, 0), np.nan))

    @property
    def known(self) -> bool:
        """Whether every mean is known."""
        return not np.isnan(self.mean).any()

    def bent(self, change: Callable[[Pieces], Pieces]) -> Moments:
        """After a function that is linear in pieces. Of a value that is no function of a normal variable, where it is constant."""
        base, pieces = self.base, self.pieces
        if base is None:
            base, pieces = (self.mean, np.where(self.std == 0, 0.0, np.nan)), IDENTITY
        pieces = tuple(change(pieces))
        mean, std = moments(base[0], base[1], pieces)
        straight = len(pieces) == 1
        if self.base is None and straight:
            mean, std = moments(self.mean, self.std, pieces)
            return attrs.evolve(self, mean=mean, std=std)
        return attrs.evolve(
            self, mean=mean, std=std, base=base, pieces=pieces, assumes=self.assumes if straight else self.assumes | self.sums
        )

    def without_shape(self, mean: Array, std: Array) -> Moments:
        """Another value of which the mean and deviation are these, and nothing else is known."""
        return attrs.evolve(self, mean=mean, std=std, base=None, pieces=IDENTITY)

    def each(self, change: Callable[[Array], Array | None]) -> Moments | None:
        """After its elements were moved: `change` does it to a layout, and gives None where it is not known how."""
        return joined([self], lambda arrays: change(arrays[0]))


def joined(parts: Sequence[Moments], change: Callable[[Sequence[Array]], Array | None]) -> Moments | None:
    """What several values are together, after `change` put their layouts in one; None where it gives None."""
    arrays = [gathered(part, max(len(one.pieces) for one in parts)) for part in parts]
    found = [change(each) for each in zip(*arrays, strict=True)]
    if any(one is None for one in found):
        return None
    mean, std, *rest = [one for one in found if one is not None]
    base: tuple[Array, Array] | None = None
    pieces: Pieces = IDENTITY
    if all(part.base is not None for part in parts):
        base = (rest[0], rest[1])
        pieces = tuple(Piece(*rest[place : place + 4]) for place in range(2, len(rest), 4))
    sources = frozenset(source for part in parts for source in part.sources)
    sums = frozenset(name for part in parts for name in part.sums)
    assumes = frozenset(name for part in parts for name in part.assumes)
    return Moments(mean, std, base, pieces, sources, sums, assumes)


def gathered(part: Moments, count: int) -> list[Array]:
    """All arrays of a value in one shape: the mean, the deviation, the base's, and those of so many pieces, the last of them empty."""
    base = part.base or (part.mean, part.std)
    empty = Piece(*(np.asarray(number) for number in (np.inf, np.inf, 0.0, 0.0)))
    pieces = [*part.pieces, *[empty] * (count - len(part.pieces))]
    arrays = [part.mean, part.std, *base, *(array for piece in pieces for array in piece.arrays)]
    shape = np.broadcast_shapes(part.mean.shape, *(array.shape for array in arrays))
    return [np.broadcast_to(array, shape) for array in arrays]
