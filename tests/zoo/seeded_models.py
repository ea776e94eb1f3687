"""The zoo's models, built once a process."""

from __future__ import annotations

from functools import cache

import keras
import numpy as np

from zoo.architectures import ARCHITECTURES, architecture
from zoo.measured_statistics import measure_statistics
from zoo.seeded_weights import seed_weights
from zoo.smooth_images import images

__all__ = ["build", "calibration", "inputs"]

_CALIBRATION_IMAGES = 32
_CALIBRATION_SEED = 20_000


@cache
def build(name: str, input_shape: tuple[int, int, int] | None = None) -> keras.Model:
    """The keras.applications model `name` with seeded weights, measured statistics and logits as output.

    Cached: all callers share one model and **must not change it** (weights, layers, compile).  A caller who must change
    it takes `build.__wrapped__(name)`, which is not cached.  The seeded weights are the same everywhere; the measured
    statistics only up to float32 rounding, which depends on the CPU and its threads: no golden file of these models.
    """
    model = architecture(name, input_shape)
    seed_weights(model, name)
    measure_statistics(model, calibration(name, input_shape))
    return model


def inputs(name: str, n: int, seed: int, input_shape: tuple[int, int, int] | None = None) -> np.ndarray:
    """`n` images of the shape and pixel range that `build(name, input_shape)` takes."""
    row = ARCHITECTURES[name]
    return images(n, input_shape or row.input_shape, seed, row.pixels)


def calibration(name: str, input_shape: tuple[int, int, int] | None = None) -> np.ndarray:
    """The images on which `build` measures the statistics."""
    return inputs(name, _CALIBRATION_IMAGES, _CALIBRATION_SEED, input_shape)
