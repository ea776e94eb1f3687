"""ReLU6 made ReLU: those limits of 6 taken out, and no others."""

from __future__ import annotations

import numpy as np

from tfpasses.graph import Edit, Graph
from tfpasses.passes.equalization.clips import limits_of, remove_limits
from tfpasses.passes.relu6_to_relu import Relu6ToRelu

__all__ = ["without_relu6"]

LIMIT = 6.0


def without_relu6(graph: Graph) -> tuple[Graph, list[str]]:
    """A graph with max(0, x) for min(max(0, x), 6) in every spelling, and the names of the nodes that were changed."""
    edit = Edit(graph, made_by=Relu6ToRelu.name)
    changed = []
    for node in graph.nodes.values():
        limits = limits_of(node, edit)
        if limits is not None and bool(np.all(limits == LIMIT)):
            remove_limits(node, edit)
            changed.append(node.name)
    return edit.freeze(), changed
