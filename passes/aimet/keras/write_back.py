"""Keras layers changed in place: the one file of this package that writes to objects of the caller's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tfpasses.graph import Array, UnsupportedModelError

__all__ = ["convert", "make_identity", "refuse_optimizer", "reset_functions", "write"]

FLAGS = {"bias": "use_bias", "gamma": "scale", "beta": "center"}
"""Slot -> the attribute that says whether a layer has it; the constructor's argument has the same name."""


def write(layer: Any, params: Mapping[str, Array]) -> None:
    """Give the weights of a layer new values, by slot; one that the layer lacks is added, as if it had been asked for from the start."""
    from tfpasses.frontends.keras.layers import kind_of

    kind = kind_of(layer)
    assert kind is not None
    for slot, array in params.items():
        variable = getattr(layer, kind.weights[slot])
        if variable is None:
            add(layer, slot, array)
        else:
            variable.assign(array)
    there = {id(getattr(layer, name)): place for place, name in enumerate(kind.weights.values())}
    layer._trainable_variables.sort(key=lambda variable: there[id(variable)])  # files hold weights in the order of their making


def add(layer: Any, slot: str, array: Array) -> None:
    """Add a weight to a built layer."""
    layer._tracker.unlock()
    try:
        setattr(layer, FLAGS[slot], True)
        variable = layer.add_weight(
            name=slot,
            shape=array.shape,
            dtype=layer.variable_dtype,
            initializer=getattr(layer, f"{slot}_initializer"),
            regularizer=getattr(layer, f"{slot}_regularizer"),
            constraint=getattr(layer, f"{slot}_constraint"),
            autocast=slot == "bias",  # batch norms cast their own
        )
        setattr(layer, slot, variable)
    finally:
        layer._tracker.lock()
    variable.assign(array)


def make_identity(bn: Any, tells_of: str | None) -> None:
    """Let a batch norm give on what it reads, bit for bit, also in training. What it was trained to is remembered as `original_gamma` and
    `original_beta`, and the name of the layer whose output now has that deviation and mean, if any has, as `tells_of`.
    """
    mean = np.asarray(bn.moving_mean)
    gamma = np.ones_like(mean) if bn.gamma is None else np.asarray(bn.gamma).copy()
    beta = np.zeros_like(mean) if bn.beta is None else np.asarray(bn.beta).copy()
    folded_before = hasattr(bn, "original_gamma") and bn.epsilon == 0 and not beta.any() and (gamma == 1).all()
    if not folded_before:
        bn.original_gamma, bn.original_beta, bn.tells_of = gamma, beta, tells_of
    freeze(bn, {} if bn.gamma is None else {"gamma": np.ones_like(mean)}, {} if bn.beta is None else {"beta": np.zeros_like(mean)})


def convert(bn: Any, scale: Array, shift: Array) -> None:
    """Let a batch norm be gamma·x + beta: its statistics are 0 and 1, and it stays so in training."""
    dtype = bn.moving_mean.dtype
    freeze(bn, {"gamma": scale.astype(dtype)}, {"beta": shift.astype(dtype)})


def freeze(bn: Any, gamma: Mapping[str, Array], beta: Mapping[str, Array]) -> None:
    """Give a batch norm statistics that do nothing, and never change."""
    mean = np.asarray(bn.moving_mean)
    write(bn, {**gamma, **beta, "mean": np.zeros_like(mean), "variance": np.ones_like(mean)})
    bn.epsilon = 0.0
    bn.trainable = False


def refuse_optimizer(model: Any) -> None:
    """Raise `UnsupportedModelError` where a model, or one nested in it, has an optimizer that keeps something for each variable."""
    for one in models_in(model):
        optimizer = getattr(one, "optimizer", None)
        if optimizer is not None and optimizer.built:
            raise UnsupportedModelError(
                f"model {one.name}: its optimizer keeps a state for each variable, and a fold adds variables; "
                "compile() it anew, or load it with keras.saving.load_model(path, compile=False)"
            )


def reset_functions(model: Any) -> None:
    """Forget what predict(), evaluate() and fit() have traced: they know of no new bias, and of the old epsilon."""
    for one in models_in(model):
        one.train_function = one.test_function = one.predict_function = None


def models_in(model: Any) -> Iterable[Any]:
    """A model and those nested in it."""
    import keras

    return [one for one in model._flatten_layers() if isinstance(one, keras.Model)]
