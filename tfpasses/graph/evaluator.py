"""What the framework needs of whoever can run a graph. Frontends supply it; verification and calibration use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from tfpasses.graph.graph import Array, Graph
from tfpasses.graph.values import Ref

__all__ = ["Evaluator", "Run"]

Run = Callable[[Mapping[Ref, Array]], list[Array]]


class Evaluator(Protocol):
    """Runs graphs."""

    def compile(self, graph: Graph, feeds: Sequence[Ref], fetches: Sequence[Ref], dtype: str | None = None) -> Run:
        """A function from the values of `feeds` to the values of `fetches`.

        With `dtype` (`float64`) every floating-point value is computed in it, as far as a kernel exists, by another construction
        where not; opaque nodes are computed in their own dtype. Without, in the dtypes recorded in the graph. Inference mode.
        """
        ...
