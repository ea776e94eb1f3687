"""Which channels must be scaled alike for a network's function to stay.

Between the layers whose kernels take a scale in lie values that pass it on (`positively_homogeneous`). Channels that meet in a sum, that
one kernel gives or reads at several places, or that a reshape put into one place, form a class: one scale. A class in which something
takes part that no scale passes through has the scale 1, and a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from tfpasses.graph import Array, Edit, Graph, KernelView, LinearView, Node, Ref, channel_axis, has_trait
from tfpasses.passes.equalization.clips import clipped, limits_of
from tfpasses.passes.equalization.constants import takes_any_dtype
from tfpasses.passes.equalization.layouts import along, concatenated, flattened, reshaped, rows
from tfpasses.passes.folding.paths import misplaces_bias

__all__ = ["Channels", "Clip", "Kernel"]

JOINS = ("Add", "Subtract", "Maximum", "Minimum")
MOVES = ("Flatten", "Reshape")
POOLS = ("MaxPool", "AvgPool", "Pad", "Crop", "UpSample")
GLOBAL_POOLS = ("GlobalMaxPool", "GlobalAvgPool")
FREE = -1


@attrs.frozen(eq=False)
class Kernel:
    """One kernel at all its uses."""

    nodes: tuple[str, ...]
    """The nodes of one layer, which share all their weights."""
    view: KernelView
    last: bool
    """Whether it is the layer's last, behind which its bias is added."""
    ins: Array
    """The class of each input channel."""
    outs: Array
    """The class of each output channel."""

    @property
    def ends(self) -> tuple[Array, Array]:
        """What it reads, and what it gives."""
        return self.ins, self.outs


@attrs.frozen(eq=False)
class Clip:
    """An activation with upper limits."""

    node: str
    limits: Array
    """They broadcast against `channels`."""
    channels: Array
    """The class of each place of its value (see `layouts`)."""


@attrs.frozen(eq=False)
class Channels:
    """The channels of a graph in classes, numbered in the order of the layers that give them."""

    count: int
    kernels: tuple[Kernel, ...]
    """In the order of computing."""
    values: Mapping[Ref, Array]
    """The class of each place of a value (see `layouts`), of those whose axes are known."""
    fixed: Array
    """For each class the number of the reason why its scale is 1, or -1."""
    reasons: tuple[tuple[str, str], ...]
    """(node, why no scale passes through it)."""
    clips: tuple[Clip, ...]
    constants: Mapping[str, Ref]
    """Constants that are added to, or compared with, a value: their nodes, with that value. They are divided by its scale."""

    @classmethod
    def of(cls, graph: Graph | Edit, clips: bool | Callable[[Node], bool] = False) -> Channels:
        """The classes of a graph. `clips`: whether a scale passes through an activation with an upper limit, which is scaled with it."""
        return Survey(graph, clips if callable(clips) else lambda _: bool(clips)).result()

    def reason(self, number: int) -> tuple[str, str] | None:
        """Why a class keeps its scale: the node, and what is the matter with it."""
        place = int(self.fixed[number])
        return None if place < 0 else self.reasons[place]


class Survey:
    """One walk over a graph in topological order. Channels get a number where they come from; what meets is tied."""

    def __init__(self, graph: Graph | Edit, passes_clip: Callable[[Node], bool]) -> None:
        self.graph = graph
        self.passes_clip = passes_clip
        self.count = 0
        self.ties: list[tuple[Array, Array]] = []
        self.reasons: dict[tuple[str, str], int] = {}
        self.marks: list[tuple[Array, int]] = []
        self.sources: set[int] = set()
        """The channels of values that come from where no scale passes."""
        self.values: dict[Ref, Array] = {}
        self.layers: dict[tuple[Any, ...], list[Array]] = {}
        """The channels of a layer, by its weights: those it reads, those between its two kernels, those it gives."""
        self.uses: dict[tuple[Any, ...], list[str]] = {}
        self.clips: list[Clip] = []
        self.constants: dict[str, Ref] = {}

    # the parts of the walk

    def new(self, count: int) -> Array:
        self.count += count
        return np.arange(self.count - count, self.count)

    def tie(self, a: Array, b: Array) -> None:
        """Let channels at the same places have one scale."""
        if a is not b:
            self.ties.append((a, b))

    def fix(self, channels: Array, node: str, why: str) -> None:
        """Let channels have the scale 1."""
        self.marks.append((channels.reshape(-1), self.reasons.setdefault((node, why), len(self.reasons))))

    def source(self, ref: Ref, why: str) -> Array | None:
        """What is said of a value that takes no scale; None where its rank is not known."""
        shape = self.graph.spec(ref).shape
        one = self.new(1)
        self.sources.add(int(one[0]))
        self.fix(one, ref.node, why)
        return None if shape is None else one.reshape((1,) * max(len(shape) - 1, 0))

    def collapsed(self, layout: Array, axis: int) -> Array:
        """A layout that differs along one axis of the value only; what lies at other places of one channel is tied."""
        count = layout.shape[axis - 1]
        found = rows(layout, axis, count)
        for row in found[1:]:
            self.tie(found[0], row)
        return along(found[0], axis, layout.ndim + 1)

    # nodes

    def result(self) -> Channels:
        graph = self.graph
        for node in graph.nodes.values():
            if has_trait(node, "linear"):
                found = self.linear(node)
            elif node.op in RULES:
                found = self.known(node)
            else:
                found = self.stop(node, f"it is {node.op}, which no scale passes through")
            if found is not None:
                self.values[Ref(node.name)] = found
        for ref in graph.outputs:
            if ref in self.values:
                self.fix(self.values[ref], ref.node, "it is an output")
        return self.classes()

    def stop(self, node: Node, why: str) -> Array | None:
        """No scale passes through a node: what it reads and gives keeps its own."""
        for ref in node.inputs:
            if ref in self.values:
                self.fix(self.values[ref], node.name, why)
        for index in range(1, len(node.specs)):
            other = self.source(Ref(node.name, index), why)
            if other is not None:
                self.values[Ref(node.name, index)] = other
        return self.source(Ref(node.name), why) if node.specs else None

    def known(self, node: Node) -> Array | None:
        """A node of the vocabulary that may hand a scale on."""
        graph = self.graph
        floats = {graph.spec(ref).dtype for ref in (*node.inputs, Ref(node.name)) if not takes_any_dtype(graph.nodes[ref.node])}
        layouts = [self.values[ref] for ref in node.inputs if ref in self.values]
        if len(layouts) < len(node.inputs) or graph.spec(Ref(node.name)).shape is None:
            return self.stop(node, "the rank of what it reads is not known")
        if len(floats) > 1 or "float" not in next(iter(floats)):
            return self.stop(node, f"it computes in {' and '.join(sorted(floats))}")
        result = RULES[node.op](self, node, layouts)
        return self.stop(node, result) if isinstance(result, str) else result

    def linear(self, node: Node) -> Array | None:
        """A kernel reads channels, and gives new ones."""
        graph = self.graph
        view, key = LinearView.of(node, graph), (node.op, self.signature(node))
        first, last = view.kernels[0], view.kernels[-1]
        if key not in self.layers:
            counts = [kernel.out_channels for kernel in view.kernels]
            self.layers[key] = [self.new(first.in_channels), *map(self.new, counts)]
            for weight in node.params.values():
                for other in graph.weight_users[weight]:
                    if other not in graph.nodes or (graph.nodes[other].op, self.signature(graph.nodes[other])) != key:
                        for channels in self.layers[key]:
                            self.fix(channels, node.name, f"it shares a weight with {other}, which uses it in another way")
            for slot, array in graph.params(node).items():
                if not np.isfinite(array).all():
                    for channels in self.layers[key]:
                        self.fix(channels, node.name, f"its {slot} is not finite (NaN or infinity)")
        self.uses.setdefault(key, []).append(node.name)
        reads, gives = self.layers[key][0], self.layers[key][-1]
        misplaced = "" if view.bias is None or graph.spec(Ref(node.name)).shape is None else misplaces_bias(node, graph)
        if misplaced:
            self.fix(gives, node.name, misplaced)
        ref = node.inputs[0]
        layout, shape, out = self.values.get(ref), graph.spec(ref).shape, graph.spec(Ref(node.name)).shape
        if layout is None or shape is None or out is None:
            for channels in (reads, gives):
                self.fix(channels, node.name, "the rank of what it reads is not known")
            return None if out is None else along(gives, view.channel_axis(len(out)), len(out))
        dtypes = {graph.spec(ref).dtype, graph.spec(Ref(node.name)).dtype}
        if len(dtypes) > 1:
            self.fix(reads, node.name, f"it casts {' and '.join(sorted(dtypes))}")
            self.fix(layout, node.name, f"it casts {' and '.join(sorted(dtypes))}")
        for row in rows(layout, channel_axis(node, len(shape)), first.in_channels):
            self.tie(reads, row)
        assert last.out_channels == gives.size
        return along(gives, view.channel_axis(len(out)), len(out))

    def signature(self, node: Node) -> tuple[Any, ...]:
        """What two uses of one layer have in common."""
        return (*sorted(node.params.items()), node.config.get("groups"), node.config.get("data_format"))

    # the end

    def classes(self) -> Channels:
        """Number the classes, and what is known of each."""
        labels = components(self.count, self.ties)
        names, numbers = np.unique(labels, return_inverse=True)
        fixed = np.full(len(names), FREE)
        for channels, reason in reversed(self.marks):  # the first reason is the one that counts
            fixed[numbers[channels]] = reason
        kernels: list[Kernel] = []
        for key, parts in self.layers.items():
            nodes = tuple(self.uses[key])
            views = LinearView.of(self.graph.nodes[nodes[0]], self.graph).kernels
            for place, view in enumerate(views):
                ends = numbers[parts[place]], numbers[parts[place + 1]]
                kernels.append(Kernel(nodes, view, place == len(views) - 1, *ends))
        return Channels(
            len(names),
            tuple(kernels),
            {ref: numbers[layout] for ref, layout in self.values.items()},
            fixed,
            tuple(self.reasons),
            tuple([attrs.evolve(clip, channels=numbers[clip.channels]) for clip in self.clips]),
            self.constants,
        )


def components(count: int, ties: Sequence[tuple[Array, Array]]) -> Array:
    """The smallest number in each connected part, for each of `count` numbers of which pairs are tied."""
    labels = np.arange(count)
    pairs = [np.stack([one.reshape(-1) for one in np.broadcast_arrays(a, b)]) for a, b in ties]
    if not pairs:
        return labels
    a, b = np.concatenate(pairs, axis=1)
    while True:
        low = np.minimum(labels[a], labels[b])
        before = labels.copy()
        np.minimum.at(labels, labels[a], low)
        np.minimum.at(labels, labels[b], low)
        labels = labels[labels]
        if (labels == before).all():
            return labels


# what each operation does to the classes: the layout of its value, or why no scale passes through it

Found = Array | str | None


def handed_on(survey: Survey, node: Node, layouts: Sequence[Array]) -> Found:
    return layouts[0] if has_trait(node, "positively_homogeneous") else f"it is {node.op}, called with training=True"


def relu(survey: Survey, node: Node, layouts: Sequence[Array]) -> Found:
    if node.config["threshold"] != 0:
        return "it is a ReLU with a threshold, which no scale passes through"
    limits = limits_of(node, survey.graph)
    return layouts[0] if limits is None else clip(survey, node, limits, layouts[0])


def clip(survey: Survey, node: Node, limits: Array, layout: Array) -> Found:
    """Upper limits, which are scaled with what they are put on."""
    if not np.isfinite(limits).all():
        return "it clips at a number that is not finite"
    if not survey.passes_clip(node):
        return f"it clips at {limits.min(initial=np.inf):g}, which no scale passes through"
    survey.clips.append(Clip(node.name, limits, layout))
    return layout


def pooled(survey: Survey, node: Node, layouts: Sequence[Array]) -> Found:
    return survey.collapsed(layouts[0], channel_axis(node, layouts[0].ndim + 1))


def pooled_away(survey: Survey, node: Node, layouts: Sequence[Array]) -> Found:
    axis = channel_axis(node, layouts[0].ndim + 1)
    layout = survey.collapsed(layouts[0], axis)
    return layout if node.config["keepdims"] else layout.reshape(-1)


def moved(survey: Survey, node: Node, layouts: Sequence[Array]) -> Found:
    before, after = (survey.graph.spec(ref).shape for ref in (node.inputs[0], Ref(node.name)))
    assert before is not None and after is not None
    found = flattened(layouts[0], before) if node.op == "Flatten" else reshaped(layouts[0], before, after)
    return "the sizes of what it reshapes are not known" if found is None else found


def joined(survey: Survey, node: Node, layouts: Sequence[Array]) -> Found:
    """A sum, or the like: what meets has one scale. A constant takes part with an array of its own, where nothing else reads it."""
    graph, limits = survey.graph, limits_of(node, survey.graph)
    if limits is not None:
        return clip(survey, node, limits, layouts[node.inputs.index(clipped(node, graph))])
    others = {ref: layout for ref, layout in zip(node.inputs, layouts, strict=True) if graph.nodes[ref.node].op != "Const"}
    if not others:
        return "it computes with constants alone"
    if broadcasts(node, others, graph):
        return "it broadcasts a value of lower rank"
    value = max(others, key=lambda ref: others[ref].size)
    for ref in node.inputs:
        if ref in others:
            survey.tie(others[value], others[ref])
            continue
        if len(graph.users[ref.node]) > 1 or any(len(graph.weight_users[key]) > 1 for key in graph.nodes[ref.node].params.values()):
            return f"it computes with {ref.node}, a constant that is used elsewhere too"
        if not np.isfinite(graph.weights[graph.nodes[ref.node].params["value"]]).all():
            return f"it computes with {ref.node}, a constant that is not finite"
        survey.constants[ref.node] = value
    return others[value]


def broadcasts(node: Node, refs: Iterable[Ref], graph: Graph | Edit) -> bool:
    """Whether a value is of lower rank than what is computed of it."""
    rank = len(graph.spec(Ref(node.name)).dims)
    return any(len(graph.spec(ref).dims) < rank for ref in refs)


def multiplied(survey: Survey, node: Node, layouts: Sequence[Array]) -> Found:
    """A product takes the scale of one factor, where those of the others are 1."""
    free = {ref: layout for ref, layout in zip(node.inputs, layouts, strict=True) if not is_fixed(survey, layout)}
    if not free:
        return survey.source(Ref(node.name), "it is a product of values that take no scale")
    if len(free) > 1 or node.inputs.count(next(iter(free))) > 1 or broadcasts(node, free, survey.graph):
        return "it multiplies two values with scales of their own"
    return next(iter(free.values()))


def is_fixed(survey: Survey, layout: Array) -> bool:
    """Whether the whole value is known to take no scale: it comes from where none passes."""
    return layout.size == 1 and int(layout.flat[0]) in survey.sources


def concat(survey: Survey, node: Node, layouts: Sequence[Array]) -> Found:
    dims = [survey.graph.spec(ref).shape or () for ref in node.inputs]
    axis = node.config["axis"] % len(dims[0])
    if axis == 0:
        for layout in layouts[1:]:
            survey.tie(layouts[0], layout)
        return max(layouts, key=lambda layout: layout.size)
    if len({layout.shape for layout in layouts}) == 1 and layouts[0].shape[axis - 1] == 1:
        for layout in layouts[1:]:
            survey.tie(layouts[0], layout)
        return layouts[0]
    found = concatenated(layouts, axis, dims)
    return "the sizes of what it joins are not known" if found is None else found


RULES: Mapping[str, Callable[[Survey, Node, Sequence[Array]], Found]] = {
    "Relu": relu,
    **dict.fromkeys(("PRelu", "Identity", "Dropout"), handed_on),
    **dict.fromkeys(POOLS, pooled),
    **dict.fromkeys(GLOBAL_POOLS, pooled_away),
    **dict.fromkeys(MOVES, moved),
    **dict.fromkeys(JOINS, joined),
    "Multiply": multiplied,
    "Concat": concat,
}
