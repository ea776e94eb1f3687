"""What a linear layer makes of an image that is the same everywhere, where zero padding meets it: less at the border than inside."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tfpasses.graph import Array, ChannelStats, Edit, LinearView, Node, Ref, channel_axis
from tfpasses.passes.equalization.constants import add_constant

__all__ = ["add_map", "border_map", "no_map", "reached"]


def no_map(node: Node, graph: Any) -> str:
    """Why it is not known what a linear layer makes of an image that is the same everywhere, or nothing."""
    if node.op not in ("Conv", "DepthwiseConv", "SeparableConv"):
        return f"what zeros do at the border of a {node.op} is not known"
    return "the size of the image is not known" if None in sizes_of(node, graph) else ""


def sizes_of(node: Node, graph: Any) -> list[int | None]:
    """The sizes of the spatial axes that a convolution reads."""
    dims = graph.spec(node.inputs[0]).dims
    axis = channel_axis(node, len(dims))
    return [size for place, size in enumerate(dims) if place not in (0, axis)]


def border_map(node: Node, vector: Array, graph: Any) -> Array:
    """What a convolution gives, less its bias, for one number per input channel: float64, one a place of its output, without the batch.

    Of each tap counts the part that sees the image. Where `no_map` has a reason, it cannot be asked.
    """
    view, config = LinearView.of(node, graph), node.config
    axis = channel_axis(node, len(graph.spec(node.inputs[0]).dims))
    sizes = [size or 0 for size in sizes_of(node, graph)]
    first = view.kernels[0]
    seen = np.asarray(first.kernel, np.float64) * first.as_stored(np.broadcast_to(first.per_in(vector), first.shape))
    taps = seen.reshape(*first.kernel.shape[:-2], -1) if first.depthwise else summed(seen)
    for size, stride, dilation in zip(sizes, config["strides"], config["dilation"], strict=True):
        taps = np.tensordot(taps, visible(size, taps.shape[0], stride, dilation, config["padding"]), (0, 1))  # its axis goes last
    whole = np.moveaxis(taps, 0, -1)
    if node.op == "SeparableConv":
        whole = whole @ np.asarray(view.kernels[1].kernel, np.float64).reshape(whole.shape[-1], -1)
    return np.moveaxis(whole, -1, axis - 1)


def summed(seen: Array) -> Array:
    """The sum over input channels, [k.., out]."""
    return np.asarray(seen.sum(axis=-2))


def reached(size: int, taps: int, stride: int, dilation: int, padding: str) -> Array:
    """Which element of the input each tap meets at each place of the output along one axis: [places, taps]; those that are below 0, or
    `size` and above, are padding.
    """
    reach = (taps - 1) * dilation + 1
    if padding == "same":
        places = math.ceil(size / stride)
        before = max((places - 1) * stride + reach - size, 0) // 2
    else:
        before = reach - 1 if padding == "causal" else 0
        places = (size + before - reach) // stride + 1
    return np.asarray(np.arange(places)[:, None] * stride + np.arange(taps)[None] * dilation - before)


def visible(size: int, taps: int, stride: int, dilation: int, padding: str) -> Array:
    """Whether each tap sees the image at each place of the output along one axis: 1 or 0, [places, taps]."""
    at = reached(size, taps, stride, dilation, padding)
    return np.asarray((at >= 0) & (at < size), np.float64)


def add_map(node: Node, values: Array, edit: Edit) -> Node:
    """Put the addition of a map (without the batch) behind a node. What is known of the node's value becomes known of the sum; of the
    value itself what is left of it, on average over the places.
    """
    spec, before = edit.spec(Ref(node.name)), edit.facts.get((Ref(node.name), ChannelStats.kind))
    constant = add_constant(f"{node.name}.border.value", values[None], spec, [node], edit)
    added = edit.add(Node(edit.fresh_name(f"{node.name}.border"), "Add", (constant, Ref(node.name)), specs=(spec,)), [node])
    edit.redirect(Ref(node.name), Ref(added.name))
    if isinstance(before, ChannelStats):
        axis = channel_axis(node, values.ndim + 1) - 1
        part = values.mean(axis=tuple(place for place in range(values.ndim) if place != axis))
        edit.add_fact(added, before)
        edit.add_fact(node, ChannelStats(before.mean - part, before.std))
    return added
