"""Cross-layer scaling and high-bias folding written out in float64, kernel layout by kernel layout."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["float64", "given_range", "pair_scale", "read_range", "response", "scaled_given", "scaled_read", "triplet_scales"]


def float64(weight: Any) -> np.ndarray:
    return np.asarray(weight, np.float64)


def kind(layer: Any) -> str:
    name = type(layer).__name__
    return next(word for word in ("Depthwise", "Separable", "Transpose", "Dense", "Conv") if word in name)


def columns(layer: Any) -> list[tuple[int, tuple[Any, ...]]]:
    """(output channel, the part of the kernel that gives it), of a separable layer's pointwise kernel."""
    kernel = layer.pointwise_kernel if kind(layer) == "Separable" else layer.kernel
    if kind(layer) == "Depthwise":
        channels, multiplier = kernel.shape[-2:]
        return [(c * multiplier + m, (..., c, m)) for c in range(channels) for m in range(multiplier)]
    if kind(layer) == "Transpose":
        return [(out, (..., out, slice(None))) for out in range(kernel.shape[-2])]
    return [(out, (..., slice(None), out)) for out in range(kernel.shape[-1])]


def rows(layer: Any) -> list[tuple[int, tuple[Any, ...]]]:
    """(input channel, the part of the kernel that reads it), of a separable layer's depthwise kernel."""
    if kind(layer) in ("Depthwise", "Separable"):
        kernel = layer.depthwise_kernel if kind(layer) == "Separable" else layer.kernel
        return [(c, (..., c, slice(None))) for c in range(kernel.shape[-2])]
    if kind(layer) == "Transpose":
        return [(c, (..., slice(None), c)) for c in range(layer.kernel.shape[-1])]
    inputs, outputs = layer.kernel.shape[-2:]
    groups = getattr(layer, "groups", 1)
    width = outputs // groups
    return [(g * inputs + c, (..., c, slice(g * width, (g + 1) * width))) for g in range(groups) for c in range(inputs)]


def giver(layer: Any) -> np.ndarray:
    """The kernel that gives the output channels, float64, as a copy."""
    return float64(layer.pointwise_kernel if kind(layer) == "Separable" else layer.kernel).copy()


def reader(layer: Any) -> np.ndarray:
    """The kernel that reads the input channels, float64, as a copy."""
    return float64(layer.depthwise_kernel if kind(layer) == "Separable" else layer.kernel).copy()


def ranges(kernel: np.ndarray, parts: list[tuple[int, tuple[Any, ...]]]) -> np.ndarray:
    found = np.zeros(len(parts))
    for channel, part in parts:
        found[channel] = np.abs(kernel[part]).max()
    return found


def given_range(layer: Any) -> np.ndarray:
    return ranges(giver(layer), columns(layer))


def read_range(layer: Any) -> np.ndarray:
    return ranges(reader(layer), rows(layer))


def times(kernel: np.ndarray, parts: list[tuple[int, tuple[Any, ...]]], factors: np.ndarray) -> np.ndarray:
    for channel, part in parts:
        kernel[part] *= factors[channel]
    return kernel


def scaled_given(layer: Any, scale: np.ndarray, kernel: np.ndarray | None = None) -> np.ndarray:
    return times(giver(layer) if kernel is None else kernel, columns(layer), 1 / scale)


def scaled_read(layer: Any, scale: np.ndarray) -> np.ndarray:
    return times(reader(layer), rows(layer), scale)


def pair_scale(first: Any, second: Any) -> np.ndarray:
    """r1 / sqrt(r1·r2), 1 where either is 0."""
    a, b = given_range(first), read_range(second)
    return np.array([x / np.sqrt(x * y) if x * y > 0 else 1.0 for x, y in zip(a, b, strict=True)])


def triplet_scales(first: Any, middle: Any, last: Any) -> tuple[np.ndarray, np.ndarray]:
    """r1 / cbrt(r1·r2·r3) and cbrt(r1·r2·r3) / r3, both 1 where any is 0."""
    a, b, c = given_range(first), given_range(middle), read_range(last)
    root = np.cbrt(a * b * c)
    where = root > 0
    return np.where(where, a / np.where(where, root, 1), 1.0), np.where(where, root / np.where(where, c, 1), 1.0)


def response(layer: Any, constant: np.ndarray) -> np.ndarray:
    """What a layer gives, without its bias, of an image that has one constant a channel."""
    kernel = times(reader(layer), rows(layer), constant)
    taps = kernel.sum(axis=tuple(range(kernel.ndim - 2)))
    match kind(layer):
        case "Depthwise":
            return taps.reshape(-1)
        case "Separable":
            return taps.reshape(-1) @ float64(layer.pointwise_kernel).reshape(taps.size, -1)
        case "Transpose":
            return taps.sum(axis=-1)
        case _:
            return taps.sum(axis=0)
