"""Files of data."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfpasses.graph import Array
from tfpasses.manager import DataError

__all__ = ["read_data"]


def read_data(path: str | Path) -> Mapping[str, Array]:
    """The arrays of an `.npz` file by name. Raises `DataError`, one line, for anything else."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not an .npz file of arrays; write one with numpy.savez(path, input_name=array)") from error
