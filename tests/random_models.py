"""Random functional models that a batch-norm fold has to cope with: a plan is drawn, and a plan is built.

A plan is plain data, so that a failing one is printed, shrinks, and builds the same model anywhere. What does not fit where it
stands is made to fit or left out, so that no plan is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import keras
import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from keras import layers as L

import zoo
from random_layers import Linear, Norm, Plain, Shape, linear_layer, linears, norm_layer, norms, plain_layer, plains, shape_layer, shapes
from random_weights import FLAVOURS, season

__all__ = ["CHANNELS", "FIRST", "POLICIES", "REPEATABLE", "SIZES", "Plan", "build", "input_shape", "inputs_for", "plans"]

REPEATABLE = settings(
    derandomize=True, database=None, deadline=None, phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck)
)
"""The same examples in every run, as slow as they are."""

SIZES = {1: (6,), 2: (5, 6), 3: (4, 5, 4)}
FIRST = {1: (11,), 2: (5, 11), 3: (4, 5, 11)}
"""Channels first. Where the last axis is as long as there are channels, Keras (3.15) adds a bias along the wrong one: not so in these."""
CHANNELS = 4
POLICIES = {
    "float32": 2.0**-24,
    "float64": 2.0**-53,
    "float16": 2.0**-11,
    "mixed_float16": 2.0**-11,
    "mixed_bfloat16": 2.0**-8,
}
"""Dtype policies, and how far a number is from the nearest one in what they compute in, at most, relatively."""


@attrs.frozen
class Fork:
    """Two branches from one tensor, joined where their shapes allow."""

    left: tuple[Any, ...]
    right: tuple[Any, ...]
    join: str


@attrs.frozen
class Join:
    """This tensor joined with an earlier one, where their shapes allow."""

    other: int
    join: str


@attrs.frozen
class Again:
    """Layers called before, one or two in a row, called once more."""

    which: int


@attrs.frozen
class Nested:
    """A model within the model, called once or twice, with one output or as many as it has leaves."""

    steps: tuple[Any, ...]
    all_leaves: bool
    twice: bool


@attrs.frozen
class Back:
    """A step from an earlier tensor."""

    to: int
    step: Any


@attrs.frozen
class Plan:
    """A model."""

    rank: int
    steps: tuple[Any, ...]
    policy: str = "float32"
    first: bool = False
    """Channels first."""
    alike: bool = False
    """Channels first, and the last axis is as long as there are channels."""
    unknown: bool = False
    """The sizes of its input are not known in the graph."""
    inputs: int = 1
    taps: tuple[int, ...] = ()
    """Inner tensors that are outputs too."""
    structure: str = "list"
    flavour: str = "plain"
    seed: int = 0


# drawing

JOINS = {"add": L.Add, "concat": L.Concatenate, "multiply": L.Multiply}

joins = st.sampled_from(["add", "add", "concat", "concat", "multiply"])
singles = st.one_of(linears(), norms(), norms(), plains)
foldable = st.one_of(
    st.tuples(linears(), norms()),
    st.tuples(norms(), linears()),
    st.tuples(linears(), plains, norms()),
    st.tuples(norms(), plains, linears()),
    st.tuples(norms(), shapes, linears(kind=st.sampled_from(["Dense", "Dense", "Conv", "DepthwiseConv"]))),
)
branches = st.one_of(foldable, st.tuples(linears(kernel=1, stride=1)), st.tuples(linears(padding="same", stride=1)), st.just(()))
forks = st.builds(Fork, branches, branches, joins)
rows = st.one_of(foldable, foldable, singles.map(lambda step: (step,)), forks.map(lambda fork: (fork,)), st.tuples(forks, norms()))
nested = st.builds(Nested, st.lists(rows, min_size=1, max_size=2).map(lambda parts: sum(parts, ())), st.booleans(), st.booleans())
others = st.one_of(
    st.builds(Back, st.integers(1, 5), singles),
    st.builds(Again, st.integers(0, 5)),
    st.builds(Back, st.integers(1, 5), st.builds(Again, st.integers(0, 5))),
    st.builds(Join, st.integers(1, 5), joins),
    nested,
)
steps = st.one_of(rows, rows, others.map(lambda step: (step,)))


def plans(most: int = 4) -> st.SearchStrategy[Plan]:
    """Models of at most so many rows of one to five layers."""
    return st.builds(
        Plan,
        rank=st.sampled_from([1, 2, 2, 2, 3]),
        steps=st.lists(steps, min_size=1, max_size=most).map(lambda parts: sum(parts, ())),
        policy=st.sampled_from(["float32"] * 6 + ["float64", "mixed_float16", "mixed_bfloat16", "float16"]),
        first=st.sampled_from([False] * 5 + [True]),
        alike=st.booleans(),
        unknown=st.sampled_from([False] * 7 + [True]),
        inputs=st.sampled_from([1, 1, 1, 2]),
        taps=st.lists(st.integers(0, 9), max_size=1).map(tuple),
        structure=st.sampled_from(["list", "dict", "nested"]),
        flavour=st.sampled_from(["plain", "plain", *FLAVOURS]),
        seed=st.integers(0, 2**16),
    )


# building


@attrs.define
class Growth:
    """A model while it is put together."""

    plan: Plan
    inputs: list[Any]
    tensors: list[Any]
    """In the order of their making; those that nothing reads are the outputs."""
    read: set[int] = attrs.field(factory=set)
    calls: list[tuple[Any, tuple[Any, ...]]] = attrs.field(factory=list)
    """What was called on a tensor: the tensor, and one or two layers with the arguments of their calls."""
    last: Any = None
    """What the last of these calls gave."""

    @classmethod
    def of(cls, plan: Plan, inputs: Iterable[Any]) -> Growth:
        return cls(plan, list(inputs), list(inputs))

    def call(self, layer: Any, x: Any, **arguments: Any) -> Any:
        """The value of a layer, the last one where there are several."""
        self.read.update(id(tensor) for tensor in (x if isinstance(x, list) else [x]))
        y = layer(x, **arguments)
        self.tensors.extend(y if isinstance(y, list) else [y])
        return self.tensors[-1]

    @property
    def leaves(self) -> list[Any]:
        known = self.read | {id(x) for x in self.inputs}
        return [x for x in self.tensors if id(x) not in known] or self.tensors[-1:]


def build(plan: Plan) -> keras.Model:
    """The model of a plan, with its weights."""
    shape = input_shape(plan)
    if plan.unknown:
        shape = (CHANNELS, *[None] * plan.rank) if plan.first else (*[None] * plan.rank, CHANNELS)
    dtype = "float64" if plan.policy == "float64" else "float32"
    with zoo.fresh_names():
        growth = Growth.of(plan, [keras.Input(shape, dtype=dtype, name=f"x{number}") for number in range(plan.inputs)])
        for start in reversed(growth.inputs):
            x = start
            for step in plan.steps if start is growth.inputs[0] else plan.steps[:2]:
                x = take(growth, step, x)
        taps = [growth.tensors[tap % len(growth.tensors)] for tap in plan.taps]
        model = keras.Model(growth.inputs, structured(plan.structure, [*growth.leaves, *taps]), name="m")
    return season(model, plan.flavour, plan.seed)


def input_shape(plan: Plan) -> tuple[int, ...]:
    """The shape of each input, without the batch."""
    if not plan.first:
        return (*SIZES[plan.rank], CHANNELS)
    return (CHANNELS, *FIRST[plan.rank][:-1], CHANNELS if plan.alike else FIRST[plan.rank][-1])


def structured(structure: str, outputs: list[Any]) -> Any:
    """Outputs as a list, as a dictionary, or as one in the other."""
    if structure == "dict":
        return {f"y{-number % 5}_{number}": y for number, y in enumerate(outputs)}
    if structure == "nested":
        return {"z": outputs[0], "a": [outputs[-1], {"deep": outputs}]}
    return outputs[0] if len(outputs) == 1 else outputs


def take(growth: Growth, step: Any, x: Any) -> Any:
    """The tensor after one step from `x`, `x` itself where the step makes no sense."""
    match step:
        case Back(to, step):
            return take(growth, step, growth.tensors[-1 - to % len(growth.tensors)])
        case Fork(left, right, join):
            ends = []
            for branch in (left, right):
                ends.append(x)
                for part in branch:
                    ends[-1] = take(growth, part, ends[-1])
            return joined(growth, join, *ends)
        case Join(other, join):
            return joined(growth, join, x, growth.tensors[-1 - other % len(growth.tensors)])
        case Again(which):
            fitting = [layers for start, layers in growth.calls if (start.shape, start.dtype) == (x.shape, x.dtype)]
            return run(growth, fitting[-1 - which % len(fitting)], x) if fitting else x
        case Nested():
            return nest(growth, step, x)
    layer = layer_of(growth.plan, step, x.shape)
    return x if layer is None else run(growth, [(layer, {"training": True} if getattr(step, "training", False) else {})], x)


def layer_of(plan: Plan, step: Any, shape: tuple[int | None, ...]) -> Any:
    """The layer that a step is on inputs of `shape`; None where it makes no sense."""
    first = plan.first and len(shape) > 2
    match step:
        case Linear():
            return linear_layer(step, shape, first, dtype=plan.policy)
        case Norm():
            return norm_layer(step, shape, first, dtype=plan.policy)
        case Plain():
            return plain_layer(step, shape, first, dtype=plan.policy)
        case Shape():
            return shape_layer(step, shape, dtype=plan.policy)
    raise TypeError(step)


def run(growth: Growth, layers: Sequence[tuple[Any, dict[str, Any]]], x: Any) -> Any:
    """Call layers one after the other."""
    for layer, arguments in layers:
        before = growth.calls[-1] if growth.last is x else None
        if before is not None and len(before[1]) == 1:
            growth.calls.append((before[0], (*before[1], (layer, arguments))))
        growth.calls.append((x, ((layer, arguments),)))
        x = growth.last = growth.call(layer, x, **arguments)
    return x


def joined(growth: Growth, join: str, a: Any, b: Any) -> Any:
    """Two tensors joined, or the first where they do not fit."""
    axis = 1 if growth.plan.first and len(a.shape) > 2 else -1
    sizes = [[size for place, size in enumerate(x.shape) if join != "concat" or place != axis % len(a.shape)] for x in (a, b)]
    if a is b or a.dtype != b.dtype or len(a.shape) != len(b.shape) or sizes[0] != sizes[1]:
        return a
    options = {"axis": axis} if join == "concat" else {}
    return growth.call(JOINS[join](dtype=growth.plan.policy, **options), [a, b])


def nest(growth: Growth, step: Nested, x: Any) -> Any:
    """A nested model called on `x`, and perhaps on its own value or on one made of `x`."""
    inner = Growth.of(growth.plan, [keras.Input(x.shape[1:], dtype=x.dtype)])
    end = inner.inputs[0]
    for part in step.steps:
        end = take(inner, part, end)
    if not inner.read:
        return x
    leaves = inner.leaves
    model = keras.Model(inner.inputs[0], leaves if step.all_leaves and len(leaves) > 1 else leaves[-1])
    y = growth.call(model, x)
    if step.twice:
        fits = (y.shape, y.dtype) == (x.shape, x.dtype)
        y = growth.call(model, y if fits else growth.call(L.LeakyReLU(dtype=x.dtype), x))
    return y


def inputs_for(model: keras.Model, shape: tuple[int, ...], batch: int = 3) -> list[np.ndarray]:
    """Seeded inputs, exact in every dtype."""
    generator = np.random.default_rng(1)
    return [np.clip(np.round(generator.normal(size=(batch, *shape)) * 16) / 16, -4, 4).astype(x.dtype) for x in model.inputs]
