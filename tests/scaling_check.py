"""What must hold of every network whose channels were scaled, and small networks to scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

import tfpasses
from cle_by_hand import given_range, read_range
from eager_groups import eager_groups
from fold_cases import batch, bite
from fold_check import assert_near
from in_float64 import outputs, truth

__all__ = ["FLOAT32", "assert_close", "assert_kept", "line", "model", "scaled", "spread", "together"]

FLOAT32 = 2.0**-24
SCALING = "cross-layer-scaling"


def model(build: Any, shape: tuple[int, ...] = (8, 8, 4), seed: int = 0, **options: Any) -> keras.Model:
    """What `build` makes of an input, with seeded weights whose channels differ by powers of up to 2^3."""
    x = keras.Input(shape, name="x", **options)
    return spread(bite(keras.Model(x, build(x), name="m"), seed), seed)


def line(*layers: Any, shape: tuple[int, ...] = (8, 8, 4), seed: int = 0, **options: Any) -> keras.Model:
    """Layers one after the other."""

    def build(x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    return model(build, shape, seed, **options)


def spread(model: keras.Model, seed: int = 0) -> keras.Model:
    """Make kernels' channels differ in their ranges."""
    generator = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        for variable in layer.weights:
            if "kernel" in variable.name:
                value = np.asarray(variable, np.float32)
                for axis in (-1, -2):
                    sizes = [1] * value.ndim
                    sizes[axis] = value.shape[axis]
                    value = value * np.exp2(generator.uniform(-1.5, 1.5, sizes)).astype("float32")
                variable.assign(value)
    return model


def scaled(model: keras.Model, options: str = "", verify: str = "numeric", **keywords: Any) -> tfpasses.Result:
    """The result of cross-layer scaling, every claim of which was made to prove itself."""
    result = tfpasses.run(model, SCALING + (f"{{{options}}}" if options else ""), verify=verify, **keywords)
    assert all(verdict.ok for verdict in result.verdicts)
    return result


def assert_kept(old: keras.Model, result: tfpasses.Result, unit: float = FLOAT32, x: Any = None) -> None:
    """The error against float64 is at most four times the original's own."""
    x = batch(old) if x is None else x
    with eager_groups():
        assert_near(outputs(result.model, x), outputs(old, x), truth(old, x), old, x, unit)


def assert_close(got: Any, wanted: Any) -> None:
    """Two float32 numbers that differ by the rounding of a scale and of a product: 2 units each, and one to be free."""
    np.testing.assert_allclose(np.asarray(got, np.float64), wanted, rtol=5 * FLOAT32, atol=1e-38)


def together(new: keras.Model, givers: Sequence[str], readers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The largest range of each channel over layers that give it, and over layers that read it."""
    give = np.max([given_range(new.get_layer(name)) for name in givers], axis=0)
    read = np.max([read_range(new.get_layer(name)) for name in readers], axis=0)
    return give, read
