"""Writing a graph as a Keras model: new layers, the same call signature, names, structure and, where nothing was touched, the same bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import attrs
import keras
from keras.src.models.functional import Functional, functional_like_constructor

from tfpasses.frontends.keras.build import LayerFactory, Use
from tfpasses.frontends.keras.masks import Masks
from tfpasses.frontends.keras.names import FinalNames
from tfpasses.frontends.keras.nested import functional_graph
from tfpasses.frontends.keras.read import KerasModel, structure
from tfpasses.frontends.keras.scopes import intact_scopes, nodes_by_scope
from tfpasses.graph import Graph, Node, Ref, UnsupportedModelError
from tfpasses.graph.order import sort_keys
from tfpasses.graph.values import fill

__all__ = ["to_keras", "write"]

Tensor = Any


def to_keras(graph: Graph) -> Any:
    """A new model of the graph; see `write`."""
    return write(graph)[0]


def write(graph: Graph, note: Callable[[str], None] = lambda _: None) -> tuple[Any, dict[str, str]]:
    """A new model of the graph, of the class that was read where that can be, and, for each node that will have another name when
    the model is read again, that name. `note` is told what could not be kept as it was.

    Raises `UnsupportedModelError` where a node has no Keras form, or a layer cannot be rebuilt from its configuration.
    """
    source = graph.source.model if isinstance(graph.source, KerasModel) else None
    writer = Writer(graph, note)
    inputs = [writer.factory.new_input(graph.nodes[name]) for name in graph.inputs]
    values = {Ref(name): tensor for name, tensor in zip(graph.inputs, inputs, strict=True)}
    outputs = writer.write_level("", values, graph.outputs)
    outputs = [writer.named_output(tensor, name, "") for tensor, name in zip(outputs, output_names(graph), strict=True)]
    if isinstance(source, keras.Sequential):
        chain = as_sequential(source, graph.name, inputs, outputs)
        if chain is not None:
            return chain, writer.names.renamed
        note(f"model {source.name} was Sequential; it is no chain of layers any more, so it leaves as a functional model")
    cls: Any = Functional
    if source is not None and type(source) is not Functional and not isinstance(source, keras.Sequential):
        if functional_like_constructor(type(source)):
            cls = type(source)
        else:
            note(f"model {source.name} leaves as a plain functional model; {type(source).__name__} does not take inputs and outputs")
    model = cls(
        inputs=fill(graph.input_structure, lambda index: inputs[index]),
        outputs=fill(graph.output_structure, lambda index: outputs[index]),
        name=graph.name,
    )
    return like(source, model), writer.names.renamed


def like(source: Any, model: Any) -> Any:
    """The model with its source's dtype policy and trainable flag. Setting the flag sets all layers inside, so those get theirs back."""
    if source is None:
        return model
    model.dtype_policy = source.dtype_policy
    if model.trainable != source.trainable:
        flags = [(layer, layer.trainable) for layer in model._flatten_layers(include_self=False)]
        model.trainable = source.trainable
        for layer, flag in flags:
            layer.trainable = flag
    return model


def output_names(graph: Graph) -> tuple[str, ...]:
    """The outputs' public names; a graph that no frontend named has its nodes' names."""
    return graph.output_names or tuple(ref.node.replace("/", ".") for ref in graph.outputs)


def as_sequential(source: Any, name: str, inputs: list[Tensor], outputs: list[Tensor]) -> Any | None:
    """The layers between one input and one output as a Sequential, or None where they are no chain of layers called once."""
    layers: list[Any] = []
    tensor = outputs[0]
    while len(inputs) == len(outputs) == 1 and tensor is not inputs[0]:
        layer, index, _ = tensor._keras_history
        call = layer._inbound_nodes[index]
        arguments = call.arguments
        if not isinstance(layer, keras.Layer) or arguments.kwargs.get("training") or len(layer._inbound_nodes) != 1:
            return None
        before = call.input_tensors[0]
        masks = [mask for mask in call.input_tensors[1:] if mask is not getattr(before, "_keras_mask", None)]
        if masks or len(arguments.args) != 1 or arguments.args[0] is not before:
            return None
        layers.append(layer)
        tensor = before
    if not layers:
        return None
    first = inputs[0]._keras_history.operation
    return like(source, type(source)([first, *reversed(layers)], name=name))


@attrs.frozen(eq=False)
class Unit:
    """What leaves as one call: a layer with its activation, an operation, or a nested model."""

    nodes: tuple[str, ...]
    scope: str = ""
    """The nested model's path; empty for a layer or an operation."""


class Writer:
    """Writes one graph."""

    def __init__(self, graph: Graph, note: Callable[[str], None]) -> None:
        self.graph = graph
        self.note = note
        self.scopes = intact_scopes(graph, note)
        self.members = nodes_by_scope(graph)
        self.factory = LayerFactory(graph, note)
        self.models: dict[str, tuple[str, Any]] = {}
        """Nested model's path -> the use that it was written from, and the model."""
        self.masks = Masks()
        self.names = FinalNames(graph)
        self.named: dict[tuple[int, str], Tensor] = {}
        """(Output, by id, and its name) -> the Identity that gives it that name."""

    def write_level(self, inside: str, values: dict[Ref, Tensor], fetches: tuple[Ref, ...]) -> list[Tensor]:
        """Write the nodes of one model (`inside` is its scope's path with a slash, empty at the top) and give its outputs."""
        units = self.units(inside)
        unit_of = {name: key for key, unit in units.items() for name in unit.nodes}
        for key in sort_keys(units, lambda key: self.before(units[key], unit_of, key)):
            unit = units[key]
            if unit.scope:
                self.write_scope(unit.scope, values, inside)
            else:
                self.write_unit(unit, values, inside)
        self.masks.name_rest(lambda name: self.factory.unique(name, self.level(inside)))
        for ref in fetches:
            if ref not in values:
                raise UnsupportedModelError(f"output {ref} is a constant; Keras cannot give one as an output")
        return [values[ref] for ref in fetches]

    def units(self, inside: str) -> dict[str, Unit]:
        """The units of a level, in the graph's order."""
        units: dict[str, Unit] = {}
        for node in self.members[inside[:-1]]:
            name = node.name
            if node.op in ("Input", "Const"):
                continue
            scope = self.scopes.outermost(name, inside)
            if scope is not None:
                key, unit = f"{scope}/", Unit((name,), scope)
            else:
                main = self.factory.main_part(node)
                key, unit = main, Unit((name,))
            known = units.get(key)
            units[key] = unit if known is None else attrs.evolve(known, nodes=(*known.nodes, name))
        return units

    def before(self, unit: Unit, unit_of: Mapping[str, str], key: str) -> list[str]:
        """The units whose values a unit needs."""
        refs = [ref for name in unit.nodes for ref in self.graph.nodes[name].inputs]
        if unit.scope:
            refs += self.graph.scopes[unit.scope].inputs
        return [found for ref in refs if (found := unit_of.get(ref.node)) is not None and found != key]

    def write_unit(self, unit: Unit, values: dict[Ref, Tensor], inside: str) -> None:
        """Call a layer or an operation on its inputs."""
        nodes = [self.graph.nodes[name] for name in unit.nodes]
        use = Use(nodes[0], nodes[1] if len(nodes) > 1 else None)
        layer = self.factory.layer_of(use, self.level(inside))
        flattened = use.main.scope != inside[:-1]
        args, kwargs = self.factory.arguments(use.main, layer, lambda index: self.value(use.main, index, values), flattened)
        result = self.call(layer, args, kwargs, use.main, inside)
        self.factory.finish(layer)
        self.names.add(nodes, layer, inside)
        for index, tensor in enumerate(keras.tree.flatten(result)):
            values[Ref(nodes[-1].name, index)] = tensor
            self.masks.collect(tensor)

    def level(self, inside: str) -> str:
        """The path of the model that is being written."""
        return self.graph.scopes[inside[:-1]].layer if inside else ""

    def name_scope(self, inside: str) -> Any:
        """What Keras puts before the names of a level's variables: a Sequential's name, nothing for other models."""
        source = self.graph.scopes[inside[:-1]].source if inside else getattr(self.graph.source, "model", None)
        return keras.name_scope(source.name) if isinstance(source, keras.Sequential) else nullcontext()

    def call(self, layer: Any, args: Any, kwargs: Any, node: Node, inside: str) -> Any:
        """What a layer or operation gives."""
        self.masks.known.add(id(layer))
        if not isinstance(layer, keras.Layer):
            made = self.masks.claim(layer, args, kwargs)
            if made is not None:
                made.name = layer.name
                return made._inbound_nodes[0].outputs
        try:
            with self.name_scope(inside):
                return layer(*args, **kwargs)
        except (ValueError, TypeError) as error:
            raise UnsupportedModelError(f"node {node.name}: Keras does not take it as {type(layer).__name__}: {error}") from error

    def value(self, node: Node, index: int, values: Mapping[Ref, Tensor]) -> Any:
        """An input of a node: a symbolic tensor, or the constant itself."""
        ref = node.inputs[index]
        source = self.graph.nodes[ref.node]
        if source.op != "Const":
            return values[ref]
        array = self.graph.weights[source.params["value"]]
        return array.item() if source.config.get("python") else array

    def write_scope(self, path: str, values: dict[Ref, Tensor], inside: str) -> None:
        """Call a nested model, which is written when it is met first."""
        scope = self.graph.scopes[path]
        if scope.layer not in self.models:
            name = self.factory.local_name(scope.layer, self.level(inside))
            self.names.open_scope(path, name, inside)
            self.models[scope.layer] = path, self.write_model(path, name)
        first, model = self.models[scope.layer]
        self.names.call_scope(path, first, model, inside)
        args, kwargs = scope.call.fill(lambda index: values[scope.inputs[index]])
        outputs = keras.tree.flatten(model(*args, **kwargs))
        values.update(zip(scope.outputs, outputs, strict=True))

    def write_model(self, path: str, name: str) -> Any:
        """A nested model, from the nodes of one use of it."""
        scope = self.graph.scopes[path]
        functional = functional_graph(scope.source)
        inputs = [self.factory.clone_input(tensor, scope.layer) for tensor in functional._inputs]
        outputs = self.write_level(f"{path}/", dict(zip(scope.inputs, inputs, strict=True)), scope.outputs)
        outputs = [self.named_output(tensor, old, scope.layer) for tensor, old in zip(outputs, functional.output_names, strict=True)]
        if isinstance(scope.source, keras.Sequential):
            chain = as_sequential(scope.source, name, inputs, outputs)
            if chain is not None:
                return chain
            self.note(f"nested model {scope.layer} was Sequential; it is no chain of layers any more, so it leaves as a functional model")
        model = Functional(
            inputs=fill(structure(functional._inputs_struct, functional._inputs), lambda index: inputs[index]),
            outputs=fill(structure(functional._outputs_struct, functional._outputs), lambda index: outputs[index]),
            name=name,
        )
        return like(scope.source, model)

    def named_output(self, tensor: Tensor, name: str, level: str) -> Tensor:
        """Keras names an output after its last layer. Where that layer is gone, an Identity of its name stands at the end."""
        if tensor._keras_history.operation.name == name:
            return tensor
        if (id(tensor), name) in self.named:  # one value, given out twice
            return self.named[id(tensor), name]
        if name in self.factory.names.get(level, ()):
            self.note(f"output {name} is now named {tensor._keras_history.operation.name}: another layer has its old name")
            return tensor
        self.named[id(tensor), name] = keras.layers.Identity(name=self.factory.unique(name, level), dtype=tensor.dtype)(tensor)
        return self.named[id(tensor), name]
