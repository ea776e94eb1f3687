"""Which batch norms fold into which layers, read from `get_config()` alone.

Weights are not looked at, so what depends on them is said only where it is certain: a scale may be negative unless the
batch norm has no gamma, a scale is never zero and a shift always somewhere.  Left out, too: weights that are shared, batch
norms in a row (each is taken as if the others stayed), concatenations of concatenations, and dtypes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from zoo.config_graph import ConfigGraph, Tensor

__all__ = ["Fold", "fold_count", "fold_scan", "foldable"]

Layer = dict[str, Any]

CONVOLUTIONS = frozenset(
    {f"Conv{rank}D" for rank in (1, 2, 3)} | {f"{kind}{rank}D" for rank in (1, 2) for kind in ("DepthwiseConv", "SeparableConv")}
)
TRANSPOSED = frozenset({f"Conv{rank}DTranspose" for rank in (1, 2, 3)})
LINEAR_LAYERS = CONVOLUTIONS | TRANSPOSED | {"Dense"}
INFERENCE_NO_OPS = frozenset(
    {"Identity", "Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization"}
    | {f"SpatialDropout{rank}D" for rank in (1, 2, 3)}
)
MEANS = frozenset(
    {f"{kind}AveragePooling{rank}D" for rank in (1, 2, 3) for kind in ("", "Global")} | {f"Cropping{rank}D" for rank in (1, 2, 3)}
)
"""Scale and shift of a channel pass through, whatever they are."""
MAXIMA = frozenset({f"{kind}MaxPooling{rank}D" for rank in (1, 2, 3) for kind in ("", "Global")})
"""They pass through where no scale is negative."""
PADDINGS = frozenset({f"ZeroPadding{rank}D" for rank in (1, 2, 3)})
"""The scale passes through."""


@dataclass(frozen=True)
class Fold:
    """One batch norm that goes, or whose scale does."""

    norm: str
    layers: tuple[str, ...]
    """The linear layers that take it; several where it normalises their concatenation."""
    kind: Literal["backward", "concat", "forward", "scale"]
    """"scale": the scale goes into the layer behind, the shift stays."""


def fold_scan(model: keras.Model) -> list[Fold]:
    """The batch norms of `model` that fold, in the configuration's order; backward wherever they can, else forward.

    Backward: into the convolution or Dense before, linear, called once, its output read by the norm alone (at most through
    layers that pass a scale and a shift) and no output of the model; or into all branches of a concatenation of channels,
    each of them such a layer.  Forward: into the one layer that reads the norm, likewise; whole where no padding meets its
    kernel, else the scale alone.  The norm is on the channel axis and not forced to train.
    Nested models are scanned each for itself, their names in front: ``"inner/conv"``; no fold spans a model's border.
    """
    return list(_folds(model.get_config(), ""))


def foldable(model: keras.Model) -> list[tuple[str, str]]:
    """(layer, batch norm) name pairs of `model` where the norm folds backward, into the layer."""
    return [(layer, fold.norm) for fold in fold_scan(model) if fold.kind in ("backward", "concat") for layer in fold.layers]


def fold_count(model: keras.Model) -> int:
    """How many batch norms of `model` fold backward."""
    return sum(fold.kind in ("backward", "concat") for fold in fold_scan(model))


def _folds(config: dict[str, Any], prefix: str) -> Iterator[Fold]:
    graph = ConfigGraph.read(config)
    for name, layer in graph.layers.items():
        if "layers" in layer["config"]:
            yield from _folds(layer["config"], f"{prefix}{name}/")
        elif layer["class_name"] == "BatchNormalization":
            for number, call in enumerate(graph.calls[name]):
                if call.training or len(call.reads) != 1:
                    continue
                fold = _backward(graph, layer, call.reads[0]) or _forward(graph, layer, (name, number))
                if fold is not None:
                    kind, layers = fold
                    yield Fold(prefix + name, tuple(prefix + each for each in layers), kind)


def _backward(graph: ConfigGraph, norm: Layer, tensor: Tensor) -> tuple[Any, list[str]] | None:
    """Kind and layers of the fold of `norm`, which reads `tensor`, into what made it."""
    end = _first_before(graph, norm, tensor)
    if end is None:
        return None
    layer, call = graph.maker(end)
    if layer["class_name"] != "Concatenate":
        return ("backward", [end[0]]) if _takes_from_behind(graph, norm, end) else None
    rank = len(layer["build_config"]["input_shape"][0])
    if layer["config"]["axis"] % rank != (rank - 1 if _rank(norm) < rank else norm["config"]["axis"] % rank):
        return None  # the norm has fewer axes behind a global pooling, and its channels then are the last of both
    branches = [_first_before(graph, norm, read) for read in call.reads]
    if not all(branch is not None and _takes_from_behind(graph, norm, branch) for branch in branches):
        return None
    return "concat", [branch[0] for branch in branches if branch is not None]


def _first_before(graph: ConfigGraph, norm: Layer, tensor: Tensor) -> Tensor | None:
    """The nearest tensor at or before `tensor` that is made by something else than a layer which `norm` passes."""
    while graph.is_private(tensor):
        layer, call = graph.maker(tensor)
        if not _passes_all(layer, norm, call.training):
            return tensor
        tensor = call.reads[0]
    return None


def _takes_from_behind(graph: ConfigGraph, norm: Layer, tensor: Tensor) -> bool:
    layer, _ = graph.maker(tensor)
    linear = layer["class_name"] in LINEAR_LAYERS and layer["config"]["activation"] in (None, "linear")
    return linear and len(graph.calls[tensor[0]]) == 1 and _same_axis(layer, norm)


def _forward(graph: ConfigGraph, norm: Layer, tensor: Tensor) -> tuple[Any, list[str]] | None:
    """Kind and layers of the fold of `norm`, which makes `tensor`, into what reads it."""
    padded, shape = False, None
    while graph.is_private(tensor):
        tensor = graph.readers[tensor][0]
        layer, call = graph.maker(tensor)
        kind = layer["class_name"]
        if kind in LINEAR_LAYERS:
            if len(graph.calls[tensor[0]]) != 1 or not (_same_axis(layer, norm) if shape is None else _same_channels(layer, norm, shape)):
                return None
            return ("scale" if padded or _pads(layer) else "forward"), [tensor[0]]
        if kind in ("Flatten", "Reshape"):
            shape = shape or _shape_before(graph, norm, layer, call.reads[0])
            if shape is None:
                return None
        elif kind in PADDINGS and shape is None and _same_format(layer, norm):
            padded = True
        elif not _passes_all(layer, norm, call.training) or (shape is not None and kind not in INFERENCE_NO_OPS):
            return None
    return None


def _passes_all(layer: Layer, norm: Layer, training: bool) -> bool:
    """Whether a scale and a shift per channel may go from one side of the layer to the other."""
    kind = layer["class_name"]
    if kind in INFERENCE_NO_OPS:
        return not training
    return (kind in MEANS or (kind in MAXIMA and not norm["config"]["scale"])) and _same_format(layer, norm)


def _same_format(layer: Layer, norm: Layer) -> bool:
    """Whether the layer's channels are the norm's, if those are on the channel axis."""
    first = _rank(norm) > 2 and norm["config"]["axis"] % _rank(norm) == 1
    return layer["config"]["data_format"] == ("channels_first" if first else "channels_last")


def _same_axis(linear: Layer, norm: Layer) -> bool:
    """Whether the norm is on the channel axis; behind a global pooling, which `_same_format` holds to the last axis, too."""
    first = linear["config"].get("data_format") == "channels_first"
    return norm["config"]["axis"] % _rank(norm) == (1 if first else _rank(norm) - 1) and not (first and _rank(norm) == 2)


def _rank(norm: Layer) -> int:
    return len(norm["build_config"]["input_shape"])


def _pads(linear: Layer) -> bool:
    """Whether the kernel of `linear` meets anything but its input."""
    kind, config = linear["class_name"], linear["config"]
    if kind == "Dense":
        return False
    kernel, strides = config["kernel_size"], config["strides"]
    if kind in TRANSPOSED:
        return any(size != 1 for size in (*kernel, *strides))
    if config["padding"] == "valid" or all(size == 1 for size in kernel):
        return False
    if config["padding"] == "causal":
        return True
    shape = linear["build_config"]["input_shape"]
    sizes = shape[2:] if config["data_format"] == "channels_first" else shape[1:-1]
    return any(_same_padding(*each) != 0 for each in zip(sizes, kernel, strides, config["dilation_rate"], strict=True))


def _same_padding(size: int | None, kernel: int, stride: int, dilation: int) -> int | None:
    """Zeros that `same` adds along one axis, by TensorFlow's rule; unknown for an unknown size."""
    if size is None:
        return None
    return max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)


def _shape_before(graph: ConfigGraph, norm: Layer, layer: Layer, tensor: Tensor) -> tuple[int, ...] | None:
    """Shape, without the batch, that a Flatten or Reshape reads: where it is the norm's, or said, and known."""
    if layer["class_name"] == "Flatten" and layer["config"]["data_format"] != "channels_last":
        return None
    maker, call = graph.maker(tensor)
    while maker is not norm and maker["class_name"] in INFERENCE_NO_OPS:
        maker, call = graph.maker(call.reads[0])
    if maker is not norm and layer["class_name"] == "Reshape":
        return None
    shape = norm["build_config"]["input_shape"] if maker is norm else layer["build_config"]["input_shape"]
    return None if None in shape[1:] or len(shape) != _rank(norm) else tuple(shape[1:])


def _same_channels(linear: Layer, norm: Layer, shape: tuple[int, ...]) -> bool:
    """Whether each channel that `linear` reads was one channel of the norm, before `shape` was reshaped."""
    axis = norm["config"]["axis"] % _rank(norm) - 1
    channels = np.arange(shape[axis]).reshape([-1 if each == axis else 1 for each in range(len(shape))])
    target = linear["build_config"]["input_shape"][1:]
    read = np.broadcast_to(channels, shape).reshape([size or -1 for size in target])
    if linear["config"].get("data_format") == "channels_first":
        read = np.moveaxis(read, 0, -1)
    rows = read.reshape(-1, read.shape[-1])
    return bool((rows == rows[0]).all())
