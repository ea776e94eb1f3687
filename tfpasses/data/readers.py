"""Files of data: what a path holds, by its name."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfpasses.data.files import IMAGES, found, is_records
from tfpasses.data.images import Images
from tfpasses.data.pixels import Size
from tfpasses.data.records import Records
from tfpasses.manager import DataError

__all__ = ["read_data"]

DAMAGED = (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises for files that are not what their names say."""


def read_data(
    path: str | Path, *, features: Sequence[str] = (), preset: str | None = None, resize: Size | None = None, crop: Size | None = None
) -> Any:
    """Data in a file, for `tfpasses.run`: the arrays of an `.npz` by name; the array of an `.npy`, which stays on the disk; TFRecords, or a
    folder or a pattern of such, by `features` (see `Records`); an image, a folder or a pattern of such (see `Images`).

    Raises `DataError`, one line, for anything else, and for options that are for another kind of file.
    """
    files = found(path)
    ends = {"records" if is_records(file) else "image" if file.suffix.lower() in IMAGES else file.suffix for file in files}
    if "records" in ends:
        if "image" in ends:
            raise DataError(f"{path}: holds images and TFRecords; name one kind: {path}/*.tfrecord")
        return Records(path, tuple(features), preset, resize, crop)
    if features:
        raise DataError(f"{path}: features are for TFRecord files (.tfrecord, .tfrecords)")
    if "image" in ends or os.path.isdir(path):
        return Images(path, preset, resize, crop)
    given = [name for name, value in (("preset", preset), ("resize", resize), ("crop", crop)) if value is not None]
    if given:
        raise DataError(f"{path}: {', '.join(given)} {'is' if len(given) == 1 else 'are'} for images")
    if ends == {".npz"}:
        return arrays_of(path)
    if ends == {".npy"} and len(files) == 1:
        return array_of(files[0])
    raise DataError(f"{path}: is none of what data are read from: .npz, .npy, .tfrecord, a folder of images")


def arrays_of(path: str | Path) -> dict[str, Any]:
    """All arrays of an `.npz` file."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except DAMAGED as error:
        raise DataError(f"{path}: not an .npz file of arrays; write one with numpy.savez(path, input_name=array)") from error


def array_of(path: Path) -> Any:
    """The array of an `.npy` file, mapped into memory."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except DAMAGED as error:
        raise DataError(f"{path}: not an .npy file of one array of numbers; write one with numpy.save(path, array)") from error
