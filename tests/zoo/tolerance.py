"""How far a rewritten model may be from its original."""

from __future__ import annotations

import keras
import numpy as np

from zoo.reference import float64_outputs
from zoo.relative_error import relative_error

__all__ = ["float32_error", "tolerance"]

_ROUNDINGS = 4
"""Original and rewritten model round alike, each in its own way: twice the error between them, and twice that for luck."""


def float32_error(model: keras.Model, x: np.ndarray) -> float:
    """Relative error of the single-output `model`'s own float32 arithmetic on `x`, against float64."""
    return relative_error(model(x, training=False), float64_outputs(model, x))


def tolerance(model: keras.Model, x: np.ndarray) -> float:
    """The relative error allowed to a rewrite of `model` on `x`: derived from the original's error, never tuned."""
    return _ROUNDINGS * float32_error(model, x)
