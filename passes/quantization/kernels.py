"""The kernels of a graph that can be quantized, each once however many nodes share it, and their encodings."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from tfpasses.graph import Array, Edit, Graph, KernelView, LinearView, Node, has_trait
from tfpasses.passes.quantization.encodings import Encoding
from tfpasses.passes.quantization.quantizer import Quantizer, unsuitable

__all__ = ["Kernel", "encodings", "kernels"]


@attrs.frozen(eq=False)
class Kernel:
    """A kernel, and the linear nodes that read it."""

    key: str
    """Its key among the graph's weights."""
    array: Array
    slot: str
    """The parameter slot that it fills."""
    axes: tuple[int, ...]
    """Those that together count its output channels, for the first of the nodes."""
    nodes: tuple[Node, ...]
    """In topological order."""
    reason: str
    """Why it cannot be quantized; empty where it can."""


def kernels(graph: Graph | Edit, quantizer: Quantizer) -> list[Kernel]:
    """The kernels of all linear nodes in topological order: two of a separable convolution."""
    uses: dict[str, list[tuple[Node, KernelView]]] = {}
    for node in graph.nodes.values():
        if has_trait(node, "linear"):
            for view in LinearView.of(node, graph).kernels:
                uses.setdefault(node.params[view.slot], []).append((node, view))
    return [one_of(key, found, graph, quantizer) for key, found in uses.items()]


def one_of(key: str, uses: Sequence[tuple[Node, KernelView]], graph: Graph | Edit, quantizer: Quantizer) -> Kernel:
    """The kernel of a key, from all linear nodes that read it."""
    view, others = uses[0][1], uses[1:]
    nodes = tuple(dict.fromkeys(node for node, _ in uses))
    names = {node.name for node in nodes}
    stranger = next((name for name in graph.weight_users[key] if name not in names), None)
    reason = unsuitable(view.kernel)
    if stranger is not None:
        reason = f"it shares its kernel with {stranger}, a {graph.nodes[stranger].op}, which is no linear layer"
    for node, other in others:
        if other.slot != view.slot:
            reason = reason or f"it shares its kernel with {node.name}, a {node.op}, which uses it in another way"
        elif quantizer.per_channel and other.out_axes != view.out_axes:
            reason = reason or f"it shares its kernel with {node.name}, a {node.op}, for which other axes of it are the channels"
    return Kernel(key, view.kernel, view.slot, view.out_axes, nodes, reason)


def encodings(graph: Graph, quantizer: Quantizer) -> dict[str, list[Encoding]]:
    """The encodings that `quantize-weights` gives the kernels of a graph: a weight's key -> one encoding, or one for each output channel.

    To be asked of the graph before that pass: what is on a grid already spans a slightly other range. Kernels that the pass would
    leave alone are not there. A `tf.Graph` is canonicalized first (`tfpasses.run(model, "canonicalize").graph`).
    """
    return {one.key: quantizer.encoding(one.array, one.axes) for one in kernels(graph, quantizer) if not one.reason}
