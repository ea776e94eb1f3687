"""What of an element of data is a model's inputs: alone, by name, in order, or with a label beside it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfpasses.graph import Array, Graph, Slot
from tfpasses.manager import DataError

__all__ = ["as_array", "inputs_of"]

MOST_PARTS = 3
"""An element is (x,), (x, label) or (x, label, weight), as for `Model.fit`."""


def inputs_of(graph: Graph, element: Any, where: str = "") -> dict[str, Any]:
    """Values by input name. `where` ends the clause that says what the data are.

    An element is x, or a tuple that begins with x and goes on with a label and a weight, as Keras takes it. x is the value itself for a
    model of one input; for any model a mapping by the inputs' names (or the keys by which the model takes them), whose other keys are
    left out; or a tuple or list of one value an input. Raises `DataError`, one line, for anything else.
    """
    names = graph.inputs
    if isinstance(element, tuple) and element and (len(names) == 1 or is_structure(element[0])):
        if len(element) > MOST_PARTS:
            raise DataError(f"data{where} are a tuple of {len(element)} parts; (x, label, weight) is the most that is taken")
        element = element[0]
        if len(names) == 1 and isinstance(element, tuple) and len(element) == 1:
            element = element[0]
    if isinstance(element, Mapping):
        return by_name(graph, element, where)
    if len(names) == 1 and not isinstance(element, tuple):
        return {names[0]: element}
    if isinstance(element, tuple | list):
        if len(element) != len(names):
            raise DataError(f"data{where} have {len(element)} parts; the model's inputs are {', '.join(names)}")
        return dict(zip(names, element, strict=True))
    kind = "array" if isinstance(element, np.ndarray) else type(element).__name__
    raise DataError(f"data{where} are one {kind}; the model's inputs are {', '.join(names)}")


def is_structure(value: Any) -> bool:
    """Whether a value holds values for inputs, rather than being one."""
    return isinstance(value, Mapping | tuple) or (isinstance(value, list) and any(hasattr(part, "shape") for part in value))


def by_name(graph: Graph, element: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Of a mapping what the model takes."""
    keys = {name: name for name in graph.inputs}
    taken = graph.input_structure
    if isinstance(taken, dict) and all(isinstance(slot, Slot) for slot in taken.values()) and not set(keys) <= set(element):
        keys = {graph.inputs[slot.index]: key for key, slot in taken.items()}
    if not set(keys.values()) <= set(element):
        raise DataError(
            f"data{where} {'is' if not where else 'are'} given for {', '.join(sorted(map(str, element))) or 'nothing'}; "
            f"the model's inputs are {', '.join(graph.inputs)}"
        )
    return {name: element[key] for name, key in keys.items()}


def as_array(name: str, value: Any, where: str = "") -> Array:
    """A value of NumPy, TensorFlow or Python as an array, not copied where that can be. Raises `DataError` for what is none."""
    tf = sys.modules.get("tensorflow")
    if tf is not None:
        remedies = {
            tf.RaggedTensor: "make it dense with to_tensor() or padded_batch",
            tf.SparseTensor: "make it dense with tf.sparse.to_dense",
            tf.data.Dataset: "flatten it with flat_map",
        }
        for kind, remedy in remedies.items():
            if isinstance(value, kind):
                raise DataError(f"data for input {name} is a {kind.__name__.removesuffix('V2')}{where}; {remedy}")
    try:
        return np.asarray(value)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise DataError(f"data for input {name} is no array{where}: {' '.join(str(error).split())}") from error
