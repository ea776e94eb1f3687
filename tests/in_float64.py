"""What a model computes in float64, called as it is: its layers are told to compute in float64 for one call, no twin is built.

The same call can be jittered: then everything that a layer reads, weights and inputs, is off by a rounding of the dtype in question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import keras
import numpy as np
from keras.src.backend.common.variables import AutocastScope

__all__ = ["outputs", "truth"]


class Wide(keras.DTypePolicy):
    """Computes in float64; variables count as float32, so that Keras casts them."""

    def __init__(self, touch: Callable[[Any], Any]) -> None:
        super().__init__("float64")
        self._variable_dtype = "float32"
        self.touch = touch

    def convert_input(self, x: Any, autocast: bool, dtype: str) -> Any:
        """What a layer gets of its input."""
        x = super().convert_input(x, autocast, dtype)
        return self.touch(x) if keras.ops.is_tensor(x) and "float" in x.dtype.name else x


@contextmanager
def in_float64(model: keras.Model, touch: Callable[[Any], Any]) -> Iterator[None]:
    """Within the block the layers of `model`, nested models' too, compute in float64; `touch` gets all that they read."""
    layers = [model, *model._flatten_layers()]
    policies = [layer._dtype_policy for layer in layers]
    inputs = [x for layer in layers for x in getattr(layer, "_inputs", ())]
    dtypes = [x.dtype for x in inputs]
    wide = Wide(touch)
    try:
        for layer in layers:
            layer._dtype_policy = wide
        for x in inputs:
            x._dtype = "float64"
        with mock.patch.object(AutocastScope, "maybe_cast", lambda _, value: touch(keras.ops.cast(value, "float64"))):
            yield
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            layer._dtype_policy = policy
        for x, dtype in zip(inputs, dtypes, strict=True):
            x._dtype = dtype


def outputs(model: keras.Model, x: Any) -> list[np.ndarray]:
    """The outputs at inference, flat. Without training=False a layer called with training=True hands that on to all that run after it."""
    return [keras.ops.convert_to_numpy(value) for value in keras.tree.flatten(model(x, training=False))]


def truth(model: keras.Model, x: Any, jitter: float = 0.0, seed: int = 0) -> list[np.ndarray]:
    """The outputs in float64, flat; with all that a layer reads off by `jitter`, up or down at random."""
    generator = np.random.default_rng(seed)

    def touch(value: Any) -> Any:
        return value * (1 + jitter * generator.choice([-1.0, 1.0], value.shape)) if jitter else value

    with in_float64(model, touch):
        values = outputs(model, x)
    if any(value.dtype != np.float64 for value in values):
        raise ArithmeticError(f"{model.name} computes something in less than float64")
    return values
