"""Loops of TensorFlow 1 in a `tf.function`, which has to be told of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorflow.python.ops.control_flow_ops import WhileContext

from tfpasses.frontends.graph_def.reading.loops import names_in_loops

__all__ = ["tell_loops"]


def tell_loops(graph: Any, nodes: Sequence[Any]) -> None:
    """Say of NodeDefs that were imported into a graph under their names that they lie in loops, where they do; a GraphDef does not tell.

    Otherwise `tf.function` would let its results wait for Merges, and for what has effects, inside of loops, which cannot be run.
    """
    names = names_in_loops(nodes)
    if names:
        with graph.as_default():
            context = WhileContext()
        for name in names:
            graph.get_operation_by_name(name)._set_control_flow_context(context)
