"""From the bytes of an encoded image to what a model takes: decoded, resized, cropped in the middle, normalized."""

from __future__ import annotations

from typing import Any

import attrs

from tfpasses.data.presets import mode_of, normalized
from tfpasses.graph import Spec
from tfpasses.manager import DataError

__all__ = ["Pixels", "Size"]

Size = int | tuple[int, int]
"""A length in pixels, or height and width."""
RANK = 4
CHANNELS = (1, 3, 4)
RGB = 3


@attrs.frozen
class Pixels:
    """What is done to each image.

    TensorFlow decodes (JPEG, PNG, BMP, WebP, the first picture of a GIF; no regard for EXIF's orientation) and resizes, bilinear with
    antialias.
    """

    mode: str
    height: int | None
    """Of the crop; None where there is none."""
    width: int | None
    resize: Size | None
    """The shorter side, or both, before cropping; without, as small as the crop allows."""
    channels: int
    channels_first: bool
    dtype: str

    @classmethod
    def of(cls, name: str, spec: Spec, preset: str | None, resize: Size | None, crop: Size | None) -> Pixels:
        """What an input takes, by its spec and what is asked for. Raises `DataError`, one line, where these do not go together."""
        shape = spec.shape
        if shape is None or len(shape) != RANK or not (spec.dtype.startswith(("float", "bfloat")) or spec.dtype in ("uint8", "int32")):
            raise DataError(f"input {name} is {spec} and takes no images; they are float32[?,height,width,channels]")
        first = shape[3] not in CHANNELS and shape[1] in CHANNELS
        channels = (shape[1] if first else shape[3]) or RGB
        if channels not in CHANNELS:
            raise DataError(f"input {name} is {spec}; images have 1, 3 or 4 channels")
        whole = not spec.dtype.startswith(("float", "bfloat"))
        mode = mode_of("none" if whole and preset is None else preset)
        if whole and mode != "none":
            raise DataError(f"input {name} is {spec} and takes pixels as they are; preset {preset} gives fractions")
        if mode in ("torch", "caffe") and channels != RGB:
            raise DataError(f"preset {preset} is for three channels; input {name} is {spec}")
        sizes = shape[2:4] if first else shape[1:3]
        height, width = both(crop) if crop is not None else (None, None)
        if crop is None and None not in sizes:
            height, width = sizes
        elif crop is None and not isinstance(resize, tuple):
            raise DataError(
                f"input {name} is {spec}, images of any size; say which: crop=224, resize=(224, 224), --crop 224, --resize 224x224"
            )
        height, width = (height, width) if height is not None else both(resize or 0)
        if any(wanted not in (None, given) for wanted, given in zip(sizes, (height, width), strict=True)):
            raise DataError(f"images of {height}x{width} pixels do not fit input {name}, which is {spec}")
        return cls(mode, height, width, resize, channels, first, spec.dtype if whole else "float32")

    def tensor(self, encoded: Any) -> Any:
        """A scalar string tensor as an image of the model's layout and dtype (float32 where it takes fractions)."""
        import tensorflow as tf

        image = self.decoded(encoded)
        size = self.before_crop(tf.shape(image))
        pixels = tf.cond(
            tf.reduce_all(tf.equal(size, tf.shape(image)[:2])),
            lambda: tf.cast(image, tf.float32),  # what resizing to the same size gives, but it takes three times as long
            lambda: tf.image.resize(image, size, antialias=True),
        )
        height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]
        said = ["after resizing it is smaller than the crop: height, width", height, width, "crop", self.height, self.width]
        with tf.control_dependencies([tf.debugging.Assert(tf.logical_and(height >= self.height, width >= self.width), said)]):
            pixels = tf.slice(pixels, [(height - self.height) // 2, (width - self.width) // 2, 0], [self.height, self.width, self.channels])
        pixels = normalized(pixels, self.mode) if self.dtype == "float32" else tf.cast(tf.round(pixels), self.dtype)
        return tf.transpose(pixels, [2, 0, 1]) if self.channels_first else pixels

    def decoded(self, encoded: Any) -> Any:
        """The image as it is. Of a JPEG exactly, which is not what TensorFlow does by itself: that may be 6 levels off."""
        import tensorflow as tf

        def image() -> Any:
            return tf.io.decode_image(encoded, channels=self.channels, expand_animations=False)

        if self.channels > RGB:
            return image()
        return tf.cond(
            tf.io.is_jpeg(encoded), lambda: tf.io.decode_jpeg(encoded, channels=self.channels, dct_method="INTEGER_ACCURATE"), image
        )

    def before_crop(self, shape: Any) -> Any:
        """Height and width after resizing an image of some shape: whole numbers, the longer side rounded down, as torchvision has it."""
        import tensorflow as tf

        height, width = shape[0], shape[1]
        if isinstance(self.resize, tuple):
            return tf.constant(self.resize)
        shorter = tf.minimum(height, width)
        if self.resize is not None:
            return tf.stack([self.resize * height // shorter, self.resize * width // shorter])
        covers = self.height * width >= self.width * height  # the height is what decides
        return tf.where(
            covers,
            tf.stack([self.height, self.height * width // height]),
            tf.stack([self.width * height // width, self.width]),
        )


def both(size: Size) -> tuple[int, int]:
    """Height and width."""
    return size if isinstance(size, tuple) else (size, size)
