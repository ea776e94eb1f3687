"""Where the small models of `keras_models` and `keras_nested` are listed, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import Input, Model
from keras import layers as L

from keras_layers import randomize

__all__ = ["MODELS", "backbone", "build", "image", "line", "model"]

MODELS: dict[str, Callable[[], keras.Model]] = {}


def model(function: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    MODELS[function.__name__.strip("_")] = function
    return function


def build(name: str) -> keras.Model:
    """A new model of that name, with weights that are felt."""
    made = MODELS[name]()
    randomize(made)
    return made


def line(size: int = 4, name: str = "x") -> keras.KerasTensor:
    return Input((size,), name=name)


def backbone(name: str = "backbone", channels: int = 3) -> keras.Model:
    x = Input((8, 8, channels), name="pixels")
    y = L.Conv2D(channels, 3, padding="same", use_bias=False, name="conv")(x)
    y = L.ReLU(name="relu")(L.BatchNormalization(name="bn")(y))
    return Model(x, y, name=name)


def image(name: str = "x") -> keras.KerasTensor:
    return Input((8, 8, 3), name=name)
