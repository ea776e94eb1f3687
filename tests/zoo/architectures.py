"""The table of architectures, and what an independent reader expects of each."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from zoo.fresh_names import fresh_names

__all__ = ["APPLICATIONS", "ARCHITECTURES", "Architecture", "architecture"]

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
    """Batch norms that fold backward.

    From the architectures' source: nearly everywhere all of them, each right behind a convolution of which it is the only
    reader. In a DenseNet only the stem's and the second of each block (the others normalise concatenations whose parts
    are used elsewhere), in a ResNetV2 only the two within each block (the others normalise sums, the first one a padded
    maximum). In a NASNet the four that adjust a larger input to a cell fold through a concatenation of two convolutions.
    """
    forward: int = 0
    """Batch norms that fold into the linear layer behind them, shift and all: in none of them, an activation follows each."""
    scale_only: int = 0
    """Batch norms whose scale alone folds forward."""
    slow: bool = True
    """Whether its tests take more than a few seconds."""


def _table() -> dict[str, Architecture]:
    size, less, least = (96, 96, 3), (64, 64, 3), (32, 32, 3)
    return {
        "MobileNetV2": Architecture(size, SIGNED, 52, 52, slow=False),
        "ResNet50": Architecture(size, SIGNED, 53, 53),
        "DenseNet121": Architecture(size, SIGNED, 121, 59),
        "EfficientNetB0": Architecture(size, BYTES, 49, 49, slow=False),
        "Xception": Architecture(size, SIGNED, 40, 40, slow=False),
        "InceptionV3": Architecture(size, SIGNED, 94, 94, slow=False),
        "MobileNetV3Small": Architecture(size, BYTES, 34, 34, slow=False),
        "NASNetMobile": Architecture(size, SIGNED, 192, 192),
        "MobileNet": Architecture(less, SIGNED, 27, 27, slow=False),
        "MobileNetV3Large": Architecture(less, BYTES, 46, 46),
        "ResNet50V2": Architecture(less, SIGNED, 49, 32),
        "VGG16": Architecture(least, SIGNED, 0, 0),
        "VGG19": Architecture(least, SIGNED, 0, 0),
        "EfficientNetV2B0": Architecture(less, BYTES, 59, 59),
        "EfficientNetB1": Architecture(less, BYTES, 69, 69),
        "EfficientNetB2": Architecture(less, BYTES, 69, 69),
        "EfficientNetV2B1": Architecture(less, BYTES, 73, 73),
        "EfficientNetV2B2": Architecture(less, BYTES, 76, 76),
        "EfficientNetB3": Architecture(less, BYTES, 78, 78),
        "EfficientNetV2B3": Architecture(less, BYTES, 88, 88),
        "ResNet101": Architecture(less, SIGNED, 104, 104),
        "ResNet101V2": Architecture(less, SIGNED, 100, 66),
        "ResNet152": Architecture(less, SIGNED, 155, 155),
        "ResNet152V2": Architecture(less, SIGNED, 151, 100),
        "DenseNet169": Architecture(less, SIGNED, 169, 83),
        "DenseNet201": Architecture(less, SIGNED, 201, 99),
        "ConvNeXtTiny": Architecture(least, BYTES, 0, 0),
        "ConvNeXtSmall": Architecture(least, BYTES, 0, 0),
        "EfficientNetV2S": Architecture(less, BYTES, 110, 110),
        "EfficientNetB4": Architecture(less, BYTES, 96, 96),
        "EfficientNetB5": Architecture(less, BYTES, 116, 116),
        "InceptionResNetV2": Architecture(size, SIGNED, 204, 204),
        "EfficientNetB6": Architecture(less, BYTES, 134, 134),
        "EfficientNetV2M": Architecture(less, BYTES, 157, 157),
        "EfficientNetB7": Architecture(less, BYTES, 163, 163),
        "NASNetLarge": Architecture(less, SIGNED, 264, 264),
        "EfficientNetV2L": Architecture(less, BYTES, 217, 217),
        "ConvNeXtBase": Architecture(least, BYTES, 0, 0),
        "ConvNeXtLarge": Architecture(least, BYTES, 0, 0),
        "ConvNeXtXLarge": Architecture(least, BYTES, 0, 0),
    }


APPLICATIONS: dict[str, Architecture] = _table()
"""All of `keras.applications`, the largest last."""

ARCHITECTURES: dict[str, Architecture] = {
    name: APPLICATIONS[name]
    for name in (
        "MobileNetV2",
        "ResNet50",
        "DenseNet121",
        "EfficientNetB0",
        "Xception",
        "InceptionV3",
        "MobileNetV3Small",
        "NASNetMobile",
    )
}
"""Eight that differ most from each other."""


def architecture(name: str, input_shape: Shape | None = None) -> keras.Model:
    """A new keras.applications model with Keras's own initial weights and logits as output; the caller may change it."""
    row = APPLICATIONS[name]
    with fresh_names():
        return getattr(keras.applications, name)(weights=None, classifier_activation=None, input_shape=input_shape or row.input_shape)
