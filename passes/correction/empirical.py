"""What quantized kernels add to each layer's output on average on data: all layers from one pass of the network as it is (`local_shifts`),
or one after the other, each seeing the corrected ones before it (`sequential_shifts`).

All that is measured are the means of what layers read: the mean of an output is the sum over the kernel's taps of weight times the mean of
what the tap reads, so that a pass of the data need not even compute it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal

import attrs
import numpy as np

from tfpasses.graph import Array, Edit, Graph, LinearView, Node, Ref
from tfpasses.manager import Context, Remark, all_batches
from tfpasses.passes.correction.biases import Biased, corrected
from tfpasses.passes.correction.levels import Level, levels
from tfpasses.passes.correction.live import Live, Waiting
from tfpasses.passes.correction.means import Totals
from tfpasses.passes.correction.responses import change, whole
from tfpasses.passes.correction.shifts import Shift
from tfpasses.passes.quantization.kernels import kernels
from tfpasses.passes.quantization.quantizer import Quantizer

__all__ = ["Measuring", "Method", "measured_shifts"]

Method = Literal["sequential", "fast"]
BATCH = 16
"""So many samples are run at once, or fewer where they are large."""
SHARE = 32
"""The largest value of a batch takes at most this part of the memory that values may wait in."""
NOT_FINITE = "what it reads on these data is not finite"

FLOAT = 4
OF_SUMS = 16
"""Bytes for each element that is summed: a float64, and twice a float32."""
OF_WEIGHTS = 3
"""Copies of the weights."""
LIMIT = 2 * 10**9

Frontier = list[dict[Ref, Waiting]]
"""For each batch, the values that a later level reads."""


@attrs.define(eq=False)
class Measuring:
    """A graph, what its kernels become, and the data."""

    graph: Graph
    """With the kernels as they are."""
    quantized: Graph
    """With quantized kernels, and a bias wherever one is to be corrected."""
    kept: Mapping[str, str]
    """Why kernels stay as they are, by key."""
    context: Context
    samples: int
    """So many are read, by all workers together; 0 for all."""
    limit: int = LIMIT
    """Bytes of values that may wait in memory."""
    seen: int = 0
    """So many this process has read."""

    @classmethod
    def of(
        cls, graph: Graph, quantizer: Quantizer, layers: Iterable[Biased], context: Context, samples: int, limit: int = LIMIT
    ) -> Measuring:
        """For the correction of some layers."""
        edit = Edit(graph, made_by="quantizer")
        found = kernels(graph, quantizer)
        for kernel in found:
            if not kernel.reason:
                new = quantizer.quantized(kernel.array, kernel.axes, kernel.key)
                edit.set_params([edit.nodes[node.name] for node in kernel.nodes], {kernel.slot: new})
        for layer in layers:
            view = LinearView.of(layer.nodes[0], graph)
            if view.bias is None and not layer.reason:
                edit.set_params([edit.nodes[node.name] for node in layer.nodes], {"bias": np.zeros(view.out_channels, view.kernel.dtype)})
        return cls(graph, edit.freeze(), {kernel.key: kernel.reason for kernel in found if kernel.reason}, context, samples, limit)

    def batches(self) -> Iterator[Mapping[Ref, Array]]:
        """The data, as many as are wanted."""
        assert self.context.data is not None
        parted = all((self.graph.nodes[name].specs[0].shape or (0,))[0] is None for name in self.graph.inputs)
        data = self.context.data
        for batch in data.batches(self.size) if self.samples else all_batches(data, self.size):
            left = self.wanted - self.seen if self.samples else None
            if left is not None and left <= 0:
                return
            arrays = {Ref(name): array[:left] if parted else array for name, array in batch.items()}
            yield arrays
            self.seen += self.samples_in(arrays)
            if left is not None and self.seen >= self.wanted:
                return

    def samples_in(self, arrays: Mapping[Ref, Array]) -> int:
        """How many samples some inputs are: those along an axis that may be of any length, where one begins with such."""
        counts = [(len(array), (self.graph.spec(ref).shape or (None,))[0]) for ref, array in arrays.items() if array.ndim]
        return next((count for count, fixed in counts if fixed is None), counts[0][0] if counts else 1)

    @cached_property
    def size(self) -> int:
        """How many samples are run at once."""
        shapes = [spec.shape[1:] for node in self.graph.nodes.values() for spec in node.specs if spec.shape]
        largest = max((math.prod(size or 1 for size in shape) for shape in shapes), default=1)
        return min(max(self.limit // (SHARE * FLOAT * largest), 1), BATCH)

    def room(self, layers: Iterable[Biased]) -> int:
        """Bytes that are left for values to wait in, of the limit: sums of what layers read, in float64 and as they come, and the weights
        of both networks, quantized and as TensorFlow holds them, take memory all the time.
        """
        read = {node.inputs[0] for layer in layers for node in layer.nodes}
        elements = sum(math.prod(size or 1 for size in (self.graph.spec(ref).shape or ())[1:]) for ref in read)
        weights = sum(array.nbytes for array in self.graph.weights.values())
        return max(self.limit - OF_SUMS * elements - OF_WEIGHTS * weights, 0)

    @property
    def wanted(self) -> int:
        """This process's part of the samples: of several, every one of so many."""
        workers = self.context.workers
        return self.samples if workers is None else (self.samples - workers.rank + workers.count - 1) // workers.count

    @property
    def count(self) -> int | None:
        """How many batches there are, where that is known."""
        assert self.context.data is not None
        known = self.context.data.count
        return None if known is None else math.ceil((min(known, self.wanted) if self.samples else known) / self.size)

    def remarks(self, name: str) -> Iterator[Remark]:
        """Where there were fewer samples than wanted: to be asked when they are read."""
        if 0 < self.seen < self.wanted:
            mine = "" if self.context.workers is None else f" by worker {self.context.workers.rank}"
            yield Remark(
                name, "note", self.graph.name, f"{self.seen} samples were read{mine}; {self.wanted} are wanted, and there are no more"
            )

    def kernels_of(self, node: Node) -> dict[str, Array]:
        """The quantized kernels of a linear node, by slot."""
        return {view.slot: self.quantized.weights[node.params[view.slot]] for view in LinearView.of(node, self.graph).kernels}

    def keys(self, layer: Biased) -> list[str]:
        """The keys of a layer's kernels."""
        return [node.params[view.slot] for node in layer.nodes for view in LinearView.of(node, self.graph).kernels]

    def reason(self, layer: Biased) -> str:
        """Why a kernel of a layer stays as it is; empty where none does."""
        return next((self.kept[key] for key in self.keys(layer) if key in self.kept), "")

    def shift(self, layer: Biased, float_means: Mapping[str, Array], means: Mapping[str, Array] | None = None) -> Shift:
        """The mean over a layer's calls of what quantized kernels add to its output, from the means of what its taps read in the float
        graph, and in the quantized one where that is not the same.
        """
        each = []
        for node in layer.nodes:
            view, new = LinearView.of(node, self.graph), self.kernels_of(node)
            with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is told of below
                found = change(view, new, float_means[node.name])
                if means is not None:
                    found = found + whole(view, new, means[node.name] - float_means[node.name])
            each.append(found)
        values = np.mean(each, axis=0)
        values = np.where(np.isfinite(values), values, np.nan)
        if self.reason(layer) and not values.any():
            return refused(layer, self.reason(layer), self.graph)
        on_grid = all(np.array_equal(self.graph.weights[key], self.quantized.weights[key]) for key in self.keys(layer))
        return Shift(layer, values, (self.reason(layer) or NOT_FINITE) if np.isnan(values).any() else "", on_grid=on_grid)


def refused(layer: Biased, reason: str, graph: Graph) -> Shift:
    """No shift, for a reason."""
    return Shift(layer, np.full(LinearView.of(layer.nodes[0], graph).out_channels, np.nan), reason)


def measured_shifts(measuring: Measuring, layers: Sequence[Biased], method: Method, given: Sequence[Shift] = ()) -> list[Shift]:
    """The shift of every layer, in order; of those whose bias cannot change, and with `fast` of those whose kernels stay as they are, with
    the reason. `given` are shifts that are known already.
    """
    found = {shift.layer: shift for shift in given}
    for layer in layers:
        reason = layer.reason or (measuring.reason(layer) if method == "fast" else "")
        if reason and layer not in found:
            found[layer] = refused(layer, reason, measuring.graph)
    wanted = [layer for layer in layers if layer not in found]
    if wanted and method == "fast":
        found |= local_shifts(measuring, wanted)
    elif wanted:
        with Live(measuring.room(wanted)) as live:
            found |= sequential_shifts(measuring, wanted, given, live)
    return [found[layer] for layer in layers]


def local_shifts(measuring: Measuring, layers: Sequence[Biased]) -> dict[Biased, Shift]:
    """What the kernels of each layer change by themselves: sum over taps of (Wq - W)·(mean of what the tap reads), from one pass."""
    nodes = {node.name: node for layer in layers for node in layer.nodes}
    context = measuring.context
    assert context.evaluator is not None
    totals = Totals.of(nodes.values(), measuring.graph)
    refs = list(totals.nodes)
    step = context.evaluator.trace(measuring.graph, [Ref(name) for name in measuring.graph.inputs], [], refs)
    for done, batch in enumerate(measuring.batches(), 1):
        totals.add(dict(zip(refs, step(batch)[1], strict=True)))
        context.on_progress(done, measuring.count)
    means = totals.means(context.workers)
    return {layer: measuring.shift(layer, means) for layer in layers}


def sequential_shifts(measuring: Measuring, layers: Sequence[Biased], given: Iterable[Shift], live: Live) -> dict[Biased, Shift]:
    """What quantized kernels add to each layer's output while all layers before it are corrected: mean of (y_quantized - y_float), over
    samples and places, and over a layer's calls.

    Layers of one level do not see each other, and are measured together. One with calls on several levels is corrected after the others of
    its first level, by the mean over all its calls: the levels up to its last are run ahead for it, and again afterwards. `given` are
    shifts of other layers that are known already. `live` is where values wait between levels. Source: Nagel et al., "Data-Free
    Quantization through Weight Equalization and Bias Correction", arXiv 1906.04721, section 4.2.
    """
    walk = Walk.of(measuring, layers, live)
    for shift in given:
        walk.correct(shift)
    float_means = walk.begin()
    found: dict[Biased, Shift] = {}
    starting: list[list[Biased]] = [[] for _ in walk.levels]
    for layer in layers:
        starting[walk.first(layer)].append(layer)
    for place, beginning in enumerate(starting):
        means = walk.advance(walk.frontier, place)
        ending = [layer for layer in beginning if walk.last(layer) == place]
        found |= {layer: measuring.shift(layer, float_means, means) for layer in ending}
        for layer in ending:
            walk.correct(found[layer])
        for layer in beginning:
            if layer not in found:
                found[layer] = measuring.shift(layer, float_means, means | walk.ahead(place, walk.last(layer)))
                walk.correct(found[layer])
    return found


@attrs.define(eq=False)
class Walk:
    """The quantized graph on all data, as far as layers are corrected."""

    measuring: Measuring
    levels: list[Level]
    place_of: dict[str, int]
    """On which level each linear node is that is measured."""
    live: Live
    weights: dict[str, Array]
    graph: Graph
    """The quantized graph with these weights, among which the biases become corrected one after the other."""
    runs: int
    """How often each batch is run."""
    frontier: Frontier = attrs.field(factory=list)
    done: int = 0
    """Runs of a batch."""

    @classmethod
    def of(cls, measuring: Measuring, layers: Sequence[Biased], live: Live) -> Walk:
        """Before the data are read."""
        found = levels(measuring.quantized, [node.name for layer in layers for node in layer.nodes])
        places = {name: place for place, level in enumerate(found) for name in level.nodes}
        spans = [[places[node.name] for node in layer.nodes] for layer in layers]
        weights = dict(measuring.quantized.weights)
        runs = 1 + len(found) + sum(max(span) - min(span) for span in spans)
        return cls(measuring, found, places, live, weights, attrs.evolve(measuring.quantized, weights=weights), runs)

    def first(self, layer: Biased) -> int:
        """The level of a layer's first call."""
        return min(self.place_of[node.name] for node in layer.nodes)

    def last(self, layer: Biased) -> int:
        """The level of its last."""
        return max(self.place_of[node.name] for node in layer.nodes)

    def correct(self, shift: Shift) -> None:
        """Take a shift, where it is known, from a bias of the quantized graph."""
        nodes = tuple(self.measuring.quantized.nodes[node.name] for node in shift.layer.nodes)
        bias = corrected(attrs.evolve(shift.layer, nodes=nodes), np.where(shift.known, shift.values, 0.0), self.measuring.quantized)
        if bias is not None:
            self.weights[nodes[0].params["bias"]] = bias

    def begin(self) -> dict[str, Array]:
        """Read the data: the inputs wait in front of the first level. Gives what all taps read on average in the float graph."""
        measuring = self.measuring
        graph, evaluator = measuring.graph, measuring.context.evaluator
        assert evaluator is not None
        totals = Totals.of((graph.nodes[name] for level in self.levels for name in level.nodes), graph)
        refs = list(totals.nodes)
        read = {ref for level in self.levels for ref in level.feeds}
        step = evaluator.trace(graph, [Ref(name) for name in graph.inputs], [], refs)
        for batch in measuring.batches():
            totals.add(dict(zip(refs, step(batch)[1], strict=True)))
            self.frontier.append({ref: self.live.hold(array) for ref, array in batch.items() if ref in read})
            self.progress(measuring.count)
        return totals.means(measuring.context.workers)

    def advance(self, frontier: Frontier, place: int) -> dict[str, Array]:
        """Run one level on all batches. Gives what the taps of its nodes read on average."""
        level, context = self.levels[place], self.measuring.context
        assert context.evaluator is not None
        totals = Totals.of(level.nodes.values(), self.graph)
        step = context.evaluator.trace(self.graph, list(level.feeds), list(level.fetches), list(level.totals))
        for number, batch in enumerate(frontier):
            values, sums = step({ref: batch[ref].value for ref in level.feeds})
            totals.add(dict(zip(level.totals, sums, strict=True)))
            frontier[number] = {ref: waiting for ref, waiting in batch.items() if ref not in level.dead}
            del batch  # what is dead makes room for what came to be
            for ref, value in zip(level.fetches, values, strict=True):
                frontier[number][ref] = self.live.hold(value)
            self.progress(len(frontier))
        return totals.means(context.workers)

    def ahead(self, place: int, last: int) -> dict[str, Array]:
        """What the taps of the nodes behind a level read on average, up to another; the walk stays where it is."""
        frontier, found = list(self.frontier), dict[str, Array]()
        for further in range(place + 1, last + 1):
            found |= self.advance(frontier, further)
        return found

    def progress(self, batches: int | None) -> None:
        """One batch more was run, of so many on each level."""
        self.done += 1
        self.measuring.context.on_progress(self.done, None if batches is None else batches * self.runs)
