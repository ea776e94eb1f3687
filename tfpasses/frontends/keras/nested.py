"""Which nested models are looked into, and how the tensors of their call meet their inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import keras
from keras.src.models.functional import Functional

from tfpasses.graph import Call, Ref, Slot
from tfpasses.graph.values import map_leaves

__all__ = ["Border", "border_of", "functional_graph", "is_model", "opaque_models"]


@attrs.frozen
class Border:
    """How a nested model was called, in its own order of inputs."""

    inputs: tuple[Ref, ...]
    form: Call


def is_model(layer: Any) -> bool:
    """Whether a layer is a model with a graph: exactly Functional or Sequential; a subclass may do more than its graph says."""
    if isinstance(layer, keras.Sequential):
        return type(layer) is keras.Sequential and layer._functional is not None
    return type(layer) is Functional


KNOWN = ("inputs", "training", "mask")


def functional_graph(model: Any) -> Any:
    """The functional model that a Sequential keeps inside, or the functional model itself."""
    return model._functional if isinstance(model, keras.Sequential) else model


def opaque_models(functional: Any, found: set[int] | None = None) -> set[int]:
    """The ids of the nested models, at any depth, that some call keeps from being inlined: then no call of them is."""
    found = set() if found is None else found
    for calls in functional._nodes_by_depth.values():
        for call in calls:
            if is_model(call.operation):
                if not can_be_inlined(call):
                    found.add(id(call.operation))
                opaque_models(functional_graph(call.operation), found)
    return found


def can_be_inlined(call: Any) -> bool:
    """Whether inlining a call of a nested model loses nothing: every input is another tensor, of the dtype and rank that the model
    takes (Keras converts others), without a mask (Keras hands it on inside, unseen); every output is another tensor, made inside.
    """
    functional = functional_graph(call.operation)
    args, kwargs = call.arguments.args, call.arguments.kwargs
    if len(args) > 1 or any(kwargs[key] is not None for key in kwargs if key not in KNOWN):
        return False
    given = in_order(functional, args, kwargs)
    if len(given) != len(functional._inputs) or not all(isinstance(tensor, keras.KerasTensor) for tensor in given):
        return False
    masks = [*keras.tree.flatten(kwargs.get("mask")), *(getattr(tensor, "_keras_mask", None) for tensor in given)]
    fits = all(a.dtype == b.dtype and len(a.shape) == len(b.shape) for a, b in zip(given, functional._inputs, strict=True))
    ends = [*functional._inputs, *functional._outputs]
    return fits and distinct(given) and distinct(ends) and not any(mask is not None for mask in masks)


def distinct(tensors: Sequence[Any]) -> bool:
    return len({id(tensor) for tensor in tensors}) == len(tensors)


def in_order(functional: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """What a model was called on, in the order of its inputs; empty where that is not told by names."""
    nested = args[0] if args else kwargs.get("inputs")
    if isinstance(nested, dict) and not isinstance(functional._inputs_struct, dict):
        names = [tensor.name for tensor in functional._inputs]
        return [nested[name] for name in names] if set(names) == set(nested) else []
    return list(keras.tree.flatten(nested))


def border_of(model: Any, form: Call, inputs: Sequence[Ref]) -> Border:
    """The border of a call of a nested model that can be inlined."""
    order = [leaf.index for leaf in in_order(functional_graph(model), form.args, form.kwargs)]
    place = {slot: number for number, slot in enumerate(order)}
    args, kwargs = map_leaves((form.args, dict(form.kwargs)), lambda leaf: Slot(place[leaf.index]) if isinstance(leaf, Slot) else leaf)
    return Border(tuple(inputs[index] for index in order), Call(args, kwargs))
