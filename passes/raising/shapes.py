"""Operations that move, join, cut or pool: padding, cropping, concatenation, pools, means over an image, reshaping."""

from __future__ import annotations

from collections.abc import Sequence

from tfpasses.graph import Edit, Node
from tfpasses.graph.shapes import Shape
from tfpasses.passes.raising.cluster import Raising
from tfpasses.passes.raising.linear import conv_config
from tfpasses.pattern import Match, Miss, Rule, anything, op

__all__ = ["reshape_rules", "shape_rules"]

POOLS = {"tf.MaxPool": "MaxPool", "tf.AvgPool": "AvgPool", "tf.MaxPool3D": "MaxPool", "tf.AvgPool3D": "AvgPool"}
REDUCTIONS = {"tf.Mean": "GlobalAvgPool", "tf.Max": "GlobalMaxPool"}
LAYOUTS = ("channels_last", "channels_first")
FEWEST_AXES = 3
"""Of an image: the batch, a spatial axis, the channels."""
FLAT = 2
"""The axes of what is flat: the batch, and one more."""


REPEATED = op("tf.Reshape")(op("tf.Tile")["copies"](op("tf.ExpandDims")(anything()["x"], op("Const")["dim"]), anything()), anything())


def spatial_axes(rank: int, data_format: str) -> range:
    """The spatial axes of a value of `rank` axes."""
    return range(2, rank) if data_format == "channels_first" else range(1, rank - 1)


def shape_rules(raising: Raising) -> Sequence[Rule]:
    """The rules for what keeps channels apart, or moves them."""

    def pool(match: Match, edit: Edit) -> Miss | None:
        node = edit.nodes[match.root.name]
        rank = len(node.config["ksize"])
        config = conv_config(node, rank)
        if isinstance(config, str):
            return match.miss(config)
        del config["dilation"]
        sizes, axes = node.config["ksize"], spatial_axes(rank, config["data_format"])
        if any(size != 1 for place, size in enumerate(sizes) if place not in axes):
            return match.miss("its window reaches over the batch or the channels")
        return raising(match, edit, POOLS[node.op], (node.inputs[0],), {"pool_size": tuple(sizes[place] for place in axes), **config})

    def over_image(match: Match, edit: Edit) -> Miss | None:
        node = edit.nodes[match.root.name]
        shape = edit.spec(node.inputs[0]).shape
        if shape is None or len(shape) < FEWEST_AXES:
            return match.miss("what it reads is no image")
        places = sorted(int(place) % len(shape) for place in edit.weights[match["axes"].params["value"]].ravel())
        layout = next((layout for layout in LAYOUTS if places == list(spatial_axes(len(shape), layout))), None)
        if layout is None:
            return match.miss("it reduces other axes than the spatial ones")
        config = {"keepdims": bool(node.config.get("keep_dims", False)), "data_format": layout}
        return raising(match, edit, REDUCTIONS[node.op], (node.inputs[0],), config)

    def pad(match: Match, edit: Edit) -> Miss | None:
        node = edit.nodes[match.root.name]
        shape = edit.spec(node.inputs[0]).shape
        ends = edit.weights[match["ends"].params["value"]]
        fill = match.get("fill")
        if fill is not None and edit.weights[fill.params["value"]].any():
            return match.miss("it pads with another number than 0")
        if shape is None or ends.shape != (len(shape), 2) or len(shape) < FEWEST_AXES:
            return match.miss("what it reads is no image")
        layout = layout_of([bool(pair.any()) for pair in ends])
        if layout is None:
            return match.miss("it pads the batch or the channels")
        config = {"padding": tuple(tuple(ends[place].tolist()) for place in spatial_axes(len(shape), layout)), "data_format": layout}
        return raising(match, edit, "Pad", (node.inputs[0],), config)

    def repeated(match: Match, edit: Edit) -> Miss | None:
        """Each element several times along a spatial axis: a new axis, copies along it, and both in one, as tf.repeat writes it."""
        before, copies, after = edit.spec(match.ref("x")).shape, match["copies"].specs[0].shape, match.root.specs[0].shape
        if before is None or copies is None or after is None or len(before) < FEWEST_AXES or len(copies) != len(before) + 1:
            return match.miss("its sizes are not known, or it repeats no image")
        (dim,) = edit.weights[match["dim"].params["value"]].reshape(-1).tolist()
        axis = dim % len(copies) - 1
        if not 0 < axis < len(before) or None in before[1:] or copies[: axis + 1] != before[: axis + 1]:
            return match.miss("it repeats something else than the elements of a spatial axis")
        times = copies[axis + 1] or 0
        wanted = [*before[:axis], (before[axis] or 0) * times, *before[axis + 1 :]]
        layout = layout_of([place == axis for place in range(len(before))])
        if layout is None or list(after) != wanted or copies[axis + 2 :] != before[axis + 1 :] or times < 1:
            return match.miss("it repeats something else than the elements of a spatial axis")
        size = tuple([times if place == axis else 1 for place in spatial_axes(len(before), layout)])
        config = {"size": size, "interpolation": "nearest", "data_format": layout}
        return raising(match, edit, "UpSample", (match.ref("x"),), config)

    def resized(match: Match, edit: Edit) -> Miss | None:
        """An image made larger by whole numbers, as Keras does it."""
        node = edit.nodes[match.root.name]
        before, after = edit.spec(node.inputs[0]).shape, node.specs[0].shape
        if before is None or after is None or None in (*before[1:], *after[1:]) or node.specs[0].dtype != edit.spec(node.inputs[0]).dtype:
            return match.miss("its sizes are not known, or it changes the dtype")
        if not node.config.get("half_pixel_centers") or node.config.get("align_corners"):
            return match.miss("its centers lie elsewhere")
        pairs = [(a or 1, b or 0) for a, b in zip(before[1:3], after[1:3], strict=True)]
        if any(b % a or b < a for a, b in pairs):
            return match.miss("it is no multiple of what it reads")
        interpolation = "bilinear" if node.op == "tf.ResizeBilinear" else "nearest"
        config = {"size": tuple(b // a for a, b in pairs), "interpolation": interpolation, "data_format": "channels_last"}
        return raising(match, edit, "UpSample", (node.inputs[0],), config)

    def crop(match: Match, edit: Edit) -> Miss | None:
        node = edit.nodes[match.root.name]
        shape = edit.spec(node.inputs[0]).shape
        parts = [edit.weights[match[name].params["value"]] for name in ("begin", "end", "strides")]
        if shape is None or any(part.shape != parts[0].shape or part.ndim != 1 or part.size > len(shape) for part in parts):
            return match.miss("it takes no part of each axis")
        if len(shape) < FEWEST_AXES or any(node.config.get(f"{mask}_mask", 0) for mask in ("ellipsis", "new_axis")):
            return match.miss("what it reads is no image, or it makes new axes")
        if node.config.get("shrink_axis_mask", 0) or any(stride != 1 for stride in parts[2]):
            return match.miss("it takes single elements, or not one after the other")
        ends = cut(node, shape, parts[0].tolist(), parts[1].tolist())
        layout = None if ends is None else layout_of([any(pair) for pair in ends])
        if ends is None or layout is None:
            return match.miss("it cuts the batch or the channels, or an axis of unknown size")
        config = {"cropping": tuple(ends[place] for place in spatial_axes(len(shape), layout)), "data_format": layout}
        return raising(match, edit, "Crop", (node.inputs[0],), config)

    def concat(match: Match, edit: Edit) -> Miss | None:
        node = edit.nodes[match.root.name]
        axis = node.inputs[-1].node
        if edit.nodes[axis].op != "Const" or edit.weights[edit.nodes[axis].params["value"]].size != 1:
            return match.miss("its axis is no constant number")
        place = int(edit.weights[edit.nodes[axis].params["value"]].reshape(-1)[0])
        return raising(match, edit, "Concat", node.inputs[:-1], {"axis": place})

    x = anything()
    return [
        Rule.of("pool", op(*POOLS), pool),
        Rule.of("over the image", op(*REDUCTIONS)(x, op("Const")["axes"]), over_image),
        Rule.of("pad", op("tf.Pad")(x, op("Const")["ends"]) | op("tf.PadV2")(x, op("Const")["ends"], op("Const")["fill"]), pad),
        Rule.of("crop", op("tf.StridedSlice")(x, op("Const")["begin"], op("Const")["end"], op("Const")["strides"]), crop),
        Rule.of("concat", op("tf.ConcatV2"), concat),
        Rule.of("resized", op("tf.ResizeBilinear", "tf.ResizeNearestNeighbor")(x, op("Const")), resized),
        Rule.of("repeated", REPEATED, repeated),
    ]


def reshape_rules(raising: Raising) -> Sequence[Rule]:
    """The rule for what moves the elements of a sample and nothing else; for the end, since other clusters begin and end with such."""

    def reshape(match: Match, edit: Edit) -> Miss | None:
        node = edit.nodes[match.root.name]
        shape, out = edit.spec(node.inputs[0]).shape, node.specs[0].shape
        if not shape or not out or None in shape[1:] or None in out[1:] or shape[0] != out[0] or 0 in shape:
            return match.miss("it moves elements between the samples of a batch, or its shapes are not known")
        if len(out) == FLAT:
            return raising(match, edit, "Flatten", (node.inputs[0],), {})
        return raising(match, edit, "Reshape", (node.inputs[0],), {"target_shape": tuple(out[1:])})

    return [Rule.of("reshape", op("tf.Reshape", "tf.Squeeze", "tf.ExpandDims"), reshape)]


def layout_of(worked_on: Sequence[bool]) -> str | None:
    """The layout under which only spatial axes are worked on, channels last where both are; None where there is none."""
    axes = {place for place, does in enumerate(worked_on) if does}
    return next((layout for layout in LAYOUTS if axes <= set(spatial_axes(len(worked_on), layout))), None)


def cut(node: Node, shape: Shape, begins: Sequence[int], ends: Sequence[int]) -> list[tuple[int, int]] | None:
    """How much a slice leaves out at both ends of each axis; None where that is not known, or nothing would be left."""
    masks = [int(node.config.get(f"{name}_mask", 0)) for name in ("begin", "end")]
    pairs = [(0, 0)] * len(shape)
    for place, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        size = shape[place]
        start = 0 if masks[0] >> place & 1 else begin
        whole = bool(masks[1] >> place & 1)
        if size is None:
            if start < 0 or (not whole and end > 0):
                return None
            pairs[place] = (start, 0 if whole else -end)
            if not whole and end == 0:
                return None
            continue
        first, last, _ = slice(start, None if whole else end).indices(size)
        if first >= last:
            return None
        pairs[place] = (first, size - last)
    return pairs
