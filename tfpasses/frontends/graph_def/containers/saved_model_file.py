"""The folder of a SavedModel: what is in it, and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.python.saved_model.loader_impl import parse_saved_model

from tfpasses.graph import UnsupportedModelError

__all__ = ["BROKEN", "EXTRA", "INTERNAL", "SAVED_MODEL", "check_signature", "loaded_from", "meta_graph_of", "one_line"]

SAVED_MODEL = "saved_model.pb"
EXTRA = "assets.extra"
"""The folder of a SavedModel that is other programs' own."""
INTERNAL = ("__saved_model_init_op", "__saved_model_train_op")
"""Signatures that are TensorFlow's own."""
BROKEN = (tf.errors.OpError, OSError, LookupError, ValueError, TypeError, AssertionError, AttributeError, DecodeError)
"""What TensorFlow raises for files that are truncated or changed."""


def meta_graph_of(folder: Path, tags: str | Sequence[str] | None = None) -> Any:
    """The meta graph of these tags; without them the only one. Raises `UnsupportedModelError`, one line, naming the folder."""
    if folder.is_file():
        raise UnsupportedModelError(f"{folder}: is a file; name the folder of a SavedModel")
    if not folder.is_dir():
        raise UnsupportedModelError(f"{folder}: no such folder")
    if not any((folder / name).is_file() for name in (SAVED_MODEL, "saved_model.pbtxt")):
        raise UnsupportedModelError(f"{folder}: no SavedModel, it holds no {SAVED_MODEL}")
    try:
        metas = parse_saved_model(str(folder)).meta_graphs
    except BROKEN as error:
        raise UnsupportedModelError(f"{folder}: {SAVED_MODEL} cannot be read, it may be truncated ({one_line(error)})") from error
    if not metas:
        raise UnsupportedModelError(f"{folder}: {SAVED_MODEL} holds no graph, it may be truncated")
    wanted = None if tags is None else {tags} if isinstance(tags, str) else set(tags)
    found = [meta for meta in metas if wanted is None or set(meta.meta_info_def.tags) == wanted]
    if len(found) == 1:
        return found[0]
    there = "; ".join(", ".join(sorted(meta.meta_info_def.tags)) or "(none)" for meta in metas)
    if wanted is None:
        raise UnsupportedModelError(f"{folder}: holds several graphs; give the tags of one ({there})")
    raise UnsupportedModelError(f"{folder}: no graph has the tags {', '.join(sorted(wanted)) or '(none)'}; there are {there}")


def check_signature(signature: str | None, names: Iterable[str], where: str) -> None:
    """Raise `UnsupportedModelError` for a signature that is not there, or where there is none."""
    there = sorted(name for name in names if name not in INTERNAL)
    if not there:
        raise UnsupportedModelError(f"{where}: it has no signatures; load it and give one of its functions to from_concrete_function")
    if signature is not None and signature not in there:
        raise UnsupportedModelError(f"{where}: there is no signature {signature}; it has {', '.join(there)}")


def loaded_from(folder: Path, meta: Any) -> Any:
    """What `tf.saved_model.load` gives. Raises `UnsupportedModelError`, one line, for missing and truncated files."""
    check_variables(folder)
    try:
        return tf.saved_model.load(str(folder), tags=list(meta.meta_info_def.tags))
    except BROKEN as error:
        raise UnsupportedModelError(f"{folder}: cannot be loaded, it may be truncated ({one_line(error)})") from error


def check_variables(folder: Path) -> None:
    """Raise `UnsupportedModelError` where the files of variables are not there."""
    if not (folder / "variables" / "variables.index").is_file():
        raise UnsupportedModelError(f"{folder}: its variables are missing (variables/variables.index); copy the whole folder")
    if not any((folder / "variables").glob("variables.data-*")):
        raise UnsupportedModelError(f"{folder}: its variables are missing (variables/variables.data-*); copy the whole folder")


def one_line(error: BaseException) -> str:
    """An exception's text, short and without line breaks."""
    text = " ".join((error.message if isinstance(error, tf.errors.OpError) else str(error)).split()) or type(error).__name__
    return text if len(text) <= 240 else text[:237] + "..."
