"""Arrays that hold all samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import attrs

from tfpasses.data.intake import Intake
from tfpasses.data.structures import as_array, inputs_of
from tfpasses.graph import Array, Graph
from tfpasses.manager import DataError

__all__ = ["ArraySamples"]


@attrs.frozen(eq=False)
class ArraySamples:
    """One array an input, in memory or mapped from a file; see `tfpasses.manager.Samples`. A part is read and cast when its turn comes."""

    arrays: Mapping[str, Array]
    intake: Intake

    infinite: ClassVar[bool] = False

    @classmethod
    def of(cls, graph: Graph, data: Any, finite: bool = True) -> ArraySamples:
        """Arrays in any structure that `inputs_of` knows.

        Raises `DataError`, one line: missing inputs, shapes and dtypes that do not fit, no samples.
        """
        intake = Intake.of(graph, finite)
        arrays = {name: as_array(name, value) for name, value in inputs_of(graph, data).items()}
        for name, array in arrays.items():
            intake.shaped(name, array, "")
            if array.size == 0:
                raise DataError(f"data for input {name} has shape {array.shape}; {intake.specs[name]} with at least one sample is expected")
        if intake.parted:
            intake.filled(intake.counted(arrays, ""))
        return cls(arrays, intake)

    @property
    def count(self) -> int | None:
        """How many samples there are."""
        return len(next(iter(self.arrays.values()))) if self.intake.parted else None

    def batches(self, size: int) -> Iterator[Mapping[str, Array]]:
        """The arrays in parts; as a whole where they cannot be parted."""
        if self.count is None:
            yield self.intake.cast(self.arrays, 0)
            return
        size = self.intake.fixed or size
        for start in range(0, self.count, size):
            yield self.intake.cast({name: array[start : start + size] for name, array in self.arrays.items()}, start)

    def first(self, size: int) -> Mapping[str, Array]:
        """The first of the batches, NaN and infinity among them."""
        return next(attrs.evolve(self, intake=attrs.evolve(self.intake, finite=False)).batches(size))
