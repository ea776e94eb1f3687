"""Keras layers seen as linear ones, and what lies around them in whatever models they are part of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfpasses.graph import Array, Edit, Graph, LinearView, Node, UnsupportedModelError, has_trait

__all__ = ["statistics_of", "surroundings", "view_of", "without_identities"]


def view_of(layer: Any) -> LinearView:
    """A layer seen through its kernel and bias. Raises `ValueError` for one that has no such thing."""
    import keras

    from tfpasses.frontends.keras.layers import kind_of
    from tfpasses.frontends.keras.read import layer_array

    kind = kind_of(layer) if isinstance(layer, keras.Layer) and layer.built else None
    if kind is None or not has_trait(Node("", kind.op), "linear"):
        name = getattr(layer, "name", repr(layer))
        raise ValueError(f"{name} is no convolution or dense layer that has been built; only such can be scaled")
    arrays = {slot: layer_array(variable) for slot, name in kind.weights.items() if (variable := getattr(layer, name)) is not None}
    node = Node(layer.name, kind.op, config=kind.read(layer), params={slot: slot for slot in arrays})
    return LinearView.of(node, Graph({node.name: node}, arrays))


def surroundings(layers: Sequence[Any]) -> list[Graph]:
    """All that some layers feed and are fed by, in whatever models they are part of, one graph for each that is wired apart from others.

    Which values are outputs of those models is not known from the layers: the graphs have those as outputs that nothing reads.
    """
    found = []
    left = {id(call): call for layer in layers for call in layer._inbound_nodes}
    while left:
        calls = connected(next(iter(left.values())))
        left = {key: call for key, call in left.items() if key not in calls}
        graph = graph_of(list(calls.values()))
        if graph is not None:
            found.append(without_identities(graph))
    return found


def connected(call: Any) -> dict[int, Any]:
    """The calls of layers that a call is connected with by values, other than inputs."""
    calls: dict[int, Any] = {}
    stack = [call]
    while stack:
        call = stack.pop()
        if id(call) not in calls and not call.is_input:
            calls[id(call)] = call
            stack += [user for user in call.operation._outbound_nodes if shares(user.input_tensors, call.outputs)]
            stack += call.parent_nodes
    return calls


def graph_of(calls: Sequence[Any]) -> Graph | None:
    """The graph of some calls; None where Keras makes no model of them."""
    import keras

    from tfpasses.frontends.keras import from_keras

    read = {id(tensor): tensor for call in calls for tensor in call.input_tensors}
    ends = [tensor for call in calls for tensor in call.outputs if id(tensor) not in read]
    inputs = [tensor for tensor in read.values() if isinstance(tensor._keras_history.operation, keras.layers.InputLayer)]
    if not inputs:
        return None
    try:
        return from_keras(keras.Model(inputs, ends, name="surroundings"))
    except (ValueError, UnsupportedModelError):  # such as two layers of one name, in models that share others
        return None


def shares(some: Sequence[Any], others: Sequence[Any]) -> bool:
    return not {id(one) for one in some}.isdisjoint([id(one) for one in others])


def without_identities(graph: Graph) -> Graph:
    """The same without batch norms that do nothing, as folding leaves them in the model that was given."""
    edit = Edit(graph)
    for node in graph.nodes.values():
        if node.op == "BatchNorm" and not node.config.get("training") and does_nothing(node, graph):
            edit.replace(node, node.inputs[0])
    return edit.freeze()


IDENTITY = {"gamma": 1.0, "beta": 0.0, "mean": 0.0, "variance": 1.0}


def does_nothing(node: Node, graph: Graph) -> bool:
    """Whether a batch norm gives on what it reads."""
    arrays: dict[str, Array] = graph.params(node)
    return node.config["epsilon"] == 0 and all(bool(np.all(array == IDENTITY[slot])) for slot, array in arrays.items())


def statistics_of(bn: Any, layer: Any) -> tuple[Array, Array] | None:
    """gamma and beta of the batch norm that was folded into a layer, and tells of that one's output; None where it does not.

    Of a batch norm that was not folded here, its own.
    """
    folded = hasattr(bn, "original_gamma")
    if folded and bn.tells_of != layer.name:
        return None
    gamma, beta = (bn.original_gamma, bn.original_beta) if folded else (bn.gamma, bn.beta)
    if gamma is None or beta is None or np.asarray(beta).size != view_of(layer).out_channels:
        return None
    return np.asarray(gamma), np.asarray(beta)
