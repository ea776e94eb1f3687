"""What is known of the values of a GraphDef without running TensorFlow's shape inference, which takes twenty times as long as reading
the file: the number of outputs and their dtypes from the operation's definition, shapes by rules of our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from tensorflow.python.framework import op_def_registry

from tfpasses.frontends.graph_def.attributes import dtype_name, proto_shape
from tfpasses.frontends.graph_def.shapes import Values, shape_after
from tfpasses.graph import GraphError, Spec

__all__ = ["output_specs"]

MOST_OUTPUTS = 1 << 16


def output_specs(node: Any, inputs: Sequence[Spec], values: Values, functions: Mapping[str, Any]) -> tuple[Spec, ...] | None:
    """The specs of a NodeDef's outputs, given those of its inputs; None for an operation that this TensorFlow does not know."""
    dtypes = output_dtypes(node, functions)
    if dtypes is None:
        return None
    told = node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else ()
    if len(told) == len(dtypes):
        return tuple(Spec(proto_shape(shape), dtype) for shape, dtype in zip(told, dtypes, strict=True))
    shape = shape_after(node, [spec.shape for spec in inputs], values) if dtypes else None
    return tuple([Spec(shape if index == 0 else None, dtype) for index, dtype in enumerate(dtypes)])


def output_dtypes(node: Any, functions: Mapping[str, Any]) -> list[str] | None:
    """The dtype of each output."""
    outputs = outputs_of(node.op)
    if outputs is None:
        called = functions.get(node.op)
        if called is None:
            return None
        outputs = [(argument.type, "", "", "") for argument in called.signature.output_arg]
    dtypes: list[str] = []
    for fixed, type_attr, number_attr, list_attr in outputs:
        if list_attr:
            dtypes += [dtype_name(entry) for entry in node.attr[list_attr].list.type] if list_attr in node.attr else []
            continue
        told = node.attr[type_attr].type if type_attr in node.attr else default_type(node.op, type_attr) if type_attr else 0
        count = 1
        if number_attr:
            count = node.attr[number_attr].i if number_attr in node.attr else 0
            if not 0 <= count <= MOST_OUTPUTS:
                raise GraphError(f"node {node.name}: {number_attr}={count} is no number of outputs")
        dtypes += [dtype_name(fixed or told)] * count
    return dtypes


@cache
def outputs_of(op: str) -> list[tuple[int, str, str, str]] | None:
    """(dtype, attribute that tells it, attribute that tells how many, attribute that lists all) an output, from the definition."""
    definition = op_def_registry.get(op)
    if definition is None:
        return None
    return [(argument.type, argument.type_attr, argument.number_attr, argument.type_list_attr) for argument in definition.output_arg]


@cache
def default_type(op: str, attribute: str) -> int:
    """A dtype that a NodeDef leaves to the definition; 0 where that has none."""
    for entry in op_def_registry.get(op).attr:
        if entry.name == attribute:
            return int(entry.default_value.type)
    return 0
