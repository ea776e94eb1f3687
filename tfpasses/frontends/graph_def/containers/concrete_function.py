"""`tf.function`s and `ConcreteFunction`s in and out. Variables stay variables; other captured tensors are constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import tensorflow as tf

from tfpasses.frontends.graph_def.containers.traced import Traced, new_variables, read_traced, retraced, variable_of, weight_keys
from tfpasses.frontends.graph_def.read import from_graph_def
from tfpasses.frontends.graph_def.writing.writer import Written
from tfpasses.graph import Graph, Slot, UnsupportedModelError

__all__ = ["FunctionContainer", "from_concrete_function", "input_structure", "output_structure"]


@attrs.frozen(eq=False)
class FunctionContainer:
    """The function that a graph was read from."""

    traced: Traced
    polymorphic: bool
    """Whether it was a `tf.function`, not one of its traces."""
    input_signature: Any = None
    """That of the `tf.function`, where it has one."""

    def rebuilt(self, written: Written) -> Any:
        """A new function around a GraphDef, with new `tf.Variable`s, of the same arguments and results.

        A `tf.function` takes only what fits the trace that was read, and has the input signature that the one read has.
        """
        variables = new_variables(written.variables, self.traced.variables)
        function, concrete = retraced(self.traced, written.definition, written.inputs, written.outputs, variables, self.input_signature)
        return function if self.polymorphic else concrete


def from_concrete_function(function: Any, name: str = "") -> Graph:
    """Read a `ConcreteFunction`, or a `tf.function` that has an input signature or exactly one trace.

    Variables that it captures are weights under their names, other captured tensors constants; the handles of other resources are kept.
    The function and its variables are never changed.

    Raises `UnsupportedModelError` for anything else, and for a function that cannot be traced anew.
    """
    polymorphic = isinstance(function, tf.types.experimental.PolymorphicFunction)
    concrete = only_trace(function) if polymorphic else function
    if not isinstance(concrete, tf.types.experimental.ConcreteFunction):
        raise UnsupportedModelError(f"a {type(function).__name__} is no tf.function and no ConcreteFunction; wrap it in a tf.function")
    title = name or str(concrete.graph.name)
    traced = read_traced(concrete, f"function {title}")
    keys = weight_keys(traced.variables, [node.name for node in traced.definition.node])
    variables = {handle: variable_of(keys[handle], one.numpy(), bool(one.trainable)) for handle, one in traced.variables.items()}
    container = FunctionContainer(traced, polymorphic, function.input_signature if polymorphic else None)
    graph = from_graph_def(traced.definition, traced.inputs, traced.outputs, title, variables, container)
    return attrs.evolve(graph, input_structure=input_structure(traced), output_structure=output_structure(traced))


def only_trace(function: Any) -> Any:
    """The one `ConcreteFunction` of a `tf.function`."""
    if function.input_signature is not None:
        return function.get_concrete_function()
    traces = function._list_all_concrete_functions()
    if len(traces) != 1:
        title = getattr(function, "__name__", type(function).__name__)
        what = f"{len(traces)} traces" if traces else "no trace yet"
        raise UnsupportedModelError(f"tf.function {title} has {what}; choose one with .get_concrete_function(..)")
    return next(iter(traces))


def input_structure(traced: Traced, start: int = 0) -> Any:
    """How a caller passes the arguments that are tensors, as slots counted from `start`; values of other kinds stand as they are."""
    positional, keyword = numbered(traced.arguments, start)
    if not keyword:
        return positional[0] if len(positional) == 1 else positional
    return (*positional, keyword) if positional else keyword


def output_structure(traced: Traced, start: int = 0) -> Any:
    """What the function gives, as slots counted from `start`."""
    return numbered(traced.results, start)


def numbered(structure: Any, start: int) -> Any:
    """A structure with a slot in the place of each tensor or spec; a composite is the list of its parts."""
    count = start

    def slot(leaf: Any) -> Any:
        nonlocal count
        parts: Sequence[Any] = tf.nest.flatten(leaf, expand_composites=True)
        if not all(isinstance(part, tf.TypeSpec) or tf.is_tensor(part) for part in parts):
            return leaf
        slots = [Slot(count + index) for index in range(len(parts))]
        count += len(parts)
        return slots[0] if len(slots) == 1 else slots

    return tf.nest.map_structure(slot, structure)
