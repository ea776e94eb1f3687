"""What is known of the values of a GraphDef without running TensorFlow's shape inference, which takes twenty times as long as reading
the file: the number of outputs and their dtypes from the operation's definition, shapes where they follow at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from tensorflow.python.framework import op_def_registry

from tfpasses.frontends.graph_def.attributes import dtype_name, plain
from tfpasses.graph import GraphError, Spec

__all__ = ["output_specs"]

Dims = tuple[int | None, ...] | None
MOST_OUTPUTS = 1 << 16

SAME = (
    *("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Cast", "BiasAdd", "Neg", "Abs", "Square", "Sqrt", "Rsqrt"),
    *("Reciprocal", "Exp", "Log", "Erf", "Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "Softplus", "Softmax"),
)
"""Operations that give their first input's shape."""
BROADCAST = ("Add", "AddV2", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "SquaredDifference")


def output_specs(node: Any, inputs: Sequence[Spec | None], functions: Mapping[str, Any]) -> tuple[Spec, ...] | None:
    """The specs of a NodeDef's outputs, given those of its inputs; None for an operation that this TensorFlow does not know."""
    dtypes = output_dtypes(node, functions)
    if dtypes is None:
        return None
    told = node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else ()
    if len(told) == len(dtypes):
        return tuple(Spec(shape_of(shape), dtype) for shape, dtype in zip(told, dtypes, strict=True))
    if len(dtypes) != 1:
        return tuple([Spec(None, dtype) for dtype in dtypes])
    return (Spec(shape_after(node, inputs), dtypes[0]),)


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


def shape_of(shape: Any) -> Dims:
    """A TensorShapeProto as a tuple."""
    return None if shape.unknown_rank else tuple([None if dim.size < 0 else dim.size for dim in shape.dim])


def shape_after(node: Any, inputs: Sequence[Spec | None]) -> Dims:
    """The shape of a NodeDef's one output, where it follows from its kind."""
    rule = RULES.get(node.op)
    return None if rule is None else rule(node, [spec.shape if spec is not None else None for spec in inputs])


def placeholder(node: Any, _: Sequence[Dims]) -> Dims:
    return plain(node.attr["shape"]) if "shape" in node.attr else None


def constant(node: Any, _: Sequence[Dims]) -> Dims:
    return shape_of(node.attr["value"].tensor.tensor_shape)


def first(_: Any, shapes: Sequence[Dims]) -> Dims:
    return shapes[0] if shapes else None


def broadcast(_: Any, shapes: Sequence[Dims]) -> Dims:
    """NumPy's rule; a dimension beside an unknown one is the other, if that is not 1."""
    if len(shapes) != 2:
        return None
    a, b = shapes
    if a is None or b is None:
        return None
    rank = max(len(a), len(b))
    pairs = zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True)
    return tuple([y if x == 1 else x if y == 1 or x is not None else y for x, y in pairs])


RULES: Mapping[str, Callable[[Any, Sequence[Dims]], Dims]] = {
    "Placeholder": placeholder,
    "Const": constant,
    **dict.fromkeys(SAME, first),
    **dict.fromkeys(BROADCAST, broadcast),
}
