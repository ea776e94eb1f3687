"""Weights drawn from seeds, sized so that every one of them is felt."""

from __future__ import annotations

import math
import zlib

import keras
import numpy as np

from zoo.fan_in import fan_in

__all__ = ["seed_weights"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_VARIANCE = (0.229**2, 0.224**2, 0.225**2)


def seed_weights(model: keras.Model, name: str) -> None:
    """Fill all weights of a flat `model` but the batch norms' statistics, from PCG64 seeded by (`name`, index)."""
    index = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            if layer.input_mean is None:
                _adapt_to_photographs(layer)
            continue
        for variable in layer.weights:
            if not variable.name.startswith("moving_"):
                generator = np.random.Generator(np.random.PCG64([zlib.crc32(name.encode()), index]))
                variable.assign(_draw(generator, layer, variable))
            index += 1


def _draw(generator: np.random.Generator, layer: keras.layers.Layer, variable: keras.Variable) -> np.ndarray:
    shape = tuple(variable.shape)
    if variable.name == "gamma" or type(layer).__name__ == "LayerScale":
        return _gamma(generator, shape)
    if variable.name == "beta":
        return generator.normal(0.0, 0.5, shape)
    if variable.name == "bias":
        return generator.normal(0.0, 0.2, shape)
    return generator.standard_normal(shape, np.float32) * np.float32(math.sqrt(2.0 / fan_in(layer, variable)))


def _gamma(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Around 1; one in ten negative, one in ten small: a fold that takes |gamma|, or divides by it, shows."""
    gamma = generator.uniform(0.7, 1.3, shape)
    kind = generator.integers(0, 10, shape)
    return np.where(kind == 0, -gamma, np.where(kind == 1, 0.01 * gamma, gamma))


def _adapt_to_photographs(layer: keras.layers.Normalization) -> None:
    """As `adapt` would on photographs scaled to 0..1; the initial mean 0 and variance 1 would hide a lost layer."""
    layer.adapt_mean.assign(_IMAGENET_MEAN)
    layer.adapt_variance.assign(_IMAGENET_VARIANCE)
    layer.finalize_state()
