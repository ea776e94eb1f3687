"""How pixel values become what a network was trained on: the three conventions of `keras.applications`, and none."""

from __future__ import annotations

from typing import Any

from tfpasses.manager import DataError

__all__ = ["PRESETS", "mode_of", "normalized"]

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, in 0..1 (`torch`)."""
MEAN_255 = (103.939, 116.779, 123.68)
"""Of its blue, green and red, in 0..255 (`caffe`)."""

MODES = ("none", "unit", "tf", "torch", "caffe")

FAMILIES = {
    "convnext": "none",
    "densenet": "torch",
    "efficientnet": "none",
    "efficientnet_v2": "none",
    "inception_resnet_v2": "tf",
    "inception_v3": "tf",
    "mobilenet": "tf",
    "mobilenet_v2": "tf",
    "mobilenet_v3": "none",
    "nasnet": "tf",
    "resnet": "caffe",
    "resnet50": "caffe",
    "resnet_v2": "tf",
    "vgg16": "caffe",
    "vgg19": "caffe",
    "xception": "tf",
}
"""Module of `keras.applications` -> what its `preprocess_input` does. Those with `none` normalize inside the network."""

PRESETS = (*MODES, *FAMILIES)
SAID = f"{', '.join(MODES)}, or a family of keras.applications ({', '.join(FAMILIES)})"


def mode_of(preset: str | None) -> str:
    """Which convention is meant. Raises `DataError` for an unknown one, and where none is named: there is no telling from a model."""
    if preset is None:
        raise DataError(f"how the model wants its pixels is not said; give a preset (preset=.., --preset): {SAID}")
    if preset not in PRESETS:
        raise DataError(f"preset {preset!r} is none of {SAID}")
    return FAMILIES.get(preset, preset)


def normalized(pixels: Any, mode: str) -> Any:
    """A tensor [height, width, channels] of 0..255 as the mode says: `none` leaves it, `unit` is 0..1, `tf` is -1..1, `torch`
    (x / 255 - mean) / deviation, `caffe` blue, green and red, each less its mean. The last two want three channels.
    """
    if mode == "unit":
        return pixels / 255.0
    if mode == "tf":
        return pixels / 127.5 - 1.0
    if mode == "torch":
        return (pixels / 255.0 - list(MEAN)) / list(DEVIATION)
    if mode == "caffe":
        return pixels[..., ::-1] - list(MEAN_255)
    return pixels
