"""What is known of the values of a GraphDef without running TensorFlow's shape inference, which takes twenty times as long as reading
the file: the number of outputs and their dtypes from the operation's definition, shapes by rules of our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from tensorflow.python.framework import op_def_registry

from tfpasses.frontends.graph_def.attributes import Dims, dtype_name, proto_shape
from tfpasses.frontends.graph_def.shapes import MOST_AXES, Values, shape_after
from tfpasses.frontends.graph_def.wiring import MOST_OUTPUTS
from tfpasses.graph import GraphError, Spec

__all__ = ["one_spec", "output_specs"]

MOST_ELEMENTS = 1 << 63
"""No axis is as long."""


def output_specs(node: Any, shapes: Sequence[Dims], values: Values, functions: Mapping[str, Any]) -> tuple[Spec, ...] | None:
    """The specs of a NodeDef's outputs, given the shapes of its inputs; None for an operation that this TensorFlow does not know."""
    op, attributes = node.op, node.attr
    outputs = outputs_of(op)
    if outputs is not None:
        dtypes = output_dtypes(node, op, attributes, outputs)
    elif op in functions:
        dtypes = [dtype_name(argument.type) for argument in functions[op].signature.output_arg]
    else:
        return None
    if "_output_shapes" in attributes:
        told = attributes["_output_shapes"].list.shape
        if len(told) == len(dtypes):
            return tuple([one_spec(proto_shape(shape), dtype)[0] for shape, dtype in zip(told, dtypes, strict=True)])
    if not dtypes:
        return ()
    if op == "IdentityN" and len(shapes) == len(dtypes):
        return tuple([one_spec(shape, dtype)[0] for shape, dtype in zip(shapes, dtypes, strict=True)])
    specs = one_spec(shape_after(node, shapes, values), dtypes[0])
    return specs if len(dtypes) == 1 else (*specs, *[one_spec(None, dtype)[0] for dtype in dtypes[1:]])


def one_spec(shape: Dims, dtype: str) -> tuple[Spec]:
    """The specs of a node with one output. A shape that no tensor can have is an unknown one."""
    return shared_spec(None if shape is not None and len(shape) > MOST_AXES else shape, dtype)


@lru_cache(1 << 12)
def shared_spec(shape: Dims, dtype: str) -> tuple[Spec]:
    """Networks repeat: their values have few specs."""
    can_be = shape is None or all(size is None or 0 <= size < MOST_ELEMENTS for size in shape)
    return (Spec(shape if can_be else None, dtype),)


def output_dtypes(node: Any, op: str, attributes: Any, outputs: Sequence[tuple[int, str, str, str]]) -> list[str]:
    """The dtype of each output."""
    dtypes: list[str] = []
    for fixed, type_attr, number_attr, list_attr in outputs:
        if list_attr:
            dtypes += [dtype_name(entry) for entry in attributes[list_attr].list.type] if list_attr in attributes else []
            continue
        told = fixed or (attributes[type_attr].type if type_attr in attributes else default_type(op, type_attr))
        if not number_attr:
            dtypes.append(dtype_name(told))
            continue
        count = attributes[number_attr].i if number_attr in attributes else 0
        if not 0 <= count <= MOST_OUTPUTS:
            raise GraphError(f"node {node.name}: {number_attr}={count} is no number of outputs")
        dtypes += [dtype_name(told)] * count
    return dtypes


@lru_cache(1 << 12)
def outputs_of(op: str) -> list[tuple[int, str, str, str]] | None:
    """(dtype, attribute that tells it, attribute that tells how many, attribute that lists all) an output, from the definition."""
    definition = op_def_registry.get(op)
    if definition is None:
        return None
    return [(argument.type, argument.type_attr, argument.number_attr, argument.type_list_attr) for argument in definition.output_arg]


@lru_cache(1 << 12)
def default_type(op: str, attribute: str) -> int:
    """A dtype that a NodeDef leaves to the definition; 0 where that has none."""
    for entry in op_def_registry.get(op).attr:
        if entry.name == attribute:
            return int(entry.default_value.type)
    return 0
