"""Small networks whose pre-activations really are normally distributed, and what quantized kernels change of their outputs on average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers as L

__all__ = ["BETA", "GAMMA", "SAMPLES", "assert_mean", "branch", "normal_inputs", "on_grid", "settle"]

SAMPLES = 1_000_000
BETA = (0.5, 0.5, 0.7, -0.4, 2.5, -1.0, 5.5)
GAMMA = (1.0, -1.0, 0.0, 0.8, -0.6, 0.0, 2.0)
"""One channel a pair: negative gammas, and channels that do not vary, above zero and below."""


def branch(x: Any, name: str, beta: Sequence[float] = BETA, gamma: Sequence[float] = GAMMA) -> Any:
    """A linear layer of one tap and a batch norm, which `settle` gives the statistics of what it reads: normal, of mean beta and
    deviation |gamma|, where x is of standard normal numbers.
    """
    count = len(beta)
    linear = L.Dense(count, use_bias=False, name=name) if len(x.shape) == 2 else L.Conv2D(count, 1, use_bias=False, name=name)
    norm = L.BatchNormalization(name=f"{name}_bn", beta_initializer=constant(beta), gamma_initializer=constant(gamma), epsilon=1e-3)
    return norm(linear(x))


def constant(numbers: Sequence[float]) -> Callable[..., Any]:
    return lambda shape, dtype=None: keras.ops.convert_to_tensor(np.asarray(numbers, "float32"), dtype)


def settle(model: keras.Model, seed: int = 0) -> keras.Model:
    """Random kernels and biases; the batch norms' statistics are the true ones."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if not isinstance(layer, L.BatchNormalization):
            layer.set_weights([generator.normal(0.0, 0.5, w.shape).astype("float32") for w in layer.weights])
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            kernel = np.asarray(model.get_layer(layer.name.removesuffix("_bn")).kernel, np.float64)
            variance = (kernel.reshape(-1, kernel.shape[-1]) ** 2).sum(axis=0)
            layer.moving_variance.assign(variance - layer.epsilon)
    return model


def normal_inputs(model: keras.Model, samples: int = SAMPLES, seed: int = 3) -> list[np.ndarray]:
    """Standard normal numbers, so many (a few more) places of each channel in all."""
    generator = np.random.default_rng(seed)
    places = int(np.prod([size or 1 for size in model.inputs[0].shape[1:-1]]))
    count = -(-samples // places)
    return [generator.standard_normal((count, *x.shape[1:])).astype("float32") for x in model.inputs]


def on_grid(kernel: Any, bits: int = 4) -> np.ndarray:
    """A kernel on the asymmetric grid of its range, in float64 arithmetic."""
    kernel = np.asarray(kernel, np.float64)
    low, high = min(kernel.min(), 0.0), max(kernel.max(), 0.0)
    delta = (high - low) / (2**bits - 1)
    offset = np.rint(low / delta)
    return (np.clip(np.rint(kernel / delta), offset, offset + 2**bits - 1) * delta).astype("float32")


def assert_mean(samples: Any, wanted: Any, floor: float = 1e-6) -> None:
    """The mean over independent samples ([samples, .., channels], the middle axes not independent) is within four standard errors."""
    samples = np.asarray(samples, np.float64)
    each = samples.reshape(len(samples), -1, samples.shape[-1]).mean(axis=1)
    error = each.std(axis=0) / np.sqrt(len(each))
    assert (np.abs(each.mean(axis=0) - wanted) <= 4 * error + floor).all(), (each.mean(axis=0), wanted, error)
