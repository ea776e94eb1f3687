"""Facts: typed knowledge about a value that outlives the node it came from, and the file that keeps them beside a model."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import numpy as np

from tfpasses.graph.errors import FactsError
from tfpasses.graph.files import atomic_write
from tfpasses.graph.values import Ref

if TYPE_CHECKING:
    from tfpasses.graph.graph import Graph

__all__ = ["ChannelStats", "Fact", "FactKey", "load_facts", "save_facts"]

FORMAT = 1


@attrs.frozen(eq=False)
class Fact:
    """Base of all facts: a frozen class of float64 arrays, known under its `kind`."""

    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type[Fact]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Fact.kinds[cls.kind] = cls


FactKey = tuple[Ref, str]


def vector(value: Any) -> np.ndarray[Any, Any]:
    array = np.array(value, dtype=np.float64, ndmin=1)
    array.setflags(write=False)
    return array


@attrs.frozen(eq=False)
class ChannelStats(Fact):
    """Mean and standard deviation of a pre-activation, one float64 number a channel.

    A folded batch norm leaves beta and |gamma| behind: its output has that mean and deviation on the data it was trained on.
    """

    kind: ClassVar[str] = "ChannelStats"
    mean: np.ndarray[Any, Any] = attrs.field(converter=vector)
    std: np.ndarray[Any, Any] = attrs.field(converter=vector)


def save_facts(path: str | Path, graph: Graph) -> None:
    """Write the graph's facts as `.npz`, marked with the graph's digest."""
    arrays: dict[str, np.ndarray[Any, Any]] = {"format": np.array(FORMAT), "digest": np.array(graph.digest)}
    for (ref, kind), fact in graph.facts.items():
        for field in attrs.fields(type(fact)):
            arrays[f"{ref.node}|{ref.index}|{kind}|{field.name}"] = getattr(fact, field.name)
    with atomic_write(Path(path)) as beside, beside.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def load_facts(path: str | Path, graph: Graph) -> Mapping[FactKey, Fact]:
    """The facts in a file that `save_facts` wrote for this very graph.

    Raises `FactsError` where the file is not one of facts, or belongs to another model.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise FactsError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise FactsError(f"{path}: not a facts file (.npz): {error}") from error
    if "digest" not in arrays or not np.array_equal(arrays.pop("format", 0), FORMAT):
        raise FactsError(f"{path}: not a facts file of format {FORMAT}; write one with `tfpasses run .. --facts`")
    digest = str(arrays.pop("digest"))
    if digest != graph.digest:
        raise FactsError(f"{path}: these facts belong to another model (digest {digest[:12]}, this model has {graph.digest[:12]})")
    fields: dict[FactKey, dict[str, np.ndarray[Any, Any]]] = {}
    try:
        for key, array in arrays.items():
            node, index, kind, field = key.rsplit("|", 3)
            fields.setdefault((Ref(node, int(index)), kind), {})[field] = array
        return {key: Fact.kinds[key[1]](**values) for key, values in fields.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise FactsError(f"{path}: holds a fact this version does not know: {error}") from error
