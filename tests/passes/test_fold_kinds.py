"""Folding a batch norm into every kind of linear layer gives the weights that arithmetic by hand gives, and keeps the function."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
import pytest
from keras import layers as L

import tfpasses
from fold_cases import ALL, CASES, UNRUNNABLE, batch, bite, chain, expected_weights, own_error_ratio, scale_and_shift
from tfpasses.graph import ChannelStats, Ref


def folded(model, **options):
    return tfpasses.run(model, "fold-batch-norms", **options)


def layers(model):
    return [layer.name for layer in model.layers]


def weights_of(model, name="linear"):
    return [np.asarray(weight) for weight in model.get_layer(name).weights]


def assert_folds(model, after=("x", "linear", "y")):
    """The batch norm is gone, the weights are those of the arithmetic to the last bit or the one beside it."""
    result = folded(model)
    assert layers(result.model) == list(after)
    expected = expected_weights(model.get_layer("linear"), model.get_layer("bn"))
    for got, wanted in zip(weights_of(result.model), expected, strict=True):
        np.testing.assert_array_max_ulp(got, wanted, maxulp=1)
    return result


@pytest.mark.parametrize("use_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("name", ALL)
def test_the_weights_are_those_of_the_arithmetic(name, use_bias):
    case = ALL[name]
    assert_folds(chain(case.make(use_bias), L.BatchNormalization(axis=case.axis, name="bn"), shape=case.shape))


@pytest.mark.parametrize("use_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("name", CASES)
def test_the_function_is_kept(name, use_bias):
    case = CASES[name]
    model = chain(case.make(use_bias), L.BatchNormalization(axis=case.axis, name="bn"), shape=case.shape)
    assert own_error_ratio(folded(model, verify="numeric").model, model, batch(model)) <= 4


@pytest.mark.parametrize("name", UNRUNNABLE)
def test_the_function_is_kept_where_keras_cannot_run_it(name):
    case = UNRUNNABLE[name]
    assert folded(chain(case.make(True), L.BatchNormalization(axis=case.axis), shape=case.shape), verify="numeric").verdicts


@pytest.mark.parametrize("name", CASES)
def test_the_statistics_of_the_output_are_left_as_a_fact(name):
    case = CASES[name]
    model = chain(case.make(True), L.BatchNormalization(axis=case.axis, name="bn"), shape=case.shape)
    ((ref, stats),) = folded(model).graph.facts_of(ChannelStats)
    bn = model.get_layer("bn")
    assert ref == Ref("linear")
    np.testing.assert_array_equal(stats.mean, np.asarray(bn.beta, np.float64))
    np.testing.assert_array_equal(stats.std, np.abs(np.asarray(bn.gamma, np.float64)))


PLAIN = ["conv2d", "depthwise2d times 2", "transpose2d", "separable2d", "dense of rank 3"]


@pytest.mark.parametrize(("scale", "center"), [(False, True), (True, False), (False, False)])
@pytest.mark.parametrize("name", PLAIN)
def test_a_batch_norm_without_gamma_or_beta(name, scale, center):
    case = CASES[name]
    model = chain(case.make(False), L.BatchNormalization(scale=scale, center=center, name="bn"), shape=case.shape)
    result = assert_folds(model)
    assert own_error_ratio(result.model, model, batch(model)) <= 4
    ((_, stats),) = result.graph.facts_of(ChannelStats)
    assert scale or (stats.std == 1).all()
    assert center or (stats.mean == 0).all()


@pytest.mark.parametrize("epsilon", [1e-12, 1e-5, 0.1, 3.0])
def test_an_unusual_epsilon(epsilon):
    model = chain(CASES["conv2d"].make(True), L.BatchNormalization(epsilon=epsilon, name="bn"), shape=CASES["conv2d"].shape)
    assert own_error_ratio(assert_folds(model).model, model, batch(model)) <= 4


STATISTICS = {
    "negative gammas": {"gamma": lambda v: -np.abs(v)},
    "gammas of zero": {"gamma": lambda v: np.where(np.arange(v.size) % 2, v, 0.0)},
    "only gammas of zero": {"gamma": np.zeros_like},
    "tiny gammas": {"gamma": lambda v: v * 1e-20},
    "gammas that make subnormal weights": {"gamma": lambda v: np.where(np.arange(v.size) % 2, v, 1e-39)},
    "tiny variances": {"moving_variance": lambda v: v * 1e-20},
    "variances of zero": {"moving_variance": np.zeros_like},
    "large variances": {"moving_variance": lambda v: v * 1e12},
    "means that cancel": {"moving_mean": lambda v: v + 1e3},
}


@pytest.mark.parametrize("which", STATISTICS)
@pytest.mark.parametrize("name", PLAIN)
def test_unusual_statistics(name, which):
    case = CASES[name]
    model = chain(case.make(True), L.BatchNormalization(name="bn"), shape=case.shape)
    for attribute, change in STATISTICS[which].items():
        variable = getattr(model.get_layer("bn"), attribute)
        variable.assign(change(np.asarray(variable)))
    result = folded(model, verify="numeric")
    for got, wanted in zip(weights_of(result.model), expected_weights(model.get_layer("linear"), model.get_layer("bn")), strict=True):
        np.testing.assert_array_max_ulp(got, wanted, maxulp=1)


IN_BETWEEN = {
    "dropout": lambda: [L.Dropout(0.5, name="d")],
    "spatial dropout": lambda: [L.SpatialDropout2D(0.5, name="d")],
    "gaussian noise": lambda: [L.GaussianNoise(0.5, name="d")],
    "gaussian dropout": lambda: [L.GaussianDropout(0.5, name="d")],
    "alpha dropout": lambda: [L.AlphaDropout(0.5, name="d")],
    "identity": lambda: [L.Identity(name="d")],
    "linear activation": lambda: [L.Activation("linear", name="d")],
    "activity regularization": lambda: [L.ActivityRegularization(l2=0.1, name="d")],
    "several": lambda: [
        L.Identity(name="d1"),
        L.Dropout(0.1, name="d2"),
        L.SpatialDropout2D(0.2, name="d3"),
        L.GaussianNoise(0.3, name="d4"),
    ],
}


@pytest.mark.parametrize("which", IN_BETWEEN)
def test_folds_through_what_does_nothing_at_inference(which):
    between = IN_BETWEEN[which]()
    case = CASES["conv2d"]
    model = chain(case.make(True), *between, L.BatchNormalization(name="bn"), L.ReLU(name="r"), shape=case.shape)
    result = assert_folds(model, after=["x", "linear", *(layer.name for layer in between), "r", "y"])
    assert own_error_ratio(result.model, model, batch(model)) <= 4
    assert folded(model, verify="numeric").verdicts


def test_two_batch_norms_in_a_row_both_fold():
    case = CASES["depthwise2d times 2"]
    model = chain(case.make(True), L.BatchNormalization(name="bn"), L.BatchNormalization(name="bn2"), shape=case.shape)
    result = folded(model, verify="numeric")
    assert layers(result.model) == ["x", "linear", "y"]
    (a1, b1), (a2, b2) = scale_and_shift(model.get_layer("bn")), scale_and_shift(model.get_layer("bn2"))
    kernel, bias = (np.asarray(w, np.float64) for w in model.get_layer("linear").weights)
    wanted = [kernel * (a1 * a2).reshape(kernel.shape[-2:]), (bias * a1 + b1) * a2 + b2]
    for got, value in zip(weights_of(result.model), wanted, strict=True):
        np.testing.assert_allclose(got, value, rtol=3 * 2.0**-24, atol=3 * 2.0**-24 * np.abs(value).max())
    ((_, stats),) = result.graph.facts_of(ChannelStats)
    np.testing.assert_array_equal(stats.mean, np.asarray(model.get_layer("bn2").beta, np.float64))


def test_the_activation_behind_the_batch_norm_stays():
    case = CASES["conv2d"]
    model = chain(case.make(False), L.BatchNormalization(name="bn"), L.ReLU(6.0, name="r"), shape=case.shape)
    assert_folds(model, after=["x", "linear", "r", "y"])


def test_folding_again_changes_nothing():
    model = chain(CASES["conv2d"].make(True), L.BatchNormalization(name="bn"), shape=CASES["conv2d"].shape)
    once = folded(model)
    again = folded(once.model)
    assert not again.rewrites
    assert again.graph.digest == tfpasses.from_keras(once.model).digest


def test_a_batch_norm_that_is_the_output_folds():
    x = keras.Input(CASES["conv2d"].shape)
    model = bite(keras.Model(x, L.BatchNormalization(name="bn")(CASES["conv2d"].make(True)(x))))
    result = folded(model, verify="numeric")
    assert [node.op for node in result.graph.nodes.values()] == ["Input", "Conv"]
    assert own_error_ratio(result.model, model, batch(model)) <= 4


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("kind", [L.Conv2D, L.Dense])
def test_dtype_policies(kind, policy):
    layer = kind(5, 3, dtype=policy, name="linear") if kind is L.Conv2D else kind(5, dtype=policy, name="linear")
    model = chain(layer, L.BatchNormalization(dtype=policy, name="bn"), shape=(9, 8, 4), dtype="float64" if policy == "float64" else None)
    result = folded(model, verify="numeric")
    assert layers(result.model) == ["x", *(["cast"] if "cast" in layers(model) else []), "linear", "y"]
    a, shift = scale_and_shift(model.get_layer("bn"))
    kernel, bias = (np.asarray(w) for w in layer.weights)
    new_kernel, new_bias = weights_of(result.model)
    assert new_kernel.dtype == kernel.dtype
    agree = partial(np.testing.assert_array_max_ulp, maxulp=1) if kernel.dtype == np.float32 else np.testing.assert_array_equal
    agree(new_kernel, (kernel.astype(np.float64) * a).astype(kernel.dtype))
    agree(new_bias, (bias.astype(np.float64) * a + shift).astype(kernel.dtype))


def test_a_layer_without_input_channels_folds_to_its_bias():
    x = keras.Input((0,), name="x")
    model = bite(keras.Model(x, L.Identity(name="y")(L.BatchNormalization(name="bn")(L.Dense(5, name="linear")(x)))))
    assert_folds(model)


def test_a_channel_of_zeros_folds_to_its_bias():
    model = chain(CASES["conv2d"].make(True), L.BatchNormalization(name="bn"), shape=CASES["conv2d"].shape)
    kernel = model.get_layer("linear").kernel
    kernel.assign(np.asarray(kernel) * (np.arange(6) != 2))
    result = assert_folds(model)
    assert not weights_of(result.model)[0][..., 2].any()
    assert folded(model, verify="numeric").verdicts
