"""Checkpoints of TensorFlow 1, with their meta graphs, in and out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.meta_graph import import_scoped_meta_graph, read_meta_graph_file

from tfpasses.frontends.graph_def.containers.meta_graph import exported
from tfpasses.frontends.graph_def.containers.saved_model_file import BROKEN, one_line
from tfpasses.frontends.graph_def.containers.session import SessionContainer, read_session
from tfpasses.graph import Graph, UnsupportedModelError, WriteError

__all__ = ["from_checkpoint", "save_checkpoint", "saver_of"]

Keys = tf.compat.v1.GraphKeys
META = ".meta"


def from_checkpoint(path: str | Path, inputs: Sequence[str] | None, outputs: Sequence[str]) -> Graph:
    """Read a checkpoint with its meta graph: `model.ckpt` or `model.ckpt.meta`. What is rebuilt is a session; `save_checkpoint` writes it.

    Raises `UnsupportedModelError`, one line, for missing, truncated and foreign files; else as `from_session`.
    """
    file = Path(path)
    prefix = file.with_suffix("") if file.suffix == META else file
    for part, what in ((META, "the graph"), (".index", "the variables")):
        if not Path(f"{prefix}{part}").is_file():
            raise UnsupportedModelError(f"{prefix}: no checkpoint with its graph, {what} ({prefix.name}{part}) is missing")
    graph = tf.Graph()
    try:
        meta = read_meta_graph_file(f"{prefix}{META}")
        with graph.as_default():
            import_scoped_meta_graph(meta)
    except BROKEN as error:
        raise UnsupportedModelError(f"{prefix}{META}: cannot be read, it may be truncated ({one_line(error)})") from error
    if not meta.graph_def.node:
        raise UnsupportedModelError(f"{prefix}{META}: holds no graph, it may be truncated")
    with tf.compat.v1.Session(graph=graph) as session:
        read = exported(graph)
        if meta.HasField("saver_def"):
            read.saver_def.CopyFrom(meta.saver_def)
        try:
            with graph.as_default():
                saver_of(session, read).restore(session, str(prefix))
        except BROKEN as error:
            raise UnsupportedModelError(f"{prefix}: its variables cannot be read, it may be truncated ({one_line(error)})") from error
        return read_session(session, read, inputs, outputs, prefix.name, SessionContainer(read, None))


def saver_of(session: Any, meta: Any = None) -> Any:
    """What saves and restores a session's variables: the meta graph's own saver, the graph's, or a new one."""
    with session.graph.as_default():
        if meta is not None and meta.HasField("saver_def"):
            return tf.compat.v1.train.Saver(saver_def=meta.saver_def)
        known = tf.compat.v1.get_collection(Keys.SAVERS)
        return known[-1] if known else tf.compat.v1.train.Saver(allow_empty=True)


def save_checkpoint(session: Any, prefix: str | Path) -> None:
    """Write a session's variables and its meta graph, each file beside its target and then renamed, the index last.

    Where the graph has no saver it gets one. Raises `WriteError` where a file cannot be written, `UnsupportedModelError` for a
    variable that is not initialized.
    """
    target = Path(prefix)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            with session.graph.as_default():
                saver_of(session).save(session, str(Path(folder) / target.name), write_state=False)
            files = sorted(Path(folder).iterdir(), key=lambda file: (file.suffix == ".index", file.name))
            for file in files:
                os.replace(file, target.parent / file.name)
    except tf.errors.FailedPreconditionError as error:
        raise UnsupportedModelError(f"{target}: a variable is not initialized ({one_line(error)})") from error
    except (OSError, tf.errors.OpError, ValueError) as error:
        raise WriteError(f"{target}: cannot be written: {one_line(error)}") from error
    state = tf.train.get_checkpoint_state(str(target.parent))
    others = [one for one in (state.all_model_checkpoint_paths if state else ()) if Path(one).name != target.name]
    tf.compat.v1.train.update_checkpoint_state(str(target.parent), str(target), [*others, str(target)])
