"""Making the layers that a written model consists of: from their sources' configuration where they have one, else from the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import keras

from tfpasses.frontends.keras.clone import constructor_arguments, copied_operation, copy_random_state, copy_state, rebuilt
from tfpasses.frontends.keras.layers import ACTIVATIONS, JOINS, KINDS, OPERATIONS, Kind, activation_of, kind_of
from tfpasses.frontends.keras.weights import Given, hold_once
from tfpasses.graph import Graph, Node, UnsupportedModelError
from tfpasses.graph.text import format_value

__all__ = ["LayerFactory", "Use"]

DEFAULT_INITIALIZERS = {"gamma": "ones", "variance": "ones", "bias": "zeros", "beta": "zeros", "mean": "zeros"}


@attrs.frozen(eq=False)
class Use:
    """One call of a layer: its main node, and the node of its `activation=` where that leaves with it."""

    main: Node
    activation: Node | None = None

    @property
    def signature(self) -> str:
        """What two uses must have in common to leave as calls of one layer."""
        owner = self.main.owner
        layer = f"{owner.layer}:{owner.part}" if owner is not None else f"new {self.main.name}"
        config = own_config(self.main)
        return f"{layer} {self.main.op} {format_value(config)} {sorted(self.main.params.items())} {self.activation is not None}"


class LayerFactory:
    """Makes each layer once, whatever the number of its uses."""

    def __init__(self, graph: Graph, note: Callable[[str], None]) -> None:
        self.graph = graph
        self.note = note
        self.layers: dict[str, Any] = {}
        self.names: dict[str, set[str]] = {}
        """Model's path -> the names taken in it."""
        self.holders: dict[str, Any] = {}
        """Weight -> the layer that it was written into first."""
        self.unfinished: dict[int, Callable[[], None]] = {}
        self.mains = merged_activations(graph)

    def main_part(self, node: Node) -> str:
        """The name of the node that a node leaves together with, its own where it leaves alone."""
        return self.mains.get(node.name, node.name)

    # inputs and names

    def new_input(self, node: Node) -> Any:
        """The symbolic input of a graph's Input node."""
        spec = node.specs[0]
        options = {key: True for key in ("sparse", "ragged", "optional") if node.config.get(key)}
        tensor = keras.Input(batch_shape=spec.shape, dtype=spec.dtype, name=self.unique(node.name, ""), **options)
        if node.owner is not None:
            tensor._keras_history.operation.trainable = node.owner.source.trainable
        return tensor

    def clone_input(self, tensor: Any, level: str) -> Any:
        """A fresh input like one of a source model."""
        layer = tensor._keras_history.operation
        options = {key: True for key in ("sparse", "ragged", "optional") if getattr(layer, key, False)}
        new = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=self.unique(layer.name, level), **options)
        new._keras_history.operation.trainable = layer.trainable
        return new

    def unique(self, name: str, level: str) -> str:
        """The name, with a number behind it where the model at `level` has it already."""
        taken = self.names.setdefault(level, set())
        base, number = name, 0
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        return name

    def layer_name(self, node: Node, level: str) -> str:
        """A node's layer name in the model at `level`: its path from there, with dots where models were flattened."""
        path = node.name
        if node.owner is not None:
            path = node.owner.layer + (f".{node.owner.part}" if node.owner.part else "")
        return self.local_name(path, level)

    def local_name(self, path: str, level: str) -> str:
        """A layer's or nested model's name in the model at `level`, from its path."""
        prefix = f"{level}/" if level else ""
        local = path.removeprefix(prefix) if path.startswith(prefix) else path.rpartition("/")[2]
        return self.unique(local.replace("/", "."), level)

    # layers

    def layer_of(self, use: Use, level: str) -> Any:
        """The layer or operation of a use, made when it is first asked for."""
        key = use.signature
        layer = self.layers.get(key)
        if layer is None:
            layer = self.layers[key] = self.make(use, self.layer_name(use.main, level))
            for weight in use.main.params.values():
                if self.holders.setdefault(weight, layer) is not layer:
                    self.note(f"layer {layer.name} has a copy of {weight}, which it shared with layer {self.holders[weight].name}")
        self.names.setdefault(level, set()).add(layer.name)
        return layer

    def make(self, use: Use, name: str) -> Any:
        """A new layer or operation for a use."""
        node = use.main
        source = node.owner.source if node.owner is not None else None
        if node.owner is not None and node.owner.part == "activation":
            if still_activation(node):
                return keras.layers.Activation(source.activation, name=name, dtype=source.dtype_policy)  # type: ignore[union-attr]
        elif isinstance(source, keras.Layer):
            kind = kind_of(source)
            if node.op.startswith("keras."):
                return self.clone(node, source, name)
            if kind is not None and kind.op == node.op and expressible(node, kind, source):
                return self.from_source(use, kind, source, name)
        elif source is not None and still_operation(node, source):
            return copied_operation(source, name)
        return self.from_graph(node, name)

    def from_source(self, use: Use, kind: Kind, source: Any, name: str) -> Any:
        """A layer of the table, from its source's configuration; what a pass changed overrides it."""
        node = use.main
        params = self.graph.params(node)
        config = constructor_arguments(source)
        config["name"] = name
        if node.made_by:
            config.update(kind.write(node, params))
        if "activation" in config and not isinstance(source, keras.layers.Activation):
            config["activation"] = source.activation if use.activation is not None else "linear"
        return self.with_weights(type(source), config, kind, node, source)

    def from_graph(self, node: Node, name: str) -> Any:
        """A layer for a node that a pass made."""
        params = self.graph.params(node)
        kind = KINDS.get(node.op)
        shapes = [self.graph.spec(ref).shape for ref in node.inputs]
        if node.op in JOINS and (len(set(shapes)) > 1 or any(self.graph.nodes[ref.node].op == "Const" for ref in node.inputs)):
            if len(shapes) == 2:  # the operations broadcast as NumPy does, the layers in their own way
                return JOINS[node.op](name=name)
        elif kind is not None:
            try:
                config = {"name": name, "dtype": node.specs[0].dtype, **kind.write(node, params)}
                return self.with_weights(kind.layer_class(len(self.graph.spec(node.inputs[0]).dims) - 2), config, kind, node, None)
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise no_layer_for(node) from error
        if node.op == "Dropout":
            return keras.layers.Dropout(0.0, name=name, dtype=node.specs[0].dtype)
        for function, (op, config) in ACTIVATIONS.items():
            if op == node.op and config == dict(node.config):
                return keras.layers.Activation(function, name=name, dtype=node.specs[0].dtype)
        raise no_layer_for(node)

    def with_weights(self, cls: type, config: dict[str, Any], kind: Kind, node: Node, source: Any) -> Any:
        """Construct a layer whose variables are born with their values; afterwards its initializers are what they were."""
        for slot, array in self.graph.params(node).items():
            config[kind.initializers[slot]] = Given(array)
        layer = cls(**config)

        def restore() -> None:
            for slot, key in node.params.items():
                argument = kind.initializers[slot]
                original = getattr(source, argument, None) or keras.initializers.get(DEFAULT_INITIALIZERS.get(slot, "glorot_uniform"))
                setattr(layer, argument, original)
                hold_once(self.graph, key, getattr(layer, kind.weights[slot]))
            if source is not None:
                copy_random_state(source, layer)

        self.unfinished[id(layer)] = restore
        return layer

    def clone(self, node: Node, source: Any, name: str) -> Any:
        """An opaque layer: the same class from the same configuration, then the same weights and state."""
        layer = rebuilt(source, name)
        arrays = [self.graph.weights[key] for key in node.params.values()]
        self.unfinished[id(layer)] = lambda: copy_state(source, layer, arrays)
        return layer

    def finish(self, layer: Any) -> None:
        """After a layer's first call, when its variables exist."""
        last_touch = self.unfinished.pop(id(layer), None)
        if last_touch is not None:
            last_touch()

    def arguments(self, node: Node, layer: Any, value: Callable[[int], Any], flattened: bool) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What to call the layer with. Flattened out of a model called with `training=`, a layer has to be told by itself."""
        if node.call is not None:
            args, kwargs = node.call.fill(value)
        else:
            tensors = [value(index) for index in range(len(node.inputs))]
            listed = node.op == "Concat" or (node.op in JOINS and isinstance(layer, keras.Layer))
            args, kwargs = ((tensors,) if listed else tuple(tensors)), {}
        if flattened or node.owner is None or node.made_by:
            kwargs.pop("training", None)
            if node.config.get("training") is not None:
                kwargs["training"] = node.config["training"]
        return args, kwargs


def own_config(node: Node) -> dict[str, Any]:
    """A node's configuration without what its call decides."""
    return {key: value for key, value in node.config.items() if key not in ("training", "masked")}


def expressible(node: Node, kind: Kind, source: Any) -> bool:
    """Whether a layer of the source's class can say what the node's configuration says: it says so already, or it is the class that
    the vocabulary's operation is written as.
    """
    return own_config(node) == dict(kind.read(source)) or type(source) in KINDS[node.op].classes


def no_layer_for(node: Node) -> UnsupportedModelError:
    return UnsupportedModelError(f"node {node.name}: Keras has no layer for a new {node.op} node with {format_value(dict(node.config))}")


def merged_activations(graph: Graph) -> dict[str, str]:
    """Activation nodes that go back into their layer -> its main node: where, in every use of the layer, the activation is the
    one it was read with, and follows the main node directly and alone.
    """
    layers: dict[str, dict[int, dict[str, Node]]] = {}
    for node in graph.nodes.values():
        if node.owner is not None:
            layers.setdefault(node.owner.layer, {}).setdefault(node.owner.use, {})[node.owner.part] = node
    merged: dict[str, str] = {}
    for uses in layers.values():
        pairs = [(parts.get(""), parts.get("activation")) for parts in uses.values()]
        if all(main is not None and part is not None and follows(graph, main, part) for main, part in pairs):
            merged.update((part.name, main.name) for main, part in pairs if main is not None and part is not None)
    return merged


def follows(graph: Graph, main: Node, part: Node) -> bool:
    alone = len(graph.users[main.name]) == 1
    return alone and [ref.node for ref in part.inputs] == [main.name] and still_activation(part) and main.op in KINDS


def still_activation(node: Node) -> bool:
    """Whether an activation node is the one that its layer was read with."""
    function = node.owner.source.activation if node.owner is not None else None
    canonical = activation_of(function)
    return node.op == "keras.activation" if canonical is None else (node.op, dict(node.config)) == canonical


def still_operation(node: Node, source: Any) -> bool:
    """Whether a node is the operation that it was read from."""
    if node.op.startswith("keras."):
        return True
    read = OPERATIONS.get(type(source))
    return read is not None and read(source) == (node.op, dict(node.config))
