"""Whatever a user gives as data, as samples."""

from __future__ import annotations

from typing import Any

from tfpasses.data.arrays import ArraySamples
from tfpasses.graph import Graph
from tfpasses.manager import Samples

__all__ = ["samples_of"]


def samples_of(graph: Graph, data: Any) -> Samples:
    """Data as samples of a model's inputs. Raises `DataError`, one line, for what does not fit."""
    return ArraySamples.of(graph, data)
