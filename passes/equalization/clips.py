"""Upper limits of activations, in their spellings: a ReLU with a `max_value`, and a Minimum with a constant, behind an activation or
before it.
"""

from __future__ import annotations

import numpy as np

from tfpasses.graph import OUTPUT, Array, Edit, Graph, Node, Ref, has_trait
from tfpasses.passes.equalization.constants import add_constant, constant_value, in_dtype, is_number

__all__ = ["clipped", "is_rectified", "limits_of", "remove_limits", "set_limits"]

ACTIVATIONS = ("Relu", "PRelu")


def limits_of(node: Node, graph: Graph | Edit) -> Array | None:
    """The upper limits that a node puts on an activation, float64, to be broadcast against its value without the batch; None for a node
    that does something else.
    """
    if node.op == "Relu" and node.config["max_value"] is not None:
        return np.asarray(float(node.config["max_value"]))
    if node.op != "Minimum" or len(node.inputs) != 2:
        return None
    consts = [ref for ref in node.inputs if graph.nodes[ref.node].op == "Const"]
    others = [ref for ref in node.inputs if graph.nodes[ref.node].op != "Const"]
    if len(consts) != 1 or len(others) != 1 or not is_number(graph.nodes[consts[0].node]):
        return None
    shape = graph.spec(others[0]).shape
    if shape is None or graph.spec(others[0]) != graph.spec(Ref(node.name)):
        return None
    limits = constant_value(graph.nodes[consts[0].node], graph)
    if not is_activation(others[0], graph) and not (meets_activations(node, graph) and (limits > 0).all()):
        return None
    if limits.ndim == len(shape) and limits.shape[0] == 1:
        return np.asarray(limits[0])
    return limits if limits.ndim < len(shape) else None


def is_activation(ref: Ref, graph: Graph | Edit) -> bool:
    """Whether a value is that of a ReLU of some kind, a Maximum with 0 among them."""
    node = graph.nodes[ref.node]
    while has_trait(node, "inference_identity"):
        node = graph.nodes[node.inputs[0].node]
    return node.op in ACTIVATIONS or is_rectified(node, graph)


def meets_activations(node: Node, graph: Graph | Edit) -> bool:
    """Whether all that reads a value are ReLUs of some kind, which give on a number above 0 as it is: max(0, min(x, 6))."""
    stack, found = [node.name], False
    while stack:
        for user, _ in graph.users[stack.pop()]:
            other = graph.nodes[user] if user != OUTPUT else None
            if other is not None and has_trait(other, "inference_identity"):
                stack.append(user)
            elif other is None or not (other.op == "PRelu" or is_rectified(other, graph) or is_relu(other)):
                return False
            else:
                found = True
    return found


def is_relu(node: Node) -> bool:
    """Whether a node is a ReLU of whatever slope, without a threshold."""
    return node.op == "Relu" and node.config["threshold"] == 0


def is_rectified(node: Node, graph: Graph | Edit) -> bool:
    """Whether a node is the larger of a value and 0."""
    consts = [graph.nodes[ref.node] for ref in node.inputs if graph.nodes[ref.node].op == "Const"]
    if node.op != "Maximum" or len(node.inputs) != 2 or len(consts) != 1 or not is_number(consts[0]):
        return False
    return not constant_value(consts[0], graph).any()


def clipped(node: Node, graph: Graph | Edit) -> Ref:
    """The value that a node puts a limit on."""
    return next(ref for ref in node.inputs if graph.nodes[ref.node].op != "Const")


def set_limits(node: Node, limits: Array, edit: Edit) -> None:
    """Let an activation have other limits, to be broadcast against its value without the batch. Different ones become a Minimum with a
    constant behind a ReLU without a limit.
    """
    spec = node.specs[0]
    if node.op == "Relu" and limits.size and (in_dtype(limits, spec.dtype) == in_dtype(limits.flat[0], spec.dtype)).all():
        edit.change(node, config={**node.config, "max_value": float(in_dtype(limits.flat[0], spec.dtype))})
        return
    if node.op == "Relu":
        node = edit.change(node, config={**node.config, "max_value": None})
        held = add_constant(f"{node.name}.limit.value", limits, spec, [node], edit)
        least = edit.add(Node(edit.fresh_name(f"{node.name}.limit"), "Minimum", (held, Ref(node.name)), specs=(spec,)), [node])
        edit.redirect(Ref(node.name), Ref(least.name))
        return
    place = next(place for place, ref in enumerate(node.inputs) if edit.nodes[ref.node].op == "Const")
    old = node.inputs[place]
    edit.set_input(node, place, add_constant(f"{node.name}.value", limits, spec, [node], edit))
    if not edit.users[old.node]:
        edit.remove(edit.nodes[old.node])


def remove_limits(node: Node, edit: Edit) -> None:
    """Let an activation have no upper limit."""
    if node.op == "Relu":
        edit.change(node, config={**node.config, "max_value": None})
        return
    old = next(ref for ref in node.inputs if edit.nodes[ref.node].op == "Const")
    edit.replace(node, clipped(node, edit))
    if not edit.users[old.node]:
        edit.remove(edit.nodes[old.node])
