"""Weights under which every term of a batch norm is felt, and those at which folding has to think twice."""

from __future__ import annotations

import keras
import numpy as np

from fold_cases import bite

__all__ = ["FLAVOURS", "season"]

FLAVOURS = {
    "plain": {},
    "positive": {"gamma": lambda v, where: np.abs(v)},
    "negative": {"gamma": lambda v, where: -np.abs(v)},
    "some gammas zero": {"gamma": lambda v, where: np.where(where, 0.0, v)},
    "all gammas zero": {"gamma": lambda v, where: np.zeros_like(v)},
    "some variances tiny": {"moving_variance": lambda v, where: np.where(where, v * 1e-6, v)},
    "no shift": {"moving_mean": lambda v, where: np.zeros_like(v), "beta": lambda v, where: np.zeros_like(v)},
    "some shifts zero": {"moving_mean": lambda v, where: np.where(where, 0.0, v), "beta": lambda v, where: np.where(where, 0.0, v)},
    "large means": {"moving_mean": lambda v, where: v + 8.0},
    "all alike": {"gamma": lambda v, where: np.full_like(v, 1.5), "moving_variance": lambda v, where: np.full_like(v, 0.5)}
    | dict.fromkeys(("moving_mean", "beta"), lambda v, where: np.full_like(v, 0.25)),
}
"""What becomes of a batch norm's weights, after `bite`; `where` picks every other channel."""


def season(model: keras.Model, flavour: str, seed: int) -> keras.Model:
    """Seeded weights for `model` and the models within."""
    bite(model, seed)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable in layer.weights:
                change = FLAVOURS[flavour].get(variable.name)
                if change is not None:
                    value = np.asarray(variable, np.float64)
                    variable.assign(change(value, np.arange(value.size) % 2 == 1))
    return model
