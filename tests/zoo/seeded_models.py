"""The zoo's models, the latest of them kept."""

from __future__ import annotations

from functools import lru_cache

import keras
import numpy as np

from zoo.architectures import APPLICATIONS, ARCHITECTURES, architecture
from zoo.measured_statistics import measure_statistics
from zoo.seeded_weights import seed_weights
from zoo.smooth_images import images

__all__ = ["build", "calibration", "inputs", "typical"]

_CALIBRATION_IMAGES = 32
_CALIBRATION_SEED = 20_000


@lru_cache(maxsize=len(ARCHITECTURES))  # all forty would not fit the memory
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
    row = APPLICATIONS[name]
    return images(n, input_shape or row.input_shape, seed, row.pixels)


def calibration(name: str, input_shape: tuple[int, int, int] | None = None) -> np.ndarray:
    """The images on which `build` measures the statistics."""
    return inputs(name, _CALIBRATION_IMAGES, _CALIBRATION_SEED, input_shape)


def typical(name: str, n: int) -> np.ndarray:
    """`n` of the images on which the statistics were measured: images that the model knows.

    On one that it does not, a deep network whose branches multiply each other explodes (EfficientNetB1: logits of 4,000
    instead of 2), and its own rounding error there, a tenth of the output, says nothing of the other images.
    """
    return calibration(name)[:n]
