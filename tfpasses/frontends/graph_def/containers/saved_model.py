"""SavedModels in and out: every signature, or a named one, in one graph, so that a variable that two of them read is one weight."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import tensorflow as tf

from tfpasses.frontends.graph_def.containers.concrete_function import input_structure, output_structure
from tfpasses.frontends.graph_def.containers.saved_model_file import EXTRA, SAVED_MODEL, check_signature, loaded_from, meta_graph_of
from tfpasses.frontends.graph_def.containers.saved_model_v1 import V1SavedModel, from_v1_saved_model, from_v1_session, save_v1_saved_model
from tfpasses.frontends.graph_def.containers.traced import (
    Traced,
    fresh_name,
    new_variables,
    read_traced,
    retraced,
    variable_of,
    weight_keys,
)
from tfpasses.frontends.graph_def.protos.node_defs import node_def
from tfpasses.frontends.graph_def.protos.parts import needed, node_of, renamed, with_nodes
from tfpasses.frontends.graph_def.read import from_graph_def
from tfpasses.frontends.graph_def.writing.writer import Written
from tfpasses.graph import Graph, UnsupportedModelError, WriteError, atomic_directory

__all__ = ["NOT_KEPT", "RewrittenSavedModel", "SavedModelContainer", "from_saved_model", "save_saved_model"]

NOT_KEPT = "of the SavedModel only the signatures, with the variables, tables and assets that they read, are kept; other attributes are not"
"""What a caller of `from_saved_model` may want to be told."""
TABLES = ("HashTableV2", "MutableHashTableV2", "MutableDenseHashTableV2", "MutableHashTableOfTensorsV2")
"""Lookup tables that a function makes itself; nothing would fill those of a new one."""
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.\-]")


class RewrittenSavedModel(tf.__internal__.tracking.AutoTrackable):
    """A SavedModel in memory, as `tf.saved_model.load` would give it: `signatures` and lists of `variables`. See `save_saved_model`."""

    def __init__(self, signatures: Mapping[str, Any], variables: Iterable[Any], resources: Iterable[Any], extra: Path | None) -> None:
        self.signatures = MappingProxyType(dict(signatures))  # no dict, which TensorFlow would track under the name it keeps for itself
        self.variables = list(variables)
        self.trainable_variables = [variable for variable in self.variables if variable.trainable]
        self.non_trainable_variables = [variable for variable in self.variables if not variable.trainable]
        self.resources = list(resources)
        self.extra = extra


@attrs.frozen(eq=False)
class Part:
    """One function of a SavedModel in the graph of all."""

    signatures: tuple[str, ...]
    """The signatures that it is."""
    traced: Traced
    prefix: str
    """What its nodes' names begin with."""
    inputs: slice
    """Its own among the graph's inputs."""
    outputs: slice


@attrs.frozen(eq=False)
class SavedModelContainer:
    """The SavedModel that a graph was read from."""

    parts: tuple[Part, ...]
    variables: Mapping[str, Any]
    """The `tf.Variable`s by the names of their handles."""
    resources: tuple[Any, ...]
    """What owns the lookup tables and assets that signatures read."""
    extra: Path | None
    """The folder of what other programs put into the SavedModel."""

    def rebuilt(self, written: Written) -> RewrittenSavedModel:
        """A new SavedModel in memory around a GraphDef, with new `tf.Variable`s; the signatures are those that were read."""
        variables = new_variables(written.variables, self.variables)
        signatures: dict[str, Any] = {}
        for part in self.parts:
            signatures |= dict.fromkeys(part.signatures, rebuilt_part(part, written, variables, self.variables))
        unique = {id(variable): variable for variable in variables.values()}
        return RewrittenSavedModel(signatures, unique.values(), self.resources, self.extra)


# in


def from_saved_model(source: Any, signature: str | None = None, tags: str | Sequence[str] | None = None) -> Graph:
    """Read a SavedModel: a folder, or what `tf.saved_model.load` gave, which is not changed.

    Without the name of a signature every one is read, into one graph; where those are several functions, the names of nodes begin with
    the signature's. `tags` choose among several meta graphs of a folder. What is rebuilt holds what was read, see `NOT_KEPT`.

    Raises `UnsupportedModelError`, one line, for what is no SavedModel, missing or truncated files, and unknown tags or signatures.
    """
    if isinstance(source, V1SavedModel):
        return from_v1_session(source, signature)
    if not isinstance(source, str | Path):
        return from_loaded(source, "saved_model", signature, None)
    folder = Path(source)
    meta = meta_graph_of(folder, tags)
    if not meta.HasField("object_graph_def"):
        return from_v1_saved_model(folder, meta, signature)
    check_signature(signature, meta.signature_def, str(folder))
    extra = folder / EXTRA
    return from_loaded(loaded_from(folder, meta), str(folder), signature, extra if extra.is_dir() else None)


def from_loaded(loaded: Any, where: str, signature: str | None, extra: Path | None) -> Graph:
    signatures = getattr(loaded, "signatures", None)
    if not isinstance(signatures, Mapping) or not isinstance(loaded, tf.__internal__.tracking.Trackable):
        raise UnsupportedModelError(f"a {type(loaded).__name__} is no SavedModel; give a folder, or what tf.saved_model.load gives")
    check_signature(signature, signatures, where)
    owners = resource_owners(loaded)
    functions: dict[str, Traced] = {}
    same: dict[str, list[str]] = {}
    for name in sorted(signatures) if signature is None else [signature]:
        traced = read_traced(signatures[name], f"{where}: signature {name}", owners)
        for handle, tensor in traced.kept.items():
            if id(tensor) not in owners:
                raise UnsupportedModelError(f"{where}: signature {name} reads a resource ({handle}) that is no variable, table or asset")
        for node in traced.definition.node:
            if node.op in TABLES:
                raise UnsupportedModelError(f"{where}: signature {name} holds a table of TensorFlow 1 (node {node.name}); give the folder")
        first = next((other for other, one in functions.items() if is_same(one, traced)), name)
        functions.setdefault(first, traced)
        same.setdefault(first, []).append(name)
    kept = {id(owners[id(tensor)]): owners[id(tensor)] for traced in functions.values() for tensor in traced.kept.values()}
    return joined(functions, same, tuple(kept.values()), where, extra)


def resource_owners(loaded: Any) -> dict[int, Any]:
    """The objects that own tables and assets, by the `id` of the tensor that functions capture of them."""
    owners: dict[int, Any] = {}
    for one in tf.train.TrackableView(loaded).descendants():
        tensor = one.asset_path if isinstance(one, tf.saved_model.Asset) else getattr(one, "resource_handle", None)
        if tensor is not None:
            owners[id(tensor)] = one
    return owners


def is_same(a: Traced, b: Traced) -> bool:
    """Whether two functions are one, as Keras exports them under two names."""
    ours, theirs = ({**one.variables, **one.kept} for one in (a, b))  # what their placeholders stand for is compared, not these
    return (
        (a.inputs, a.outputs) == (b.inputs, b.outputs)
        and a.function.structured_input_signature == b.function.structured_input_signature
        and output_structure(a) == output_structure(b)
        and {name: id(one) for name, one in ours.items()} == {name: id(one) for name, one in theirs.items()}
        and [node for node in a.definition.node if node.name not in ours] == [node for node in b.definition.node if node.name not in theirs]
    )


def joined(
    functions: Mapping[str, Traced], same: Mapping[str, Sequence[str]], resources: tuple[Any, ...], where: str, extra: Path | None
) -> Graph:
    """The graph of all functions, with one handle for each variable, of the variable's name."""
    prefixes: dict[str, str] = {}
    for name in functions:
        prefixes[name] = f"{fresh_name(NOT_IN_NAMES.sub('_', name).lstrip('_') or 'signature', [one[:-1] for one in prefixes.values()])}/"
    if len(functions) == 1:
        prefixes = dict.fromkeys(functions, "")
    captured = {prefixes[name] + handle: variable for name, traced in functions.items() for handle, variable in traced.variables.items()}
    taken = {prefixes[name] + node.name for name, traced in functions.items() for node in traced.definition.node}
    keys = weight_keys(captured, taken - captured.keys())
    variables = {key: captured[handle] for handle, key in keys.items()}
    scalar = tf.compat.v1.AttrValue(shape=tf.TensorShape([]).as_proto())
    nodes = [node_def(key, "Placeholder", dtype="resource", shape=scalar) for key in variables]
    library: dict[str, Any] = {}
    parts: list[Part] = []
    inputs: list[str] = []
    outputs: list[str] = []
    structures: dict[str, tuple[Any, Any]] = {}
    for name, traced in functions.items():
        prefix = prefixes[name]
        nodes += [
            renamed(node, lambda old, prefix=prefix: keys.get(prefix + old, prefix + old))  # type: ignore[misc]  # mypy infers no default
            for node in traced.definition.node
            if prefix + node.name not in captured
        ]
        library |= {function.signature.name: function for function in traced.definition.library.function}
        structures[name] = (input_structure(traced, len(inputs)), output_structure(traced, len(outputs)))
        first = (len(inputs), len(outputs))
        inputs += [prefix + text for text in traced.inputs]
        outputs += [prefix + text for text in traced.outputs]
        own = slice(first[0], len(inputs)), slice(first[1], len(outputs))
        parts.append(Part(tuple(same[name]), traced, prefix, *own))
    definition = with_nodes(tf.compat.v1.GraphDef(versions=next(iter(functions.values())).definition.versions), nodes)
    definition.library.function.extend(library.values())
    given = {key: variable_of(key, variable.numpy(), bool(variable.trainable)) for key, variable in variables.items()}
    container = SavedModelContainer(tuple(parts), variables, resources, extra)
    graph = from_graph_def(definition, inputs, outputs, Path(where).name, given, container)
    told = structures if len(structures) > 1 else None
    ins, outs = next(iter(structures.values()))
    return attrs.evolve(
        graph,
        input_structure={name: one for name, (one, _) in told.items()} if told else ins,
        output_structure={name: one for name, (_, one) in told.items()} if told else outs,
    )


# and out


def rebuilt_part(part: Part, written: Written, news: Mapping[str, Any], olds: Mapping[str, Any]) -> Any:
    """One function, as a new `ConcreteFunction`, of what it needs of the GraphDef of all; its names without the prefix again."""
    fed, given = written.inputs[part.inputs], written.outputs[part.outputs]
    nodes = needed(written.definition.node, [*map(node_of, given), *(part.prefix + name for name in part.traced.effects)])
    there = {node.name for node in nodes}

    def bare(name: str) -> str:
        short = name.removeprefix(part.prefix)
        return name if short in there and short != name else short

    def under(prefix: str, told: Mapping[str, Any]) -> dict[str, Any]:
        return {bare(prefix + name): one for name, one in told.items()}

    traced = attrs.evolve(
        part.traced,
        variables=under("", olds),
        kept=under(part.prefix, part.traced.kept),
        constants=under(part.prefix, part.traced.constants),
    )
    definition = with_nodes(written.definition, [renamed(node, bare) for node in nodes] if part.prefix else nodes)
    outputs = [bare(node_of(text)) + text[len(node_of(text)) :] for text in given]
    return retraced(traced, definition, list(map(bare, fed)), outputs, under("", news))[1]


def save_saved_model(model: Any, path: str | Path) -> None:
    """Write what a container rebuilt beside its target, and rename it over that; a folder that is there must be empty or a SavedModel.

    Raises `UnsupportedModelError` where TensorFlow cannot hold it, `WriteError` where it cannot be written.
    """
    target = Path(path)
    with atomic_directory(target, SAVED_MODEL) as beside:
        try:
            if isinstance(model, V1SavedModel):
                save_v1_saved_model(model, beside)
            else:
                tf.saved_model.save(model, str(beside), signatures=dict(model.signatures))
        except (ValueError, AssertionError) as error:
            raise UnsupportedModelError(f"{target}: TensorFlow cannot save this model ({' '.join(str(error).split())[:300]})") from error
        except tf.errors.OpError as error:
            raise WriteError(f"{target}: cannot be written: {error.message}") from error
        if model.extra is not None:
            shutil.copytree(model.extra, beside / EXTRA)
