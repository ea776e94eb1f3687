"""Predicates whose value is known before the graph is run: constants, and the learning phase where it is pinned."""

from __future__ import annotations

from tfpasses.graph import Array, Edit, Node, Ref

__all__ = ["branch_taken", "is_learning_phase", "truth"]

PASSING = ("tf.Identity", "Identity", "tf.StopGradient", "tf.PreventGradient")
LEARNING_PHASES = ("keras_learning_phase", "learning_phase", "is_training", "training")
DEEPEST = 16
"""Of a predicate made of others by and, or, not, so many levels are looked at."""


def truth(ref: Ref, edit: Edit, training: bool | None, depth: int = DEEPEST) -> bool | None:
    """Whether a predicate holds, as TensorFlow takes any value for one; None where that is not known."""
    node = passed(ref, edit)
    array = constant(node, edit)
    if array is not None:  # what is no number holds where it is not empty
        return bool(array.item()) if array.ndim == 0 else bool(array.size)
    if training is not None and is_learning_phase(node):
        return training
    if not depth or not node.op.startswith("tf.Logical"):
        return None
    parts = [truth(part, edit, training, depth - 1) for part in node.inputs]
    if node.op == "tf.LogicalNot":
        return None if parts[0] is None else not parts[0]
    decides = node.op == "tf.LogicalOr"
    if decides in parts:
        return decides
    return None if None in parts else not decides


def branch_taken(ref: Ref, edit: Edit, branches: int) -> int | None:
    """Which of several branches an index takes: the last, where there is none of that number; None where it is not known."""
    array = constant(passed(ref, edit), edit)
    if array is None or array.ndim or array.dtype.kind not in "iu":
        return None
    number = int(array)
    return number if 0 <= number < branches else branches - 1


def is_learning_phase(node: Node) -> bool:
    """Whether a node is the placeholder that says whether the network is being trained."""
    if node.op not in ("tf.PlaceholderWithDefault", "Input") or node.name.rpartition("/")[2] not in LEARNING_PHASES:
        return False
    spec = node.specs[0]
    return spec.dtype == "bool" and not spec.shape


def passed(ref: Ref, edit: Edit) -> Node:
    """The node that a value comes from, past those that hand it on."""
    node = edit.nodes[ref.node]
    while node.op in PASSING:
        node = edit.nodes[node.inputs[0].node]
    return node


def constant(node: Node, edit: Edit) -> Array | None:
    """The value of a constant."""
    return edit.weights[node.params["value"]] if node.op == "Const" else None
