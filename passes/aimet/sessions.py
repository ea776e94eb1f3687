"""Sessions of TensorFlow 1 as graphs, and which operation of a session stands for which node."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np

from tfpasses.graph import OUTPUT, Edit, Graph, LinearView, Node, TfpassesError, View, has_trait
from tfpasses.manager import Pipeline, run_passes

__all__ = [
    "INFERENCE",
    "bias_of",
    "last_of",
    "linear_node",
    "linear_operation",
    "load",
    "new_session",
    "norm_node",
    "norm_operation",
    "read",
    "read_around",
    "read_elsewhere",
    "sources",
    "stored",
    "with_biases",
]

INFERENCE = "canonicalize{training=false}"
"""What stands first in the pipelines: batch norms of Keras lie in branches over the learning phase."""
Names = str | Sequence[str]
LINEAR = frozenset(
    {
        "tf.Conv2D",
        "tf.Conv3D",
        "tf.DepthwiseConv2dNative",
        "tf.Conv2DBackpropInput",
        "tf.Conv3DBackpropInputV2",
        "tf.MatMul",
        "tf.BatchMatMulV2",
    }
)
"""The operations that multiply with a kernel."""
LINEAR_TYPES = frozenset(name.removeprefix("tf.") for name in LINEAR)


def read(session: Any, input_op_names: Names, output_op_names: Names, pipeline: str = INFERENCE) -> Graph:
    """The graph of a session between operations of these names, raised for inference.

    Raises `TfpassesError`, one line, where there are no such, or the session cannot be read.
    """
    from tfpasses.frontends.graph_def import from_session

    inputs, outputs = ([names] if isinstance(names, str) else list(names or ()) for names in (input_op_names, output_op_names))
    return run_passes(from_session(session, inputs, outputs), Pipeline.of(pipeline))


def read_around(session: Any, operations: Iterable[Any], pipeline: str = "canonicalize") -> Graph:
    """The graph of a session as far as some operations of these names need it, and others that multiply with the same variables, raised;
    all that else reads their values is in it.

    Raises `ValueError` where it has no such operations.
    """
    from tfpasses.frontends.graph_def import from_session

    given = [operation_of(one, session) for one in operations]
    lasts = [last_of(one) for one in dict.fromkeys([*given, *sharing(given)])]
    before = above(lasts)
    ends = dict.fromkeys(one.name for one in lasts if one.name not in before)
    return run_passes(from_session(session, None, list(ends)), Pipeline.of(pipeline))


READS = ("tf.ReadVariableOp", "tf.Identity", "Identity", "Const")
"""What gives the value of a variable on."""
UPKEEP = re.compile(r"tf\.(Assign|(Resource)?(Sparse)?Apply|Save|VarIsInit|IsVariableInit|VariableShape|DestroyResource)")
"""How the operations begin that initialize, train and save variables."""


def read_elsewhere(sets: Iterable[Sequence[str]], graph: Graph) -> Iterator[str]:
    """For each set of linear nodes, which operation computes with a variable that is scaled with it, and is no linear node itself; or
    nothing.

    The graph is one that `read_around` gave: all of the session is in it, raised as far as it is on the way to the set.
    """
    places = {node.config["weight"]: node.name for node in graph.nodes.values() if node.op == "Variable"}
    found = dict.fromkeys(places, "")
    for key, variable in places.items():
        stack = [variable]
        while stack:
            for user, _ in graph.users[stack.pop()]:
                op = graph.nodes[user].op if user != OUTPUT else ""
                if op in READS:
                    stack.append(user)
                elif op and not UPKEEP.match(op):
                    found[key] = f"{user} ({op.removeprefix('tf.')}) computes with {key}, too"
    for names in sets:
        keys = [key for name in names for slot, key in graph.nodes[name].params.items() if slot != "bias" or name != names[-1]]
        yield next(filter(None, [found.get(key, "") for key in keys]), "")


def operation_of(operation: Any, session: Any) -> Any:
    """The operation of the same name in a session. Raises `ValueError` where there is none, or it is no operation."""
    name = getattr(operation, "name", None)
    try:
        return session.graph.get_operation_by_name(name)
    except (KeyError, ValueError, TypeError):
        raise ValueError(f"{name or repr(operation)} is no operation of the session's graph") from None


ADDITIONS = ("AddV2", "Add")
STORED = ("Const", "VarHandleOp", "Variable", "VariableV2")


def last_of(operation: Any) -> Any:
    """The addition of a bias behind an operation, also where what it gives is moved in between; without one, what is last of the layer."""
    if operation.type not in LINEAR_TYPES:
        return operation
    first = "data_format" in operation.node_def.attr and operation.get_attr("data_format").startswith(
        b"NC"
    )  # a sum adds along the last axis
    while True:
        users = [user for output in operation.outputs for user in output.consumers()]
        added = [user for user in users if (user.type == "BiasAdd" or not first) and bias_of(user) is not None]
        if len(added) == 1:
            return added[0]
        if len(users) != 1 or users[0].type not in MOVES:
            return operation
        operation = users[0]


MOVES = ("BatchToSpaceND", "Squeeze", "Reshape")
"""What lies behind the convolution or matrix product within a layer: a dilated one, one in 1-D, a dense one of more than two axes."""


def bias_of(addition: Any) -> Any:
    """The vector that an operation adds to a value, of a sum a stored one; None of another operation."""
    if addition.type == "BiasAdd":
        return addition.inputs[1]
    if addition.type not in ADDITIONS:
        return None
    return next((one for one in reversed(addition.inputs) if one.shape.rank == 1 and stored(one).type in STORED), None)


def sharing(operations: Iterable[Any]) -> Iterator[Any]:
    """The operations that multiply with variables that some operations multiply with."""
    read = [stored(value) for one in operations if one.type in LINEAR_TYPES for value in one.inputs]
    stack = [one for one in dict.fromkeys(read) if one.type in STORED]
    seen = {one.name for one in stack}
    while stack:
        for value in stack.pop().outputs:
            for user in value.consumers():
                if user.type in GIVES_ON and user.name not in seen:
                    seen.add(user.name)
                    stack.append(user)
                elif user.type in LINEAR_TYPES:
                    yield user


GIVES_ON = ("ReadVariableOp", "Identity")
"""What gives the value of a variable on."""


def stored(value: Any) -> Any:
    """The variable or constant that a value is read from; of another value, what gives it."""
    operation = value.op
    while operation.type in GIVES_ON:
        operation = operation.inputs[0].op
    return operation


def above(operations: Iterable[Any]) -> set[str]:
    """The names of the operations that some depend on, by values."""
    found: set[str] = set()
    stack = [value for one in operations for value in one.inputs]
    while stack:
        one = stack.pop().op
        if one.name not in found:
            found.add(one.name)
            stack += one.inputs
    return found


def new_session(graph: Graph) -> Any:
    """A new session with a graph that was read from one."""
    from tfpasses.frontends.graph_def import rebuilt

    return rebuilt(graph)


def with_biases(graph: Graph) -> Graph:
    """The same with a bias of zeros wherever a linear layer has none."""
    edit = Edit(graph, made_by="initialize-bias")
    for node in graph.nodes.values():
        if has_trait(node, "linear"):
            view = LinearView.of(node, edit)
            users = [edit.nodes[name] for name in edit.weight_users[node.params[view.kernel_slot]]]
            lacking = [user for user in users if "bias" not in user.params]  # of one kernel, used here with a bias and there without
            if any(user.name == node.name for user in lacking):
                edit.set_params(lacking, {"bias": np.zeros(view.out_channels, view.kernel.dtype)})
    return edit.freeze()


def load(session: Any, before: Graph, after: Graph, remedy: str = "scale_model gives a new session") -> None:
    """Give the variables of a session, which was read as one graph, the values that they have in another.

    Raises `TfpassesError` for a value that is no variable of the session, with what to do instead; nothing has changed then.
    """
    from tfpasses.frontends.graph_def.containers.meta_graph import load_values

    variables = {one.name: (handle, one) for handle, one in before.source.variables.items()}
    changed = [key for key, array in after.weights.items() if array is not before.weights.get(key)]
    for key in changed:
        if key not in variables:
            raise TfpassesError(f"{key} is no variable of the session, so that it cannot change there; {remedy}")
    new = {variables[key][0]: attrs.evolve(variables[key][1], value=after.weights[key]) for key in changed}
    load_values(session, before.source.container.meta, new)


# operations and nodes


def sources(node: Node) -> list[Node]:
    """The nodes of a session's graph that a node stands for."""
    view = None if node.owner is None else node.owner.source
    return list(view.sources) if isinstance(view, View) else [node]


def linear_node(operation: Any, graph: Graph) -> Node:
    """The linear node that an operation is a part of: its convolution or matrix product, or the addition of its bias.

    Raises `ValueError` where there is none.
    """
    for node in graph.nodes.values():
        if has_trait(node, "linear") and any(one.name == operation.name for one in sources(node)):
            return node
    raise ValueError(f"{operation.name}, a {operation.type}, is part of no convolution or matrix product with a known kernel")


def norm_node(operation: Any, graph: Graph) -> Node:
    """The batch norm that an operation is a part of, or that lies within its branches. Raises `ValueError` where there is none."""
    inside = f"{operation.name}/"
    for node in graph.nodes.values():
        if node.op == "BatchNorm" and any(one.name == operation.name or one.name.startswith(inside) for one in sources(node)):
            return node
    raise ValueError(f"{operation.name}, a {operation.type}, is no part of a batch norm")


def linear_operation(node: Node, graph: Any) -> Any:
    """The operation of a `tf.Graph` that multiplies with the kernel of a node; where that lies in a function, the call."""
    multiply = [one.name for one in sources(node) if one.op in LINEAR]
    return operation_in(graph, [*multiply, node.name])


def norm_operation(node: Node, graph: Any) -> Any:
    """The operation of a `tf.Graph` that gives the value of a batch norm; where that lies in branches, those."""
    return operation_in(graph, [node.name])


def operation_in(graph: Any, names: Sequence[str]) -> Any:
    """The first of some operations that a `tf.Graph` has; one that lies in a function was inlined under the name of what calls it."""
    known = {operation.name: operation for operation in graph.get_operations()}
    for name in names:
        parts = name.split("/")
        for count in range(len(parts), 0, -1):
            found = known.get("/".join(parts[:count]))
            if found is not None:
                return found
    raise TfpassesError(f"{names[-1]}: no operation of the session's graph stands for it")
