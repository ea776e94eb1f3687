"""GraphDef files: `.pb` in binary and `.pbtxt` in text form, written beside their target and renamed over it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError, EncodeError

from tfpasses.frontends.graph_def.writing.writer import MOST_BYTES
from tfpasses.graph import UnsupportedModelError, atomic_write

__all__ = ["BINARY", "SUFFIXES", "load_graph_def", "save_graph_def"]

BINARY, TEXT = SUFFIXES = (".pb", ".pbtxt")


def load_graph_def(path: str | Path) -> Any:
    """The `tf.compat.v1.GraphDef` in a file. Raises `UnsupportedModelError`, one line, naming the file and what to do."""
    file = Path(path)
    if os.path.isdir(file):
        raise UnsupportedModelError(f"{file}: is a directory; name a .pb or .pbtxt file")
    if not os.path.isfile(file):
        raise UnsupportedModelError(f"{file}: no such file")
    if file.suffix not in SUFFIXES:
        raise UnsupportedModelError(f"{file}: files of kind {file.suffix or '(none)'} are no GraphDefs; name a .pb or .pbtxt file")
    size = file.stat().st_size
    if size == 0:
        raise UnsupportedModelError(f"{file}: the file is empty")
    if size > MOST_BYTES:
        raise UnsupportedModelError(f"{file}: {size} bytes are more than a GraphDef can have; it may be truncated or of another kind")
    definition = tf.compat.v1.GraphDef()
    try:
        if file.suffix == BINARY:
            definition.ParseFromString(file.read_bytes())
        else:
            text_format.Parse(file.read_text("utf-8"), definition)
    except OSError as error:
        raise UnsupportedModelError(f"{file}: cannot be read: {error.strerror or error}") from error
    except (DecodeError, text_format.ParseError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnsupportedModelError(f"{file}: not a GraphDef, or truncated ({reason})") from error
    if not definition.node:
        raise UnsupportedModelError(f"{file}: a GraphDef without nodes")
    return definition


def save_graph_def(definition: Any, path: str | Path) -> None:
    """Write a GraphDef, or its bytes, as the suffix says.

    Raises `UnsupportedModelError` for another suffix and beyond 2 GB, `WriteError` where the file cannot be written.
    """
    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise UnsupportedModelError(f"{file}: GraphDefs are written as .pb or .pbtxt; give the name one of these endings")
    try:
        if isinstance(definition, bytes):
            data = definition
        else:
            data = definition.SerializeToString() if file.suffix == BINARY else text_format.MessageToString(definition).encode()
    except (EncodeError, ValueError) as error:
        raise UnsupportedModelError(f"{file}: a GraphDef holds at most {MOST_BYTES} bytes; write a SavedModel") from error
    with atomic_write(file) as beside:
        beside.write_bytes(data)
