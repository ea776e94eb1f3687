"""Arrays that hold all samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import numpy as np

from tfpasses.graph import Array, Graph
from tfpasses.manager import DataError

__all__ = ["ArraySamples"]


@attrs.frozen(eq=False)
class ArraySamples:
    """One array an input; see `tfpasses.manager.Samples`."""

    arrays: Mapping[str, Array]
    apart: bool
    """Whether the first axes are those of the samples, to be parted as one likes."""

    @classmethod
    def of(cls, graph: Graph, data: Any) -> ArraySamples:
        """Arrays by input name, as a model takes them.

        Raises `DataError`, one line: unknown or missing inputs, shapes that do not fit, no samples.
        """
        if not isinstance(data, Mapping):
            raise DataError(f"data is of type {type(data).__name__}; give arrays by input name: {', '.join(graph.inputs)}")
        if set(data) != set(graph.inputs):
            raise DataError(
                f"data is given for {', '.join(sorted(map(str, data))) or 'nothing'}; the model's inputs are {', '.join(graph.inputs)}"
            )
        arrays = {name: fitting(name, data[name], graph) for name in graph.inputs}
        shapes = [graph.nodes[name].specs[0].shape for name in graph.inputs]
        counts = {len(array) if array.ndim else 0 for array in arrays.values()}
        return cls(arrays, len(counts) == 1 and all(shape and shape[0] is None for shape in shapes))

    @property
    def count(self) -> int | None:
        """How many samples there are."""
        return len(next(iter(self.arrays.values()))) if self.apart else None

    def batches(self, size: int) -> Iterator[Mapping[str, Array]]:
        """The arrays in parts; as a whole where they cannot be parted."""
        if self.count is None:
            yield self.arrays
            return
        for start in range(0, self.count, size):
            yield {name: array[start : start + size] for name, array in self.arrays.items()}


def fitting(name: str, values: Any, graph: Graph) -> Array:
    """What is given for an input, as it takes it, or a `DataError`."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise DataError(f"data for input {name} is no array: {' '.join(str(error).split())}") from error
    spec = graph.nodes[name].specs[0]
    shape = array.shape if spec.shape is None else spec.shape
    fits = array.ndim == len(shape) and all(b is None or a == b for a, b in zip(array.shape, shape, strict=True))
    if not fits or array.size == 0:
        raise DataError(f"data for input {name} has shape {array.shape}; {spec} with at least one sample is expected")
    if array.dtype.kind not in ("OSU" if spec.dtype == "string" else "biuf"):
        raise DataError(f"data for input {name} has dtype {array.dtype}; {spec} is expected")
    return array.astype(spec.dtype) if spec.dtype in ("float32", "float64") else array
