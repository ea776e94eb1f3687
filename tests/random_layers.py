"""Random layers for batch-norm folding: what is drawn is plain data, and is made to fit the shape that it meets."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import strategies as st
from keras import layers as L

__all__ = [
    "Linear",
    "Norm",
    "Plain",
    "Shape",
    "linear_layer",
    "linears",
    "norm_layer",
    "norms",
    "plain_layer",
    "plains",
    "shape_layer",
    "shapes",
]


@attrs.frozen
class Linear:
    """A linear layer, of the rank of what it is called on."""

    kind: str = "Conv"
    padding: str = "valid"
    groups: int = 1
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    filters: int = 4
    multiplier: int = 1
    """Of the depth; where that is not asked for, 2 is for an output padding."""
    uneven: bool = False
    """Another kernel size, and another stride where that may be, on every other axis."""
    bias: bool = True
    activation: str | None = None


@attrs.frozen
class Norm:
    """A batch norm; `axis` None is the channels'."""

    center: bool = True
    scale: bool = True
    epsilon: float = 1e-3
    axis: int | None = None
    training: bool = False
    dtype: str | None = None


@attrs.frozen
class Plain:
    """A layer without weights, by its name in `PLAIN`."""

    name: str


@attrs.frozen
class Shape:
    """A Flatten or Reshape, by its name in `SHAPES`."""

    name: str


# drawing


def linears(**fixed: Any) -> st.SearchStrategy[Linear]:
    """Linear layers, with the fields in `fixed` as given, or drawn from the strategies given."""
    return built(
        Linear,
        fixed,
        kind=st.sampled_from(["Conv", "Conv", "DepthwiseConv", "SeparableConv", "ConvTranspose", "Dense"]),
        padding=st.sampled_from(["valid", "same", "same", "causal"]),
        groups=st.sampled_from([1, 1, 2, 4]),
        kernel=st.sampled_from([1, 2, 3]),
        stride=st.sampled_from([1, 1, 1, 2]),
        dilation=st.sampled_from([1, 1, 1, 2]),
        filters=st.sampled_from([4, 4, 4, 8]),
        multiplier=st.sampled_from([1, 1, 2]),
        uneven=st.booleans(),
        bias=st.booleans(),
        activation=st.sampled_from([None] * 6 + ["relu", "tanh"]),
    )


def norms(**fixed: Any) -> st.SearchStrategy[Norm]:
    """Batch norms, most of which fold, with the fields in `fixed` as given."""
    return built(
        Norm,
        fixed,
        center=st.sampled_from([True, True, False]),
        scale=st.sampled_from([True, True, False]),
        epsilon=st.sampled_from([1e-3, 1e-5, 1e-7, 0.1]),
        axis=st.sampled_from([None] * 9 + [1]),
        training=st.sampled_from([False] * 15 + [True]),
        dtype=st.sampled_from([None] * 15 + ["float32", "float64"]),
    )


def built(cls: type, fixed: dict[str, Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    given = {key: value if isinstance(value, st.SearchStrategy) else st.just(value) for key, value in fixed.items()}
    return st.builds(cls, **(fields | given))


# layers that fit


def linear_layer(step: Linear, shape: tuple[int | None, ...], first: bool = False, **options: Any) -> Any:
    """The layer that `step` is on inputs of `shape`; None if there is none."""
    rank = len(shape) - 2
    kind = step.kind if 1 <= rank <= 3 else "Dense"
    if rank == 3 and kind in ("DepthwiseConv", "SeparableConv"):
        kind = "Conv"
    if first and kind.startswith("Conv"):  # those do not run channels first on a CPU
        kind = "DepthwiseConv" if rank < 3 else "Dense"
    options |= {"use_bias": step.bias, "activation": step.activation}
    if kind == "Dense":
        return None if shape[-1] is None else L.Dense(step.filters, **options)
    sizes, channels = (shape[2:], shape[1]) if first else (shape[1:-1], shape[-1])
    options |= window(step, kind, sizes)
    if rank > 1 or kind in ("DepthwiseConv", "SeparableConv"):
        options["data_format"] = "channels_first" if first else "channels_last"
    match kind:
        case "Conv":
            options |= {"filters": step.filters, "groups": step.groups if channels % step.groups == 0 else 1}
        case "ConvTranspose":
            return getattr(L, f"Conv{rank}DTranspose")(step.filters, **options)
        case "SeparableConv":
            options |= {"filters": step.filters, "depth_multiplier": step.multiplier}
        case "DepthwiseConv":
            options |= {"depth_multiplier": step.multiplier}
    return getattr(L, f"{kind}{rank}D")(**options)


def window(step: Linear, kind: str, sizes: tuple[int | None, ...]) -> dict[str, Any]:
    """Kernel size, strides, dilation and padding, as far as the image has room for them and Keras and TensorFlow allow."""
    causal = kind == "Conv" and len(sizes) == 1
    padding = "same" if step.padding == "causal" and not causal else step.padding
    stride, dilation = step.stride, 1 if step.stride > 1 or kind == "ConvTranspose" else step.dilation
    if None in sizes:
        stride, padding = 1, "same" if padding == "valid" else padding
    spread = (step.kernel - 1) * dilation + 1
    room = padding != "valid" or kind == "ConvTranspose" or all(size >= spread for size in sizes)
    kernel = step.kernel if room else 1
    odd = [step.uneven and axis % 2 == 1 for axis in range(len(sizes))]
    alike = kind in ("DepthwiseConv", "SeparableConv")  # which take but one stride for all axes
    options = {
        "kernel_size": tuple(max(kernel - 1, 1) if other else kernel for other in odd),
        "strides": tuple(1 if other and not alike else stride for other in odd),
        "padding": padding,
    }
    if kind == "ConvTranspose":
        return options | ({"output_padding": 1} if stride > 1 and step.multiplier > 1 and kernel > 1 and not step.uneven else {})
    return options | {"dilation_rate": dilation}


def norm_layer(step: Norm, shape: tuple[int | None, ...], first: bool = False, dtype: Any = None) -> Any:
    """The batch norm that `step` is on inputs of `shape`; None if there is none."""
    channels = 1 if first and len(shape) > 2 else -1
    axis = channels if step.axis is None or shape[step.axis] is None else step.axis
    if shape[axis] is None:
        return None
    return L.BatchNormalization(axis=axis, center=step.center, scale=step.scale, epsilon=step.epsilon, dtype=step.dtype or dtype)


PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "dropout": ("Dropout", {"rate": 0.5}),
    "spatial dropout": ("SpatialDropout{}D", {"rate": 0.5}),
    "noise": ("GaussianNoise", {"stddev": 0.5}),
    "identity": ("Identity", {}),
    "relu": ("ReLU", {}),
    "leaky relu": ("LeakyReLU", {"negative_slope": 0.2}),
    "tanh": ("Activation", {"activation": "tanh"}),
    "no activation": ("Activation", {"activation": "linear"}),
    "average pool": ("AveragePooling{}D", {"pool_size": 2}),
    "average pool same": ("AveragePooling{}D", {"pool_size": 3, "strides": 1, "padding": "same"}),
    "max pool": ("MaxPooling{}D", {"pool_size": 2, "strides": 1}),
    "max pool same": ("MaxPooling{}D", {"pool_size": 2, "padding": "same"}),
    "crop": ("Cropping{}D", {"cropping": 1}),
    "pad": ("ZeroPadding{}D", {"padding": 1}),
    "global average pool": ("GlobalAveragePooling{}D", {}),
    "global average pool keeping axes": ("GlobalAveragePooling{}D", {"keepdims": True}),
    "global max pool": ("GlobalMaxPooling{}D", {"keepdims": True}),
}
"""Classes (the number of spatial axes goes between) and their arguments."""

plains = st.sampled_from(sorted(PLAIN)).map(Plain)


def plain_layer(step: Plain, shape: tuple[int | None, ...], first: bool = False, **options: Any) -> Any:
    """The layer that `step` is on inputs of `shape`; None if there is none."""
    name, arguments = PLAIN[step.name]
    if "{}" not in name:
        return getattr(L, name)(**arguments, **options)
    rank, sizes = len(shape) - 2, shape[2:] if first else shape[1:-1]
    flat = name.startswith(("Cropping", "SpatialDropout")) and rank == 1  # which have no data format
    if not 1 <= rank <= 3 or (flat and first):
        return None
    if name.startswith(("Average", "Max")) and rank == 3:  # TensorFlow has none in float64
        return None
    if not name.startswith(("Global", "Spatial")) and any(size is None or size < 3 for size in sizes):
        return None
    layout = {} if flat else {"data_format": "channels_first" if first else "channels_last"}
    return getattr(L, name.format(rank))(**arguments, **layout, **options)


SHAPES = {
    "flatten": None,
    "one row": lambda *axes: (-1,),
    "rows of channels": lambda *axes: (-1, axes[-1]),
    "rows joined": lambda *axes: (axes[0], -1),
    "one more axis": lambda *axes: (1, *axes),
    "channels parted": lambda *axes: (*axes[:-1], axes[-1] // 2, 2) if axes[-1] % 2 == 0 else (-1,),
}
"""Target shapes without the batch, of what has these axes."""

shapes = st.sampled_from(sorted(SHAPES)).map(Shape)


def shape_layer(step: Shape, shape: tuple[int | None, ...], **options: Any) -> Any:
    """The Flatten or Reshape that `step` is on inputs of `shape`; None if there is none."""
    if None in shape[1:] or len(shape) > 5:
        return None
    target = SHAPES[step.name]
    return L.Flatten(**options) if target is None else L.Reshape(target(*shape[1:]), **options)
