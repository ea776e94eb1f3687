"""Weights that are the same bits on every machine, for golden files."""

from __future__ import annotations

import keras
import numpy as np

from zoo.fan_in import fan_in

__all__ = ["golden_weights"]


def golden_weights(model: keras.Model, seed: int = 0) -> None:
    """Fill every floating weight of `model`, in the order of `model.weights`, with integers scaled by powers of two.

    Kernels and biases are in [-127, 127] * 2**-k, k growing with half the fan-in's logarithm; gammas are near +1 and -1,
    variances positive.  Only PCG64's raw stream is used, which NumPy promises never to change (its distributions may),
    and only exact arithmetic: the values do not depend on NumPy's version, the CPU or its math library.
    """
    owners = {id(weight): layer for layer in model._flatten_layers() for weight in layer.weights}
    for index, variable in enumerate(model.weights):
        if np.issubdtype(np.dtype(_numpy_name(variable)), np.floating):
            raw = np.random.PCG64([seed, index]).random_raw(int(np.prod(variable.shape, dtype=int)))
            draw = (raw >> np.uint64(40)).astype(np.int64).reshape(tuple(variable.shape))
            variable.assign(_scaled(draw, owners[id(variable)], variable).astype(np.float32))
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with a copy made when built, not with its weights


def _numpy_name(variable: keras.Variable) -> str:
    return "float16" if variable.dtype == "bfloat16" else variable.dtype


def _scaled(draw: np.ndarray, layer: keras.layers.Layer, variable: keras.Variable) -> np.ndarray:
    """float64 array of at most seven significant bits, hence exact even in bfloat16."""
    if variable.name == "gamma":
        return np.where(draw % 4 == 0, -1.0, 1.0) * (48 + (draw >> 2) % 32) / 64.0  # +-[0.75, 1.25)
    if variable.name.endswith(("variance", "stddev")):
        return (32 + draw % 96) / 64.0  # [0.5, 2)
    signed = draw % 255 - 127.0
    if len(variable.shape) < 2:
        return signed / 256.0  # beta, biases, means: within +-0.5
    return signed / 2.0 ** (6 + fan_in(layer, variable).bit_length() // 2)
