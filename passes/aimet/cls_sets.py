"""What AIMET calls a CLS set: two layers in a row, or three with a depthwise one in the middle, that are scaled together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import attrs
import numpy as np

from tfpasses.graph import Array, Edit, Graph, LinearView, Node
from tfpasses.manager import PassError
from tfpasses.passes.equalization.arithmetic import absorbable, balanced, in_ranges, out_ranges, scaled, scaled_in, scaled_out
from tfpasses.passes.equalization.channels import Channels, Kernel
from tfpasses.passes.equalization.constants import constant_value
from tfpasses.passes.equalization.named_sets import units_of_sets
from tfpasses.passes.equalization.scaling import Unit, units

__all__ = [
    "ClsSetInfo",
    "FoundSet",
    "cls_sets_of",
    "create_cls_set_info_list",
    "find_cls_sets",
    "infos_of",
    "moved_bias",
    "scaled_set",
    "why_unsafe",
]

Params = dict[str, Array]
ScaleFactor = Array | tuple[Array, Array]
ReluFlag = bool | tuple[bool, ...]
PAIR, TRIPLET = 2, 3


class ClsSetInfo:
    """The layers of a set, the scales between each and the next, and whether activations lie there."""

    class ClsSetLayerPairInfo:
        """Two layers of a set, one after the other. Equal to another where the layers are the same, and the scales close."""

        def __init__(self, layer1: Any, layer2: Any, scale_factor: Array, relu_activation_between_layers: bool) -> None:
            self.layer1 = layer1
            self.layer2 = layer2
            self.scale_factor = scale_factor
            """What `layer1` was divided by and `layer2` multiplied, one a channel between them."""
            self.relu_activation_between_layers = relu_activation_between_layers
            """Whether a ReLU, of whatever slope, lies between them."""

        def __eq__(self, other: object) -> bool:
            if not isinstance(other, ClsSetInfo.ClsSetLayerPairInfo):
                return NotImplemented
            layers = self.layer1 == other.layer1 and self.layer2 == other.layer2
            flags = bool(self.relu_activation_between_layers) == bool(other.relu_activation_between_layers)
            a, b = np.asarray(self.scale_factor), np.asarray(other.scale_factor)
            return bool(layers and flags and a.shape == b.shape and np.allclose(a, b))

        __hash__ = None  # type: ignore[assignment]  # what is close to another has no hash that could be the same

    def __init__(self, cls_pair_1: ClsSetLayerPairInfo, cls_pair_2: ClsSetLayerPairInfo | None = None) -> None:
        self.cls_pair_info_list = [cls_pair_1] if cls_pair_2 is None else [cls_pair_1, cls_pair_2]
        """One pair, or the two of three layers."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClsSetInfo):
            return NotImplemented
        return self.cls_pair_info_list == other.cls_pair_info_list

    __hash__ = None  # type: ignore[assignment]


def create_cls_set_info_list(
    cls_sets: Sequence[Sequence[Any]], scale_factors: Sequence[ScaleFactor], is_relu_activation_in_cls_sets: Sequence[ReluFlag]
) -> list[ClsSetInfo]:
    """Sets, their scales and their flags as one list. Of three layers there are two scales and two flags.

    Raises `ValueError` where the three do not fit each other.
    """
    counts = len(cls_sets), len(scale_factors), len(is_relu_activation_in_cls_sets)
    if len(set(counts)) > 1:
        raise ValueError(
            f"there are {counts[0]} sets, {counts[1]} scale factors and {counts[2]} ReLU flags; give one of each for every set"
        )
    found = []
    for number, (layers, factors, flags) in enumerate(zip(cls_sets, scale_factors, is_relu_activation_in_cls_sets, strict=True)):
        scales = tuple(factors) if len(layers) == TRIPLET else (factors,)
        rectified = tuple(flags) if isinstance(flags, tuple | list) else (flags,)
        if not PAIR <= len(layers) <= TRIPLET or not len(scales) == len(rectified) == len(layers) - 1:
            raise ValueError(f"set {number} has {len(layers)} layers; two have one scale factor and one ReLU flag, three have two of each")
        pairs = zip(pairwise(layers), scales, rectified, strict=True)
        found.append(ClsSetInfo(*(ClsSetInfo.ClsSetLayerPairInfo(*pair, np.asarray(scale), bool(flag)) for pair, scale, flag in pairs)))
    return found


def cls_sets_of(given: Any) -> list[tuple[Any, ...]]:
    """Given sets as tuples. Raises `ValueError` for something else, such as one set alone."""
    sets = list(given)
    for one in sets:
        if not isinstance(one, tuple | list):
            raise ValueError(f"{getattr(one, 'name', one)!r} is no set of layers; give a list of sets, each a tuple of two layers or three")
    return [tuple(one) for one in sets]


def infos_of(given: Any) -> list[ClsSetInfo]:
    """Given sets with their scales. Raises `ValueError` for something else, such as arguments in another order."""
    infos = list(given or ())
    for one in infos:
        if not isinstance(one, ClsSetInfo):
            raise ValueError(f"{one!r} is no ClsSetInfo; scale_model and create_cls_set_info_list give such")
    return infos


# finding


@attrs.frozen
class FoundSet:
    """A set that a graph has."""

    nodes: tuple[str, ...]
    """Its linear nodes; of a layer that is used several times, the first."""
    rectified: tuple[bool, ...]
    """For each but the last, whether an activation follows it."""


def find_cls_sets(graph: Graph) -> list[FoundSet]:
    """The sets of a graph, in the order of computing, in which nothing else takes part: one layer gives the channels, one reads them, and
    between lie operations of one value each that a scale passes through.

    What an Add or a Concat ties together, what is behind a Flatten, and an activation with an upper limit make none.
    """
    edit = Edit(graph)
    channels = Channels.of(edit)
    found = []
    for unit in units(channels):
        for numbers in rows_of(unit, channels):
            kernels = [channels.kernels[number] for number in numbers]
            ways = [between(a, b, edit) for a, b in pairwise(kernels)]
            if not any(way is None for way in ways):
                rectified = tuple(any(node.op in ("Relu", "PRelu") for node in way or ()) for way in ways)
                found.append(FoundSet(tuple(kernel.nodes[0] for kernel in kernels), rectified))
    return found


def rows_of(unit: Unit, channels: Channels) -> Iterator[Sequence[int]]:
    """The kernels of a unit as sets: all in one where there are two or three, else each with the next; without those of which a layer
    reads or gives other channels too, in another order, or with itself.
    """
    if len(unit.producers) != 1 or len(unit.consumers) != 1:
        return
    row: list[int] = []
    for number in (*unit.producers, *unit.middles, *unit.consumers):
        if not row or channels.kernels[number].nodes != channels.kernels[row[-1]].nodes:  # two kernels of one separable layer
            row.append(number)
    for part in [row] if len(row) <= TRIPLET else pairwise(row):
        steps = list(pairwise(part))
        if steps and all(meets(channels.kernels[a], channels.kernels[b]) for a, b in steps):
            yield part


def meets(before: Kernel, after: Kernel) -> bool:
    """Whether one kernel reads just the channels that another gives, in their order, and each is a class of its own."""
    return np.array_equal(before.outs, after.ins) and np.unique(before.outs).size == before.outs.size


def between(before: Kernel, after: Kernel, edit: Edit) -> list[Node] | None:
    """The nodes on the ways from all uses of a layer to all of another; None where something on a way reads more than one value."""
    passed = []
    for name in after.nodes:
        node = edit.nodes[name]
        while (node := edit.nodes[node.inputs[0].node]).name not in before.nodes:
            if len(node.inputs) != 1:
                return None
            passed.append(node)
    return passed


def why_unsafe(names: Sequence[str], graph: Graph) -> str:
    """Why scaling linear nodes as a set would change what a graph computes, or nothing."""
    edit = Edit(graph)
    channels = Channels.of(edit)
    for a, b in pairwise(names):
        first = next(kernel for kernel in reversed(channels.kernels) if a in kernel.nodes)
        kept = first.outs[channels.fixed[first.outs] >= 0]
        if kept.size:
            return "{}: {}".format(*channels.reasons[channels.fixed[kept[0]]])
        try:
            (unit,) = units_of_sets([(a, b)], channels, edit)
        except PassError as error:
            return str(error).partition(": ")[2]
        if not meets(first, channels.kernels[unit.consumers[0]]):
            return f"{b} does not read each channel of {a} at its place"
        for name, ref in channels.constants.items():
            if np.isin(channels.values[ref], first.outs).any() and constant_value(edit.nodes[name], edit).any():
                users = " and ".join(user for user, _ in edit.users[name])
                return f"{users}: it computes with a constant, which is not scaled"
    return ""


# arithmetic


def scaled_set(views: Sequence[LinearView]) -> tuple[tuple[Array, ...], list[Params]]:
    """The scales of a set of layers in a row, and the new parameters of each.

    Two, or three with a depthwise one in the middle, are scaled in closed form; of three others first the first two are, then the last two.
    Raises `ValueError` for another number of layers, and where one does not read as many channels as the one before it gives.
    """
    if not PAIR <= len(views) <= TRIPLET:
        raise ValueError(f"a set of {len(views)} layers was given; a set has two, or three with a depthwise one in the middle")
    for before, after in pairwise(views):
        if before.out_channels != after.in_channels:
            counts = f"{before.node.name} gives {before.out_channels} channels, {after.node.name} reads {after.in_channels}"
            raise ValueError(f"{counts}; they cannot be scaled together")
    if len(views) == PAIR:
        first, last = views
        (scale,) = balanced([out_ranges(first), in_ranges(last)])
        return (scale,), [scaled_out(first, scale), scaled_in(last, scale)]
    first, middle, last = views
    if not is_depthwise(middle):
        (one,), (new, changed) = scaled_set([first, middle])
        (two,), (again, final) = scaled_set([with_params(middle, changed), last])
        return (one, two), [new, changed | again, final]
    one, two = balanced([out_ranges(first), out_ranges(middle), in_ranges(last)])
    (kernel,) = middle.kernels
    changed = scaled_out(middle, two) | {kernel.slot: scaled(kernel, kernel.per_in(one) / kernel.per_out(two))}
    return (one, two), [scaled_out(first, one), changed, scaled_in(last, two)]


def is_depthwise(view: LinearView) -> bool:
    """Whether each output channel of a layer comes from the input channel at its place."""
    return len(view.kernels) == 1 and view.kernels[0].shape[::2] == (1, 1)


def with_params(view: LinearView, params: Params) -> LinearView:
    """The same layer with other parameters."""
    node = view.node.but(params={slot: slot for slot in view.node.params})
    before = {view.kernel_slot: view.kernel, view.in_kernel_slot: view.in_kernel, **({} if view.bias is None else {"bias": view.bias})}
    return LinearView.of(node, Graph({node.name: node}, {**before, **params}))


def moved_bias(
    first: LinearView, second: LinearView, gamma: Array, beta: Array, scale: Array, rectified: bool
) -> tuple[Params, Params] | None:
    """The new biases of two layers where what the first's has beyond three deviations moves into the second's; None where nothing does.

    `gamma` and `beta` are those of the batch norm that was folded into the first, before it was divided by `scale`. Both have a bias.
    Raises `ValueError` where the scales are not one a channel between them.
    """
    assert first.bias is not None and second.bias is not None
    scale = np.asarray(scale, np.float64)
    if not scale.shape == (first.out_channels,) == (second.in_channels,):
        names = f"{first.node.name} gives {first.out_channels} channels, {second.node.name} reads {second.in_channels}"
        raise ValueError(f"{names}, and there are {scale.size} scales of shape {scale.shape}; they do not belong together")
    shift = absorbable(np.asarray(beta, np.float64) / scale, np.abs(np.asarray(gamma, np.float64)) / scale, rectified)
    if not shift.any() or not np.isfinite(shift).all():
        return None
    less = np.asarray(first.bias, np.float64) - shift
    more = np.asarray(second.bias, np.float64) + second.response(shift)
    return {"bias": less.astype(first.bias.dtype)}, {"bias": more.astype(second.bias.dtype)}
