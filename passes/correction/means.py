"""What the taps of linear nodes read on average on data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import reduce

import attrs
import numpy as np

from tfpasses.graph import Array, Graph, LinearView, Node, Ref, Total
from tfpasses.graph.shapes import infer_shape
from tfpasses.manager import Workers
from tfpasses.passes.correction.taps import spatial, tap_means

__all__ = ["Totals", "read_means"]


@attrs.define(eq=False)
class Totals:
    """Sums of values over samples, in float64: one for each size that a value has."""

    sums: dict[Ref, dict[tuple[int, ...], tuple[Array, int]]] = attrs.field(factory=dict)

    def add(self, found: Mapping[Ref, Total]) -> None:
        """Add the totals of some samples."""
        for ref, (total, count) in found.items():
            of_sizes = self.sums.setdefault(ref, {})
            before = of_sizes.get(total.shape)
            if before is None:
                of_sizes[total.shape] = (total.astype(np.float64), count)
            else:
                np.add(before[0], total, out=before[0])
                of_sizes[total.shape] = (before[0], before[1] + count)


def read_means(totals: Totals, nodes: Iterable[Node], graph: Graph, workers: Workers | None = None) -> dict[str, Array]:
    """The mean of what each tap of each linear node's (first) kernel reads, over samples and the places of its output: [taps, input
    channels], float64, by the node's name; over all workers' samples where there are several.
    """
    found: dict[str, Array] = {}
    parts = {node.name: weighted(totals, node, graph) for node in nodes}
    for name, (sums, weight) in (parts if workers is None else together(parts, workers)).items():
        with np.errstate(invalid="ignore", divide="ignore"):
            found[name] = sums / weight
    return found


def weighted(totals: Totals, node: Node, graph: Graph) -> tuple[Array, float]:
    """The sum over samples and places of what each tap reads, and how many these are."""
    view = LinearView.of(node, graph)
    params = {slot: array.shape for slot, array in graph.params(node).items()}
    whole: Array = np.zeros((math.prod(view.in_kernel.shape[:-2]), view.in_channels))
    weight = 0.0
    for shape, (total, count) in totals.sums.get(node.inputs[0], {}).items():
        given = infer_shape(node, [(1, *shape)], params)
        assert given is not None
        sizes = spatial(node, given if node.op == "ConvTranspose" else (1, *shape))
        places = count * math.prod(size or 0 for size in spatial(node, given))
        whole += tap_means(node, total / count, graph, sizes) * places
        weight += places
    return whole, weight


def together(parts: Mapping[str, tuple[Array, float]], workers: Workers) -> dict[str, tuple[Array, float]]:
    """The sums over all workers, taken in the order of rank by each, so that all have the same bits."""
    mine = np.concatenate([np.append(sums.ravel(), weight) for sums, weight in parts.values()])
    whole = reduce(np.add, workers.gathered(mine))
    found: dict[str, tuple[Array, float]] = {}
    for name, (sums, _) in parts.items():
        numbers, whole = whole[: sums.size + 1], whole[sums.size + 1 :]
        found[name] = numbers[:-1].reshape(sums.shape), float(numbers[-1])
    return found
