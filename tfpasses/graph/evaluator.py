"""What the framework needs of whoever can run a graph. Frontends supply it; verification and calibration use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from tfpasses.graph.graph import Array, Graph
from tfpasses.graph.values import Ref

__all__ = ["Evaluator", "Held", "Run", "Step", "Total"]

Run = Callable[[Mapping[Ref, Array]], list[Array]]
Held = Any
"""A value as whoever runs graphs holds it: `numpy.asarray` reads it without a copy where the two share a memory."""
Total = tuple[Array, int]
"""The sum of a value over its first axis, and how long that is."""
Step = Callable[[Mapping[Ref, Held]], tuple[list[Held], list[Total]]]


class Evaluator(Protocol):
    """Runs graphs."""

    def compile(self, graph: Graph, feeds: Sequence[Ref], fetches: Sequence[Ref], dtype: str | None = None) -> Run:
        """A function from the values of `feeds` to the values of `fetches`.

        With `dtype` (`float64`) every floating-point value is computed in it, as far as a kernel exists, by another construction
        where not; opaque nodes are computed in their own dtype. Without, in the dtypes recorded in the graph. Inference mode.
        """
        ...

    def trace(self, graph: Graph, feeds: Sequence[Ref], fetches: Sequence[Ref], totals: Sequence[Ref]) -> Step:
        """The same for many calls: compiled as a whole where all its nodes are canonical, for each size of the samples. It gives the values
        of `fetches`, and of `totals` the sums, of half precision in float32.
        """
        ...
