"""Constants in a graph: what their nodes say, and new ones."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import ml_dtypes
import numpy as np

from tfpasses.graph import Array, Edit, Graph, Node, Ref, Spec

__all__ = ["add_constant", "constant_value", "in_dtype", "is_number", "takes_any_dtype"]

NAMED = {"bfloat16": np.dtype(ml_dtypes.bfloat16)}
"""What NumPy itself does not know."""


def constant_value(node: Node, graph: Graph | Edit) -> Array:
    """What a `Const` node holds, float64, in the shape of its value: the array may be stored in another."""
    array = np.asarray(graph.weights[node.params["value"]], np.float64)
    shape = node.specs[0].shape
    return array if shape is None or None in shape else array.reshape([size or 0 for size in shape])


def takes_any_dtype(node: Node) -> bool:
    """Whether a node is a number of Python's, which computes in the dtype of what it meets."""
    return node.op == "Const" and bool(node.config.get("python"))


def is_number(node: Node) -> bool:
    """Whether a `Const` node holds numbers, at least one, of known sizes. What meets floats may be whole numbers."""
    (spec,) = node.specs
    known = spec.shape is not None and not {None, 0} & set(spec.shape)
    return known and ("float" in spec.dtype or "int" in spec.dtype or takes_any_dtype(node))


def in_dtype(values: Array, dtype: str) -> Array:
    """Float64 numbers rounded to the dtype of a value; infinite where they are beyond its range."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float64).astype(NAMED.get(dtype, dtype))


def add_constant(name: str, values: Array, spec: Spec, origin: Sequence[Node], edit: Edit) -> Ref:
    """A new constant, in the dtype of a value that it is to meet."""
    array = in_dtype(values, spec.dtype)
    node = edit.add(Node(edit.fresh_name(name), "Const", specs=(attrs.evolve(spec, shape=array.shape),)), origin)
    edit.set_params(node, {"value": array})
    return Ref(node.name)
