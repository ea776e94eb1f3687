"""How nodes of a GraphDef that have no canonical meaning are run: eagerly, one by one, by TensorFlow's own kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context, execute
from tensorflow.python.framework import op_def_registry

from tfpasses.frontends.evaluator import TensorFlowEvaluator, cannot_compute, eagerly
from tfpasses.frontends.graph_def.protos.attributes import Attributes
from tfpasses.frontends.graph_def.protos.parts import copied, needed, node_of, with_nodes, without_lost_colocations
from tfpasses.frontends.graph_def.read import Source
from tfpasses.frontends.graph_def.reading.loops import LOOP, Loop
from tfpasses.frontends.graph_def.reading.nodes import Variable
from tfpasses.frontends.graph_def.writing.writer import Written, write
from tfpasses.graph import Array, Graph, GraphError, Node

__all__ = ["call_graph", "function_around", "graph_def_evaluator"]

Tensor = Any
NONE: Mapping[str, Variable] = MappingProxyType({})


def graph_def_evaluator(graph: Graph) -> TensorFlowEvaluator:
    """The evaluator for graphs that were read from a GraphDef (and what passes made of them): functions that nodes call are its own."""
    assert isinstance(graph.source, Source)
    library, variables = graph.source.definition.library, graph.source.variables
    imported: dict[str, Any] = {}
    handles: dict[str, Any] = {}

    def run(node: Node, inputs: Sequence[Tensor], params: Sequence[Array]) -> Sequence[Tensor]:
        if node.op == "Variable":
            one = handles.setdefault(node.name, tf.Variable(variables[node.name].value, dtype=variables[node.name].value.dtype))
            return [one.handle if node.specs[0].dtype == "resource" else one.value()]
        if node.op == LOOP:
            if node.name not in imported:
                imported[node.name] = function_of_loop(node, library)
            return list(imported[node.name](*inputs))
        if node.op in SWITCHES:
            return one_way(node, *inputs)
        if node.op in JOINS:
            return what_came(node, inputs)
        definition = definition_of(node)
        if any(value.WhichOneof("value") == "func" or value.list.func for value in definition.attr.values()):
            if node.name not in imported:
                imported[node.name] = function_of(node, definition, library)
            return list(imported[node.name](*inputs))
        try:
            return run_operation(node, definition, inputs)
        except (tf.errors.NotFoundError, tf.errors.UnimplementedError, tf.errors.InvalidArgumentError):  # no kernel in the wider dtype
            types = input_types(definition)
            own = run_operation(node, definition, [tf.cast(x, number) for x, number in zip(inputs, types, strict=True)])
            return [fused_batch_norm(definition, inputs), *own[1:]] if definition.op in FUSED else own

    def wider(node: Node, dtype: str) -> bool:
        return node.op not in ("Variable", LOOP) and (definition_of(node).op in FUSED or takes(definition_of(node).op, dtype))

    return TensorFlowEvaluator(run, wider, JOINS)


SWITCHES = frozenset({"tf.Switch", "tf.RefSwitch", "tf._SwitchN"})
JOINS = frozenset({"tf.Merge", "tf.RefMerge"})


def one_way(node: Node, value: Tensor, predicate: Tensor) -> list[Tensor]:
    """What a Switch gives: the value on one side, None on the others."""
    place = int(predicate)
    taken = place if 0 <= place < len(node.specs) else len(node.specs) - 1
    return [value if index == taken else None for index in range(len(node.specs))]


def what_came(node: Node, values: Sequence[Tensor]) -> list[Tensor]:
    """What a Merge gives. Raises `GraphError` where several of its inputs are there."""
    came = [place for place, value in enumerate(values) if value is not None]
    if len(came) > 1:
        raise GraphError(f"node {node.name}: {len(came)} branches meet in it that read nothing of a Switch; it cannot be run node by node")
    return [values[came[0]], tf.constant(came[0])]


FUSED = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
"""Operations that TensorFlow has in float32 alone, and in half precision."""


def fused_batch_norm(definition: Any, inputs: Sequence[Tensor]) -> Tensor:
    """The first output of one in the precision of its inputs, by another construction."""
    x, scale, offset, mean, variance = inputs
    told = Attributes(definition)
    axis = 1 if told.get("data_format", "NHWC").startswith("NC") else x.shape.rank - 1
    if told.get("is_training", True):
        mean, variance = tf.nn.moments(x, [place for place in range(x.shape.rank) if place != axis])
    shape = [-1 if place == axis else 1 for place in range(x.shape.rank)]
    vectors = [tf.reshape(vector, shape) for vector in (mean, variance, offset, scale)]
    return tf.nn.batch_normalization(x, *vectors, told.get("epsilon", DEFAULT_EPSILON))


DEFAULT_EPSILON = 1e-4


def definition_of(node: Node) -> Any:
    """The NodeDef of a node that is as it was read."""
    if not isinstance(node.config, Attributes):
        raise GraphError(f"node {node.name}: {node.op} has no NodeDef and no lowering, so it cannot be run")
    return node.config.of


def run_operation(node: Node, definition: Any, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """The outputs of one operation, in the precision of its inputs."""
    known = op_def_registry.get(definition.op)
    if known is None:
        raise GraphError(f"node {node.name}: this TensorFlow knows no operation {definition.op}")
    given = types_given(known, definition, inputs)
    attributes: list[Any] = []
    for attribute in known.attr:
        told = attribute.name in definition.attr  # a protocol buffer's map makes what it is asked for
        value = definition.attr[attribute.name] if told else attribute.default_value
        attributes += [attribute.name, given.get(attribute.name, plain(value))]
    return list(execute.quick_execute(definition.op.encode(), len(node.specs), list(inputs), tuple(attributes), context.context()))


def types_given(known: Any, definition: Any, inputs: Sequence[Tensor]) -> dict[str, Any]:
    """The attributes that tell dtypes, as the inputs have them."""
    types: dict[str, Any] = {}
    place = 0
    for argument in known.input_arg:
        if argument.type_list_attr:
            count = len(definition.attr[argument.type_list_attr].list.type)
            types[argument.type_list_attr] = [tensor.dtype.as_datatype_enum for tensor in inputs[place : place + count]]
        else:
            count = definition.attr[argument.number_attr].i if argument.number_attr else 1
            if argument.type_attr and place < len(inputs):
                types[argument.type_attr] = inputs[place].dtype.as_datatype_enum
        place += count
    return types


@cache
def takes(op: str, dtype: str) -> bool:
    """Whether an operation's definition allows a dtype wherever it leaves a floating-point one open."""
    known = op_def_registry.get(op)
    number = tf.as_dtype(dtype).as_datatype_enum
    types = [attribute for attribute in known.attr if attribute.type == "type"] if known is not None else []
    fed = {argument.type_attr for argument in known.input_arg} if known is not None else set()
    open_ones = [attribute for attribute in types if attribute.name in fed]
    # lists of dtypes are those of functions that are called, in their own precision
    fixed = known is not None and any(argument.type in FLOATS or argument.type_list_attr for argument in known.input_arg)
    # and so are those of a list of tensors, which a loop goes through in its own precision
    fixed = fixed or (known is not None and any(argument.type == LISTS for argument in known.output_arg))
    return (
        bool(open_ones)
        and not fixed
        and all(
            not attribute.allowed_values.list.type or number in attribute.allowed_values.list.type
            for attribute in open_ones
            if not attribute.allowed_values.list.type or FLOATS & set(attribute.allowed_values.list.type)
        )
    )


LISTS = tf.variant.as_datatype_enum
FLOATS = frozenset(tf.as_dtype(name).as_datatype_enum for name in ("float16", "bfloat16", "float32", "float64"))


def plain(value: Any) -> Any:
    """An AttrValue as the eager runtime takes it."""
    kind = value.WhichOneof("value")
    if kind == "list":
        return [shape_of(entry) if field.name == "shape" else entry for field, entries in value.list.ListFields() for entry in entries]
    if kind == "shape":
        return shape_of(value.shape)
    return None if kind is None else getattr(value, kind)


def shape_of(proto: Any) -> Any:
    return None if proto.unknown_rank else [dim.size for dim in proto.dim]


def function_of(node: Node, definition: Any, library: Any) -> Any:
    """A node that calls functions, as a TensorFlow function of its inputs."""
    graph_def = tf.compat.v1.GraphDef(library=library)
    alone = graph_def.node.add()
    alone.CopyFrom(definition)
    names = [f"input_{index}" for index in range(len(node.inputs))]
    del alone.input[:]
    alone.input.extend(names)
    types = [argument_type for argument_type in input_types(definition)]
    for name, number in zip(names, types, strict=True):
        one = graph_def.node.add(name=name, op="Placeholder")
        one.attr["dtype"].type = number
    return run_function(graph_def, [f"{name}:0" for name in names], [f"{node.name}:{index}" for index in range(len(node.specs))])


def function_of_loop(node: Node, library: Any) -> Any:
    """A loop as a TensorFlow function of its inputs."""
    loop = None if node.owner is None else node.owner.source
    if not isinstance(loop, Loop):
        raise GraphError(f"node {node.name}: {node.op} is not as it was read, so it cannot be run")
    names = {ref: f"{node.name}/input_{index}" for index, ref in enumerate(loop.inputs)}
    types: dict[str, int] = {}
    nodes = []
    for one in loop.nodes.values():
        alone = copied(one)
        alone.input[:] = [text for text in one.input if text[:1] != "^" or text[1:] in loop.nodes]
        for place, ref in enumerate(loop.refs[one.name]):
            if ref in names:
                alone.input[place] = names[ref]
                types[names[ref]] = input_types(one)[place]
        nodes.append(alone)
    graph_def = with_nodes(tf.compat.v1.GraphDef(library=library), without_lost_colocations(nodes))
    for name, number in types.items():
        graph_def.node.add(name=name, op="Placeholder").attr["dtype"].type = number
    return run_function(graph_def, [f"{name}:0" for name in names.values()], [f"{name}:0" for name in loop.exits])


def input_types(definition: Any) -> list[int]:
    """The dtypes of a NodeDef's inputs, by its operation's definition."""
    types: list[int] = []
    for argument in op_def_registry.get(definition.op).input_arg:
        if argument.type_list_attr:
            types += definition.attr[argument.type_list_attr].list.type
        else:
            count = definition.attr[argument.number_attr].i if argument.number_attr else 1
            types += [argument.type or definition.attr[argument.type_attr].type] * count
    return types


def run_function(definition: Any, inputs: Sequence[str], outputs: Sequence[str], variables: Mapping[str, Variable] = NONE) -> Any:
    """A ConcreteFunction from some placeholders of a GraphDef to some of its values; `variables` by the names of their handles."""
    known = {name: tf.Variable(variable.value) for name, variable in variables.items()}
    references = {node.name for node in definition.node if node.op in ("Variable", "VariableV2")}
    own = needed(definition.node, map(node_of, (*inputs, *outputs)))
    definition = with_nodes(definition, without_lost_colocations(node for node in own if node.name not in known))

    def imported() -> None:
        capture = tf.compat.v1.get_default_graph().capture
        read = {node_of(text) for node in definition.node for text in node.input}
        read |= set(map(node_of, outputs))
        fed = {f"{name}:0": one.value() if name in references else capture(one.handle) for name, one in known.items() if name in read}
        tf.graph_util.import_graph_def(definition, input_map=fed, name="")

    wrapped = tf.compat.v1.wrap_function(imported, [])
    graph = wrapped.graph
    return wrapped.prune([graph.get_tensor_by_name(name) for name in inputs], [graph.get_tensor_by_name(name) for name in outputs])


def function_around(written: Written) -> Any:
    """A ConcreteFunction of what was written, on new variables."""
    return run_function(written.definition, [f"{name}:0" for name in written.inputs], written.outputs, written.variables)


@eagerly
def call_graph(graph: Graph, values: Sequence[Array]) -> list[Array]:
    """The flat outputs of the GraphDef that a graph is written as, called by TensorFlow as a whole on one array an input.

    Raises `GraphError` where TensorFlow cannot run it on these.
    """
    written = write(graph)
    try:
        function = function_around(written)
        fed = [tf.convert_to_tensor(value, graph.nodes[name].specs[0].dtype) for name, value in zip(graph.inputs, values, strict=True)]
        return [np.asarray(value.numpy()) for value in function(*fed)]
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise cannot_compute(f"graph {graph.name}", error) from error
