"""SavedModels of TensorFlow 1 (builder, simple_save), which hold a meta graph and no objects, in and out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework.meta_graph import import_scoped_meta_graph
from tensorflow.python.saved_model.loader_impl import get_asset_tensors, get_init_op

from tfpasses.frontends.graph_def.containers.checkpoint import saver_of
from tfpasses.frontends.graph_def.containers.meta_graph import exported
from tfpasses.frontends.graph_def.containers.saved_model_file import (
    BROKEN,
    EXTRA,
    INTERNAL,
    SAVED_MODEL,
    check_signature,
    check_variables,
    one_line,
)
from tfpasses.frontends.graph_def.containers.session import SessionContainer, imported_session, read_session
from tfpasses.frontends.graph_def.protos.parts import node_of
from tfpasses.frontends.graph_def.writing.writer import Written
from tfpasses.graph import Graph, Slot, UnsupportedModelError

__all__ = ["V1SavedModel", "from_v1_saved_model", "from_v1_session", "save_v1_saved_model"]

ASSETS = "assets"
VARIABLES = "variables/variables"


@attrs.frozen(eq=False)
class V1SavedModel:
    """A SavedModel of TensorFlow 1 in memory."""

    session: Any
    """A `tf.compat.v1.Session` on its graph, with its variables and tables."""
    meta: Any
    """The MetaGraphDef that tells its tags, signatures and assets."""
    folder: Path
    """Where its assets are."""

    @property
    def signatures(self) -> Mapping[str, Any]:
        """The SignatureDefs by name."""
        return {name: one for name, one in self.meta.signature_def.items() if name not in INTERNAL}

    @property
    def extra(self) -> Path | None:
        """The folder of what other programs put into the SavedModel."""
        return self.folder / EXTRA if (self.folder / EXTRA).is_dir() else None


@attrs.frozen(eq=False)
class V1Container:
    """The SavedModel that a graph was read from."""

    inner: SessionContainer
    folder: Path

    def rebuilt(self, written: Written) -> V1SavedModel:
        """A new SavedModel in memory: a session whose graph has the same names, signatures and tags."""
        meta = self.inner.new_meta(written)
        session = imported_session(meta, None, written.variables)
        initialize(session, meta, self.folder)
        return V1SavedModel(session, meta, self.folder)


def from_v1_saved_model(folder: Path, meta: Any, signature: str | None) -> Graph:
    """Read one meta graph of a folder; without a signature's name, what all of them give. See `from_saved_model`."""
    check_signature(signature, meta.signature_def, str(folder))
    if any(node.op in ("VarHandleOp", "VariableV2", "Variable") for node in meta.graph_def.node):
        check_variables(folder)
    graph = tf.Graph()
    with tf.compat.v1.Session(graph=graph) as session:
        try:
            with graph.as_default():
                import_scoped_meta_graph(meta)
                if (folder / f"{VARIABLES}.index").is_file():
                    saver_of(session, meta).restore(session, str(folder / VARIABLES))
            initialize(session, meta, folder)
        except BROKEN as error:
            raise UnsupportedModelError(f"{folder}: cannot be loaded, it may be truncated ({one_line(error)})") from error
        return from_v1_session(V1SavedModel(session, meta, folder), signature)


def from_v1_session(model: V1SavedModel, signature: str | None) -> Graph:
    """Read a SavedModel in memory; see `from_saved_model`."""
    check_signature(signature, model.signatures, "saved_model")
    chosen = {name: one for name, one in sorted(model.signatures.items()) if signature in (None, name)}
    meta = exported(model.session.graph)
    copy_told(model.meta, meta)
    for name in set(model.signatures) - chosen.keys():
        del meta.signature_def[name]
    placeholders = {node.name for node in meta.graph_def.node if node.op == "Placeholder"}
    inputs: dict[str, int] = {}
    outputs: dict[str, int] = {}
    ins = {name: slots(one.inputs, inputs, placeholders) for name, one in chosen.items()}
    outs = {name: slots(one.outputs, outputs, None) for name, one in chosen.items()}
    container = V1Container(SessionContainer(meta, None), model.folder)
    graph = read_session(model.session, meta, list(inputs), list(outputs), model.folder.name, container)
    if len(chosen) > 1:
        return attrs.evolve(graph, input_structure=ins, output_structure=outs)
    return attrs.evolve(graph, input_structure=next(iter(ins.values())), output_structure=next(iter(outs.values())))


def copy_told(source: Any, target: Any) -> None:
    """Copy what a meta graph tells beside its graph and collections: tags, saver, assets, signatures."""
    if source.HasField("saver_def"):
        target.saver_def.CopyFrom(source.saver_def)
    target.meta_info_def.tags[:] = source.meta_info_def.tags
    target.asset_file_def.extend(source.asset_file_def)
    for name, one in source.signature_def.items():
        target.signature_def[name].CopyFrom(one)


def slots(infos: Mapping[str, Any], places: dict[str, int], placeholders: set[str] | None) -> dict[str, Any]:
    """The values that a signature names, as slots; `places` gains those it has not. Inputs that are no placeholders keep their defaults."""
    found: dict[str, Any] = {}
    for key, info in sorted(infos.items()):
        names = [name if placeholders is None else node_of(name) for name in tensor_names(info)]
        if placeholders is None or placeholders.issuperset(names):
            numbers = [Slot(places.setdefault(name, len(places))) for name in names]
            found[key] = numbers[0] if len(numbers) == 1 else numbers
    return found


def tensor_names(info: Any) -> list[str]:
    """The tensors that a TensorInfo names."""
    kind = info.WhichOneof("encoding")
    if kind == "coo_sparse":
        sparse = info.coo_sparse
        return [sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name]
    if kind == "composite_tensor":
        return [name for part in info.composite_tensor.components for name in tensor_names(part)]
    return [info.name]


def initialize(session: Any, meta: Any, folder: Path) -> None:
    """Run what a SavedModel wants to be run when it is loaded: it fills tables from assets."""
    with session.graph.as_default():
        operation = get_init_op(meta)
        if operation is not None:
            session.run(operation, get_asset_tensors(str(folder), meta))


def save_v1_saved_model(model: V1SavedModel, folder: Path) -> None:
    """Write one into an empty folder."""
    saver = saver_of(model.session, model.meta)
    (folder / VARIABLES).parent.mkdir()
    with model.session.graph.as_default():
        saver.save(model.session, str(folder / VARIABLES), write_meta_graph=False, write_state=False)
    meta = exported(model.session.graph)
    copy_told(model.meta, meta)
    saver_def = saver.as_saver_def()
    if saver_def is not None:  # there are variables
        meta.saver_def.CopyFrom(saver_def)
    if (model.folder / ASSETS).is_dir():
        shutil.copytree(model.folder / ASSETS, folder / ASSETS)
    (folder / SAVED_MODEL).write_bytes(SavedModel(saved_model_schema_version=1, meta_graphs=[meta]).SerializeToString(deterministic=True))
