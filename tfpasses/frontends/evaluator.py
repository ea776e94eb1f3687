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
from tfpasses.graph import Array, Graph, GraphError, Held, Node, Ref, Run, Spec, Step, Total

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
        plan = Plan.of(graph, feeds, fetches)

        @eagerly
        def run(values: Mapping[Ref, Array]) -> list[Array]:
            fed = {ref: tf.cast(tf.convert_to_tensor(values[ref]), self._dtype(graph.spec(ref), dtype)) for ref in plan.feeds}
            state = self._walk(graph, plan, fed, dtype)
            found = [state[ref] if state[ref] is not None else self._zeros(graph.spec(ref), dtype) for ref in fetches]
            return [np.asarray(value.numpy()) for value in found]  # of a bfloat16 number NumPy cannot ask the tensor itself

        return run

    def trace(self, graph: Graph, feeds: Sequence[Ref], fetches: Sequence[Ref], totals: Sequence[Ref]) -> Step:
        """See `tfpasses.graph.Evaluator`. Raises `GraphError` as `compile` does."""
        plan = Plan.of(graph, feeds, [*fetches, *totals])
        compiled: dict[tuple[Any, ...], Callable[[list[Tensor]], tuple[list[Tensor], list[Tensor]]]] = {}

        def body(values: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            state = self._walk(graph, plan, dict(zip(plan.feeds, values, strict=True)), None)
            state.update({ref: self._zeros(graph.spec(ref), None) for ref in [*fetches, *totals] if state[ref] is None})
            return [state[ref] for ref in fetches], [over_samples(state[ref]) for ref in totals]

        whole = all(is_lowered(graph.nodes[name]) for name in plan.steps)

        def function(values: Sequence[Tensor]) -> Callable[[list[Tensor]], tuple[list[Tensor], list[Tensor]]]:
            """The one for values of these sizes: a last, smaller batch needs no other. Where sizes are many, compiling takes longer than
            running node by node.
            """
            key = tuple(tuple(value.shape[1:]) for value in values)
            if key not in compiled and whole and len(compiled) < MOST_SIZES:
                signature = [tf.TensorSpec((None, *value.shape[1:]) if value.shape.rank else (), value.dtype) for value in values]
                # one traced by its calls is taken for a mistake: TensorFlow warns of several
                compiled[key] = tf.function(body, input_signature=[signature], autograph=False).get_concrete_function()
            return compiled.get(key, body)

        @eagerly
        def run(values: Mapping[Ref, Held]) -> tuple[list[Held], list[Total]]:
            fed = [tf.cast(tf.convert_to_tensor(values[ref]), graph.spec(ref).dtype) for ref in plan.feeds]
            found, sums = function(fed)(fed)
            sizes = [int(size) for _, size in sums]
            return list(found), [(np.asarray(total), size) for (total, _), size in zip(sums, sizes, strict=True)]

        return run

    def _walk(self, graph: Graph, plan: Plan, state: dict[Ref, Tensor], dtype: str | None) -> dict[Ref, Tensor]:
        """The values of a plan's fetches, from those of its feeds."""
        for number, name in enumerate(plan.steps):
            node = graph.nodes[name]
            inputs = [state[ref] for ref in node.inputs]
            try:
                outputs = self._evaluate(graph, node, inputs, dtype) if self.runs(node, inputs) else [None] * len(node.specs)
            except (tf.errors.OpError, ValueError, TypeError) as error:
                raise cannot_compute(f"node {node.name}: {node.op}", error) from error
            state.update((Ref(name, index), value) for index, value in enumerate(outputs) if Ref(name, index) not in plan.feeds)
            for ref in plan.dead[number]:
                state.pop(ref, None)
        return state

    def runs(self, node: Node, inputs: Sequence[Tensor]) -> bool:
        """Whether a node is run on what has come."""
        came = [value is not None for value in inputs]
        return any(came) if node.op in self.joins else all(came)

    def _zeros(self, spec: Spec, wanted: str | None) -> Tensor:
        return tf.zeros([1 if size is None else size for size in spec.shape or ()], self._dtype(spec, wanted))

    def _dtype(self, spec: Spec, wanted: str | None) -> str:
        return wanted if wanted is not None and "float" in spec.dtype else spec.dtype

    def _evaluate(self, graph: Graph, node: Node, inputs: Sequence[Tensor], wanted: str | None) -> Sequence[Tensor]:
        if not is_lowered(node):
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
        with tf.init_scope():  # so that what is traced has weights for inputs, not for constants
            params = {slot: tf.convert_to_tensor(array) for slot, array in graph.params(node).items()}
        if node.op != "BatchNorm":
            params = {slot: tf.cast(value, dtype) for slot, value in params.items()}
        return [tf.cast(lower(node, cast, params), dtype)]


@attrs.frozen
class Plan:
    """What is run between feeds and fetches."""

    feeds: Mapping[Ref, None]
    """As an ordered set."""
    steps: Sequence[str]
    """The nodes, in topological order."""
    dead: Sequence[Sequence[Ref]]
    """Of each step, the values that no later one reads."""

    @classmethod
    def of(cls, graph: Graph, feeds: Sequence[Ref], fetches: Sequence[Ref]) -> Plan:
        """Raises `GraphError` where a fetch depends on an input that is not fed."""
        steps = needed(graph, set(feeds), fetches)
        last = {ref: number for number, name in enumerate(steps) for ref in graph.nodes[name].inputs}
        dead: list[list[Ref]] = [[] for _ in steps]
        for ref in last.keys() - {*fetches}:
            dead[last[ref]].append(ref)
        return cls(dict.fromkeys(feeds), steps, dead)


def is_lowered(node: Node) -> bool:
    """Whether it is computed by its lowering."""
    return node.op in LOWERING and len(node.specs) == 1


def over_samples(value: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over the first axis, of half precision in float32, and how long that is."""
    wide = tf.float32 if value.dtype.size < WIDE else value.dtype
    known, count = value.shape[1:], tf.shape(value)[0]
    shape = known if known.is_fully_defined() else tf.shape(value)[1:]
    rows = tf.cast(tf.reshape(value, [count, known.num_elements() or tf.reduce_prod(shape)]), wide)
    return tf.reshape(tf.linalg.matmul(tf.ones([1, count], wide), rows), shape), count  # faster than a sum


WIDE = 4
"""Bytes: what is narrower is not summed in its own precision."""
MOST_SIZES = 4
"""For so many sizes of the samples a function is compiled."""


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
    return sorted(found, key=graph.places.__getitem__)
