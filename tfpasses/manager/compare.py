"""Comparing the outputs of two models on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np

from tfpasses.graph import Array, Evaluator, Graph, Ref
from tfpasses.manager.numeric import factor, looks, own_errors
from tfpasses.manager.rounding import distance, largest, wide

__all__ = ["OutputDifference", "compare_outputs", "worst_of"]


@attrs.frozen
class OutputDifference:
    """How far two models' outputs are apart. Absolute; `scale` is the largest value of the first model's output."""

    output: str
    maximum: float
    mean: float
    scale: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether the largest difference is a number within what is allowed."""
        return self.maximum <= self.allowed


def compare_outputs(
    graph: Graph,
    ours: Sequence[Array],
    theirs: Sequence[Array],
    evaluator: Evaluator,
    inputs: Mapping[Ref, Array],
    tolerance: float | None = None,
) -> list[OutputDifference]:
    """Compare the outputs of the model that `graph` was read from with another's, one by one.

    Allowed is `tolerance` times the output's scale; without one, what rounding explains: with e the first model's own error
    against float64, the second may be 4e from the truth, and so 5e from the first.
    """
    found: list[OutputDifference] = []
    if tolerance is not None:
        return differences(graph, ours, theirs, [0.0 if value.dtype.kind in "OSU" else tolerance * largest(value) for value in ours])
    for measured in looks(graph, evaluator, inputs):
        errors = own_errors(graph, measured)
        limits = [(factor(graph.spec(ref)) + 1) * error for ref, error in zip(graph.outputs, errors, strict=True)]
        found = differences(graph, ours, theirs, limits)
        if all(difference.ok for difference in found):
            break
    return found


def worst_of(parts: Sequence[Sequence[OutputDifference]]) -> list[OutputDifference]:
    """Of comparisons on several inputs, for each output the one that comes nearest to what is allowed, or goes furthest beyond it."""
    return [
        max(found, key=lambda one: (not one.ok, one.maximum / one.allowed if one.allowed else one.maximum))
        for found in zip(*parts, strict=True)
    ]


def differences(graph: Graph, ours: Sequence[Array], theirs: Sequence[Array], allowed: Sequence[float]) -> list[OutputDifference]:
    """The figures of every output."""
    found = []
    for name, a, b, limit in zip(graph.output_names, ours, theirs, allowed, strict=True):
        if a.dtype.kind in "OSU":  # words: equal or not
            same = float(np.array_equal(a, b))
            found.append(OutputDifference(name, 1.0 - same, 1.0 - same, 1.0, 0.0))
            continue
        x, y = wide(a), wide(b)
        finite = np.isfinite(x) & np.isfinite(y)
        with np.errstate(invalid="ignore"):  # infinity less infinity, which `finite` leaves out
            mean = float(np.mean(np.abs(x - y), where=finite)) if finite.any() else 0.0
        found.append(OutputDifference(name, distance(x, y), mean, largest(x), limit))
    return found
