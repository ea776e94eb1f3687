"""Bounds of values: what is computed lies within them, and they are as near as interval arithmetic by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, seed, settings
from keras import layers as L
from keras import ops

import tfpasses
from cle_by_hand import float64
from fold_cases import CASES
from graphs import graph, node
from random_models import REPEATABLE, build, input_shape, inputs_for, plans
from scaling_check import line, model
from tfpasses.frontends.keras import keras_evaluator
from tfpasses.graph import Ref, Spec
from tfpasses.passes.equalization.intervals import Intervals
from tfpasses.passes.equalization.layouts import concatenated, flattened, of_channels, reshaped

SHARES = 4
LARGEST = 4.0
"""What the random models' inputs do not exceed."""
ROUNDING = {"float64": 1e-5, "float32": 1e-5, "float16": 2e-2, "bfloat16": 2e-1}
"""A hundred times what one result rounds by, relatively: sums, and the bounds' own precision, that of the kernel."""


def bounds(m, low=-math.inf, high=math.inf):
    return Intervals.of(tfpasses.from_keras(m), (low, high))


def of(m, name, low=-math.inf, high=math.inf):
    found = bounds(m, low, high).values[Ref(name)]
    return np.broadcast_arrays(found.low, found.high)


# whatever is computed


def assert_contained(plan):
    m = build(plan)
    source = tfpasses.from_keras(m)
    found = Intervals.of(source, (-LARGEST, LARGEST))
    refs = [ref for ref in found.values if ref.node in source.nodes]
    feeds = {Ref(name): array for name, array in zip(source.inputs, inputs_for(m, input_shape(plan)), strict=True)}
    for ref, given_out in zip(refs, keras_evaluator().compile(source, list(feeds), refs)(feeds), strict=True):
        value, low, high = np.asarray(given_out, np.float64), found.values[ref].low, found.values[ref].high
        if not np.isfinite(value).all():
            continue
        room = ROUNDING[source.spec(ref).dtype] * np.maximum(np.abs(value).max(initial=1.0), 1.0)
        assert (value >= low - room).all(), ref
        assert (value <= high + room).all(), ref
        constant = np.broadcast_to(found.values[ref].constant, value.shape)
        where = ~np.isnan(constant)
        assert np.abs(value - constant)[where].max(initial=0.0) <= room


@settings(REPEATABLE, max_examples=80)
@given(plans())
def test_what_random_models_compute_lies_within(plan):
    assert_contained(plan)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_what_thousands_of_random_models_compute_lies_within(share):
    @seed(share)
    @settings(REPEATABLE, derandomize=False, max_examples=4_000 // SHARES)
    @given(plans(6))
    def all_lies_within(plan):
        assert_contained(plan)

    all_lies_within()


# kernels


@pytest.mark.parametrize("case", [name for name in CASES if "dense" in name or "pointwise" in name])
def test_the_bounds_of_one_tap_are_reached(case):
    m = line(CASES[case].make(True), shape=CASES[case].shape)
    low, high = of(m, "linear", -1.0, 2.0)
    kernel, bias = float64(m.get_layer("linear").kernel), float64(m.get_layer("linear").bias)
    matrix = kernel.reshape(kernel.shape[-2:])
    up, down = np.where(matrix > 0, 2.0, -1.0), np.where(matrix > 0, -1.0, 2.0)
    np.testing.assert_allclose(np.ravel(high), (matrix * up).sum(axis=0) + bias, rtol=1e-6)
    np.testing.assert_allclose(np.ravel(low), (matrix * down).sum(axis=0) + bias, rtol=1e-6)


EXACT = [name for name in CASES if "transpose" not in name and "separable" not in name]
"""Of those all taps meet the input somewhere, each with a number of its own."""


@pytest.mark.parametrize("case", CASES)
def test_the_bounds_of_every_kind_are_the_least_and_the_most_that_it_gives(case):
    m = line(CASES[case].make(True), shape=CASES[case].shape)
    source = tfpasses.from_keras(m)
    found = Intervals.of(source, (-1.0, 2.0)).values[Ref("linear")]
    count = math.prod(CASES[case].shape)
    x = np.concatenate([np.zeros((1, count)), np.eye(count)]).reshape(-1, *CASES[case].shape)
    (value,) = keras_evaluator().compile(source, [Ref("x")], [Ref("linear")], "float64")({Ref("x"): x})
    weights = value[1:] - value[:1]  # of each element of the input, for each of the output
    most = np.maximum(2 * weights, -weights).sum(axis=0) + value[0]
    least = np.minimum(2 * weights, -weights).sum(axis=0) + value[0]
    others = tuple(axis for axis in range(most.ndim) if found.high.shape[axis] == 1)
    most, least = most.max(axis=others, keepdims=True), least.min(axis=others, keepdims=True)
    assert (found.high >= most - 1e-4).all()
    assert (found.low <= least + 1e-4).all()
    if case in EXACT:
        np.testing.assert_allclose(found.high, most, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(found.low, least, rtol=1e-5, atol=1e-4)


def test_padding_counts_as_zero():
    wide, narrow = (line(L.Conv2D(3, 3, padding=padding, use_bias=False, name="a"), shape=(6, 6, 2)) for padding in ("same", "valid"))
    narrow.get_layer("a").kernel.assign(wide.get_layer("a").kernel)
    kernel = float64(wide.get_layer("a").kernel)
    low, _ = of(narrow, "a", 1.0, 2.0)
    np.testing.assert_allclose(np.ravel(low), (np.where(kernel > 0, 1.0, 2.0) * kernel).sum(axis=(0, 1, 2)), rtol=1e-5, atol=1e-5)
    low, _ = of(wide, "a", 1.0, 2.0)
    np.testing.assert_allclose(np.ravel(low), (np.where(kernel > 0, 0.0, 2.0) * kernel).sum(axis=(0, 1, 2)), rtol=1e-5, atol=1e-5)


def test_a_weight_of_zero_hides_what_is_not_known():
    m = line(L.Conv2D(4, 3, name="a"))
    kernel = np.asarray(m.get_layer("a").kernel).copy()
    kernel[..., 1] = 0
    m.get_layer("a").kernel.assign(kernel)
    low, high = of(m, "a")
    bias = float64(m.get_layer("a").bias)
    assert np.ravel(low).tolist() == [-math.inf, bias[1], -math.inf, -math.inf]
    assert np.ravel(high).tolist() == [math.inf, bias[1], math.inf, math.inf]


def test_a_constant_is_summed_in_float64():
    m = line(L.Conv2D(2, 1, name="a"), L.DepthwiseConv2D(5, name="b"), shape=(9, 9, 3))
    m.get_layer("a").kernel.assign(np.zeros((1, 1, 3, 2)))
    m.get_layer("a").bias.assign([1.1, -0.3])
    low, high = of(m, "b")
    kernel, bias = float64(m.get_layer("b").kernel)[..., 0], float64(m.get_layer("b").bias)
    wanted = kernel.sum(axis=(0, 1)) * float64(m.get_layer("a").bias) + bias
    np.testing.assert_array_equal(np.ravel(low), wanted.astype("float32"))
    np.testing.assert_array_equal(low, high)


def test_what_differs_by_less_than_a_rounding_is_no_constant():
    nodes = [
        node("x", "Input", spec=Spec((None, 2), "float32")),
        node("a", "Dense", "x", spec=Spec((None, 2), "float32"), params={"kernel": "k", "bias": "c"}),
        node("b", "Dense", "a", spec=Spec((None, 1), "float32"), params={"kernel": "m"}),
    ]
    weights = {"k": [[0, 1e-6], [0, 0]], "c": [1e3, 0], "m": [[1e3], [1]]}
    found = Intervals.of(graph(*nodes, outputs=["b"], weights=weights), (-1.0, 1.0)).values[Ref("b")]
    assert found.low < found.high
    assert np.isnan(found.constant).all()


def test_bounds_beyond_all_numbers_are_not_known():
    nodes = [node("x", "Input")]
    for number in range(8):
        nodes.append(node(f"d{number}", "Dense", nodes[-1].name, params={"kernel": "k"}))
    found = Intervals.of(graph(*nodes, outputs=["d7"], weights={"k": np.full((4, 4), 1e9)}), (-1.0, 1.0))
    assert (found.values[Ref("d0")].high == 4e9).all()
    assert (found.values[Ref("d7")].high == math.inf).all()
    assert (found.values[Ref("d7")].low == -math.inf).all()


@pytest.mark.parametrize("bias", [np.nan, np.inf])
def test_a_bias_that_is_no_number_bounds_nothing(bias):
    m = line(L.Dense(2, name="a"), L.ReLU(name="relu"), shape=(3,))
    m.get_layer("a").kernel.assign(np.zeros((3, 2)))
    m.get_layer("a").bias.assign([bias, -1])
    low, high = of(m, "relu", -1, 1)
    assert (low.tolist(), high.tolist()) == ([0, 0], [math.inf, 0])


# everything else

EACH = {
    "relu": (L.ReLU(name="y"), (0, 2)),
    "relu6": (L.ReLU(1.5, name="y"), (0, 1.5)),
    "leaky relu": (L.LeakyReLU(0.25, name="y"), (-0.75, 2)),
    "relu with a threshold": (L.ReLU(threshold=1.0, name="y"), (0, 2)),
    "relu with a threshold and a slope": (L.ReLU(threshold=1.0, negative_slope=0.5, name="y"), (-2, 2)),
    "sigmoid": (L.Activation("sigmoid", name="y"), (0, 1)),
    "tanh": (L.Activation("tanh", name="y"), (-1, 1)),
    "softmax": (L.Softmax(name="y"), (0, 1)),
    "swish": (L.Activation("silu", name="y"), (-math.inf, math.inf)),
    "identity": (L.Identity(name="y"), (-3, 2)),
    "max pool": (L.MaxPooling2D(name="y"), (-3, 2)),
    "padding": (L.ZeroPadding2D(name="y"), (-3, 2)),
    "flatten": (L.Flatten(name="y"), (-3, 2)),
    "global average pool": (L.GlobalAveragePooling2D(name="y"), (-3, 2)),
    "layer norm": (L.LayerNormalization(name="y"), (-math.inf, math.inf)),
}


@pytest.mark.parametrize("name", EACH)
def test_bounds_after(name):
    layer, wanted = EACH[name]
    low, high = of(line(layer), "y", -3.0, 2.0)
    assert (float(low.min()), float(high.max())) == wanted


def test_padding_reaches_zero_from_what_is_above():
    low, high = of(line(L.ZeroPadding2D(name="y")), "y", 1.0, 2.0)
    assert (float(low.min()), float(high.max())) == (0, 2)
    low, high = of(line(L.ZeroPadding2D(0, name="y")), "y", 1.0, 2.0)
    assert (float(low.min()), float(high.max())) == (1, 2)


JOINS = {
    "add": (ops.add, (-2, 4)),
    "subtract": (ops.subtract, (-3, 3)),
    "multiply": (ops.multiply, (-2, 4)),
    "maximum": (ops.maximum, (-1, 2)),
    "minimum": (ops.minimum, (-1, 2)),
    "a constant more": (lambda x, y: ops.add(x, 3), (2, 5)),
    "times a negative constant": (lambda x, y: ops.multiply(x, np.float32([-2, 0.5, 0.5, 0.5])), (-4, 2)),
    "from a constant": (lambda x, y: ops.subtract(1.0, x), (-1, 2)),
    "beside each other": (lambda x, y: L.Concatenate()([x, y]), (-1, 2)),
}


@pytest.mark.parametrize("name", JOINS)
def test_bounds_of_what_is_joined(name):
    m = model(lambda x: JOINS[name][0](x, ops.maximum(x, -1.0)))
    assert out(m, -1.0, 2.0) == JOINS[name][1]


def out(m, low, high):
    source = tfpasses.from_keras(m)
    found = Intervals.of(source, (low, high)).values[source.outputs[0]]
    return float(found.low.min()), float(found.high.max())


def test_what_is_no_float_has_no_bounds():
    nodes = [node("x", "Input", spec=Spec((None, 4), "int32")), node("y", "Relu", "x", spec=Spec((None, 4), "int32"), config={})]
    assert not Intervals.of(graph(*nodes, outputs=["y"])).values


def test_of_a_value_of_unknown_rank_nothing_is_known():
    spec = Spec(None, "float32")
    nodes = [node("x", "Input", spec=spec), node("y", "Identity", "x", spec=spec)]
    found = Intervals.of(graph(*nodes, outputs=["y"]), (0.0, 1.0))
    assert not found.values
    assert found.above(Ref("y"), np.zeros((1, 4))).tolist() == [[math.inf]]


# layouts


def test_a_layout_is_reshaped_with_the_value():
    each = np.arange(6).reshape(1, 2, 3)
    whole = np.broadcast_to(each, (4, 2, 3))
    assert reshaped(each, (None, 4, 2, 3), (None, 8, 3)).tolist() == whole.reshape(8, 3).tolist()
    assert reshaped(np.arange(3).reshape(1, 1, 3), (None, 4, 2, 3), (None, 8, 3)).tolist() == [[0, 1, 2]]
    assert flattened(np.arange(3).reshape(1, 1, 3), (None, 2, 2, 3)).tolist() == [0, 1, 2] * 4
    assert reshaped(np.arange(3).reshape(1, 1, 3), (None, None, 2, 3), (None, None, 3)) is None
    assert reshaped(np.zeros((1, 1, 1)), (None, None, None, 3), (None, None)).shape == (1,)


def test_layouts_are_concatenated_where_they_differ():
    a, b = np.array([[1, 2]]), np.array([[3, 4, 5]])
    assert concatenated([a, b], 2, [(None, 4, 2), (None, 4, 3)]).tolist() == [[1, 2, 3, 4, 5]]
    assert concatenated([a, a], 1, [(None, 4, 2), (None, 3, 2)]).tolist() == [[1, 2]]
    assert concatenated([a, a + 1], 1, [(None, 1, 2), (None, 2, 2)]).tolist() == [[1, 2], [2, 3], [2, 3]]
    assert concatenated([a, a + 1], 1, [(None, None, 2), (None, 2, 2)]) is None
    assert concatenated([a[:, :1], b], 2, [(None, 4, 2), (None, 4, 3)]).tolist() == [[1, 1, 3, 4, 5]]


def test_of_channels_is_what_all_places_agree_on():
    assert of_channels(np.array([[1, 2]]), 2, 2).tolist() == [1, 2]
    assert of_channels(np.array([[1, 2], [1, 3]]), 2, 2) is None
    assert of_channels(np.array([[7]]), 2, 3).tolist() == [7, 7, 7]
    assert of_channels(np.zeros((0, 2)), 2, 2) is None
