"""Convolutions that read what a batch norm gives, maybe by way of an activation: those that can be corrected without data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from tfpasses.graph import ChannelStats, Graph, Node, Ref, TfpassesError, has_trait
from tfpasses.passes.aimet.defs import ActivationType
from tfpasses.passes.aimet.sessions import LINEAR, linear_node, norm_operation, operation_in, sources

__all__ = ["ConvBnInfoType", "Operation", "conv_bn_infos", "convs_with_norms", "named_layers"]

PASSING = ("Identity", "Dropout", "Pad")
"""What may lie between besides, which AIMET does not look through."""
SIX = 6.0


@attrs.frozen
class Operation:
    """An operation of a session, as AIMET's connected graph holds it."""

    operation: Any

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.operation.name)

    @property
    def type(self) -> str:
        """Its type."""
        return str(self.operation.type)

    def get_module(self) -> Any:
        """The operation itself."""
        return self.operation


@attrs.define(eq=False)
class ConvBnInfoType:
    """What lies before a convolution, and behind it; AIMET's name."""

    input_bn: Any = None
    """The batch norm before it: what has a `name` and a `get_module()`, which gives the operation."""
    output_bn: Any = None
    """The batch norm behind it; not used."""
    in_activation_type: Any = ActivationType.no_activation
    """What lies between that before it and the convolution."""
    out_activation_type: Any = ActivationType.no_activation
    """What lies behind the convolution; not used."""


def convs_with_norms(graph: Graph) -> Iterator[tuple[Node, Node, ActivationType]]:
    """The convolutions of a graph that read a batch norm's value, or that of a layer that one was folded into and whose statistics are
    known: (convolution, batch norm or that layer, what lies between). In topological order.
    """
    for node in graph.nodes.values():
        if has_trait(node, "linear") and node.op != "Dense":
            below, activation = skipped(graph.nodes[node.inputs[0].node], graph), ActivationType.no_activation
            if below.op == "Relu" and (found := kind_of(below)) is not None:
                below, activation = skipped(graph.nodes[below.inputs[0].node], graph), found
            if below.op == "BatchNorm" or (Ref(below.name), ChannelStats.kind) in graph.facts:
                yield node, below, activation


def skipped(node: Node, graph: Graph) -> Node:
    """The node whose values a node hands on, if need be with zeros around them."""
    while node.op in PASSING:
        node = graph.nodes[node.inputs[0].node]
    return node


def kind_of(relu: Node) -> ActivationType | None:
    """Which of AIMET's activations it is, if one."""
    if relu.config["threshold"] != 0 or relu.config["negative_slope"] != 0:
        return None
    return {None: ActivationType.relu, SIX: ActivationType.relu6}.get(relu.config["max_value"])


def conv_bn_infos(graph: Graph, session_graph: Any) -> dict[Any, ConvBnInfoType]:
    """What `convs_with_norms` finds, as operations of the session that a graph was read from."""
    found = {}
    for conv, norm, activation in convs_with_norms(graph):
        below = norm_operation(norm, session_graph) if norm.op == "BatchNorm" else operation_of(norm, session_graph)
        found[operation_of(conv, session_graph)] = ConvBnInfoType(Operation(below), None, activation)
    return found


def operation_of(node: Node, session_graph: Any) -> Any:
    """The operation of the name that a layer's convolution or matrix product had when the layer had no bias: where it gained one, the
    addition.
    """
    names = [one.name for one in sources(node) if one.op in LINEAR]
    return operation_in(session_graph, [node.name] if names == [f"{node.name}/without_bias"] else [*names, node.name])


def named_layers(given: Any, graph: Graph) -> dict[str, ConvBnInfoType]:
    """The linear nodes of a graph that a dict from operations (of any session) to their infos names.

    Raises `ValueError` for something else, `TfpassesError` where the graph has no such layers: it was found on another one.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"conv_bn_dict is of type {type(given).__name__}; find_all_convs_bn_with_activation gives a dict")
    found: dict[str, ConvBnInfoType] = {}
    for operation, info in given.items():
        if not hasattr(operation, "name") or not hasattr(info, "input_bn"):
            raise ValueError(f"conv_bn_dict holds {operation!r}: {info!r}; its keys are operations, its values what stands before them")
        try:
            node = linear_node(operation, graph)
        except ValueError:
            raise TfpassesError(
                f"conv_bn_dict names {operation.name}, which is no convolution or matrix product between the given operations of this "
                "session: it was found on another graph"
            ) from None
        if info.input_bn is not None:
            found[node.name] = info
    return found
