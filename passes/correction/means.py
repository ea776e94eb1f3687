"""What the taps of linear nodes read on average on data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce

import attrs
import numpy as np

from tfpasses.graph import Array, Graph, LinearView, Node, Ref, Total
from tfpasses.graph.shapes import infer_shape
from tfpasses.manager import Workers
from tfpasses.passes.correction.taps import spatial, tap_means

__all__ = ["Totals"]


@attrs.define(eq=False)
class Totals:
    """What linear nodes read on some samples, summed in float64: of the samples of one size what lies at each place, of those of other
    sizes, which came before, what each tap reads.
    """

    graph: Graph
    nodes: Mapping[Ref, Sequence[Node]]
    """Those that read each value."""
    sums: dict[Ref, tuple[Array, int]] = attrs.field(factory=dict)
    """By value: the sum over samples of one size, and how many these are."""
    taps: dict[str, tuple[Array, float]] = attrs.field(factory=dict)
    """By node: the sum over samples and places of what each tap reads, and how many these are."""

    @classmethod
    def of(cls, nodes: Iterable[Node], graph: Graph) -> Totals:
        """Of no samples yet."""
        readers: dict[Ref, list[Node]] = {}
        for node in nodes:
            readers.setdefault(node.inputs[0], []).append(node)
        return cls(graph, readers)

    def add(self, found: Mapping[Ref, Total]) -> None:
        """Add the totals of some samples."""
        for ref, (total, count) in found.items():
            before = self.sums.get(ref)
            if before is not None and before[0].shape == total.shape:
                with np.errstate(invalid="ignore"):  # what is not finite is told of where it is used
                    np.add(before[0], total, out=before[0])
                self.sums[ref] = before[0], before[1] + count
            else:
                self.close(ref)
                self.sums[ref] = total.astype(np.float64), count

    def close(self, ref: Ref) -> None:
        """Let go of the sum at each place: what the taps read of it is kept."""
        if ref in self.sums:
            total, count = self.sums.pop(ref)
            for node in self.nodes[ref]:
                sums, weight = self.of_taps(node)
                more, places = weighted(total, count, node, self.graph)
                self.taps[node.name] = sums + more, weight + places

    def of_taps(self, node: Node) -> tuple[Array, float]:
        """What is kept of a node."""
        view = LinearView.of(node, self.graph)
        nothing = np.zeros((math.prod(view.in_kernel.shape[:-2]), view.in_channels)), 0.0
        return self.taps.get(node.name, nothing)

    def means(self, workers: Workers | None = None) -> dict[str, Array]:
        """The mean of what each tap of each linear node's (first) kernel reads, over samples and the places of its output: [taps, input
        channels], float64, by the node's name; over all workers' samples where there are several.
        """
        for ref in self.nodes:
            self.close(ref)
        parts = {node.name: self.of_taps(node) for nodes in self.nodes.values() for node in nodes}
        found: dict[str, Array] = {}
        for name, (sums, weight) in (parts if workers is None else together(parts, workers)).items():
            with np.errstate(invalid="ignore", divide="ignore"):
                found[name] = sums / weight
        return found


def weighted(total: Array, count: int, node: Node, graph: Graph) -> tuple[Array, float]:
    """The sum over samples and places of what each tap reads, by the sum over samples; and how many these are."""
    params = {slot: array.shape for slot, array in graph.params(node).items()}
    shape = total.shape
    given = infer_shape(node, [(1, *shape)], params)
    assert given is not None
    sizes = spatial(node, given if node.op == "ConvTranspose" else (1, *shape))
    places = count * math.prod(size or 0 for size in spatial(node, given))
    with np.errstate(invalid="ignore"):
        return tap_means(node, total / count, graph, sizes) * places, float(places)


def together(parts: Mapping[str, tuple[Array, float]], workers: Workers) -> dict[str, tuple[Array, float]]:
    """The sums over all workers, taken in the order of rank by each, so that all have the same bits."""
    mine = np.concatenate([np.append(sums.ravel(), weight) for sums, weight in parts.values()])
    whole = reduce(np.add, workers.gathered(mine))
    found: dict[str, tuple[Array, float]] = {}
    for name, (sums, _) in parts.items():
        numbers, whole = whole[: sums.size + 1], whole[sums.size + 1 :]
        found[name] = numbers[:-1].reshape(sums.shape), float(numbers[-1])
    return found
