"""Values that wait to be read: in memory as far as a limit allows, beyond it in files that go with them."""

from __future__ import annotations

import re
import tempfile
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs
import numpy as np

from tfpasses.graph import Array, Held

__all__ = ["Live", "Waiting", "read_size"]

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def read_size(text: str) -> int:
    """A number of bytes, as `2GB`, `512MiB`, `1.5 GB` or `1000000`. Raises `ValueError` for another text."""
    found = SIZE.fullmatch(text)
    if found is None or found[2].upper() not in UNITS:
        raise ValueError(f"{text!r} is no size of memory; write one as 2GB or 512MiB")
    return int(float(found[1]) * UNITS[found[2].upper()])


@attrs.define(eq=False)
class Live:
    """Where values wait. To be used as a context: its files are gone afterwards."""

    limit: int
    """Bytes that may be held in memory."""
    used: int = 0
    """Bytes that are."""
    spilled: int = 0
    """Bytes that were ever written to files."""
    _folder: tempfile.TemporaryDirectory[str] | None = None
    _files: int = 0

    def hold(self, value: Held) -> Waiting:
        """Let a value wait, for as long as what is given is kept."""
        array = np.asarray(value)
        if self.used + array.nbytes <= self.limit:
            self.used += array.nbytes
            waiting = Waiting(value)
            weakref.finalize(waiting, self._let_go, array.nbytes).atexit = False
            return waiting
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="tfpasses-")
        path = Path(self._folder.name, str(self._files))
        self._files += 1
        array.tofile(path)
        self.spilled += array.nbytes
        waiting = Waiting(Spilled(path, array.dtype, array.shape))
        weakref.finalize(waiting, path.unlink, missing_ok=True).atexit = False
        return waiting

    def _let_go(self, size: int) -> None:
        self.used -= size

    def __enter__(self) -> Live:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


@attrs.frozen(eq=False)
class Spilled:
    """An array in a file."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def read(self) -> Array:
        """The array, from the file."""
        return np.fromfile(self.path, self.dtype).reshape(self.shape)


@attrs.frozen(eq=False, weakref_slot=True)
class Waiting:
    """A value that waits."""

    _value: Any

    @property
    def value(self) -> Held:
        """The value."""
        return self._value.read() if isinstance(self._value, Spilled) else self._value
