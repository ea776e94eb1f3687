"""Magnitudes: what a computation gives with every term in absolute value."""

from __future__ import annotations

import numpy as np
import pytest
from keras import layers as L

from fold_cases import CASES, batch, chain, scale_and_shift
from tfpasses.frontends.keras import from_keras, keras_evaluator
from tfpasses.graph import Ref
from tfpasses.manager.rounding import distance, magnitude_graph


def magnitude(model, x, fetch):
    graph, leaves = magnitude_graph(from_keras(model), [name for name in from_keras(model).nodes if name != "x"])
    assert leaves == []
    return keras_evaluator().compile(graph, [Ref("x")], [Ref(fetch)], "float64")({Ref("x"): np.abs(x)})[0]


def test_the_magnitude_of_a_dense_layer_is_its_sum_of_absolute_terms():
    model = chain(L.Dense(5, name="linear"), shape=(7,))
    x = batch(model)
    kernel, bias = (np.asarray(w, np.float64) for w in model.get_layer("linear").weights)
    np.testing.assert_allclose(magnitude(model, x, "linear"), np.abs(x.astype(np.float64)) @ np.abs(kernel) + np.abs(bias), rtol=1e-12)


def test_the_magnitude_of_a_batch_norm_adds_what_cancels():
    model = chain(L.BatchNormalization(name="bn"), shape=(7,))
    x = batch(model)
    bn = model.get_layer("bn")
    a, _ = scale_and_shift(bn)
    wanted = (np.abs(x.astype(np.float64)) + np.abs(np.asarray(bn.moving_mean, np.float64))) * np.abs(a)
    np.testing.assert_allclose(magnitude(model, x, "bn"), wanted + np.abs(np.asarray(bn.beta, np.float64)), rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_no_value_is_larger_than_its_magnitude(name):
    case = CASES[name]
    model = chain(case.make(True), L.BatchNormalization(axis=case.axis, name="bn"), L.ReLU(), shape=case.shape)
    x = batch(model)
    assert (np.abs(np.asarray(model(x), np.float64)) <= magnitude(model, x, "y") * (1 + 1e-5)).all()


def test_the_distance_of_different_shapes_is_infinite():
    assert distance(np.zeros(2), np.zeros((2, 1))) == np.inf


def test_the_distance_leaves_out_what_is_equally_strange():
    assert distance(np.array([np.nan, np.inf, 1.0]), np.array([np.nan, np.inf, 1.5])) == 0.5


def test_the_distance_to_a_number_that_became_strange_is_infinite():
    assert distance(np.array([np.inf]), np.array([-np.inf])) == distance(np.array([1.0]), np.array([np.nan])) == np.inf


def test_texts_are_equal_or_infinitely_far_apart():
    assert distance(np.array(["a", "b"]), np.array(["a", "b"])) == 0.0
    assert distance(np.array(["a", "b"]), np.array(["a", "c"])) == np.inf
