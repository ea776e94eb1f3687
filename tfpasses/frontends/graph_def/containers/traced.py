"""Concrete functions: what is read of them, and new ones around a GraphDef."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

from tfpasses.frontends.graph_def.containers.custom_gradients import packed
from tfpasses.frontends.graph_def.containers.own_functions import imported, with_own_functions
from tfpasses.frontends.graph_def.protos.node_defs import node_def
from tfpasses.frontends.graph_def.protos.parts import node_of, renamed, with_nodes, without_lost_colocations, without_returns
from tfpasses.frontends.graph_def.read import Variable
from tfpasses.graph import UnsupportedModelError

__all__ = ["Traced", "fresh_name", "new_variables", "public_name", "read_traced", "retraced", "variable_of", "weight_keys"]


@attrs.frozen(eq=False)
class Traced:
    """A concrete function as it was read."""

    function: Any
    """The `ConcreteFunction`."""
    definition: Any
    """The GraphDef of its body, with the constants that it captures as `Const` nodes."""
    inputs: tuple[str, ...]
    """The placeholders of its arguments, in the order of `tf.nest.flatten` with composites expanded."""
    outputs: tuple[str, ...]
    """The values it gives, as `node:0`, in that order."""
    variables: Mapping[str, Any]
    """The `tf.Variable`s that it captures, by their placeholders."""
    kept: Mapping[str, Any]
    """What else it captures that no constant can hold, such as the handles of lookup tables, by their placeholders."""
    constants: Mapping[str, Any]
    """The tensors it captures that are `Const` nodes of the definition, by these."""

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Specs, and values that are no tensors, as a caller passes them: positional, by keyword."""
        positional, keyword = self.function.structured_input_signature
        return positional, keyword

    @property
    def results(self) -> Any:
        """The structure of what it gives, with something in each tensor's place."""
        return self.function.structured_outputs

    @property
    def effects(self) -> tuple[str, ...]:
        """The nodes that are run though no result needs them."""
        return tuple(operation.name for operation in self.function.graph.control_outputs)


def read_traced(function: Any, where: str, keep: Collection[int] = ()) -> Traced:
    """Read a `ConcreteFunction`; neither it nor its variables are changed. `keep` are the `id`s of captured tensors to keep as they are.

    Raises `UnsupportedModelError`, beginning with `where`, for a function that cannot be traced anew.
    """
    graph = function.graph
    if graph.deferred_external_captures:
        raise UnsupportedModelError(f"{where}: it captures values that are looked up as it is called; pass them as arguments")
    if function.structured_input_signature is None:
        raise UnsupportedModelError(f"{where}: it does not tell what arguments it takes; call it in a tf.function of your own")
    if any("VariableSpec" in type(leaf).__name__ for leaf in tf.nest.flatten(function.structured_input_signature)):
        raise UnsupportedModelError(f"{where}: it takes a tf.Variable as an argument; let it read the variable without passing it")
    try:
        watched = {id(variable.handle): variable for variable in graph.variables}
        definition, results = inference_graph(function)
    except AssertionError as error:  # TensorFlow's own word for a variable that has been garbage-collected
        raise UnsupportedModelError(f"{where}: a variable that it reads has been deleted; keep a reference to what holds it") from error
    except ValueError as error:
        raise UnsupportedModelError(f"{where}: its graph cannot be written as a GraphDef ({' '.join(str(error).split())})") from error
    variables: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    constants: dict[str, Any] = {}
    for outer, inner in graph.captures:
        name = inner.op.name
        if tf.is_symbolic_tensor(outer):
            raise UnsupportedModelError(f"{where}: it captures {outer.name} of another graph; pass that as an argument")
        if id(outer) in watched:
            variables[name] = watched[id(outer)]
        elif outer.dtype in (tf.resource, tf.variant) or id(outer) in keep:
            kept[name] = outer
        else:
            constants[name] = outer
    for node in definition.node:
        if node.name in constants:
            node.CopyFrom(constant(node.name, constants[node.name]))
    captured = {inner.op.name for _, inner in graph.captures}
    inputs = tuple(tensor.op.name for tensor in function.inputs if tensor.op.name not in captured)
    return Traced(function, definition, inputs, results, variables, kept, constants)


def inference_graph(function: Any) -> tuple[Any, tuple[str, ...]]:
    """The GraphDef of a function and the values it gives, as it was before TensorFlow differentiated it.

    For its gradients TensorFlow lets the graph give more values, and call functions that do so.
    """
    definition = function.graph.as_graph_def()
    results = [leaf for leaf in tf.nest.flatten(function.structured_outputs, expand_composites=True) if leaf is not None]
    if len(function.outputs) == len(results):
        return definition, tuple(tensor.name for tensor in function.outputs)
    told = function.function_def
    body, values = function_def_to_graph_def(told)
    placeholders = {node.name: node for node in definition.node if node.op == "Placeholder"}
    names = {argument.name: tensor.op.name for argument, tensor in zip(told.signature.input_arg, function.inputs, strict=True)}

    def name(old: str) -> str:
        new: str = names.get(old, old)
        return new

    nodes = [placeholders[names[node.name]] if node.name in names else renamed(node, name) for node in body.node]
    for node in nodes:
        node.input[:] = [text.removesuffix(":0") for text in node.input]
    outputs = [values[told.ret[result.name]] for result in told.signature.output_arg]
    return with_nodes(definition, nodes), tuple(name(node_of(text)) + text[len(node_of(text)) :] for text in outputs)


def constant(name: str, tensor: Any) -> Any:
    """A captured tensor as a NodeDef."""
    proto = tf.make_tensor_proto(tensor.numpy(), tensor.dtype, tensor.shape)
    return node_def(name, "Const", dtype=tensor.dtype.name, value=tf.compat.v1.AttrValue(tensor=proto))


# variables


def variable_of(key: str, value: Any, trainable: bool) -> Variable:
    """A variable with its value, which is made read-only, as TensorFlow gives it: a scalar may be a number or bytes."""
    array = np.asarray(value, object if isinstance(value, str | bytes) else None)
    array.setflags(write=False)
    return Variable(key, array, trainable)


def public_name(variable: Any) -> str:
    """The name that a variable was made with."""
    return str(variable.name).partition(":")[0]


def fresh_name(base: str, taken: Collection[str]) -> str:
    """`base`, or `base_1`, `base_2`, .. : one that is not taken."""
    name, number = base, 0
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    return name


def weight_keys(variables: Mapping[str, Any], nodes: Collection[str]) -> dict[str, str]:
    """A key for each variable, by its placeholder: its name, with a number where another variable, or a node, has that."""
    taken = set(nodes)
    keys: dict[int, str] = {}
    for variable in variables.values():
        if id(variable) not in keys:
            keys[id(variable)] = fresh_name(public_name(variable), taken)
            taken.add(keys[id(variable)])
    return {name: keys[id(variable)] for name, variable in variables.items()}


# and back


def new_variables(written: Mapping[str, Variable], olds: Mapping[str, Any]) -> dict[str, Any]:
    """A new `tf.Variable` for each that a GraphDef reads, by the name of its handle; one for the handles of one variable.

    Named, placed and of the static shape as the one (of `olds`) whose place it takes.
    """
    made: dict[str, Any] = {}
    for name, variable in written.items():
        if variable.name not in made:
            made[variable.name] = new_variable(variable, olds.get(name))
    return {name: made[variable.name] for name, variable in written.items()}


def new_variable(variable: Variable, old: Any | None) -> Any:
    if old is None:
        return tf.Variable(variable.value, trainable=variable.trainable, name=variable.name)
    with tf.device(old.device):
        return tf.Variable(
            variable.value,
            trainable=variable.trainable,
            name=public_name(old),
            dtype=old.dtype,
            shape=old.shape,
            synchronization=old.synchronization,
            aggregation=old.aggregation,
        )


def retraced(
    traced: Traced,
    definition: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
    variables: Mapping[str, Any],
    input_signature: Any = None,
) -> tuple[Any, Any]:
    """A new `tf.function`, and its one `ConcreteFunction`, that takes the arguments of `traced` and gives the results of a GraphDef.

    `inputs` and `outputs` are as those of `traced`, `variables` the new `tf.Variable`s by the placeholders that stand for them; those
    that are read are kept alive by the functions. An `input_signature` must fit the arguments.
    """
    captured = {name: variable.handle for name, variable in variables.items()} | dict(traced.kept) | unchanged_constants(traced, definition)
    nodes = [node for node in definition.node if node.name not in captured and node.name not in inputs]
    nodes, results = without_returns(without_lost_colocations(nodes), outputs)
    texts = {text for node in nodes for text in node.input}
    values = {node_of(text) for text in texts if text[:1] != "^"}
    ends = {node_of(text) for text in results}
    captured = {name: tensor for name, tensor in captured.items() if name in values | ends or f"^{name}" in texts}
    inner = capture_names(captured, nodes)
    watched = [variable for name, variable in variables.items() if name in captured]
    told_results = traced.function.outputs[: len(results)]
    handles = {id(old.handle): variables[name].handle for name, old in traced.variables.items() if name in variables}
    body, functions = with_own_functions(with_nodes(definition, nodes), handles)

    def call(*positional: Any, **keyword: Any) -> Any:
        given = tf.nest.flatten((positional, keyword), expand_composites=True)
        refuse_unfit(given, traced)
        graph = tf.compat.v1.get_default_graph()
        fed = dict(zip(inputs, filter(tf.is_tensor, given), strict=True))
        fed |= {name: graph.capture(tensor, name=inner[name]) for name, tensor in captured.items()}
        for variable in watched:
            graph.watch_variable(variable)
        mapped = {f"{name}:0": tensor for name, tensor in fed.items() if name in values}
        mapped |= {f"^{name}": tensor for name, tensor in fed.items() if f"^{name}" in texts}
        wanted = [text for text in dict.fromkeys(results) if node_of(text) not in fed]
        found = {f"{name}:0": tensor for name, tensor in fed.items()}
        found |= zip(wanted, imported(graph, body, functions, handles, mapped, wanted), strict=True)
        flat = [found[text] for text in results]
        for tensor, told in zip(flat, told_results, strict=True):
            if told.shape.is_compatible_with(tensor.shape):  # what Python code said of it, which a GraphDef does not tell
                tensor.set_shape(told.shape)
        return packed(traced.results, flat)

    attributes = traced.function.function_def.attr
    call.__name__ = re.sub(r"\W", "_", str(traced.function.graph.name))
    call.__signature__ = signature(traced)  # type: ignore[attr-defined]  # where inspect.signature looks
    function = tf.function(
        call,
        input_signature,
        autograph=False,
        jit_compile=True if "_XlaMustCompile" in attributes and attributes["_XlaMustCompile"].b else None,
        experimental_implements=attributes["_implements"].s.decode() if "_implements" in attributes else None,
    )
    positional, keyword = traced.arguments if input_signature is None else ((), {})
    concrete = function.get_concrete_function(*positional, **keyword)
    concrete.graph.variables = watched  # in this order
    concrete.kept_alive = tuple(watched)  # the graph refers to them weakly
    return function, concrete


def unchanged_constants(traced: Traced, definition: Any) -> dict[str, Any]:
    """The constants that the function captured, by their nodes, as far as these are as they were.

    They are captured again: TensorFlow rounds otherwise where it knows what it divides by before it is called.
    """
    before = {node.name: node for node in traced.definition.node if node.name in traced.constants}
    return {node.name: traced.constants[node.name] for node in definition.node if before.get(node.name) == node}


def capture_names(captured: Collection[str], nodes: Sequence[Any]) -> dict[str, str]:
    """What captured tensors are called inside: their placeholders' names, flat, since importing `a` beside `a/b` would rename `a`."""
    taken = {node.name.partition("/")[0] for node in nodes}
    names: dict[str, str] = {}
    for name in captured:
        names[name] = fresh_name(name.replace("/", "_"), taken)
        taken.add(names[name])
    return names


def signature(traced: Traced) -> inspect.Signature:
    """The parameters of a concrete function; those that were bound to what is no tensor, and may be left out, with that for a default."""
    positional, keyword = traced.arguments
    told = list(traced.function.function_type.parameters.values())
    values = [*positional, *(keyword[one.name] for one in told[len(positional) :])]
    parameters: list[inspect.Parameter] = []
    may_have_default = True
    for one, value in zip(reversed(told), reversed(values), strict=True):
        bound = not any(isinstance(leaf, tf.TypeSpec) for leaf in tf.nest.flatten(value))
        by_name_alone = one.kind is inspect.Parameter.KEYWORD_ONLY
        may_have_default = may_have_default and (bound or by_name_alone)
        default = value if bound and (may_have_default or by_name_alone) else inspect.Parameter.empty
        parameters.append(inspect.Parameter(one.name, one.kind, default=default))
    return inspect.Signature(parameters[::-1])


def refuse_unfit(given: Sequence[Any], traced: Traced) -> None:
    """A GraphDef computes what was traced: for other arguments it may be wrong and not say so."""
    wanted = tf.nest.flatten(traced.arguments, expand_composites=True)
    for have, want in zip(given, wanted, strict=True):
        if isinstance(want, tf.TypeSpec):
            fits = tf.is_tensor(have) and tf.TensorSpec(have.shape, have.dtype).is_subtype_of(tf.TensorSpec(want.shape, want.dtype))
        else:
            fits = have is want or have == want
        if not fits:
            raise UnsupportedModelError(f"this function was rewritten for {want}, not for {have}; rewrite one that was traced for that")
