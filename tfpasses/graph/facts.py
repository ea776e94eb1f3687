"""Facts: typed knowledge about a value that outlives the node it came from."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import numpy as np

from tfpasses.graph.values import Ref

__all__ = ["ChannelStats", "Fact", "FactKey"]


@attrs.frozen(eq=False)
class Fact:
    """Base of all facts: a frozen class of float64 arrays, known under its `kind`."""

    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type[Fact]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Fact.kinds[cls.kind] = cls


FactKey = tuple[Ref, str]


def vector(value: Any) -> np.ndarray[Any, Any]:
    array = np.array(value, dtype=np.float64, ndmin=1)
    array.setflags(write=False)
    return array


@attrs.frozen(eq=False)
class ChannelStats(Fact):
    """Mean and standard deviation of a pre-activation, one float64 number a channel.

    A folded batch norm leaves beta and |gamma| behind: its output has that mean and deviation on the data it was trained on.
    """

    kind: ClassVar[str] = "ChannelStats"
    mean: np.ndarray[Any, Any] = attrs.field(converter=vector)
    std: np.ndarray[Any, Any] = attrs.field(converter=vector)
