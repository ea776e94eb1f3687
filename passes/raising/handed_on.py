"""The shapes of values that nodes only hand on, once functions are inlined: what a branch gives has none as long as it is a branch."""

from __future__ import annotations

from tfpasses.graph import OUTPUT, Edit

__all__ = ["hand_on_shapes"]

HANDS_ON = "tf.Identity"


def hand_on_shapes(edit: Edit) -> None:
    """Let each Identity whose value has no known rank have the shape of what it hands on: what follows is raised where ranks are known."""
    stack = [node.name for node in edit.nodes.values() if node.op == HANDS_ON and node.specs[0].shape is None]
    while stack:
        node = edit.nodes[stack.pop()]
        spec = edit.spec(node.inputs[0])
        if node.specs[0].shape is None and spec.shape is not None and spec.dtype == node.specs[0].dtype:
            edit.put(node.but(specs=(spec,)))
            stack += [user for user, _ in edit.users[node.name] if user != OUTPUT and edit.nodes[user].op == HANDS_ON]
