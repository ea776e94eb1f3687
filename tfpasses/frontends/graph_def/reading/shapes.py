"""Shape rules of TensorFlow's operations, those that lie on the way of a network: what they give is what TensorFlow's own inference
gives, or less. Dimensions that are not known are None, and so is a shape of which not even the rank is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfpasses.frontends.graph_def.protos.attributes import Dims, proto_shape

__all__ = ["MOST_AXES", "OF_SHAPES", "Values", "shape_after"]

Values = Callable[[int], Any]
"""The elements of an input that is a vector (or a number) known as the graph is read, as nested lists with None for those that are
not; None where nothing is known of them. All of them are integers."""
MOST_AXES = 254
"""As many as TensorFlow allows."""
Rule = Callable[[Any, Sequence[Dims], Values], Dims]


def shape_after(node: Any, op: str, shapes: Sequence[Dims], values: Values) -> Dims:
    """The shape of a NodeDef's first output, as far as it is known. A malformed node gives an unknown one, or one that no tensor can have:
    TensorFlow will refuse it.
    """
    rule = RULES.get(op)
    try:
        return rule(node, shapes, values) if rule else None
    except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None


# An attribute of another kind than is asked for is as one that is not there.


def integers(node: Any, key: str) -> Sequence[int]:
    attributes = node.attr
    return attributes[key].list.i[:] if key in attributes else []


def integer(node: Any, key: str) -> int:
    attributes = node.attr
    return int(attributes[key].i) if key in attributes else 0


def flag(node: Any, key: str) -> bool:
    attributes = node.attr
    return bool(attributes[key].b) if key in attributes else False


def text(node: Any, key: str) -> bytes:
    attributes = node.attr
    return bytes(attributes[key].s) if key in attributes else b""


def placeholder(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    return proto_shape(node.attr["shape"].shape) if "shape" in node.attr else None


def constant(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    return proto_shape(node.attr["value"].tensor.tensor_shape) if "value" in node.attr else None


def first(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    return shapes[0]


def broadcast(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    """All inputs by NumPy's rule; a dimension beside an unknown one is the other, if that is not 1."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return None
    first, *others = sorted(known, key=len, reverse=True)
    out = first
    for shape in others:
        if shape != out:
            start = len(out) - len(shape)
            out = (*out[:start], *map(joined, out[start:], shape))
    return out


def joined(a: int | None, b: int | None) -> int | None:
    """Two sizes broadcast to one."""
    if a is None or a == 1:
        return a if b == 1 else b
    return a


def window(size: int | None, reach: int, stride: int, padding: bytes, pads: int) -> int | None:
    """How often a window fits; `reach` is its length with dilation."""
    if size is None:
        return None
    if padding == b"SAME":
        return -(-size // stride)
    return max((size + pads - reach) // stride + 1, 0)


def windows(node: Any, shape: Dims, axis: int, reaches: Sequence[int], channels: int | None) -> Dims:
    """The shape after a convolution or pool: reaches over the spatial axes, strides and padding from the node; `axis` has the channels."""
    rank = len(reaches) + 2
    out: list[int | None] = [None] * rank if shape is None else list(shape)
    if len(out) != rank:
        return None
    strides, padding = integers(node, "strides"), text(node, "padding")
    explicit = integers(node, "explicit_paddings") if padding == b"EXPLICIT" else [0] * (2 * rank)
    place = 0
    for reach in reaches:
        place += 2 if place + 1 == axis else 1
        out[place] = window(out[place], reach, strides[place], padding, explicit[2 * place] + explicit[2 * place + 1])
    out[axis] = channels
    return tuple(out)


def channel_axis(node: Any, rank: int) -> int:
    return 1 if text(node, "data_format").startswith(b"NC") else rank - 1


def conv(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    kernel = shapes[1]
    if kernel is None:
        return None
    *sizes, inner, outer = kernel
    rank = len(kernel)
    if None in sizes:
        return (None,) * rank
    axis = channel_axis(node, rank)
    dilations = integers(node, "dilations") or [1] * rank
    spatial = [dilation for place, dilation in enumerate(dilations) if place not in (0, axis)]
    channels = outer if node.op != "DepthwiseConv2dNative" else None if inner is None or outer is None else inner * outer
    reaches = [((size or 1) - 1) * dilation + 1 for size, dilation in zip(sizes, spatial, strict=True)]
    return windows(node, shapes[0], axis, reaches, channels)


def transposed(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    sizes = values(0)
    if sizes is not None:
        return tuple(map(size_of, sizes))
    return None if shapes[1] is None else (None,) * len(shapes[1])


def pool(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    sizes = integers(node, "ksize")
    rank = len(sizes)
    axis = channel_axis(node, rank)
    shape = shapes[0]
    reaches = [size for place, size in enumerate(sizes) if place not in (0, axis)]
    return windows(node, shape, axis, reaches, None if shape is None else shape[axis])


def size_of(element: int | None) -> int | None:
    """A size as an element tells it: -1 stands for one that is not known."""
    return None if element is None or element < 0 else element


def matmul(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    a, b = shapes
    if node.op == "MatMul":
        a, b = a or (None, None), b or (None, None)
    if a is None or b is None:
        return None
    turned = [flag(node, key) for key in (("transpose_a", "transpose_b") if node.op == "MatMul" else ("adj_x", "adj_y"))]
    outer = broadcast(node, [a[:-2], b[:-2]], values)
    return None if outer is None else (*outer, a[-1] if turned[0] else a[-2], b[-2] if turned[1] else b[-1])


def reshape(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    wanted = values(1)
    if wanted is None:
        (rank,) = shapes[1] or (None,)
        return (None,) * rank if rank is not None and rank <= MOST_AXES else None
    sizes = list(map(size_of, wanted))
    holes = [place for place, size in enumerate(sizes) if size is None]
    if len(holes) == 1 and shapes[0] is not None and None not in shapes[0]:
        rest = math.prod(size for size in sizes if size is not None)
        sizes[holes[0]] = math.prod(size or 0 for size in shapes[0]) // rest if rest else None
    return tuple(sizes)


def pad(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    pairs, shape = values(1), shapes[0]
    if shape is None or pairs is None:
        return shape and (None,) * len(shape)
    return tuple(None if size is None else size + before + after for size, (before, after) in zip(shape, pairs, strict=True))


def tile(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    times, shape = values(1), shapes[0]
    if shape is None or times is None:
        return shape and (None,) * len(shape)
    return tuple([None if size is None or many is None else size * many for size, many in zip(shape, times, strict=True)])


def reduce(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    shape, places = shapes[0], values(1)
    keep = flag(node, "keep_dims")
    if shape is None or places is None:
        return (None,) * len(shape) if keep and shape is not None else None
    gone = {place % len(shape) for place in (places if isinstance(places, list) else [places])}
    return tuple(1 if place in gone else size for place, size in enumerate(shape) if keep or place not in gone)


def squeeze(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    shape, places = shapes[0], integers(node, "squeeze_dims")
    if shape is None or (not places and None in shape):
        return None
    gone = {place % len(shape) for place in places} if places else {place for place, size in enumerate(shape) if size == 1}
    return tuple(size for place, size in enumerate(shape) if place not in gone)


def expand(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    shape, place = shapes[0], values(1)
    if shape is None or place is None:
        return None
    (place,) = place if isinstance(place, list) else [place]
    place %= len(shape) + 1
    return (*shape[:place], 1, *shape[place:])


def concat(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    place, parts = values(len(shapes) - 1), shapes[:-1]
    known = [shape for shape in parts if shape is not None]
    if not known or place is None:
        return (None,) * len(known[0]) if known else None
    rank = len(known[0])
    place %= rank
    out = [next((shape[axis] for shape in known if shape[axis] is not None), None) for axis in range(rank)]
    sizes = [None if shape is None else shape[place] for shape in parts]
    out[place] = None if None in sizes else sum(size or 0 for size in sizes)
    return tuple(out)


def gather(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    (shape, places, _), axis = shapes, values(2)
    if shape is None or places is None or axis is None or integer(node, "batch_dims"):
        return None
    axis %= len(shape)
    return (*shape[:axis], *places, *shape[axis + 1 :])


def transpose(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    shape, order = shapes[0], values(1)
    if order is None:
        return None if shape is None else (None,) * len(shape)
    return (None,) * len(order) if shape is None else tuple(shape[place] for place in order)


def pack(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    known = next((shape for shape in shapes if shape is not None), None)
    if known is None:
        return None
    place = integer(node, "axis") % (len(known) + 1)
    return (*known[:place], len(shapes), *known[place:])


def shape_of(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    return (None if shapes[0] is None else len(shapes[0]),)


def space_to_batch(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    return blocks(shapes[0], values(1), values(2), lambda size, block, ends: (size + ends) // block, lambda batch, many: batch * many)


def batch_to_space(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    return blocks(shapes[0], values(1), values(2), lambda size, block, ends: size * block - ends, lambda batch, many: batch // many)


def blocks(shape: Dims, sizes: Any, ends: Any, change: Callable[[int, int, int], int], change_batch: Callable[[int, int], int]) -> Dims:
    """The batch and the spatial axes that follow it, by blocks."""
    if shape is None or sizes is None:
        return shape and (None,) * len(shape)
    known = zip(shape[1 : len(sizes) + 1], sizes, ends or [[None]] * len(sizes), strict=True)
    spatial = [None if size is None or None in pair else change(size, block, sum(pair)) for size, block, pair in known]
    batch = None if shape[0] is None else change_batch(shape[0], math.prod(sizes))
    return (batch, *spatial, *shape[len(sizes) + 1 :])


def strided_slice(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    shape, parts = shapes[0], [values(place) for place in (1, 2, 3)]
    if shape is None or None in parts:
        return None
    masks = {name: integer(node, f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    begins, ends, strides = parts
    count = len(begins)
    out: list[int | None] = []
    axis = 0
    for place in range(count):
        has = {name: bool(mask >> place & 1) for name, mask in masks.items()}
        if has["ellipsis"]:
            later = sum(1 for other in range(place + 1, count) if not masks["new_axis"] >> other & 1)
            out += shape[axis : len(shape) - later]
            axis = len(shape) - later
        elif has["new_axis"]:
            out.append(1)
        elif has["shrink_axis"]:
            axis += 1
        else:
            begin, end = None if has["begin"] else begins[place], None if has["end"] else ends[place]
            whole = begin is None and end is None and strides[place] in (1, -1)
            out.append(shape[axis] if whole else sliced(shape[axis], slice(begin, end, strides[place])))
            axis += 1
    return (*out, *shape[axis:])


def sliced(size: int | None, part: slice) -> int | None:
    return None if size is None else len(range(size)[part])


def resize(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    shape, (height, width) = shapes[0] or (None,) * 4, map(size_of, values(1) or (None, None))
    return (shape[0], height, width, shape[3])


def fill(node: Any, shapes: Sequence[Dims], values: Values) -> Dims:
    sizes = values(0)
    return None if sizes is None else tuple(map(size_of, sizes))


SAME = (
    *("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Cast", "BiasAdd", "Neg", "Abs", "Square", "Sqrt", "Rsqrt"),
    *("Reciprocal", "Exp", "Log", "Erf", "Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "Softplus", "Softmax"),
    *("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "LRN", "AddN", "Softsign", "LogSoftmax", "Erfc", "Erfinv", "Sign", "Inv"),
    *("Expm1", "Log1p", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Lgamma", "Digamma"),
    *("Ceil", "Floor", "Round", "Rint", "IsNan", "IsInf", "IsFinite", "LogicalNot", "ZerosLike", "OnesLike", "Snapshot", "ClipByValue"),
    *("FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel", "QuantizeAndDequantizeV2"),
    *("Cumsum", "Cumprod", "Roll", "ReverseV2", "MatrixBandPart"),
)
BROADCAST = (
    *("Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "Maximum", "Minimum", "SquaredDifference", "Pow", "SelectV2"),
    *("FloorDiv", "FloorMod", "Mod", "TruncateDiv", "DivNoNan", "MulNoNan", "Xdivy", "Xlogy", "Atan2", "ApproximateEqual"),
    *("Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual", "LogicalAnd", "LogicalOr"),
)

RULES: Mapping[str, Rule] = {
    "Placeholder": placeholder,
    "PlaceholderWithDefault": placeholder,
    **dict.fromkeys(("Variable", "VariableV2"), placeholder),  # by reference
    "Const": constant,
    **dict.fromkeys(SAME, first),
    **dict.fromkeys(BROADCAST, broadcast),
    **dict.fromkeys(("Conv2D", "Conv3D", "DepthwiseConv2dNative"), conv),
    **dict.fromkeys(("Conv2DBackpropInput", "Conv3DBackpropInputV2"), transposed),
    **dict.fromkeys(("MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D"), pool),
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2"), matmul),
    "Reshape": reshape,
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad"), pad),
    "Tile": tile,
    **dict.fromkeys(("Mean", "Sum", "Max", "Min", "Prod", "All", "Any"), reduce),
    "Squeeze": squeeze,
    "ExpandDims": expand,
    "ConcatV2": concat,
    "GatherV2": gather,
    "Transpose": transpose,
    "Pack": pack,
    "Shape": shape_of,
    "StridedSlice": strided_slice,
    "SpaceToBatchND": space_to_batch,
    "BatchToSpaceND": batch_to_space,
    **dict.fromkeys(("ResizeNearestNeighbor", "ResizeBilinear", "ResizeBicubic"), resize),
    "Fill": fill,
}
OF_SHAPES = frozenset([op for op, rule in RULES.items() if rule in (first, broadcast)])
"""The operations whose rules ask for the shapes of their inputs alone."""
