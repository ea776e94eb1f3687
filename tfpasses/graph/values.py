"""The small values a graph is made of: references, tensor specs, and the shape of a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import attrs

from tfpasses.graph.errors import GraphError

__all__ = ["Call", "Ref", "Slot", "Spec", "fill", "map_leaves", "slots"]


class Ref(NamedTuple):
    """One output of a node."""

    node: str
    index: int = 0  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a reference

    def __str__(self) -> str:
        return self.node if self.index == 0 else f"{self.node}:{self.index}"


@attrs.frozen
class Spec:
    """What is known of a tensor before it is computed: `shape` with None for an unknown dimension (None itself where not even the rank is
    known, as opaque operations of a `tf.Graph` may leave it), and the dtype's name.
    """

    shape: tuple[int | None, ...] | None
    dtype: str

    @property
    def dims(self) -> tuple[int | None, ...]:
        """The shape. Raises `GraphError` where the rank is not known."""
        if self.shape is None:
            raise GraphError("the rank of a value is not known")
        return self.shape

    def __str__(self) -> str:
        return f"{self.dtype}[{'..' if self.shape is None else ','.join('?' if d is None else str(d) for d in self.shape)}]"


@attrs.frozen
class Slot:
    """A place in a nested structure that is filled by a tensor: the node's (or the graph's) input or output number `index`."""

    index: int


@attrs.frozen(eq=False)
class Call:
    """The arguments of the original call, nested as the user wrote them, with a `Slot` where a tensor stood."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)

    def fill(self, tensors: Callable[[int], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with `tensors(i)` in the place of slot i."""
        return fill(self.args, tensors), fill(dict(self.kwargs), tensors)


def map_leaves(structure: Any, change: Callable[[Any], Any]) -> Any:
    """The same nesting of dicts, lists and (named) tuples, with `change` applied to every leaf."""
    if isinstance(structure, dict):
        return {key: map_leaves(value, change) for key, value in structure.items()}
    if isinstance(structure, list):
        return [map_leaves(value, change) for value in structure]
    if isinstance(structure, tuple):
        values = [map_leaves(value, change) for value in structure]
        return type(structure)(*values) if hasattr(structure, "_fields") else tuple(values)
    return change(structure)


def fill(structure: Any, tensors: Callable[[int], Any]) -> Any:
    """The structure with `tensors(i)` in the place of `Slot(i)`."""
    return map_leaves(structure, lambda leaf: tensors(leaf.index) if isinstance(leaf, Slot) else leaf)


def slots(structure: Any) -> Iterator[int]:
    """The slot numbers of a structure, in the order of writing."""
    if isinstance(structure, Slot):
        yield structure.index
    elif isinstance(structure, dict):
        for value in structure.values():
            yield from slots(value)
    elif isinstance(structure, list | tuple):
        for value in structure:
            yield from slots(value)
