"""Writing a file so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tfpasses.graph.errors import TfpassesError

__all__ = ["WriteError", "atomic_directory", "atomic_write"]


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


@contextlib.contextmanager
def atomic_directory(target: Path, holds: str) -> Iterator[Path]:
    """Yield a new folder beside `target` that takes its place once the block has ended without an error.

    A folder that is there is replaced only if it is empty or holds a file named `holds`, so that no other is lost by a slip of the pen; it
    is moved aside, and back where the new one cannot take its place. A link is followed. Raises `WriteError` where it must not be
    replaced, or nothing can be written there.
    """
    target = target.resolve() if os.path.islink(target) else target
    if target.is_dir() and any(target.iterdir()) and not (target / holds).is_file():
        raise WriteError(f"{target}: is a folder of other things, with no {holds}; name another")
    if target.exists() and not target.is_dir():
        raise WriteError(f"{target}: is a file; name a folder")
    try:
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise WriteError(f"{target}: cannot be written: {error.strerror}") from error
    old = beside.with_name(f"{beside.name}.old")
    try:
        yield beside
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(target.stat().st_mode if target.exists() else 0o777 & ~umask)
        if target.exists():
            target.rename(old)
        beside.rename(target)
    except OSError as error:
        if isinstance(error, TfpassesError):
            raise
        raise WriteError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for left in (beside, old):
            shutil.rmtree(left, ignore_errors=True)
