"""The file that keeps facts beside a model: an `.npz` marked with the model's digest."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from tfpasses.graph.errors import FactsError
from tfpasses.graph.facts import Fact, FactKey
from tfpasses.graph.files import atomic_write
from tfpasses.graph.graph import Graph
from tfpasses.graph.values import Ref

__all__ = ["load_facts", "save_facts"]

FORMAT = 1


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
