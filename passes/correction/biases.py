"""The biases of a graph that can be corrected: each once, however many linear nodes add it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs
import numpy as np

from tfpasses.graph import Array, Edit, Graph, LinearView, Node, View, has_trait
from tfpasses.manager import PassError
from tfpasses.passes.equalization.constants import in_dtype
from tfpasses.passes.folding.paths import misplaces_bias
from tfpasses.passes.named_pairs import layer_of

__all__ = ["Biased", "biased", "chosen", "corrected", "needed"]


@attrs.frozen(eq=False)
class Biased:
    """The linear nodes that add one bias, or would add one if they had it: all calls of one layer."""

    nodes: tuple[Node, ...]
    """In topological order."""
    reason: str
    """Why the bias cannot change; empty where it can."""

    @property
    def name(self) -> str:
        """What it is called in remarks: its first node's name."""
        return self.nodes[0].name


def biased(graph: Graph | Edit) -> list[Biased]:
    """All linear nodes, those that share a bias together; in topological order of the first of them."""
    found: dict[tuple[str, str], list[Node]] = {}
    for node in graph.nodes.values():
        if has_trait(node, "linear"):
            key = ("bias", node.params["bias"]) if "bias" in node.params else ("layer", layer_of(node))
            found.setdefault(key, []).append(node)
    path = needed(graph)
    return [Biased(tuple(nodes), blocked(nodes, graph, path)) for nodes in found.values()]


def needed(graph: Graph | Edit) -> set[str]:
    """The nodes that a graph's outputs depend on: in one of TensorFlow 1 there are others, a loss and its gradients, say."""
    found: set[str] = set()
    stack = [ref.node for ref in graph.outputs]
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack += [ref.node for ref in graph.nodes[name].inputs]
    return found


def blocked(nodes: Sequence[Node], graph: Graph | Edit, path: Collection[str]) -> str:
    """Why the bias of some nodes cannot change, or be made; empty where it can. `path` are the nodes that outputs need."""
    outside = next((node.name for node in nodes if node.name not in path), None)
    if outside is not None:
        return (
            f"it is also applied in {outside}, which no output needs" if any(node.name in path for node in nodes) else "no output needs it"
        )
    bias = nodes[0].params.get("bias")
    misplaced = next(filter(None, (misplaces_bias(node, graph) for node in nodes if bias is None or not was_raised(node))), "")
    if bias is None or misplaced:
        return misplaced
    names = {node.name for node in nodes}
    stranger = next((name for name in graph.weight_users[bias] if name not in names), None)
    if stranger is not None:
        return f"it shares its bias with {stranger}, a {graph.nodes[stranger].op}, which is no linear layer"
    return "" if np.isfinite(graph.weights[bias]).all() else "its bias is not finite (NaN or infinity)"


def was_raised(node: Node) -> bool:
    """Whether a node stands for operations of a `tf.Graph`, whose biases lie where they say."""
    return node.owner is not None and isinstance(node.owner.source, View)


def corrected(layer: Biased, shift: Array, graph: Graph | Edit) -> Array | None:
    """The bias less a shift per output channel: float64 arithmetic, in the dtype that the bias has, or the kernel where there is none.
    None where it would not be finite.
    """
    view = LinearView.of(layer.nodes[0], graph)
    dtype = (view.kernel if view.bias is None else view.bias).dtype
    bias = np.zeros(view.out_channels) if view.bias is None else np.asarray(view.bias, np.float64)
    stored = in_dtype(bias - shift, dtype.name)
    return stored if np.isfinite(stored).all() else None


def chosen(layers: Sequence[Biased], only: str, graph: Graph | Edit) -> Sequence[Biased]:
    """The layers that `only` names, or all. Raises `PassError` where it names none, or one of several that share a bias."""
    names = dict.fromkeys(only.split())
    if not names:
        return layers
    for name in names:
        nodes = [node for node in graph.nodes.values() if name in called(node)]
        if not any(has_trait(node, "linear") for node in nodes):
            raise PassError(f"only={only!r}: " + (f"{name} is no linear layer" if nodes else f"there is no layer {name!r}"))
    wanted = [layer for layer in layers if any(names.keys() & called(node) for node in layer.nodes)]
    for layer in wanted:
        named = [node for node in layer.nodes if names.keys() & called(node)]
        others = [node for node in layer.nodes if node not in named]
        if others:
            raise PassError(f"only={only!r}: {named[0].name} shares its bias with {others[0].name}; name both or neither")
    return wanted


def called(node: Node) -> set[str]:
    """What a user may call a node by: its layer's name or its own."""
    return {layer_of(node), node.name}
