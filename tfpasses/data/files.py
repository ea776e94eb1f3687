"""What data in files have in common: they become elements when the model is known."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from tfpasses.data.streams import Source
from tfpasses.graph import Graph
from tfpasses.manager import DataError

__all__ = ["IMAGES", "DataFile", "found", "is_records"]

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
RECORDS = (".tfrecord", ".tfrecords")


class DataFile:
    """Base: data that lie in files."""

    def source(self, graph: Graph) -> Source:
        """The elements, as a model takes them. Raises `DataError`, one line, for files that are not there or options that do not fit it."""
        raise NotImplementedError


def is_records(path: Path) -> bool:
    """Whether a file is one of TFRecords by its name: `a.tfrecord`, `a.tfrecords`, each also with `-00000-of-00002` or `.gz` behind."""
    return any(end == kind or end.startswith(f"{kind}-") for end in path.suffixes for kind in RECORDS)


def found(path: str | Path) -> list[Path]:
    """The files that a path means, in order: itself, those in a folder and the folders in it, or those that a pattern (`*`, `?`, `[..]`)
    matches. What begins with a dot is left out. Raises `DataError` where there is nothing.
    """
    if os.path.isdir(path):
        files = []
        for folder, inside, names in os.walk(path, followlinks=True):
            inside[:] = [name for name in inside if not name.startswith(".")]
            files += [Path(folder, name) for name in names if not name.startswith(".")]
        return sorted(files)
    if os.path.exists(path):
        return [Path(path)]
    if glob.has_magic(str(path)):
        matched = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if os.path.isfile(name))
        if not matched:
            raise DataError(f"{path}: no file matches")
        return matched
    raise DataError(f"{path}: no such file")
