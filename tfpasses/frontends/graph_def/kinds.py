"""What a graph is written back as: a new one of what it was read from; and which files can hold that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfpasses.frontends.graph_def.containers.checkpoint import META, save_checkpoint
from tfpasses.frontends.graph_def.containers.concrete_function import from_concrete_function
from tfpasses.frontends.graph_def.containers.saved_model import NOT_KEPT, SavedModelContainer, save_saved_model
from tfpasses.frontends.graph_def.containers.saved_model_file import SAVED_MODEL
from tfpasses.frontends.graph_def.containers.saved_model_v1 import V1Container, V1SavedModel
from tfpasses.frontends.graph_def.containers.session import SessionContainer
from tfpasses.frontends.graph_def.convert import as_function, as_saved_model, frozen
from tfpasses.frontends.graph_def.files import BINARY, SUFFIXES, save_graph_def
from tfpasses.frontends.graph_def.read import Source
from tfpasses.frontends.graph_def.writing.writer import to_bytes, to_graph_def, write
from tfpasses.graph import Graph, UnsupportedModelError, atomic_directory

__all__ = ["has_no_names_of_its_own", "is_saved_model", "rebuilt", "save", "save_keras"]

SESSIONS = (tf.compat.v1.Session, tf.compat.v1.InteractiveSession)


def is_saved_model(model: Any) -> bool:
    """Whether something is a SavedModel in memory: what `tf.saved_model.load`, or a rewrite, gives."""
    loaded = isinstance(model, tf.__internal__.tracking.Trackable) and isinstance(getattr(model, "signatures", None), Mapping)
    return loaded or isinstance(model, V1SavedModel)


def has_no_names_of_its_own(model: Any) -> bool:
    """Whether a model does not tell its inputs and outputs: GraphDefs and sessions."""
    return isinstance(model, (tf.compat.v1.GraphDef, *SESSIONS))


def rebuilt(graph: Graph, note: Callable[[str], None] = lambda text: None) -> Any:
    """A new model of the kind that a graph was read from. `note` is told what of it is not kept.

    Raises `UnsupportedModelError` for a graph that was not read from TensorFlow, or that this kind cannot hold.
    """
    if not isinstance(graph.source, Source):
        raise UnsupportedModelError(f"graph {graph.name} was not read from a GraphDef")
    container = graph.source.container
    if container is None:
        return to_graph_def(graph)
    if isinstance(container, SavedModelContainer):
        note(NOT_KEPT)
    return container.rebuilt(write(graph))


def save(graph: Graph, path: str | Path, model: Any = None) -> None:
    """Write a graph as a file of the path's suffix: `.pb` and `.pbtxt` a GraphDef, `.meta` a checkpoint with its graph, others a folder, as
    a SavedModel. What such a file cannot hold as it is (variables in a GraphDef, a GraphDef in a SavedModel) is converted. `model` is
    what the graph was written as, where that is there already.

    Raises `UnsupportedModelError` where it cannot be, `WriteError` where it cannot be written.
    """
    file = Path(path)
    if file.suffix in SUFFIXES:
        save_graph_def(model if isinstance(model, tf.compat.v1.GraphDef) else as_graph_def(graph, file), file)
        return
    container = graph.source.container if isinstance(graph.source, Source) else None
    if file.suffix == META:
        if not isinstance(container, SessionContainer):
            raise UnsupportedModelError(f"{file}: only sessions are written as a checkpoint; name a folder, or a file that ends in .pb")
        save_checkpoint(rebuilt(graph) if model is None else model, file.with_suffix(""))
    elif isinstance(container, SavedModelContainer | V1Container):
        save_saved_model(rebuilt(graph) if model is None else model, file)
    else:
        save_saved_model(as_saved_model(graph), file)


def as_graph_def(graph: Graph, file: Path) -> Any:
    """A graph as a GraphDef without variables, or as the bytes of a file that holds it."""
    container = graph.source.container if isinstance(graph.source, Source) else None
    if isinstance(container, SavedModelContainer) and len(container.parts) > 1:
        names = sorted(name for part in container.parts for name in part.signatures)
        raise UnsupportedModelError(f"{file}: a GraphDef has no signatures; choose one of {', '.join(names)}")
    plain = isinstance(graph.source, Source) and not graph.source.variables
    return to_bytes(graph) if plain and file.suffix == BINARY else frozen(graph)


def save_keras(model: Any, path: str | Path) -> None:
    """Write a Keras model as a GraphDef of constants (`.pb`, `.pbtxt`), or as a SavedModel's folder, as `model.export` does.

    Raises `UnsupportedModelError` where it cannot be, `WriteError` where it cannot be written.
    """
    file = Path(path)
    if file.suffix in SUFFIXES:
        save_graph_def(frozen(from_concrete_function(as_function(model))), file)
        return
    if file.suffix == META:
        raise UnsupportedModelError(f"{file}: only sessions are written as a checkpoint; name a folder, or a file that ends in .pb")
    with atomic_directory(file, SAVED_MODEL) as beside:
        model.export(beside, verbose=False)
