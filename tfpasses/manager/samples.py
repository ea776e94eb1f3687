"""The data that passes look at: inputs of a model, many samples of them, read as often as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from tfpasses.graph import Array
from tfpasses.manager.errors import DataError

__all__ = ["Samples", "all_batches"]


class Samples(Protocol):
    """Inputs of a model."""

    @property
    def count(self) -> int | None:
        """How many samples there are, where that is known before they are read."""
        ...

    @property
    def infinite(self) -> bool:
        """Whether they are known to have no end, as those of a dataset that repeats: to be read only as far as one wants."""
        ...

    def batches(self, size: int) -> Iterator[Mapping[str, Array]]:
        """Arrays by input name, in dtype and shape as the model takes them, `size` samples at a time; the last may be fewer, and so may be
        one after which the samples have another shape.

        Of a model that takes a fixed number of samples, as many as it takes; where an input has no axis of samples, all there is, or
        one element of the source after the other.

        Each call reads the data anew: what can be read only once raises `DataError` the second time. The data may be more than memory
        holds, so a batch is made when it is asked for. Raises `DataError`, one line, for data that cannot be read or do not fit the model.
        """
        ...


def all_batches(samples: Samples, size: int) -> Iterator[Mapping[str, Array]]:
    """For a pass that wants all there is: the batches, or a `DataError` where they have no end."""
    if samples.infinite:
        raise DataError("the data have no end; give so many of them as are meant: dataset.take(n)")
    return samples.batches(size)
