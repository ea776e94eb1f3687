"""What is wrong with the files that a command names, asked before TensorFlow is loaded and any work is done."""

from __future__ import annotations

import os
from pathlib import Path

import click

__all__ = ["check_model", "check_readable", "check_target", "check_writable"]

MODEL_SUFFIXES = (".keras", ".h5", ".hdf5", ".pb", ".pbtxt", ".meta")
SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")


def check_model(*paths: Path) -> None:
    """Refuse a model that is not there before TensorFlow is loaded."""
    for path in paths:
        if not os.path.isdir(path):
            check_readable(path)
        elif not any(os.path.isfile(path / name) for name in SAVED_MODEL):
            raise click.ClickException(f"{path}: is a directory, and no SavedModel (it holds no {SAVED_MODEL[0]}); name a model")


def check_target(path: Path) -> None:
    """Refuse a model's file or folder that cannot be written before any work is done."""
    inside = any(os.path.isfile(folder / name) for folder in path.absolute().parents for name in SAVED_MODEL)
    if path.name in SAVED_MODEL or inside:
        raise click.ClickException(f"{path}: lies in a SavedModel's folder; name that folder, or another place")
    if path.suffix and path.suffix not in MODEL_SUFFIXES and not os.path.isdir(path):
        kinds = ", ".join(MODEL_SUFFIXES)
        raise click.BadParameter(f"{path}: models are written as {kinds}, or as a SavedModel's folder, without an ending.", param_hint="-o")
    if os.path.isdir(path) and path.suffix not in MODEL_SUFFIXES:
        if os.listdir(path) and not os.path.isfile(path / SAVED_MODEL[0]):
            raise click.ClickException(f"{path}: is a folder of other things, with no {SAVED_MODEL[0]}; name another")
        path = path / SAVED_MODEL[0]
    check_writable(path)


def check_readable(*paths: Path | None) -> None:
    """Refuse an input file that is not there before TensorFlow is loaded."""
    for path in filter(None, paths):
        if not os.path.isfile(path):  # unlike Path.is_file it also takes a name that is too long
            raise click.ClickException(f"{path}: {'is a directory; name a file' if os.path.isdir(path) else 'no such file'}")


def check_writable(*paths: Path | None) -> None:
    """Refuse an output that cannot be written before any work is done."""
    from tfpasses.graph import WriteError

    for path in filter(None, paths):
        if os.path.isdir(path):
            raise WriteError(f"{path}: is a directory; name a file")
        if not os.path.isdir(path.parent):
            raise WriteError(f"{path}: cannot be written: there is no folder {path.parent}")
        if not os.access(path.parent, os.W_OK):
            raise WriteError(f"{path}: cannot be written: no permission to write in {path.parent}")
