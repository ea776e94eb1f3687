"""The table of architectures, and what an independent reader expects of each."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from zoo.fresh_names import fresh_names

__all__ = ["ARCHITECTURES", "Architecture", "architecture"]

Shape = tuple[int, int, int]
SIGNED = (-1.0, 1.0)
BYTES = (0.0, 255.0)


@dataclass(frozen=True)
class Architecture:
    """One row: the smallest input that keeps the tests fast, and the facts the tests compare with."""

    input_shape: Shape
    pixels: tuple[float, float]
    """Least and greatest pixel value; bytes where the model itself rescales its input."""
    batch_norms: int
    foldable: int
    """Batch norms right behind a linear layer of which they are the only reader.

    From the architectures' source: all of them, but in DenseNet121 only the stem's and the second of each of the 58 blocks
    (the others normalise concatenations), and in NASNetMobile not the four that adjust a larger input to a cell (likewise).
    """


ARCHITECTURES: dict[str, Architecture] = {
    "MobileNetV2": Architecture((96, 96, 3), SIGNED, 52, 52),
    "ResNet50": Architecture((96, 96, 3), SIGNED, 53, 53),
    "DenseNet121": Architecture((96, 96, 3), SIGNED, 121, 59),
    "EfficientNetB0": Architecture((96, 96, 3), BYTES, 49, 49),
    "Xception": Architecture((96, 96, 3), SIGNED, 40, 40),
    "InceptionV3": Architecture((96, 96, 3), SIGNED, 94, 94),
    "MobileNetV3Small": Architecture((96, 96, 3), BYTES, 34, 34),
    "NASNetMobile": Architecture((96, 96, 3), SIGNED, 192, 188),
}


def architecture(name: str, input_shape: Shape | None = None) -> keras.Model:
    """A new keras.applications model with Keras's own initial weights and logits as output; the caller may change it."""
    row = ARCHITECTURES[name]
    with fresh_names():
        return getattr(keras.applications, name)(weights=None, classifier_activation=None, input_shape=input_shape or row.input_shape)
