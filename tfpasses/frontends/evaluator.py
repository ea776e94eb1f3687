"""Running graphs with TensorFlow, eagerly, node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import attrs
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from tfpasses.frontends.lowering import LOWERING, lower
from tfpasses.graph import Array, Graph, GraphError, Node, Ref, Run, Spec

__all__ = ["TensorFlowEvaluator", "cannot_compute", "eagerly"]

Tensor = Any
P = ParamSpec("P")
R = TypeVar("R")
Opaque = Callable[[Node, Sequence[Tensor], Sequence[Array]], Sequence[Tensor]]


@attrs.frozen
class TensorFlowEvaluator:
    """Canonical nodes by their lowering, the others by what the frontend knows of them. A value is let go after its last use."""

    opaque: Opaque
    """How the frontend runs a foreign node: the flat list of its outputs from its inputs and parameters."""
    takes: Callable[[Node, str], bool] = lambda node, dtype: False
    """Whether `opaque` runs a foreign node in another floating-point dtype than its own."""
    joins: frozenset[str] = frozenset()
    """The foreign operations that take what comes where other inputs never come: None stands for what a branch does not give that is not
    taken, and no other node is run on it.
    """

    def compile(self, graph: Graph, feeds: Sequence[Ref], fetches: Sequence[Ref], dtype: str | None = None) -> Run:
        """See `tfpasses.graph.Evaluator`. Raises `GraphError` where a fetch depends on an input that is not fed, or a
        node cannot be computed. A fetch that never comes is given as zeros.
        """
        given = set(feeds)
        steps = [graph.nodes[name] for name in needed(graph, given, fetches)]
        last = {ref: number for number, node in enumerate(steps) for ref in node.inputs}
        keep = {*fetches}
        dead: list[list[Ref]] = [[] for _ in steps]
        for ref, number in last.items():
            if ref not in keep:
                dead[number].append(ref)

        @eagerly
        def run(values: Mapping[Ref, Array]) -> list[Array]:
            state: dict[Ref, Tensor] = {}
            for ref in given:
                state[ref] = tf.cast(tf.convert_to_tensor(values[ref]), self._dtype(graph.spec(ref), dtype))
            for number, node in enumerate(steps):
                inputs = [state[ref] for ref in node.inputs]
                try:
                    outputs = self._evaluate(graph, node, inputs, dtype) if self.runs(node, inputs) else [None] * len(node.specs)
                except (tf.errors.OpError, ValueError, TypeError) as error:
                    raise cannot_compute(f"node {node.name}: {node.op}", error) from error
                state.update((Ref(node.name, index), value) for index, value in enumerate(outputs) if Ref(node.name, index) not in given)
                for ref in dead[number]:
                    state.pop(ref, None)
            found = [state[ref] if state[ref] is not None else self._zeros(graph.spec(ref), dtype) for ref in fetches]
            return [np.asarray(value.numpy()) for value in found]  # of a bfloat16 number NumPy cannot ask the tensor itself

        return run

    def runs(self, node: Node, inputs: Sequence[Tensor]) -> bool:
        """Whether a node is run on what has come."""
        came = [value is not None for value in inputs]
        return any(came) if node.op in self.joins else all(came)

    def _zeros(self, spec: Spec, wanted: str | None) -> Tensor:
        return tf.zeros([1 if size is None else size for size in spec.shape or ()], self._dtype(spec, wanted))

    def _dtype(self, spec: Spec, wanted: str | None) -> str:
        return wanted if wanted is not None and "float" in spec.dtype else spec.dtype

    def _evaluate(self, graph: Graph, node: Node, inputs: Sequence[Tensor], wanted: str | None) -> Sequence[Tensor]:
        if node.op not in LOWERING or len(node.specs) != 1:
            fed = wanted if wanted is not None and node.op not in LOWERING and self.takes(node, wanted) else None
            own = [
                None if value is None else tf.cast(value, self._dtype(graph.spec(ref), fed))
                for value, ref in zip(inputs, node.inputs, strict=True)
            ]
            outputs = self.opaque(node, own, list(graph.params(node).values()))
            specs = zip(outputs, node.specs, strict=True)
            return [None if value is None else tf.cast(value, self._dtype(spec, wanted)) for value, spec in specs]
        dtype = self._dtype(node.specs[0], wanted)
        cast = [tf.cast(value, dtype) for value in inputs]
        # Batch norm computes half precision in float32 and so takes its parameters as they are stored.
        params = {slot: tf.convert_to_tensor(array) for slot, array in graph.params(node).items()}
        if node.op != "BatchNorm":
            params = {slot: tf.cast(value, dtype) for slot, value in params.items()}
        return [tf.cast(lower(node, cast, params), dtype)]


def eagerly(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function run eagerly, whatever mode its caller is in: users of TensorFlow 1 turn eager execution off."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with context.eager_mode():
            return function(*args, **kwargs)

    return run


def cannot_compute(what: str, error: Exception) -> GraphError:
    """What to say when TensorFlow or Keras refuses some values."""
    if isinstance(error, GraphError):
        return error
    reason = " ".join(str(error).split())[:200]
    return GraphError(f"{what} cannot be computed on these inputs ({reason}); give inputs that suit the model (data=.., --data)")


def needed(graph: Graph, given: set[Ref], fetches: Sequence[Ref]) -> list[str]:
    """The nodes between feeds and fetches, in topological order."""
    found: set[str] = set()
    stack = [ref.node for ref in fetches if ref not in given]
    while stack:
        name = stack.pop()
        if name in found:
            continue
        found.add(name)
        node = graph.nodes[name]
        if node.op == "Input":
            raise GraphError(f"input {name} is needed and not given")
        stack.extend(ref.node for ref in node.inputs if ref not in given)
    return [name for name in graph.nodes if name in found]
