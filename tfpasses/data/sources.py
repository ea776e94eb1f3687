"""Whatever a user gives as data, as samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tfpasses.data.arrays import ArraySamples
from tfpasses.data.datasets import elements, graph_of, is_dataset, of_dataset
from tfpasses.data.files import DataFile
from tfpasses.data.intake import Intake
from tfpasses.data.readers import read_data
from tfpasses.data.streams import Source, StreamSamples
from tfpasses.data.structures import is_structure
from tfpasses.graph import Graph
from tfpasses.manager import DataError

__all__ = ["samples_of"]


def samples_of(graph: Graph, data: Any, *, finite: bool = True) -> ArraySamples | StreamSamples:
    """Data as samples of a model's inputs.

    Arrays that hold all samples: one for a model of one input, a mapping by input name, a tuple (x, label), a list of one an input. Samples
    or batches one after the other: a `tf.data.Dataset`, an iterable, an iterator, a callable that makes one. Files: a path, `Images`,
    `Records`. With `finite=False` batches may hold NaN and infinity.

    Raises `DataError`, one line, for what is none of these, is empty, or does not fit the model.
    """
    if isinstance(data, str | Path):
        data = read_data(data)
    if isinstance(data, DataFile):
        return StreamSamples(Intake.of(graph, finite), graph, data.source(graph))
    if is_dataset(data):
        return StreamSamples(Intake.of(graph, finite), graph, of_dataset(data))
    if holds_all(graph, data):
        return ArraySamples.of(graph, data, finite)
    return StreamSamples(Intake.of(graph, finite), graph, of_python(graph, data))


def holds_all(graph: Graph, data: Any) -> bool:
    """Whether data are arrays, and not elements one by one."""
    if isinstance(data, Mapping | tuple) or hasattr(data, "__array__"):
        return True
    return isinstance(data, list) and len(graph.inputs) > 1 and len(data) == len(graph.inputs) and not any(map(is_structure, data))


def of_python(graph: Graph, data: Any) -> Source:
    """Read an iterator once, and as often as one likes an iterable or what a callable makes."""
    kind = f"the {type(data).__name__}"
    if isinstance(data, Iterator):
        return Source(kind, lambda: data, again=False)
    if isinstance(data, bytes | bytearray | set | frozenset):
        raise refusal(graph, data)
    if isinstance(data, Iterable):
        return Source(kind, lambda: iter(data), length=len(data) if isinstance(data, list) else None)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):  # sequences by an older protocol
        return Source(kind, lambda: (data[number] for number in range(len(data))), length=len(data))
    if callable(data):
        return Source("what the callable makes", lambda: made(data))
    raise refusal(graph, data)


def refusal(graph: Graph, data: Any) -> DataError:
    """Of what is no data."""
    return DataError(
        f"data is of type {type(data).__name__}; give arrays by input name ({', '.join(graph.inputs)}), a tf.data.Dataset, an iterable of "
        "samples or batches, a callable that makes one, or the name of a file"
    )


def made(maker: Callable[[], Any]) -> Iterator[Any]:
    """What a callable makes, element by element."""
    data = maker()
    if is_dataset(data) and graph_of(data) is None:
        return elements(data)
    if not isinstance(data, Iterable) or isinstance(data, str | bytes | Mapping):
        raise DataError(f"data is a callable that gives {type(data).__name__}; it must give an iterator of samples or batches")
    return iter(data)
