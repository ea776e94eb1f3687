"""A view: a canonical node that was raised from several nodes of its source, and still stands for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from tfpasses.graph.graph import Array
from tfpasses.graph.node import EMPTY, Node
from tfpasses.graph.values import Ref

__all__ = ["View"]


@attrs.frozen(eq=False)
class View:
    """What a raised node stands for, as the `source` of its `Owner`.

    Where the node is still as it was raised, it is written out as its sources, verbatim; where only arrays differ, only those constants
    (or variables) change; a bias that it gained is added behind them. Anything else is written anew.
    """

    sources: tuple[Node, ...]
    """The nodes as they were read, producers first; the last bears the raised node's name. Constants may be shared with other views."""
    op: str
    config: Mapping[str, Any]
    inputs: tuple[Ref, ...]
    """The values from outside that the sources read, in the order of the raised node's inputs."""
    params: Mapping[str, str]
    derived: Mapping[str, Array] = EMPTY
    """The keys among `params` that name no constant of the source, with the arrays computed for them (a transpose, ones, ..)."""
