"""Equalization of random networks: the function is kept, and channels that were scaled before come to the same ranges."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import attrs
import keras
import numpy as np
import pytest
from hypothesis import assume, given, seed, settings
from hypothesis import strategies as st
from keras import layers as L

import tfpasses
import zoo
from cle_by_hand import float64, given_range, kind, read_range, scaled_given, scaled_read
from eager_groups import eager_groups
from fold_cases import bite
from fold_check import assert_near
from graph_defs import compute, frozen
from in_float64 import outputs, truth
from random_layers import Linear, Norm, Plain
from random_models import POLICIES, REPEATABLE, Back, Fork, Nested, Plan, build, input_shape, inputs_for, plans
from scaling_check import spread, together

SHARES = 4
"""Into how many tests the thousands of `make test-all` are divided."""

# the function is kept

PIPELINES = (
    "cross-layer-scaling",
    "cross-layer-scaling{scales=pow2}",
    "cross-layer-scaling{relu6=bound max-scale=4}",
    "cross-layer-scaling{sweeps=1 relu6=skip}",
    "fold-constant-channels",
    "fold-constant-channels{padding=border-map}",
    "fold-batch-norms,fold-constant-channels{padding=border-map},cross-layer-scaling",
)
pipelines = st.sampled_from(PIPELINES)
levels = st.sampled_from(["shapes", "shapes", "shapes", "numeric"])


def straightened(step: Any, fold: bool) -> tuple[Any, ...]:
    """A step of a plan with fewer things in it that no scale passes through; batch norms stay where they are to be folded."""
    match step:
        case Norm():
            return (step,) if fold else ()
        case Linear(activation="tanh"):
            return (attrs.evolve(step, activation="relu6"),)
        case Plain("tanh"):
            return (Plain("leaky relu"),)
        case Fork(left, right, join):
            return (Fork(all_straight(left, fold), all_straight(right, fold), "add" if join == "multiply" else join),)
        case Nested(steps):
            return (attrs.evolve(step, steps=all_straight(steps, fold)),)
        case Back(to, inner):
            return tuple(Back(to, one) for one in straightened(inner, fold))
        case _:
            return (step,)


def all_straight(steps: tuple[Any, ...], fold: bool) -> tuple[Any, ...]:
    return tuple(one for step in steps for one in straightened(step, fold))


def quieted(model: keras.Model, seed: int) -> keras.Model:
    """Make channels differ, and some constant: their kernel is zero."""
    generator = np.random.default_rng(seed)
    for layer in spread(model, seed)._flatten_layers():
        for variable in layer.weights:
            if "kernel" in variable.name and generator.random() < 0.5:
                value = np.asarray(variable, np.float32).copy()
                axis = -2 if "Transpose" in type(layer).__name__ else -1
                np.moveaxis(value, axis, 0)[generator.random(value.shape[axis]) < 0.4] = 0
                variable.assign(value)
    return model


def assert_function_kept(plan: Plan, pipeline: str, verify: str, in_a_graph: bool = False) -> None:
    straight = attrs.evolve(plan, steps=all_straight(plan.steps, pipeline.startswith("fold-batch-norms")))
    assume(straight.steps and not (in_a_graph and "training=True" in repr(plan)))
    assume(plan.policy != "float64" or not ("leaky" in repr(straight) or "twice=True" in repr(plan)))  # whose slope is a float32 in Keras
    model = quieted(build(straight), plan.seed)
    x = inputs_for(model, input_shape(plan))
    source = frozen(model) if in_a_graph else model
    result = tfpasses.run(source, pipeline, verify=verify)
    assert all(verdict.ok for verdict in result.verdicts)
    with eager_groups():
        if in_a_graph:
            names = ["Identity", *(f"Identity_{number}" for number in range(1, len(result.graph.outputs)))]
            new, own = (compute(one, {f"in_{number}": value for number, value in enumerate(x)}, names) for one in (result.model, source))
        else:
            new, own = outputs(result.model, x), outputs(model, x)
        assert_near(new, own, truth(model, x), model, x, POLICIES[plan.policy])


@settings(REPEATABLE, max_examples=120)
@given(plans(), pipelines, levels, st.sampled_from([False, False, True]))
def test_random_models_keep_their_function(plan, pipeline, verify, in_a_graph):
    assert_function_kept(plan, pipeline, verify, in_a_graph)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_thousands_of_random_models_keep_their_function(share):
    @seed(share)
    @settings(REPEATABLE, derandomize=False, max_examples=6_000 // SHARES)
    @given(plans(6), pipelines, levels, st.sampled_from([False, False, True]))
    def all_are_kept(plan, pipeline, verify, in_a_graph):
        assert_function_kept(plan, pipeline, verify, in_a_graph)

    all_are_kept()


# what was scaled before comes to the same ranges

WIDTH = 4
KINDS = ("Conv", "Conv", "Depthwise", "Double", "Grouped", "Separable", "Transpose")
BETWEEN = ("nothing", "relu", "leaky", "pool", "relu6")


@attrs.frozen
class Chain:
    """Layers in a row, what lies between, and what comes at the end."""

    kinds: tuple[str, ...]
    between: tuple[str, ...]
    end: str
    seed: int


def chains(most: int) -> st.SearchStrategy[Chain]:
    return st.builds(
        Chain,
        st.lists(st.sampled_from(KINDS), min_size=2, max_size=most).map(tuple),
        st.lists(st.sampled_from(BETWEEN), min_size=most, max_size=most).map(tuple),
        st.sampled_from(["image", "flat", "pooled"]),
        st.integers(0, 2**16),
    )


def layer_of(name: str, number: int) -> Any:
    options = {"name": f"l{number}", "padding": "same"}
    match name:
        case "Depthwise":
            return L.DepthwiseConv2D(3, **options)
        case "Double":
            return L.DepthwiseConv2D(2, depth_multiplier=2, **options)
        case "Grouped":
            return L.Conv2D(WIDTH, 3, groups=2, **options)
        case "Separable":
            return L.SeparableConv2D(WIDTH, 2, **options)
        case "Transpose":
            return L.Conv2DTranspose(WIDTH + 2, 2, **options)
        case _:
            return L.Conv2D(WIDTH, 3, **options)


def network(chain: Chain) -> keras.Model:
    """The network of a chain, the same one at every call."""
    with zoo.fresh_names():
        x = y = keras.Input((6, 6, WIDTH), name="x")
        for number, (name, between) in enumerate(zip(chain.kinds, chain.between, strict=False)):
            y = layer_of(name, number)(y)
            match between:
                case "relu":
                    y = L.ReLU()(y)
                case "leaky":
                    y = L.LeakyReLU(0.2)(y)
                case "pool":
                    y = L.MaxPooling2D(2, strides=1)(y)
                case "relu6":
                    y = L.ReLU(6.0, name=f"clip{number}")(y)
        if chain.end != "image":
            y = L.Dense(3, name="last")(L.Flatten()(y) if chain.end == "flat" else L.GlobalAveragePooling2D()(y))
        model = keras.Model(x, y, name="m")
    return spread(bite(model, chain.seed), chain.seed)


def layers_of(model: keras.Model) -> list[Any]:
    return [layer for layer in model.layers if layer.weights]


def scaled_by_hand(chain: Chain, generator: np.random.Generator) -> keras.Model:
    """The network with the channels between its layers divided by random powers of two, and what reads them multiplied. A limit does not
    take such a scale: channels behind one keep theirs.
    """
    model = network(chain)
    layers = layers_of(model)
    for layer in layers:
        if kind(layer) == "Separable":
            depthwise, pointwise = float64(layer.depthwise_kernel), float64(layer.pointwise_kernel)
            power = powers(generator, depthwise.shape[-2] * depthwise.shape[-1])
            layer.depthwise_kernel.assign(depthwise / power.reshape(depthwise.shape[-2:]))
            layer.pointwise_kernel.assign(pointwise * power[:, None])
    for number, (giver, reader) in enumerate(pairwise(layers)):
        power = powers(generator, given_range(giver).size)
        if number < len(chain.between) and chain.between[number] == "relu6":
            power = np.ones_like(power)
        assign(giver, scaled_given(giver, power), "pointwise_kernel")
        giver.bias.assign(float64(giver.bias) / power)
        assign(reader, scaled_read(reader, np.tile(power, read_range(reader).size // power.size)), "depthwise_kernel")
    return model


def powers(generator: np.random.Generator, count: int) -> np.ndarray:
    return np.exp2(generator.integers(-4, 5, count))


def assign(layer: Any, kernel: np.ndarray, name: str) -> None:
    (getattr(layer, name) if kind(layer) == "Separable" else layer.kernel).assign(kernel)


PIPELINE = "cross-layer-scaling{tolerance=1e-06 sweeps=3000}"


def equalized(model: keras.Model) -> list[np.ndarray]:
    """The ranges of all channels that all layers give and read, after equalization to the last."""
    new = tfpasses.run(model, PIPELINE, verify="off").model
    return [side(layer) for layer in layers_of(new) for side in (given_range, read_range)]


def assert_the_same_ranges(chain: Chain) -> None:
    plain, scaled = network(chain), scaled_by_hand(chain, np.random.default_rng(chain.seed))
    x = np.random.default_rng(1).normal(size=(2, 6, 6, WIDTH)).astype("float32")
    with eager_groups():
        np.testing.assert_array_equal(outputs(plain, x)[0], outputs(scaled, x)[0])  # by powers of two nothing is rounded
    for a, b in zip(equalized(plain), equalized(scaled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)


@settings(REPEATABLE, max_examples=25)
@given(chains(4))
def test_channels_that_were_scaled_by_powers_of_two_come_to_the_same_ranges(chain):
    assert_the_same_ranges(chain)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_channels_of_many_networks_that_were_scaled_come_to_the_same_ranges(share):
    @seed(share)
    @settings(REPEATABLE, derandomize=False, max_examples=1_000 // SHARES)
    @given(chains(6))
    def all_are_the_same(chain):
        assert_the_same_ranges(chain)

    all_are_the_same()


# a stream that is added to

STREAM = 4


def stream(number: int) -> keras.Model:
    """Blocks whose sums make one stream, as in a residual network."""
    with zoo.fresh_names():
        x = keras.Input((6, 6, 3), name="x")
        y = L.ReLU()(L.Conv2D(STREAM, 3, padding="same", name="stem")(x))
        for block in range(3):
            z = L.Conv2D(6, 1, activation="relu", name=f"up{block}")(y)
            z = L.DepthwiseConv2D(3, padding="same", activation="relu", name=f"deep{block}")(z)
            y = L.Add()([y, L.Conv2D(STREAM, 1, name=f"down{block}")(z)])
        model = keras.Model(x, L.Conv2D(3, 1, name="top")(y), name="m")
    return spread(bite(model, number), number)


def stream_scaled_by_hand(number: int) -> keras.Model:
    model, generator = stream(number), np.random.default_rng(number)
    outer = powers(generator, STREAM)
    divide(model.get_layer("stem"), outer)
    for block in range(3):
        up, deep, down = (model.get_layer(f"{name}{block}") for name in ("up", "deep", "down"))
        inner, behind = powers(generator, 6), powers(generator, 6)
        multiply(up, outer)
        divide(up, inner)
        multiply(deep, inner)
        divide(deep, behind)
        multiply(down, behind)
        divide(down, outer)
    multiply(model.get_layer("top"), outer)
    return model


def divide(layer: Any, power: np.ndarray) -> None:
    layer.kernel.assign(scaled_given(layer, power))
    layer.bias.assign(float64(layer.bias) / power)


def multiply(layer: Any, power: np.ndarray) -> None:
    layer.kernel.assign(scaled_read(layer, power))


@pytest.mark.parametrize("number", range(4))
def test_a_stream_that_was_scaled_becomes_as_equal_though_perhaps_at_other_ranges(number):
    plain, scaled = stream(number), stream_scaled_by_hand(number)
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 3)).astype("float32")
    np.testing.assert_array_equal(outputs(plain, x)[0], outputs(scaled, x)[0])
    for model in (plain, scaled):
        new = tfpasses.run(model, PIPELINE, verify="off").model
        ends = [["stem", "down0", "down1", "down2"], ["up0", "up1", "up2", "top"]]
        pairs = [
            ends,
            *([[f"up{block}"], [f"deep{block}"]] for block in range(3)),
            *([[f"deep{block}"], [f"down{block}"]] for block in range(3)),
        ]
        for givers, readers in pairs:
            give, read = together(new, givers, readers)
            np.testing.assert_allclose(give, read, rtol=1e-4)
