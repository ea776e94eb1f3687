"""The kinds of models there are, and what can be done with each: read it into a graph, write one of its kind, call it, keep it in a file.

Keras models, GraphDefs, functions, SavedModels and sessions. TensorFlow is imported by the calls that need it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from tfpasses.graph import Array, Evaluator, Graph, UnsupportedModelError, atomic_directory, atomic_write

__all__ = [
    "EVERYTHING",
    "Names",
    "Selection",
    "call",
    "copy_file",
    "differs_in_file",
    "evaluator",
    "likely_cause",
    "opened",
    "read",
    "read_again",
    "read_file",
    "same_kind",
    "save_file",
    "whose",
    "write",
]

Names = Mapping[str, str]
"""Node of a graph -> its name when the written model is read again, where that differs."""
SAVED_MODEL = "saved_model.pb"
INSIDE = (SAVED_MODEL, "saved_model.pbtxt")
GRAPH_DEFS = (".pb", ".pbtxt")
KERAS = (".keras", ".h5", ".hdf5")
META_GRAPH = ".meta"


@attrs.frozen
class Selection:
    """What of a model is meant, where it holds more than one thing."""

    inputs: tuple[str, ...] | None = None
    """Names of placeholders, for GraphDefs and sessions."""
    outputs: tuple[str, ...] | None = None
    """Names of values (`node`, `node:1`), for GraphDefs and sessions."""
    signature: str | None = None
    """The name of one signature of a SavedModel."""
    tags: tuple[str, ...] | None = None
    """The tags of one meta graph of a SavedModel."""
    lenient: bool = attrs.field(default=False, kw_only=True)
    """Whether what a kind of model does not have may be asked for all the same: of two models, one may have it."""

    def refuse(self, kind: str, *taken: str) -> None:
        """Raise `UnsupportedModelError` where something is asked for that this kind of model does not have."""
        for name in () if self.lenient else ("inputs", "outputs", "signature", "tags"):
            if getattr(self, name) is not None and name not in taken:
                raise UnsupportedModelError(f"{name}= is not for {kind}" + (f"; there it is {' and '.join(taken)}" if taken else ""))


EVERYTHING = Selection()


def opened(model: Any, wanted: Selection = EVERYTHING) -> tuple[Any, Graph]:
    """A model, loaded where it is the name of a file, and it as a graph."""
    if not isinstance(model, str | Path):
        return model, read(model, wanted)
    found = read_file(model, wanted)
    return found, found if isinstance(found, Graph) else read(found, wanted)


def read(model: Any, wanted: Selection = EVERYTHING) -> Graph:
    """A model as a graph. Nothing of it is changed. Raises `UnsupportedModelError` for what is no model, or lacks what is wanted."""
    if isinstance(model, Graph):
        wanted.refuse("graphs")
        return model
    import tensorflow as tf

    from tfpasses.frontends import graph_def, keras

    if isinstance(model, tf.compat.v1.GraphDef):
        wanted.refuse("GraphDefs", "inputs", "outputs")
        return graph_def.from_graph_def(model, wanted.inputs, wanted.outputs)
    if isinstance(model, tf.types.experimental.PolymorphicFunction | tf.types.experimental.ConcreteFunction):
        wanted.refuse("functions")
        return graph_def.from_concrete_function(model)
    if isinstance(model, tf.compat.v1.Session | tf.compat.v1.InteractiveSession):
        wanted.refuse("sessions", "inputs", "outputs")
        if wanted.inputs is None or wanted.outputs is None:
            raise UnsupportedModelError("a session has no inputs and outputs of its own; name them: inputs=[..], outputs=[..]")
        return graph_def.from_session(model, wanted.inputs, wanted.outputs)
    if graph_def.is_saved_model(model):
        wanted.refuse("SavedModels", "signature", "tags")
        return graph_def.from_saved_model(model, wanted.signature, wanted.tags)
    wanted.refuse("Keras models")
    return keras.from_keras(model)


def write(graph: Graph, note: Callable[[str], None] = lambda text: None) -> tuple[Any, Names]:
    """A new model of the kind that a graph was read from, and names. `note` is told what differs that is not in the graph."""
    from tfpasses.frontends import graph_def, keras

    if isinstance(graph.source, graph_def.Source):
        return graph_def.rebuilt(graph, note), {}
    return keras.write(graph, note)


def read_again(model: Any, graph: Graph) -> Graph:
    """A model that was written from a graph, as a graph of the same inputs and outputs."""
    from tfpasses.frontends import graph_def

    named = isinstance(graph.source, graph_def.Source) and graph_def.has_no_names_of_its_own(model)
    return read(model, Selection(graph.inputs, graph.output_names) if named else EVERYTHING)


def evaluator(graph: Graph) -> Evaluator:
    """What runs a graph and the opaque nodes in it, by its frontend."""
    from tfpasses.frontends import graph_def, keras

    return graph_def.graph_def_evaluator(graph) if isinstance(graph.source, graph_def.Source) else keras.keras_evaluator()


def call(model: Any, graph: Graph, values: Sequence[Array]) -> list[Array]:
    """The flat outputs of a model, as TensorFlow or Keras computes them from one array an input; `graph` is what it was read as, or
    written from. Raises `GraphError` where it cannot be called.
    """
    from tfpasses.frontends import graph_def, keras

    if isinstance(graph.source, graph_def.Source):
        return graph_def.call_graph(graph, values)
    return keras.call_model(model, graph, values)


def whose(graph: Graph) -> str:
    """Who computes the model that a graph was read from."""
    from tfpasses.frontends import graph_def

    return "TensorFlow" if isinstance(graph.source, graph_def.Source) else "Keras"


def likely_cause(graph: Graph) -> str:
    """Why a model may compute something else than the graph that it was written from."""
    return "; a custom layer whose get_config() does not tell all is a likely cause" if whose(graph) == "Keras" else "; please report it"


# files


def differs_in_file(graph: Graph, path: str | Path) -> bool:
    """Whether the file of a model that was written from a graph is read as another graph than the model is: a SavedModel, whose signatures
    are functions, and Keras layers as operations of TensorFlow.
    """
    from tfpasses.frontends import graph_def

    return os.path.isdir(path) or (not isinstance(graph.source, graph_def.Source) and Path(path).suffix not in KERAS)


def read_file(path: str | Path, wanted: Selection = EVERYTHING) -> Any:
    """The model in a file or folder: a Keras model (`.keras`, `.h5`), a GraphDef (`.pb`, `.pbtxt`), or a SavedModel as a graph.

    Raises `UnsupportedModelError`, one line, naming the file and what to do.
    """
    from tfpasses.frontends import graph_def, keras

    suffix = Path(path).suffix
    if os.path.isdir(path):
        wanted.refuse(f"{path}, a SavedModel", "signature", "tags")
        return graph_def.from_saved_model(path, wanted.signature, wanted.tags)
    if suffix in GRAPH_DEFS:
        return graph_def.load_graph_def(path)
    if suffix == META_GRAPH:
        if wanted.inputs is None or wanted.outputs is None:
            raise UnsupportedModelError(f"{path}: a meta graph has no inputs and outputs of its own; name them (--inputs, --outputs)")
        return graph_def.from_checkpoint(path, wanted.inputs, wanted.outputs)
    wanted.refuse(f"{path}, a Keras model")
    return keras.load_model(path)


def save_file(graph: Graph, path: str | Path, model: Any = None) -> None:
    """Write a graph as the path's suffix says; a path of another suffix, or none, is a SavedModel's folder. `model` is what the graph was
    written as, where that is there already.

    Raises `UnsupportedModelError` where that kind of file cannot hold it, `WriteError` where it cannot be written.
    """
    from tfpasses.frontends import graph_def, keras

    if Path(path).name in INSIDE:
        raise UnsupportedModelError(f"{path}: is a part of a SavedModel; name the folder")
    of_tensorflow = isinstance(graph.source, graph_def.Source)
    if of_tensorflow and Path(path).suffix in KERAS:
        raise UnsupportedModelError(f"{path}: operations of TensorFlow are no Keras layers; name a folder (a SavedModel) or a .pb file")
    if of_tensorflow:
        graph_def.save(graph, path, model)
    elif Path(path).suffix in KERAS:
        keras.save_model(keras.to_keras(graph) if model is None else model, path)
    else:
        graph_def.save_keras(keras.to_keras(graph) if model is None else model, path)


def copy_file(source: Path, target: Path) -> None:
    """Copy a model's file, or a SavedModel's folder, beside its target and rename it over that. Raises `WriteError`."""
    if source.is_dir():
        with atomic_directory(target, SAVED_MODEL) as beside:
            shutil.copytree(source, beside, dirs_exist_ok=True)
        return
    with atomic_write(target) as beside:
        shutil.copyfile(source, beside)


def same_kind(source: Path, target: Path) -> bool:
    """Whether a copy of one file could bear the other's name."""
    return source.suffix == target.suffix or (source.is_dir() and target.suffix not in (*KERAS, *GRAPH_DEFS, META_GRAPH))
