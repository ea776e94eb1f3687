"""Upper limits of activations, in their spellings: a ReLU with a `max_value`, and a Minimum of an activation and a constant."""

from __future__ import annotations

import attrs
import numpy as np

from tfpasses.graph import Array, Edit, Node, Ref

__all__ = ["clipped", "limits_of", "remove_limits", "set_limits"]

ACTIVATIONS = ("Relu", "PRelu", "Identity")


def limits_of(node: Node, edit: Edit) -> Array | None:
    """The upper limits that a node puts on an activation, float64, to be broadcast against its value without the batch; None for a node
    that does something else.
    """
    if node.op == "Relu" and node.config["max_value"] is not None:
        return np.asarray(float(node.config["max_value"]))
    if node.op != "Minimum" or len(node.inputs) != 2:
        return None
    consts = [ref for ref in node.inputs if edit.nodes[ref.node].op == "Const"]
    others = [ref for ref in node.inputs if edit.nodes[ref.node].op in ACTIVATIONS]
    if len(consts) != 1 or len(others) != 1 or edit.spec(others[0]).shape is None:
        return None
    array = np.asarray(edit.weights[edit.nodes[consts[0].node].params["value"]], np.float64)
    rank = len(edit.spec(others[0]).dims)
    if array.ndim == rank and array.shape[0] == 1:
        return np.asarray(array[0])
    return array if array.ndim < rank else None


def clipped(node: Node, edit: Edit) -> Ref:
    """The value that a node puts a limit on."""
    return next(ref for ref in node.inputs if edit.nodes[ref.node].op != "Const")


def set_limits(node: Node, limits: Array, edit: Edit) -> None:
    """Let an activation have other limits, to be broadcast against its value without the batch. Different ones become a Minimum with a
    constant behind a ReLU without a limit.
    """
    spec = node.specs[0]
    stored = limits.astype("float32" if spec.dtype == "bfloat16" else spec.dtype)
    if node.op == "Relu" and stored.size and (stored == stored.flat[0]).all():
        edit.change(node, config={**node.config, "max_value": float(stored.flat[0])})
        return
    if node.op == "Relu":
        node = edit.change(node, config={**node.config, "max_value": None})
        least = edit.add(
            Node(edit.fresh_name(f"{node.name}.limit"), "Minimum", (constant(node, stored, edit), Ref(node.name)), specs=(spec,)), [node]
        )
        edit.redirect(Ref(node.name), Ref(least.name))
        return
    place = next(place for place, ref in enumerate(node.inputs) if edit.nodes[ref.node].op == "Const")
    old = node.inputs[place]
    edit.set_input(node, place, constant(node, stored, edit))
    if not edit.users[old.node]:
        edit.remove(edit.nodes[old.node])


def constant(node: Node, array: Array, edit: Edit) -> Ref:
    """A new constant beside a node."""
    specs = (attrs.evolve(node.specs[0], shape=array.shape),)
    added = edit.add(Node(edit.fresh_name(f"{node.name}.limit.value"), "Const", specs=specs), [node])
    edit.set_params(added, {"value": array})
    return Ref(added.name)


def remove_limits(node: Node, edit: Edit) -> None:
    """Let an activation have no upper limit."""
    if node.op == "Relu":
        edit.change(node, config={**node.config, "max_value": None})
        return
    old = next(ref for ref in node.inputs if edit.nodes[ref.node].op == "Const")
    edit.replace(node, clipped(node, edit))
    if not edit.users[old.node]:
        edit.remove(edit.nodes[old.node])
