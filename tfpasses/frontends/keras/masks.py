"""Masks: Keras computes them by operations of its own when a layer is called, and records those as part of the model.

A written layer makes such operations again. Where the graph has them as nodes (an LSTM takes the mask that an Embedding made), the
new ones stand for those nodes instead of copies; the others only need names that nothing else in the model has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

__all__ = ["Masks"]

Tensor = Any


class Masks:
    """The mask operations that Keras has made on one level and that no node has claimed."""

    def __init__(self) -> None:
        self.known: set[int] = set()
        self.pending: list[Any] = []

    def collect(self, tensor: Tensor) -> None:
        """Note the operations behind a tensor's mask."""
        stack = [getattr(tensor, "_keras_mask", None)]
        while stack:
            mask = stack.pop()
            if not isinstance(mask, keras.KerasTensor):
                continue
            operation = mask._keras_history.operation
            if id(operation) not in self.known and not isinstance(operation, keras.Layer):
                self.known.add(id(operation))
                self.pending.append(operation)
                stack.extend(operation._inbound_nodes[0].input_tensors)

    def claim(self, source: Any, args: Any, kwargs: Any) -> Any | None:
        """The pending operation that is what `source` is and has these arguments, no longer pending; None where there is none."""
        for operation in self.pending:
            made = operation._inbound_nodes[0]
            if (
                type(operation) is type(source)
                and options(operation) == options(source)
                and same((made.arguments.args, made.arguments.kwargs), (args, kwargs))
            ):
                self.pending.remove(operation)
                return operation
        return None

    def name_rest(self, unique: Callable[[str], str]) -> None:
        """Name what is pending still."""
        for operation in self.pending:
            operation.name = unique(re.sub(r"_\d+$", "", operation.name))
        self.pending.clear()


def options(operation: Any) -> Mapping[str, Any]:
    return {key: value for key, value in vars(operation).items() if not key.startswith("_") and key != "name"}


def same(a: Any, b: Any) -> bool:
    """Whether two calls' arguments are the same tensors and equal constants."""
    left, right = keras.tree.flatten(a), keras.tree.flatten(b)
    return len(left) == len(right) and all(
        x is y if isinstance(x, keras.KerasTensor) else np.array_equal(x, y) for x, y in zip(left, right, strict=True)
    )
