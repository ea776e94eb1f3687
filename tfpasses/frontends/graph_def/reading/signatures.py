"""What operations and functions take and give, from their definitions, and whether a NodeDef fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from tensorflow.python.framework import op_def_registry

from tfpasses.frontends.graph_def.protos.attributes import dtype_name
from tfpasses.frontends.graph_def.reading.wiring import MOST_OUTPUTS, shown
from tfpasses.graph import GraphError, Spec

__all__ = ["Signature", "output_dtypes", "plain_dtypes", "signature", "signature_of"]

FIELDS: Mapping[str, str] = {
    **{"int": "i", "float": "f", "bool": "b", "type": "type", "string": "s", "shape": "shape", "tensor": "tensor", "func": "func"},
    **{f"list({kind})": "list" for kind in ("int", "float", "bool", "type", "string", "shape", "tensor", "func")},
}
"""Kind of an attribute -> where an AttrValue holds such."""


class Argument(NamedTuple):
    """An input, an output, or several of a dtype, or of several."""

    dtype: int
    """0 where an attribute tells it."""
    type_attr: str
    number_attr: str
    list_attr: str

    @property
    def single(self) -> bool:
        """Whether it is one value."""
        return not self.number_attr and not self.list_attr


class Attribute(NamedTuple):
    """An attribute."""

    name: str
    kind: str
    field: str
    needed: bool
    """Whether there is no default."""
    default: int
    """The dtype by default, of one that is a dtype."""
    allowed: frozenset[bytes]
    """Of a text; empty where any is."""


class Signature(NamedTuple):
    """What an operation takes and gives."""

    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    attributes: tuple[Attribute, ...]
    plain: tuple[tuple[str, int], ...] | None = None
    """Its attributes with the dtypes by default, where all are dtypes, and each input and output is one value."""


@lru_cache(1 << 12)
def signature_of(op: str) -> Signature | None:
    """That of an operation; None for one that this TensorFlow does not know."""
    definition = op_def_registry.get(op)
    if definition is None:
        return None
    found = signature(definition)
    plain = all(one.kind == "type" for one in found.attributes) and all(one.single for one in (*found.inputs, *found.outputs))
    return found._replace(plain=tuple([(one.name, one.default) for one in found.attributes])) if plain else found


def signature(definition: Any) -> Signature:
    """From an OpDef."""
    inputs, outputs = (
        tuple([Argument(one.type, one.type_attr, one.number_attr, one.type_list_attr) for one in arguments])
        for arguments in (definition.input_arg, definition.output_arg)
    )
    attributes = [
        Attribute(
            one.name,
            one.type,
            FIELDS.get(one.type, ""),
            not one.HasField("default_value"),
            one.default_value.type,
            frozenset(one.allowed_values.list.s if one.type == "string" else ()),
        )
        for one in definition.attr
    ]
    return Signature(inputs, outputs, tuple(attributes))


def output_dtypes(node: Any, op: str, attributes: Any, signature: Signature, known: Sequence[Spec]) -> Sequence[str]:
    """The dtypes of what a NodeDef gives. `known` are the specs of its inputs.

    Raises `GraphError` where an attribute that the operation needs is missing or of another kind, or where it takes other inputs.
    """
    if signature.plain is not None:
        types = tuple([attributes[name].type if name in attributes else default for name, default in signature.plain])
        given = plain_dtypes(op, types, tuple([spec.dtype for spec in known]))
        if given is not None:
            return given
    told = {one.name: fitting(node, attributes, one) for one in signature.attributes}
    wanted = list(dtypes_of(node, attributes, signature.inputs, told, "inputs"))
    if len(known) != len(wanted):
        raise GraphError(f"node {node.name}: {op} takes {len(wanted)} inputs, not {len(known)}")
    for place, (dtype, spec) in enumerate(zip(wanted, known, strict=True)):
        if dtype != spec.dtype != "unknown":
            raise GraphError(f"node {node.name}: its input {place} is {spec.dtype}, {op} takes {dtype}")
    return list(dtypes_of(node, attributes, signature.outputs, told, "outputs"))


@lru_cache(1 << 12)
def plain_dtypes(op: str, types: tuple[int, ...], inputs: tuple[str, ...]) -> Sequence[str] | None:
    """The same for a plain operation, from the dtypes that its attributes tell and those of its inputs; None where they do not fit."""
    signature = signature_of(op)
    assert signature is not None
    told = {one.name: number for one, number in zip(signature.attributes, types, strict=True)}
    wanted, given = (
        tuple([dtype_name(one.dtype or told[one.type_attr]) for one in arguments]) for arguments in (signature.inputs, signature.outputs)
    )
    fits = len(wanted) == len(inputs) and all(a in (b, "unknown") for a, b in zip(inputs, wanted, strict=True))
    return given if fits and "unknown" not in map(dtype_name, types) else None


def fitting(node: Any, attributes: Any, attribute: Attribute) -> int:
    """The dtype that an attribute tells; 0 of one of another kind. Raises `GraphError` where it is not as the definition says."""
    name, kind, field, needed, default, allowed = attribute
    if name not in attributes:
        if needed:
            raise GraphError(f"node {node.name}: its attribute {name} is missing, which {node.op} needs")
        return default
    value = attributes[name]
    if value.WhichOneof("value") != field or (field == "list" and not is_list(value.list, kind)):
        raise GraphError(f"node {node.name}: its attribute {name} is no {kind}")
    if allowed and value.s not in allowed:
        raise GraphError(f"node {node.name}: its attribute {name} is {shown(str(value.s))}, which {node.op} does not know")
    if kind == "type" and dtype_name(value.type) == "unknown":
        raise GraphError(f"node {node.name}: its attribute {name} is no dtype")
    return int(value.type) if kind == "type" else 0


def is_list(value: Any, kind: str) -> bool:
    """Whether an attribute's list holds what it should, or nothing."""
    return len(getattr(value, FIELDS[kind[5:-1]])) > 0 or not value.ListFields()


def dtypes_of(node: Any, attributes: Any, arguments: Sequence[Argument], types: Mapping[str, int], what: str) -> Iterator[str]:
    """The dtype of each value that the arguments stand for. Raises `GraphError` where they are too many."""
    for dtype, type_attr, number_attr, list_attr in arguments:
        if list_attr:
            yield from map(dtype_name, attributes[list_attr].list.type)
            continue
        count = attributes[number_attr].i if number_attr else 1
        if not 0 <= count <= MOST_OUTPUTS:
            raise GraphError(f"node {node.name}: {number_attr}={count} is no number of {what}")
        yield from [dtype_name(dtype or types[type_attr])] * count
