"""Model files: `.keras` and `.h5`, read in Keras's safe mode, written beside their target and renamed over it."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras

from tfpasses.graph import UnsupportedModelError, atomic_write

__all__ = ["load_model", "save_model"]

SUFFIXES = (".keras", ".h5", ".hdf5")


def load_model(path: str | Path, custom_objects: dict[str, Any] | None = None) -> Any:
    """Load a model without its training configuration. Raises `UnsupportedModelError`, one line, naming the file and what to do."""
    file = Path(path)
    if os.path.isdir(file):  # as pathlib would ask, but a name that is too long is no error
        raise UnsupportedModelError(f"{file}: is a directory; name a .keras or .h5 file")
    if not os.path.isfile(file):
        raise UnsupportedModelError(f"{file}: no such file")
    if file.suffix not in SUFFIXES:
        raise UnsupportedModelError(f"{file}: files of kind {file.suffix or '(none)'} are not read; save the model as .keras or .h5")
    if file.stat().st_size == 0:
        raise UnsupportedModelError(f"{file}: the file is empty")
    sound = zipfile.is_zipfile(file) if file.suffix == ".keras" else h5py.is_hdf5(file)
    if not sound:
        raise UnsupportedModelError(f"{file}: not a {file.suffix} file, or truncated; save or copy it again")
    try:
        return keras.saving.load_model(file, custom_objects=custom_objects, compile=False, safe_mode=True)
    except Exception as error:  # Keras, zipfile and h5py raise many kinds for a corrupted file
        raise UnsupportedModelError(f"{file}: {reason(error)}") from error


def save_model(model: Any, path: str | Path) -> None:
    """Save a model as its suffix says.

    Raises `UnsupportedModelError` where the format cannot hold it, `WriteError` where it cannot be written.
    """
    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise UnsupportedModelError(f"{file}: models are written as .keras or .h5; give the name one of these endings")
    if file.suffix == ".keras":
        shared = layer_of_two_models(model)
        if shared:
            raise UnsupportedModelError(f"{file}: Keras cannot load {shared} back from .keras; write a .h5 file")
    else:
        operations = [
            operation.name for part in nested_models(model) for operation in part.operations if not isinstance(operation, keras.Layer)
        ]
        if operations:
            raise UnsupportedModelError(
                f"{file}: Keras cannot load keras.ops operations ({operations[0]}) back from .h5; write a .keras file"
            )
    with atomic_write(file) as beside:
        try:
            model.save(beside)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise UnsupportedModelError(f"{file}: Keras cannot save this model: {one_line(error)}") from error


def layer_of_two_models(model: Any) -> str:
    """A layer with weights that lies in two of the models, and those, in words; empty where there is none."""
    holders: dict[int, Any] = {}
    for part in {id(part): part for part in nested_models(model)}.values():
        for layer in part.layers:
            holder = holders.setdefault(id(layer), part)
            if holder is not part and layer.weights:
                return f"layer {layer.name}, which lies in two models ({holder.name} and {part.name}),"
    return ""


def nested_models(model: Any) -> list[Any]:
    """The functional models inside a model, itself included."""
    models = [model._functional if isinstance(model, keras.Sequential) else model]
    for layer in models[0].layers:
        if hasattr(layer, "operations") or isinstance(layer, keras.Sequential):
            models += nested_models(layer)
    return models


MISSING = re.compile(
    r"Could not locate (?:class|function) '(\w+)'|Unknown (?:layer|object|class): '?(\w+)"
    r"|Could not interpret \w+ identifier: (?:\{[^{}]*?'class_name': '(\w+)'|'?(\w+))"
)
"""How Keras says that it does not know a class or function."""


def reason(error: Exception) -> str:
    """What a failure to load means, and what to do."""
    text = str(error)
    if "Lambda" in text and ("unsafe" in text or "arbitrary code" in text):
        return "it holds a Lambda layer, whose Python code is not run from a file; load it yourself with safe_mode=False and pass the model"
    if "No model config found" in text:
        return "it holds weights without a model; load them into the model and save that, with model.save(..)"
    missing = MISSING.search(text)
    if missing:
        name = next(filter(None, missing.groups()))
        remedy = "register it with @keras.saving.register_keras_serializable(), or load it yourself and pass the model"
        return f"it needs the custom object {name}; {remedy}"
    return f"cannot be loaded, it may be corrupted: {one_line(error)}"


def one_line(error: Exception) -> str:
    """An exception's first sentence or so, without line breaks."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 240 else text[:237] + "..."
