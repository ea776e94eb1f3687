"""Folders of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from tfpasses.data.datasets import eagerly, elements
from tfpasses.data.files import IMAGES, DataFile, found
from tfpasses.data.pixels import Pixels, Size
from tfpasses.data.streams import Source, first_line
from tfpasses.graph import Graph
from tfpasses.manager import DataError

__all__ = ["AHEAD", "Images", "what_went_wrong"]

AHEAD = 16
"""So many samples are made before they are asked for."""


@attrs.frozen
class Images(DataFile):
    """Images in a folder and the folders in it (of classes, say), in the order of their names; or one image; or those that a pattern
    matches. Files that are no images by their names are left out.
    """

    path: str | Path
    preset: str | None = None
    """How pixel values are normalized (see `tfpasses.data.presets`). Must be said, but for a model that takes integers."""
    resize: Size | None = None
    """The length of the shorter side, or height and width, before cropping. Without: as small as the crop allows."""
    crop: Size | None = None
    """What is cut out of the middle. Without: the size that the model takes."""

    def source(self, graph: Graph) -> Source:
        """Image by image; see `DataFile`."""
        if len(graph.inputs) != 1:
            raise DataError(f"{self.path}: images are for a model of one input; the model's inputs are {', '.join(graph.inputs)}")
        files = [str(file) for file in found(self.path) if file.suffix.lower() in IMAGES]
        if not files:
            raise DataError(f"{self.path}: holds no images ({', '.join(IMAGES)})")

        (name,) = graph.inputs
        return of_files(os.fspath(self.path), files, Pixels.of(name, graph.nodes[name].specs[0], self.preset, self.resize, self.crop))


def of_files(name: str, files: list[str], pixels: Pixels) -> Source:
    """Images in files, in their order."""

    def explain(error: Exception, number: int) -> str:
        return f"{files[min(number, len(files) - 1)]}: {what_went_wrong(error)}"

    return Source(
        name,
        lambda: read(files, pixels),
        length=len(files),
        fixed_memory=True,
        part=lambda rank, count: of_files(f"{name}, for worker {rank} of {count},", files[rank::count], pixels),
        explain=explain,
    )


def read(files: list[str], pixels: Pixels) -> Iterator[Any]:
    """The images of files, in their order, some made at the same time."""
    import tensorflow as tf

    with eagerly():
        names = tf.data.Dataset.from_tensor_slices(files)
        dataset = names.map(lambda name: pixels.tensor(tf.io.read_file(name)), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        dataset = dataset.prefetch(AHEAD)
    yield from elements(dataset)


def what_went_wrong(error: Exception) -> str:
    """What TensorFlow says of an image, in our words."""
    text = first_line(error)
    if "smaller than the crop" in str(error):
        return "after resizing it is smaller than the crop; give a larger resize, or none"
    if any(sign in text for sign in ("Unknown image file format", "Input is empty")):
        return "is no image that can be read (JPEG, PNG, BMP, GIF, WebP)"
    if any(
        sign in text for sign in ("Uncompress failed", "Invalid PNG", "Invalid JPEG", "Invalid GIF", "Incomplete BMP", "Failed to decode")
    ):
        return "is a damaged image, or cut short"
    return f"cannot be read: {text}"
