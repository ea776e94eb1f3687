"""Compiled calls of one linear operation: Keras writes grouped convolutions so, which a CPU runs in no other way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from tfpasses.graph import Array, Edit, Graph, GraphError, Node, Ref, has_trait
from tfpasses.passes.raising.cluster import Raising
from tfpasses.pattern import Match, Miss, Rule, op

__all__ = ["compiled_rules"]

GIVEN = ("Const", "Variable")
QUIET = ("Input", *GIVEN, "Identity", "tf.Identity", "tf.NoOp")
"""What may be in the function beside the linear operation."""


def compiled_rules(raising: Raising, raise_inner: Callable[[Edit], object]) -> Sequence[Rule]:
    """The rule that raises such a call. `raise_inner` raises what is in a function."""

    def compiled(match: Match, edit: Edit) -> Miss | None:
        """One linear operation of an argument, with constants that are arguments too."""
        call = edit.nodes[match.root.name]
        functions = edit.source.functions
        if functions is None:
            return match.miss("the graph has no functions")
        try:
            body = functions.body(call, "f", 0, [edit.spec(ref) for ref in call.inputs])
        except GraphError as error:
            return match.miss(str(error))
        if not body.compiled or len(body.graph.outputs) != 1:
            return match.miss("it is not compiled as a whole, or gives several values")
        given = [edit.nodes[ref.node] for ref in call.inputs]
        inner = Edit(with_constants(body.graph, given, edit))
        raise_inner(inner)
        linear = source_of(inner.outputs[0], inner)
        others = [node for node in inner.nodes.values() if node.op not in QUIET and node is not linear]
        if others or not has_trait(linear, "linear"):
            return match.miss("it does more than one linear operation")
        argument = source_of(linear.inputs[0], inner).name
        if argument not in body.graph.inputs:
            return match.miss("its linear operation does not read an argument")
        x = call.inputs[body.graph.inputs.index(argument)]
        outer = {node.params["value"] if node.op == "Const" else str(node.config["weight"]) for node in given if node.op in GIVEN}
        params = {slot: (key, inner.weights[key].shape) for slot, key in linear.params.items() if key in outer}
        computed: dict[str, Array] = {slot: inner.weights[key] for slot, key in linear.params.items() if key not in outer}
        handles = [ref for ref, node in zip(call.inputs, given, strict=True) if node.op == "Variable"]
        return raising(match, edit, linear.op, (x,), linear.config, params, computed, handles)

    return [Rule.of("compiled", op("tf.PartitionedCall", "tf.StatefulPartitionedCall"), compiled)]


def with_constants(body: Graph, given: Sequence[Node], edit: Edit) -> Graph:
    """A function's body with those of its arguments that are constants, or handles of variables, in their places."""
    nodes, weights = dict(body.nodes), dict(body.weights)
    for name, node in zip(body.inputs, given, strict=True):
        if node.op in GIVEN:
            key = node.params["value"] if node.op == "Const" else str(node.config["weight"])
            weights[key] = edit.weights[key]
            nodes[name] = Node(name, node.op, (), node.config, node.params, nodes[name].specs)
    return attrs.evolve(body, nodes=nodes, weights=weights, inputs=tuple(name for name in body.inputs if nodes[name].op == "Input"))


def source_of(ref: Ref, edit: Edit) -> Node:
    """The node that a value comes from, behind those that only hand it on."""
    node = edit.nodes[ref.node]
    while node.op in ("Identity", "tf.Identity"):
        node = edit.nodes[node.inputs[0].node]
    return node
