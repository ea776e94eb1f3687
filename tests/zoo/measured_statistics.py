"""Batch-norm statistics measured on images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np

__all__ = ["measure_statistics", "measuring"]


def measure_statistics(model: keras.Model, batch: np.ndarray) -> None:
    """Set every moving mean and variance of a flat `model` to what `batch` shows there, in one pass.

    One pass is consistent: when training each batch norm normalises by its own batch's statistics, so the layers behind it
    see what they will see at inference on this batch.
    """
    with measuring(model):
        model(batch, training=True)


@contextmanager
def measuring(model: keras.Model) -> Iterator[None]:
    """Within the block a training pass stores its own statistics (momentum 0) and drops nothing (rate 0).

    With dropout on, the statistics would be those of another network: the variance behind a stochastic depth of rate p is
    about 1/(1-p) of the one at inference, and differs from run to run.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    drops = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    momenta, rates = [layer.momentum for layer in norms], [layer.rate for layer in drops]
    try:
        for layer in norms:
            layer.momentum = 0.0
        for layer in drops:
            layer.rate = 0.0
        yield
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
        for layer, rate in zip(drops, rates, strict=True):
            layer.rate = rate
