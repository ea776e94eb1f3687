"""What is known of a value after operations that mix or move its elements: linear layers, pools, pads, reshapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tfpasses.graph import Array, Edit, Graph, LinearView, Node, Ref, channel_axis
from tfpasses.passes.correction.moments import Moments, joined
from tfpasses.passes.correction.responses import reads, response
from tfpasses.passes.correction.taps import spatial, tap_means, windows
from tfpasses.passes.equalization.layouts import along, concatenated, flattened, reshaped, rows
from tfpasses.passes.folding.paths import pads_zeros

__all__ = ["REGIONS", "linear"]

AnyGraph = Graph | Edit
Found = Moments | None
Read = Sequence[Moments]
Rule = Callable[[AnyGraph, Node, Read], Found]


def linear(graph: AnyGraph, node: Node, read: Read) -> Found:
    """The mean is the kernel's sum of means, with its bias. Constants give constants."""
    (value,) = read
    view, rank = LinearView.of(node, graph), len(graph.spec(Ref(node.name)).dims)
    axis = channel_axis(node, len(graph.spec(node.inputs[0]).dims))
    mean = tap_means(node, value.mean, graph)
    varies = rows(value.std, axis, view.in_channels).any(axis=0)  # NaN is true
    inner = rows(value.mean, axis, view.in_channels)
    varies |= ((inner != inner[:1]) & ~(np.isnan(inner) & np.isnan(inner[:1]))).any(axis=0)
    if pads_zeros(node, graph):
        varies |= inner[0] != 0
    varies = varies[None]
    for kernel in view.kernels:
        mean, varies = response(kernel, mean)[None], reads(kernel, varies)[None]
    bias = np.zeros(view.out_channels) if view.bias is None else np.asarray(view.bias, np.float64)
    out = view.channel_axis(rank)
    std = np.where(varies[0], np.nan, 0.0)
    assumes, sources = value.assumes, value.sources
    return Moments(along(mean[0] + bias, out, rank), along(std, out, rank), None, sources=sources, assumes=assumes)


def concat(graph: AnyGraph, node: Node, read: Read) -> Found:
    dims = [graph.spec(ref).dims for ref in node.inputs]
    axis = node.config["axis"] % len(dims[0])
    return None if axis == 0 else joined(read, lambda layouts: concatenated(layouts, axis, dims))


def moved(graph: AnyGraph, node: Node, read: Read) -> Found:
    before, after = (graph.spec(ref).dims for ref in (node.inputs[0], Ref(node.name)))
    return read[0].each(lambda x: flattened(x, before) if node.op == "Flatten" else reshaped(x, before, after))


def spatial_axes(node: Node, layout: Array) -> list[int]:
    """The axes of a layout that are neither the batch nor the channels."""
    axis = channel_axis(node, layout.ndim + 1) - 1
    return [place for place in range(layout.ndim) if place != axis]


def pad(graph: AnyGraph, node: Node, read: Read) -> Found:
    """Zeros around what is known, place by place. Of an image of unknown size the border is not counted."""
    value, dims = read[0], graph.spec(node.inputs[0]).dims
    if not any(any(pair) for pair in node.config["padding"]):
        return value
    if None in spatial(node, dims):
        return value.without_shape(value.mean, np.where((value.mean == 0) & (value.std == 0), 0.0, np.nan))

    def padded(layout: Array) -> Array:
        axes, widths, sizes = spatial_axes(node, layout), [(0, 0)] * layout.ndim, list(layout.shape)
        for place, pair in zip(axes, node.config["padding"], strict=True):
            sizes[place], widths[place] = dims[place + 1] or 0, pair
        return np.pad(np.broadcast_to(layout, sizes), widths)

    return value.without_shape(padded(value.mean), padded(value.std))


def crop(graph: AnyGraph, node: Node, read: Read) -> Found:
    def cropped(layout: Array) -> Array:
        parts = [slice(None)] * layout.ndim
        for place, (start, end) in zip(spatial_axes(node, layout), node.config["cropping"], strict=True):
            if layout.shape[place] > 1:
                parts[place] = slice(start, layout.shape[place] - end)
        return layout[tuple(parts)]

    return read[0].each(cropped)


def up_sample(graph: AnyGraph, node: Node, read: Read) -> Found:
    """Elements that are repeated are distributed as they were; of what lies on lines between them only the mean is known."""
    nearest = node.config["interpolation"] == "nearest"
    axes = spatial_axes(node, read[0].mean)

    def repeated(layout: Array) -> Array | None:
        for place, times in zip(axes, node.config["size"], strict=True):
            if layout.shape[place] > 1:
                layout = np.repeat(layout, times, axis=place)
        return layout

    if nearest:
        return read[0].each(repeated)
    flat = all(read[0].mean.shape[place] == 1 for place in axes)
    return read[0].without_shape(read[0].mean, np.where(read[0].std == 0, 0.0, np.nan)) if flat else None


def average(graph: AnyGraph, node: Node, read: Read) -> Found:
    """The mean of a mean; its deviation depends on how like neighbours are."""
    mean = read[0].mean
    steps = zip(spatial_axes(node, mean), node.config["pool_size"], node.config["strides"], strict=True)
    uniform = all(mean.shape[place] == 1 for place in spatial_axes(node, mean))
    for place, window, stride in steps:
        if mean.shape[place] > 1:
            part = windows(mean.shape[place], window, stride, node.config["padding"])
            mean = np.moveaxis(np.tensordot(mean, part, (place, 1)), -1, place)
    std = np.where(read[0].std == 0, 0.0, np.nan) if uniform else np.full(mean.shape, np.nan)
    return read[0].without_shape(mean, std)


def largest(graph: AnyGraph, node: Node, read: Read) -> Found:
    """The largest of equal elements."""
    if node.op == "MaxPool" and all(count == 1 for count in (*node.config["pool_size"], *node.config["strides"])):
        return read[0]
    axes = tuple(spatial_axes(node, read[0].mean))
    mean, std = np.broadcast_arrays(read[0].mean, read[0].std)
    first = mean[tuple(slice(0, 1) if place in axes else slice(None) for place in range(mean.ndim))]
    sure = ((std == 0) & (mean == first)).all(axis=axes, keepdims=True)
    return read[0].without_shape(np.where(sure, first, np.nan), np.where(sure, 0.0, np.nan))


def over_space(graph: AnyGraph, node: Node, read: Read) -> Found:
    """A global pool: as its window is all there is."""
    value = read[0]
    axes = tuple(spatial_axes(node, value.mean))
    if node.op == "GlobalMaxPool":
        found = largest(graph, node, read)
        assert found is not None
        mean, std = found.mean, found.std
    else:
        uniform = all(value.mean.shape[place] == 1 for place in axes)
        mean, std = value.mean, np.where(value.std == 0, 0.0, np.nan) if uniform else np.full(value.mean.shape, np.nan)
    kept = bool(node.config["keepdims"])
    with np.errstate(invalid="ignore"):
        mean, std = (part.mean(axis=axes, keepdims=kept) for part in (mean, std))
    return value.without_shape(mean, std)


REGIONS: Mapping[str, Rule] = {
    "Concat": concat,
    **dict.fromkeys(("Flatten", "Reshape"), moved),
    "Pad": pad,
    "Crop": crop,
    "UpSample": up_sample,
    "AvgPool": average,
    "MaxPool": largest,
    **dict.fromkeys(("GlobalMaxPool", "GlobalAvgPool"), over_space),
}
