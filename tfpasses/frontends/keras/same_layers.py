"""A model of the very layers of another, without some of them: wired anew, while every layer stays the caller's own object."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras
from keras.src.models.functional import Functional, functional_like_constructor

from tfpasses.frontends.keras.nested import is_model
from tfpasses.frontends.keras.write import like

__all__ = ["without_layers"]


def without_layers(model: Any, gone: Collection[Any]) -> Any:
    """A new model of the same inputs and the same layer objects, where each layer of `gone` gives on what it reads.

    Nested models that hold one of them are wired anew, once each; others stay the same objects. Where a layer of `gone` gave an output, an
    Identity of its name stands at the end, since Keras names outputs after their layers. The given model is as it was, but that its
    layers have one more call. The new one is not compiled.
    """
    return Wiring({id(layer) for layer in gone}).model(model)


class Wiring:
    """Wires models anew, each once."""

    def __init__(self, gone: Collection[int]) -> None:
        self.gone = gone
        """The layers to be left out, by id."""
        self.models: dict[int, Any] = {}
        """Nested model, by id -> the one in its place."""

    def model(self, source: Any) -> Any:
        """A new model in the place of one."""
        return like(source, self.sequential(source) if isinstance(source, keras.Sequential) else self.functional(source))

    def sequential(self, source: Any) -> Any:
        *layers, last = source.layers
        left = [found for layer in layers if (found := self.layer(layer)) is not None]
        end = self.layer(last)
        left.append(keras.layers.Identity(name=last.name, dtype=last.dtype_policy) if end is None else end)
        return type(source)([source.inputs[0], *left], name=source.name)

    def functional(self, source: Any) -> Any:
        ends: dict[str, Any] = {}
        named: dict[tuple[int, str], Any] = {}

        def output(tensor: Any, old: Any) -> Any:
            layer = old._keras_history.operation
            if self.layer(layer) is not None:
                return tensor
            end = ends.setdefault(layer.name, keras.layers.Identity(name=layer.name, dtype=tensor.dtype))  # of a layer called twice
            key = (id(tensor), layer.name)
            if key not in named:  # one value may be given out twice
                named[key] = end(tensor)
            return named[key]

        found = source._run_through_graph(source._inputs, operation_fn=self.layer, call_fn=called)
        outputs = [output(tensor, old) for tensor, old in zip(keras.tree.flatten(found), source._outputs, strict=True)]
        cls: Any = type(source) if functional_like_constructor(type(source)) else Functional
        return cls(source._inputs_struct, keras.tree.pack_sequence_as(source._outputs_struct, outputs), name=source.name)

    def layer(self, layer: Any) -> Any:
        """What is called in the place of a layer, an operation or a nested model: itself, another model, or None for nothing."""
        if id(layer) in self.gone:
            return None
        if not isinstance(layer, keras.Layer) or not is_model(layer) or not self.holds_one(layer):
            return layer
        if id(layer) not in self.models:
            self.models[id(layer)] = self.model(layer)
        return self.models[id(layer)]

    def holds_one(self, model: Any) -> bool:
        """Whether one of the layers to be left out lies in a model, at any depth."""
        return any(id(inner) in self.gone for inner in model._flatten_layers(include_self=False))


def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """What a layer gives; what is not there any more gives on what it is called on."""
    if layer is not None:
        return layer(*args, **kwargs)
    return args[0] if args else kwargs["inputs"]
