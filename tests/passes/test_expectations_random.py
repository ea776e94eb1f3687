"""Random networks in which nothing varies behind a batch norm: what is expected there is what is computed."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings

import tfpasses
from eager_groups import eager_groups
from random_models import REPEATABLE, Plan, build, input_shape, inputs_for, plans
from tfpasses.graph import Ref
from tfpasses.passes.correction.expectations import Expectations

known: list[int] = []


def settled(plan: Plan) -> keras.Model:
    """The model with gammas of zero: a batch norm gives its beta, whatever it reads."""
    model = build(plan)
    for layer in model._flatten_layers():
        for variable in layer.weights:
            if variable.name == "gamma":
                variable.assign(np.zeros(variable.shape))
    return model


def assert_expected(ref: Ref, found: Expectations, value: np.ndarray) -> None:
    """Every mean that is known is that of the value over the batch and what has one number for all of its places."""
    if ref not in found.values:
        return
    value = np.asarray(value, np.float64)
    mean = np.asarray(found.values[ref].mean)
    assert mean.ndim == value.ndim - 1
    over = tuple(place + 1 for place, size in enumerate(mean.shape) if size == 1)
    wanted = value.mean(axis=(0, *over), keepdims=True)[0]
    sure = np.broadcast_to(~np.isnan(mean), np.broadcast_shapes(mean.shape, wanted.shape)) & np.isfinite(wanted)
    size = np.abs(value).max(initial=1.0)
    got, wanted = (np.broadcast_to(one, sure.shape)[sure] for one in (mean, wanted))
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * size)
    known.append(int(sure.sum()))


def check(plan: Plan) -> None:
    if plan.policy not in ("float32", "float64") or plan.flavour != "plain":
        return
    model = settled(plan)
    if any(isinstance(layer, keras.layers.BatchNormalization) and layer.gamma is None for layer in model._flatten_layers()):
        return
    x = inputs_for(model, input_shape(plan))
    with eager_groups():
        values = keras.tree.flatten(model(x, training=False))
    for graph in (tfpasses.from_keras(model), tfpasses.run(model, "fold-batch-norms").graph):
        found = Expectations.of(graph)
        for ref, value in zip(graph.outputs, values, strict=True):
            assert_expected(ref, found, value)
    tfpasses.run(model, "fold-batch-norms,analytical-bias-correction{bits=3 input-mean=0.5}", verify="shapes")


def test_what_is_expected_of_a_constant_network_is_what_it_computes():
    known.clear()
    settings(REPEATABLE, max_examples=60)(given(plans())(check))()
    assert sum(map(bool, known)) > 20


@pytest.mark.slow
def test_what_is_expected_of_many_constant_networks_is_what_they_compute():
    settings(REPEATABLE, max_examples=1500)(given(plans(6))(check))()
