"""The data that passes look at: inputs of a model, many samples of them, read as often as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from tfpasses.graph import Array

__all__ = ["Samples"]


class Samples(Protocol):
    """Inputs of a model."""

    @property
    def count(self) -> int | None:
        """How many samples there are, where that is known before they are read."""
        ...

    def batches(self, size: int) -> Iterator[Mapping[str, Array]]:
        """Arrays by input name, in dtype and shape as the model takes them, `size` samples at a time; the last may be fewer.

        Of a model that takes a fixed number of samples, as many as it takes; where an input has no axis of samples, all there is. Each
        call reads the data anew. Raises `DataError`, one line, for data that cannot be read or do not fit the model.
        """
        ...
