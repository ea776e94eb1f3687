"""What is known of the values of a GraphDef without running TensorFlow's shape inference, which takes twenty times as long as reading
the file: the number of outputs and their dtypes from the operation's definition, shapes by rules of our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from tfpasses.frontends.graph_def.protos.attributes import Dims, proto_shape
from tfpasses.frontends.graph_def.reading.shapes import MOST_AXES, OF_SHAPES, Values, shape_after
from tfpasses.frontends.graph_def.reading.signatures import output_dtypes, plain_dtypes, signature, signature_of
from tfpasses.graph import Spec

__all__ = ["narrowed", "one_spec", "output_specs"]

MOST_ELEMENTS = 1 << 63
"""No axis is as long."""


def output_specs(node: Any, op: str, known: Sequence[Spec], values: Values, functions: Mapping[str, Any]) -> tuple[Spec, ...] | None:
    """The specs of a NodeDef's outputs, given those of its inputs; None for an operation that this TensorFlow does not know.

    Raises `GraphError` where the NodeDef does not fit the operation's definition.
    """
    attributes = node.attr
    definition = signature_of(op) or (signature(functions[op].signature) if op in functions else None)
    if definition is None:
        return None
    if definition.plain is not None and op in OF_SHAPES and "_output_shapes" not in attributes:
        types = tuple([attributes[name].type if name in attributes else default for name, default in definition.plain])
        told = plain_specs(op, types, tuple(known))
        if told is not None:
            return told
    dtypes = output_dtypes(node, op, attributes, definition, known)
    if not dtypes:
        return ()
    shapes = [spec.shape for spec in known]
    if op == "IdentityN" and len(shapes) == len(dtypes):
        return tuple([one_spec(shape, dtype)[0] for shape, dtype in zip(shapes, dtypes, strict=True)])
    first = shape_after(node, op, shapes, values)
    if "_output_shapes" in attributes:
        said = attributes["_output_shapes"].list.shape
        if len(said) == len(dtypes):
            specs = [one_spec(proto_shape(shape), dtype)[0] for shape, dtype in zip(said, dtypes, strict=True)]
            return (*one_spec(narrowed(first, specs[0].shape), dtypes[0]), *specs[1:])
    return (
        one_spec(first, dtypes[0])
        if len(dtypes) == 1
        else (*one_spec(first, dtypes[0]), *[one_spec(None, dtype)[0] for dtype in dtypes[1:]])
    )


@lru_cache(1 << 12)
def plain_specs(op: str, types: tuple[int, ...], known: tuple[Spec, ...]) -> tuple[Spec, ...] | None:
    """The same for a plain operation of `OF_SHAPES`, from the dtypes that its attributes tell; None where they do not fit."""
    dtypes = plain_dtypes(op, types, tuple([spec.dtype for spec in known]))
    if not dtypes:
        return None
    shape = shape_after(None, op, [spec.shape for spec in known], lambda place: None)
    return (*one_spec(shape, dtypes[0]), *[one_spec(None, dtype)[0] for dtype in dtypes[1:]])


def narrowed(shape: Dims, other: Dims) -> Dims:
    """Two things that are known of one shape together. Where they do not fit, the first holds."""
    if shape is None or other is None or len(shape) != len(other):
        return other if shape is None else shape
    return tuple([b if a is None else a for a, b in zip(shape, other, strict=True)])


def one_spec(shape: Dims, dtype: str) -> tuple[Spec]:
    """The specs of a node with one output. A shape that no tensor can have is an unknown one."""
    return shared_spec(None if shape is not None and len(shape) > MOST_AXES else shape, dtype)


@lru_cache(1 << 12)
def shared_spec(shape: Dims, dtype: str) -> tuple[Spec]:
    """Networks repeat: their values have few specs."""
    can_be = shape is None or all(size is None or 0 <= size < MOST_ELEMENTS for size in shape)
    return (Spec(shape if can_be else None, dtype),)
