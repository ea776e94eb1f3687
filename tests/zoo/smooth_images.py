"""Images that differ after pooling."""

from __future__ import annotations

import numpy as np

__all__ = ["images"]

_CELLS = 5
"""Colours along each side before they are blended: blobs wide enough to survive every stride of the network."""


def images(n: int, shape: tuple[int, int, int], seed: int, pixels: tuple[float, float] = (-1.0, 1.0)) -> np.ndarray:
    """`n` smooth, differently tinted images, float32 of shape ``(n, *shape)``, values within `pixels`.

    White noise would not do: all of its images have one mean and one variance, and after a few poolings look alike.
    """
    height, width, channels = shape
    generator = np.random.Generator(np.random.PCG64(seed))
    colours = generator.uniform(-1.0, 1.0, (n, _CELLS, _CELLS, channels))
    tint = generator.uniform(-0.6, 0.6, (n, 1, 1, channels))
    contrast = generator.uniform(0.2, 1.0, (n, 1, 1, 1))
    blend = np.einsum("yi,nijc,xj->nyxc", _bilinear(height), contrast * colours, _bilinear(width))
    low, high = pixels
    return (low + (high - low) * (np.clip(blend + tint, -1.0, 1.0) + 1.0) / 2.0).astype(np.float32)


def _bilinear(size: int) -> np.ndarray:
    """Rows of weights, ``(size, _CELLS)``, each a linear blend of two neighbouring cells."""
    position = np.linspace(0.0, _CELLS - 1.0, size)
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(_CELLS)[None, :]))
