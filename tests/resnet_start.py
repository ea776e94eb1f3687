"""The beginning of ResNet50, layer by layer under its names and at its places, with few channels; of Keras 3 or of Keras 2."""

from __future__ import annotations

from typing import Any

__all__ = ["model"]


def model(keras: Any) -> Any:
    """Stem and first block of ResNet50, then the head."""
    layers = keras.layers

    def normed(y: Any, name: str, filters: int, size: int, **options: Any) -> Any:
        y = layers.Conv2D(filters, size, name=f"{name}_conv", **options)(y)
        return layers.BatchNormalization(epsilon=1.001e-5, name=f"{name}_bn")(y)

    x = keras.Input((24, 24, 3))
    y = normed(layers.ZeroPadding2D(3, name="conv1_pad")(x), "conv1", 6, 7, strides=2)
    y = layers.Activation("relu", name="conv1_relu")(y)
    y = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(layers.ZeroPadding2D(1, name="pool1_pad")(y))
    for block in (1, 2):
        name = f"conv2_block{block}"
        shortcut = normed(y, f"{name}_0", 8, 1) if block == 1 else y
        y = layers.Activation("relu", name=f"{name}_1_relu")(normed(y, f"{name}_1", 6, 1))
        y = layers.Activation("relu", name=f"{name}_2_relu")(normed(y, f"{name}_2", 6, 3, padding="same"))
        y = layers.Add(name=f"{name}_add")([shortcut, normed(y, f"{name}_3", 8, 1)])
        y = layers.Activation("relu", name=f"{name}_out")(y)
    y = layers.GlobalAveragePooling2D(name="avg_pool")(y)
    return keras.Model(x, layers.Dense(10, name="predictions")(y), name="resnet50")
