"""Writing a file so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tfpasses.graph.errors import TfpassesError

__all__ = ["WriteError", "atomic_write"]


class WriteError(TfpassesError, OSError):
    """An output file cannot be written."""


@contextlib.contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a path beside `target`, with the same suffix, that is renamed over it once the block has ended without an error.

    A link is followed: the file it leads to is replaced, the link stays. Raises `WriteError` where the folder is missing or not
    writable, or the target is a folder.
    """
    target = target.resolve() if os.path.islink(target) else target
    if os.path.isdir(target):
        raise WriteError(f"{target}: is a directory; name a file")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise WriteError(f"{target}: cannot be written: {error.strerror}") from error
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        with beside.open("rb+") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(target.stat().st_mode if target.exists() else 0o666 & ~umask)
        beside.replace(target)
    except OSError as error:
        if isinstance(error, TfpassesError):
            raise
        raise WriteError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)
