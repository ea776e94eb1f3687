"""Several processes that do one thing together, each on a part of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tfpasses.graph import Array

__all__ = ["Workers"]


class Workers(Protocol):
    """This process, as one of several that run the same pipeline on the same model."""

    @property
    def rank(self) -> int:
        """Which one it is; 0 is the chief, who writes."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def gathered(self, array: Array) -> Sequence[Array]:
        """The arrays that the workers call this with, of one shape and dtype, in the order of rank: the same to the bit for each of them.

        Every worker must call it equally often. Raises `WorkerError`, one line, where one is lost.
        """
        ...
