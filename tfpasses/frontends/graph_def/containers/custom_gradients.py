"""Custom gradients in a new function.

`tf.custom_gradient` (which `tf.nn.silu` is made with) registers a gradient that holds tensors of the function it was traced in. In a new
function of the same nodes it must read the new function's: those that its own node reads too, others by their names.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import tensorflow as tf
from tensorflow.python.framework import ops

from tfpasses.frontends.graph_def.protos.parts import copied, node_of, with_nodes
from tfpasses.graph import GraphError

__all__ = ["OwnGradient", "bind", "packed", "with_own_gradients"]

TYPE = "_gradient_op_type"
CUSTOM = "CustomGradient-"
"""How TensorFlow's names for such gradients begin; others are given their operation, and need not be bound to one."""
IDENTITIES = "IdentityN"
"""The operation that has them."""
COUNT = itertools.count()
FIRST: dict[str, str] = {}
"""A gradient that was registered here -> the one of the function where it was traced."""


@attrs.define(eq=False)
class OwnGradient:
    """The gradient of one node of a new function."""

    first: str
    """The gradient that was traced."""
    handles: Mapping[int, Any]
    """`id` of the handle of an old variable -> the handle of the new one."""
    graph: Any = None
    """A weak reference to the graph where the node is: what TensorFlow registers is never let go."""
    name: str = ""

    @tf.autograph.experimental.do_not_convert  # which would trace each step of the search for a tensor
    def __call__(self, operation: Any, *of_results: Any) -> Any:
        """The gradients of the node's inputs. TensorFlow gives no operation as it saves a function: then it is the one that was bound."""
        node = self.graph().get_operation_by_name(self.name) if operation is None else operation
        with tf.init_scope():
            specs = [tf.TensorSpec(output.shape, output.dtype) for output in node.outputs]
            old = ops.gradient_registry.lookup(self.first)
            traced = tf.function(lambda *gradients: old(None, *gradients), autograph=False).get_concrete_function(*specs)
        graph = tf.compat.v1.get_default_graph()
        given = [tf.zeros_like(output) if one is None else one for one, output in zip(of_results, node.outputs, strict=True)]
        fed = {placeholder.name: graph.capture(one) for placeholder, one in zip(traced.inputs, given, strict=False)}
        fed |= {inner.name: graph.capture(self.found(outer, node)) for outer, inner in traced.graph.captures}
        return in_place(traced, fed)

    def found(self, tensor: Any, node: Any) -> Any:
        """What stands, beside a node of the new function, for a tensor that the gradient read in the old one."""
        if not tf.is_symbolic_tensor(tensor):
            return self.handles.get(id(tensor), tensor)
        old = next((one for one in tensor.graph.get_operations() if gradient_of(one) == self.first), None)
        if old is not None:
            for ours, theirs in ((node.inputs, old.inputs), (node.outputs, old.outputs)):
                for mine, other in zip(ours, theirs, strict=True):
                    if other.name == tensor.name:
                        return mine
            name = node.name.removesuffix(old.name) + tensor.name
            if node.name.endswith(old.name) and name.partition(":")[0] in {one.name for one in node.graph.get_operations()}:
                return node.graph.get_tensor_by_name(name)
        raise GraphError(f"node {node.name}: its custom gradient reads {tensor.name}, which is not there any more")


def in_place(traced: Any, fed: Mapping[str, Any]) -> Any:
    """What a concrete function gives, computed in the graph that is being built; `fed` stands for its placeholders, by their values."""
    definition = traced.graph.as_graph_def()
    body = with_nodes(definition, [node for node in definition.node if f"{node.name}:0" not in fed])
    texts = {text for node in body.node for text in node.input}
    wanted = [tensor.name for tensor in traced.outputs if tensor.name not in fed]
    mapped = {name: tensor for name, tensor in fed.items() if node_of(name) in texts}
    mapped |= {f"^{node_of(name)}": tensor for name, tensor in fed.items() if f"^{node_of(name)}" in texts}
    made = tf.import_graph_def(body, mapped, wanted, name="custom_gradient")
    found = {**fed, **dict(zip(wanted, made, strict=True))}
    return packed(traced.structured_outputs, [found[tensor.name] for tensor in traced.outputs])


def packed(structure: Any, tensors: Iterable[Any]) -> Any:
    """The tensors in the structure of what a function gives; it may hold None beside."""
    left = iter(tensors)
    flat = [None if leaf is None else next(left) for leaf in tf.nest.flatten(structure, expand_composites=True)]
    return tf.nest.pack_sequence_as(structure, flat, expand_composites=True)


def with_own_gradients(nodes: Iterable[Any], handles: Mapping[int, Any]) -> tuple[list[Any], dict[str, OwnGradient]]:
    """The NodeDefs, each custom gradient among them under a name of its own; and what is registered so, to be bound to its node."""
    made: dict[str, OwnGradient] = {}

    def own(node: Any) -> Any:
        told = node.attr[TYPE].s.decode() if TYPE in node.attr else ""
        if node.op != IDENTITIES or not told.startswith(CUSTOM) or not is_registered(told):
            return node
        name = f"{CUSTOM}tfpasses-{next(COUNT)}"
        FIRST[name] = FIRST.get(told, told)
        made[name] = OwnGradient(FIRST[name], handles)
        tf.RegisterGradient(name)(made[name])
        new = copied(node)
        new.attr[TYPE].s = name.encode()
        return new

    return list(map(own, nodes)), made


def is_registered(name: str) -> bool:
    try:
        ops.gradient_registry.lookup(name)
    except LookupError:
        return False
    return True


def bind(gradients: Mapping[str, OwnGradient], operations: Iterable[Any]) -> None:
    """Tell gradients the nodes that they are of."""
    if gradients:
        for one in operations:
            own = gradients.get(gradient_of(one))
            if own is not None:
                own.graph, own.name = weakref.ref(one.graph), one.name


def gradient_of(operation: Any) -> str:
    """The gradient that an operation is said to have."""
    if operation.type != IDENTITIES:
        return ""
    told = operation.node_def.attr
    return told[TYPE].s.decode() if TYPE in told else ""
