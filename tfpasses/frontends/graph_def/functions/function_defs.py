"""A FunctionDef in the form of a GraphDef: its arguments are placeholders, what its nodes read is `node:1` instead of `node:output:0`,
and attributes that it leaves to its caller have values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any

import attrs
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from tfpasses.frontends.graph_def.protos.attributes import Dims, dtype_name, proto_shape
from tfpasses.frontends.graph_def.protos.parts import value_name
from tfpasses.frontends.graph_def.reading.wiring import MOST_OUTPUTS, by_name, check_name, shown
from tfpasses.graph import GraphError, Ref

__all__ = ["Argument", "Flat", "flatten", "functions_in", "op_def", "open_names"]

Attribute = Callable[[str], Any]
"""The AttrValue of a name. Raises `GraphError` where there is none."""


@attrs.frozen
class Argument:
    """One value that a function takes."""

    name: str
    """Of the placeholder that stands for it."""
    dtype: str
    shape: Dims
    """As far as the FunctionDef tells it."""


@attrs.frozen(eq=False)
class Flat:
    """A FunctionDef in the form of a GraphDef, under its own names. Its NodeDefs are copies."""

    arguments: tuple[Argument, ...]
    nodes: tuple[Any, ...]
    """Without the placeholders."""
    results: tuple[Ref, ...]
    result_names: tuple[str, ...]
    """Names that no node has, for the values it gives."""
    result_dtypes: tuple[str, ...]
    last: tuple[str, ...]
    """The nodes that it must have run by its end."""


def flatten(definition: Any, given: Mapping[str, Any], op_def_of: Callable[[str], Any]) -> Flat:
    """Flatten a FunctionDef. `given` are the attributes of the call, `op_def_of` gives an operation's definition, or None.

    Raises `GraphError`, one line without the function's name, where the FunctionDef is malformed, where an operation is unknown whose
    outputs would have to be counted, or where the call lacks an attribute.
    """
    signature = definition.signature
    own = partial(attribute_of, given, {entry.name: entry for entry in signature.attr}, "the call")
    taken = by_name(definition.node_def)
    names = set(taken)
    arguments: list[Argument] = []
    places: dict[str, list[Ref]] = {}
    for place, argument in enumerate(signature.input_arg):
        check_name(argument.name, f"argument {place}")
        if argument.name in names or argument.name in places:
            raise GraphError(f"two of its arguments and nodes are named {argument.name}")
        dtypes = known_dtypes(argument, own)
        attributes = definition.arg_attr[place].attr if place in definition.arg_attr else {}
        shapes = attributes["_output_shapes"].list.shape if "_output_shapes" in attributes else ()
        told = [proto_shape(shape) for shape in shapes] if len(shapes) == len(dtypes) else [None] * len(dtypes)
        single = len(dtypes) == 1 and not argument.type_list_attr and not argument.number_attr
        places[argument.name] = []
        for number, (dtype, shape) in enumerate(zip(dtypes, told, strict=True)):
            name = argument.name if single else fresh(f"{argument.name}_{number}", names)
            names.add(name)
            arguments.append(Argument(name, dtype, shape))
            places[argument.name].append(Ref(name))
    outputs = Outputs(taken, given, op_def_of)
    nodes = tuple([flat_node(one, given, places, outputs) for one in definition.node_def])
    results: list[Ref] = []
    result_names: list[str] = []
    result_dtypes: list[str] = []
    for argument in signature.output_arg:
        check_name(argument.name, "a result")
        if argument.name not in definition.ret:
            raise GraphError(f"nothing is said to be its result {argument.name}")
        refs = resolve(f"result {argument.name}", definition.ret[argument.name], places, outputs)
        dtypes = known_dtypes(argument, own)
        if len(refs) != len(dtypes):
            raise GraphError(f"its result {argument.name} is {len(refs)} values, not {len(dtypes)}")
        result_dtypes += dtypes
        for ref in refs:
            results.append(ref)
            result_names.append(fresh(argument.name, names))
            names.add(result_names[-1])
    last = tuple(dict.fromkeys(definition.control_ret.values()))
    for name in last:
        if name not in taken:
            raise GraphError(f"{name}, which it must have run, does not exist")
    return Flat(tuple(arguments), nodes, tuple(results), tuple(result_names), tuple(result_dtypes), last)


def fresh(base: str, names: set[str]) -> str:
    """A name that is not among these."""
    name, number = base, 0
    while name in names:
        number += 1
        name = f"{base}_{number}"
    return name


# inputs


class Outputs:
    """Where each named output of a function's nodes begins among its values."""

    def __init__(self, nodes: Mapping[str, Any], given: Mapping[str, Any], op_def_of: Callable[[str], Any]) -> None:
        self.nodes = nodes
        self.given = given
        self.op_def_of = op_def_of
        self.of_op: dict[str, Mapping[str, tuple[int, int]]] = {}
        self.of_node: dict[str, Mapping[str, tuple[int, int]]] = {}

    def of(self, name: str) -> Mapping[str, tuple[int, int]]:
        """Output -> (the first of its values, how many it has)."""
        node = self.nodes[name]
        known = self.of_op.get(node.op) or self.of_node.get(name)
        if known is not None:
            return known
        definition = self.op_def_of(node.op)
        if definition is None:
            raise GraphError(f"node {name}: TensorFlow has no operation {shown(node.op)}, so that its outputs cannot be counted")
        attributes = {key: bind(value, self.given) for key, value in node.attr.items()}
        attribute = partial(attribute_of, attributes, {entry.name: entry for entry in definition.attr}, f"node {name}")
        found: dict[str, tuple[int, int]] = {}
        begin = 0
        for argument in definition.output_arg:
            many = count(argument, attribute)
            found[argument.name] = (begin, many)
            begin += many
        if any(argument.number_attr or argument.type_list_attr for argument in definition.output_arg):
            self.of_node[name] = found
        else:
            self.of_op[node.op] = found
        return found


MOST_DIGITS = 9


def resolve(user: str, text: str, places: Mapping[str, list[Ref]], outputs: Outputs) -> list[Ref]:
    """The values that `argument`, `argument:0`, `node:output` or `node:output:0` names: one, or all of a list."""
    name, *parts = text.split(":")
    if name in places:
        values, rest = places[name], parts
    elif name in outputs.nodes and parts:
        begin, many = outputs.of(name).get(parts[0], (0, -1))
        values, rest = [Ref(name, begin + place) for place in range(many)], parts[1:]
        if many < 0:
            raise GraphError(f"{user}: its input {shown(text)} does not exist")
    else:
        raise GraphError(f"{user}: its input {shown(text)} does not exist")
    if not rest:
        return values
    if len(rest) > 1 or not rest[0].isdecimal() or len(rest[0]) > MOST_DIGITS or int(rest[0]) >= len(values):
        raise GraphError(f"{user}: its input {shown(text)} does not exist")
    return [values[int(rest[0])]]


def flat_node(one: Any, given: Mapping[str, Any], places: Mapping[str, list[Ref]], outputs: Outputs) -> Any:
    """A copy of a function's node, reading `node:1`; `^argument` waits for all of a list."""
    new = type(one)()
    new.CopyFrom(one)
    for key in [key for key, value in one.attr.items() if is_open(value)]:
        new.attr[key].CopyFrom(bind(one.attr[key], given))
    texts: list[str] = []
    control: list[str] = []
    for text in one.input:
        if text[:1] != "^":
            texts += map(value_name, resolve(f"node {one.name}", text, places, outputs))
        elif text[1:] in outputs.nodes:
            control.append(text)
        elif text[1:] in places:
            control += [f"^{ref.node}" for ref in places[text[1:]]]
        else:
            raise GraphError(f"node {one.name}: its control input {shown(text)} does not exist")
        if len(texts) > MOST_OUTPUTS:
            raise GraphError(f"node {one.name}: reads more than {MOST_OUTPUTS} values")
    del new.input[:]
    new.input.extend([*texts, *dict.fromkeys(control)])
    return new


# attributes


@cache
def op_def(op: str) -> Any:
    """TensorFlow's definition of an operation, or None."""
    return op_def_registry.get(op)


def attribute_of(attributes: Mapping[str, Any], definitions: Mapping[str, Any], where: str, key: str) -> Any:
    """An attribute as it is given, or as the definition has it by default."""
    if key in attributes:
        return attributes[key]
    if key in definitions and definitions[key].HasField("default_value"):
        return definitions[key].default_value
    raise GraphError(f"{where} does not say what the attribute {key} is")


def count(argument: Any, attribute: Attribute) -> int:
    """How many values an ArgDef stands for."""
    if argument.type_list_attr:
        return len(attribute(argument.type_list_attr).list.type)
    many = attribute(argument.number_attr).i if argument.number_attr else 1
    if not 0 <= many <= MOST_OUTPUTS:
        raise GraphError(f"{argument.number_attr}={many} is no number of values")
    return int(many)


def known_dtypes(argument: Any, attribute: Attribute) -> list[str]:
    """The dtype of each value that an argument or result of a function stands for."""
    if argument.type_list_attr:
        dtypes = [dtype_name(number) for number in attribute(argument.type_list_attr).list.type]
    else:
        number = attribute(argument.type_attr).type if argument.type_attr else argument.type
        dtypes = [dtype_name(number)] * count(argument, attribute)
    if "unknown" in dtypes:
        raise GraphError(f"{argument.name} is of no known dtype")
    return dtypes


def is_open(value: Any) -> bool:
    """Whether an AttrValue is left to the caller, in part or as a whole."""
    kind = value.WhichOneof("value")
    return kind == "placeholder" or any(is_open(inner) for function in functions_in(value) for inner in function.attr.values())


def open_names(definition: Any) -> frozenset[str]:
    """The attributes that a FunctionDef leaves to the call, or may leave to it."""
    names = {entry.name for entry in definition.signature.attr}
    stack = [value for one in definition.node_def for value in one.attr.values()]
    while stack:
        value = stack.pop()
        if value.WhichOneof("value") == "placeholder":
            names.add(value.placeholder)
        stack += [inner for function in functions_in(value) for inner in function.attr.values()]
    return frozenset(names)


def bind(value: Any, given: Mapping[str, Any]) -> Any:
    """An AttrValue with what is left to the caller as the caller gave it."""
    if not is_open(value):
        return value
    if value.WhichOneof("value") == "placeholder":
        if value.placeholder not in given:
            raise GraphError(f"the call does not say what the attribute {value.placeholder} is")
        return given[value.placeholder]
    new = tf.compat.v1.AttrValue()
    new.CopyFrom(value)
    for function in functions_in(new):
        for key, inner in list(function.attr.items()):
            function.attr[key].CopyFrom(bind(inner, given))
    return new


def functions_in(value: Any) -> Iterable[Any]:
    """The functions that an AttrValue names."""
    kind = value.WhichOneof("value")
    return (value.func,) if kind == "func" else value.list.func if kind == "list" else ()
