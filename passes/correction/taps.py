"""What each tap of a kernel reads on average over the places of the output: where zero padding meets it, less than there is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tfpasses.graph import Array, Edit, Graph, LinearView, Node, Ref, channel_axis
from tfpasses.passes.equalization.borders import reached
from tfpasses.passes.equalization.layouts import Dims

__all__ = ["border_unknown", "spatial", "tap_means", "windows"]


def tap_means(node: Node, layout: Array, graph: Graph | Edit, sizes: Sequence[int | None] | None = None) -> Array:
    """The mean of what each tap of a linear node's (first) kernel reads, over the places of its output: [taps, input channels].

    `layout` are the means of its input. Each tap counts by the share of the output's places where it sees the input: of a 3x3 kernel with
    `same` padding on 7x7, 7.37 of 9 taps. `sizes` are those of the image (of a transposed convolution, the one that it gives), where the
    graph does not know them; where nobody does, it is taken for large (see `border_unknown`).
    """
    view = LinearView.of(node, graph)
    axis = channel_axis(node, layout.ndim + 1)
    moved = np.moveaxis(layout, axis - 1, -1)
    moved = np.broadcast_to(moved, (*moved.shape[:-1], view.in_channels))
    if node.op == "Dense":
        return np.asarray(moved.reshape(math.prod(moved.shape[:-1]), view.in_channels).mean(axis=0, keepdims=True))
    for place, size in enumerate(wider(node, graph) if sizes is None else sizes):
        taps, stride, dilation = view.in_kernel.shape[place], node.config["strides"][place], node.config["dilation"][place]
        if node.op == "ConvTranspose":
            seen = given(size, taps, stride, dilation, node.config["padding"])
        else:
            seen = read(size, taps, stride, dilation, node.config["padding"])
        if moved.shape[0] == 1:
            seen = seen.sum(axis=1, keepdims=True)
        moved = np.tensordot(moved, seen, (0, 1))  # its axis goes last
    return np.asarray(np.moveaxis(moved, 0, -1).reshape(-1, view.in_channels))


def border_unknown(node: Node, graph: Graph | Edit) -> bool:
    """Whether a linear node's kernel meets zeros at a border whose part in the image is not known."""
    if node.op == "Dense" or (node.config["padding"] == "valid" and node.op != "ConvTranspose"):
        return False
    taps = LinearView.of(node, graph).in_kernel.shape[:-2]
    return any(size is None and count > 1 for size, count in zip(wider(node, graph), taps, strict=True))


def wider(node: Node, graph: Graph | Edit) -> list[int | None]:
    """The sizes of the spatial axes that a convolution reads, or a transposed one gives."""
    ref = Ref(node.name) if node.op == "ConvTranspose" else node.inputs[0]
    return spatial(node, graph.spec(ref).dims)


def spatial(node: Node, dims: Dims) -> list[int | None]:
    """Those of a value's sizes that are neither the batch nor the node's channels."""
    axis = channel_axis(node, len(dims))
    return [size for place, size in enumerate(dims) if place not in (0, axis)]


def read(size: int | None, taps: int, stride: int, dilation: int, padding: str) -> Array:
    """In which share of a convolution's places each tap reads each element along an axis: [taps, size], or [taps, 1] of an unknown size."""
    if size is None:
        return np.ones((taps, 1))
    at = reached(size, taps, stride, dilation, padding)
    found = np.zeros((taps, size))
    for tap in range(taps):
        inside = at[(at[:, tap] >= 0) & (at[:, tap] < size), tap]
        np.add.at(found[tap], inside, 1.0)
    return found / max(len(at), 1)


def given(size: int | None, taps: int, stride: int, dilation: int, padding: str) -> Array:
    """The same of a transposed convolution, whose output has that size: what a convolution of it would read there is written to."""
    if size is None:
        return np.full((taps, 1), 1.0 / stride)
    at = reached(size, taps, stride, dilation, padding)
    return np.asarray(((at >= 0) & (at < size)).T / size)


def windows(size: int, window: int, stride: int, padding: str) -> Array:
    """The part of each element along an axis in the mean that an average pool gives at each place: [places, size]. Padding does not
    count.
    """
    at = reached(size, window, stride, 1, padding)
    found = np.zeros((len(at), size))
    for place, elements in enumerate(at):
        inside = elements[(elements >= 0) & (elements < size)]
        found[place, inside] = 1.0 / len(inside)
    return found
