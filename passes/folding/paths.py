"""What lies between a batch norm and the linear layer it folds into, and how far its scale and shift pass through it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import attrs
import numpy as np

from tfpasses.graph import OUTPUT, Array, Edit, Graph, LinearView, Node, Ref, channel_axis, has_trait, ops_with_trait
from tfpasses.passes.folding.arithmetic import Affine
from tfpasses.pattern import OpPattern, op

__all__ = [
    "KEEP_CHANNELS",
    "MOVES",
    "MOVING",
    "QUIET",
    "THROUGH",
    "Unclear",
    "above",
    "below",
    "blocks",
    "in_channels",
    "is_passing",
    "loses_shift",
    "misplaces_bias",
    "pads_zeros",
    "scale_blocks",
]

POOLS = ("AvgPool", "GlobalAvgPool", "MaxPool", "GlobalMaxPool")
MOST_AVERAGED = 16
"""Adding n equal numbers one by one, every step within one binade rounds the same way, so that the sum is off by up to n/4 units. Beyond
so many elements that is more than rounding explains where a shift is added after the average."""
ENDS = ("Pad", "Crop")
KEEP_CHANNELS = POOLS + ENDS
MIN_IMAGE_RANK = 3
MOVES = ("Flatten", "Reshape")


def _passing(*names: str) -> OpPattern:
    """One of these or a no-op, and its value used nowhere else."""
    pattern = op(*sorted(ops_with_trait("inference_identity") | set(names)))
    return pattern.when("it is called with training=True, so it changes its input", lambda node, _: is_passing(node)).only_use()


def is_passing(node: Node) -> bool:
    """Whether a node is a no-op, or moves or joins the elements of a channel."""
    return node.op in (*KEEP_CHANNELS, *MOVES) or has_trait(node, "inference_identity")


QUIET = _passing()
"""No-ops."""
THROUGH = _passing(*KEEP_CHANNELS)
"""No-ops, and what keeps channels apart."""
MOVING = _passing(*KEEP_CHANNELS, *MOVES)
"""The same, and what moves channels: what it does to them is asked by `in_channels`."""


def below(node: Node, edit: Edit) -> Iterator[Node]:
    """The nodes on the way down from a node, by first inputs: those that are passed through, and the first that is not."""
    while node.inputs:
        node = edit.nodes[node.inputs[0].node]
        yield node
        if not is_passing(node):
            return


def above(node: Node, edit: Edit) -> Iterator[Node]:
    """The nodes on the way up from a node, by only uses: those that are passed through, and the first that is not."""
    while True:
        uses = list(edit.users[node.name])
        if len(uses) != 1 or uses[0][0] == OUTPUT:
            return
        node = edit.nodes[uses[0][0]]
        yield node
        if not is_passing(node):
            return


def scale_blocks(path: list[Node], affine: Affine) -> str:
    """Why a scale does not pass through the nodes of a path, or nothing."""
    for node in path:
        if node.op in ("MaxPool", "GlobalMaxPool") and (affine.scale < 0).any():
            return f"{node.name} takes the largest value, and {int((affine.scale < 0).sum())} of the channels have a negative scale"
    return ""


def loses_shift(path: list[Node], affine: Affine, edit: Edit) -> str:
    """Why a shift is better added after the nodes of a path than before them, or nothing: an average sums it up as often as it has
    elements.
    """
    for node in path:
        if node.op not in ("AvgPool", "GlobalAvgPool") or not affine.shift.any():
            continue
        count = averaged(node, edit)
        if count is None or count > MOST_AVERAGED:
            return f"{node.name} averages {count or 'an unknown number of'} elements, where a shift that each of them holds loses digits"
    return ""


def averaged(node: Node, edit: Edit) -> int | None:
    """Of how many elements an average pool gives the mean; None where that is not known."""
    if node.op == "AvgPool":
        return int(math.prod(node.config["pool_size"]))
    shape = edit.spec(node.inputs[0]).dims
    axis = channel_axis(node, len(shape))
    sizes = [size for place, size in enumerate(shape) if place not in (0, axis)]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def blocks(path: list[Node], affine: Affine) -> str:
    """Why a scale and a shift do not pass through the nodes of a path, or nothing."""
    for node in path:
        if node.op == "Pad" and affine.shift.any() and any(any(pair) for pair in node.config["padding"]):
            return f"{node.name} pads with zeros, which the batch norm would shift"
    return scale_blocks(path, affine)


def pads_zeros(linear: Node, edit: Edit | Graph) -> bool:
    """Whether the kernel of a linear node meets zeros that are no part of its input (or leaves gaps, as a transposed one does)."""
    config = linear.config
    if linear.op == "Dense" or (config["padding"] == "valid" and linear.op != "ConvTranspose"):
        return False
    kernel = LinearView.of(linear, edit).in_kernel.shape[:-2]
    if linear.op == "ConvTranspose":
        return any(size > 1 for size in (*kernel, *config["strides"])) or any(config["output_padding"] or ())
    if config["padding"] == "causal":
        return any(size > 1 for size in kernel)
    shape = edit.spec(linear.inputs[0]).dims
    axis = channel_axis(linear, len(shape))
    spatial = [size for place, size in enumerate(shape) if place not in (0, axis)]
    return any(
        reach > 1 and (size is None or (-(-size // stride) - 1) * stride + reach > size)
        for size, stride, reach in zip(
            spatial, config["strides"], [(k - 1) * d + 1 for k, d in zip(kernel, config["dilation"], strict=True)], strict=True
        )
    )


def misplaces_bias(linear: Node, edit: Edit | Graph) -> str:
    """Why a bias of a linear node would be added to another axis than its channels, or nothing: Keras does so in a channels-first
    layer whose output's last axis is as long as its channels are many (keras.ops.add takes the bias for one over the last axis).
    """
    shape = edit.spec(Ref(linear.name)).dims
    if linear.config.get("data_format") != "channels_first" or len(shape) < MIN_IMAGE_RANK or shape[-1] not in (None, shape[1]):
        return ""
    known = f"is {shape[1]} long, as its channels are many" if shape[-1] else "may be as long as its channels are many"
    return f"the last axis of {linear.name} {known}: there Keras adds a channels-first layer's bias to the wrong axis"


@attrs.frozen(eq=False)
class Unclear:
    """Why a channel of a linear layer's input is not one channel of a batch norm."""

    reason: str


def in_channels(bn: Node, path: list[Node], linear: Node, edit: Edit) -> Array | Unclear:
    """Which channel of a batch norm each input channel of a linear node is. `path` leads from the one up to the other."""
    shape = edit.spec(Ref(bn.name)).dims
    axis = bn.config["axis"] % len(shape)
    numbers: Array | None = None
    for node in path:
        if node.op in MOVES:
            if numbers is None:
                here = edit.spec(node.inputs[0]).dims[1:]
                if axis == 0 or None in here:
                    return Unclear(f"the shape before {node.name} is not known")
                places = [1] * len(here)
                places[axis - 1] = -1
                sizes = [size or 0 for size in here]
                numbers = np.broadcast_to(np.arange(sizes[axis - 1]).reshape(places), sizes)
            numbers = numbers.reshape([size or -1 for size in edit.spec(Ref(node.name)).dims[1:]])
        elif node.op in KEEP_CHANNELS:
            if numbers is not None:
                return Unclear(f"{node.name} takes channels together that were moved before it")
            rank = len(edit.spec(node.inputs[0]).dims)
            if axis != channel_axis(node, rank):
                return Unclear(f"it normalises axis {axis}; {node.name} has its channels on axis {channel_axis(node, rank)}")
            axis = channel_axis(node, len(edit.spec(Ref(node.name)).dims))
    rank = len(edit.spec(linear.inputs[0]).dims)
    wanted = channel_axis(linear, rank)
    count = LinearView.of(linear, edit).in_channels
    if numbers is None:
        if axis != wanted:
            return Unclear(f"it normalises axis {bn.config['axis']}; the input channels of {linear.name} are on axis {wanted}")
        return np.arange(count)
    rows = np.moveaxis(numbers, wanted - 1, -1).reshape(-1, count)
    if (rows != rows[0]).any():
        return Unclear(f"after {path[-1].name}, an input channel of {linear.name} holds several of its channels")
    return np.asarray(rows[0])
