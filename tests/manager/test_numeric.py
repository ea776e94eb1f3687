"""The numeric check: it catches what is wrong, and lets pass what only rounds in another way.

The models have no activation behind their last layer, so that nothing hides a fault; statistics are seeded, not defaults.
"""

from __future__ import annotations

import attrs
import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import tfpasses
from fold_cases import bite
from small_passes import make
from tfpasses.data import samples_of
from tfpasses.frontends.keras import from_keras, keras_evaluator
from tfpasses.graph import LinearView, Ref
from tfpasses.manager import Effect, NumericCheck, Pipeline, VerificationError, random_inputs, run_passes
from tfpasses.passes.folding.arithmetic import Affine, fold_backward

SHAPE = (8, 8, 4)


def conv_norm(filters=16, shape=SHAPE, seed=0, between=(), **options):
    x = keras.Input(shape, name="x")
    y = L.Conv2D(filters, 3, name="conv", **options)(x)
    for layer in between:
        y = layer(y)
    return bite(keras.Model(x, L.ReLU(name="y")(L.BatchNormalization(name="bn")(y))), seed)


def check(graph, pass_, inputs=None):
    """The verdicts; raises where one is not ok."""
    watch = NumericCheck(keras_evaluator(), inputs)
    run_passes(graph, Pipeline.of(pass_), [watch], data=None if inputs is None else samples_of(graph, inputs))
    return watch.verdicts


def caught(graph, pass_, inputs=None):
    with pytest.raises(VerificationError) as error:
        check(graph, pass_, inputs)
    return str(error.value)


def wrong_fold(spoil):
    """A batch-norm fold whose parameters are spoiled."""

    def apply(edit):
        conv, bn = edit.nodes["conv"], edit.nodes["bn"]
        params = fold_backward(LinearView.of(conv, edit), Affine.of(bn, edit))
        params = spoil({slot: array.astype(np.float64) for slot, array in params.items()}, edit.params(bn))
        edit.set_params(conv, {slot: array.astype(np.float32) for slot, array in params.items()})
        edit.replace(bn, bn.inputs[0])
        edit.commit("fold", "bn")

    return make("wrong-fold", apply)


def scaled(channel, factor):
    def spoil(params, bn):
        params["kernel"][..., channel] *= factor
        return params

    return spoil


def shifted(channel, amount):
    def spoil(params, bn):
        params["bias"][channel] += amount
        return params

    return spoil


def without_epsilon(params, bn):
    gamma, beta, mean, variance = (bn[slot].astype(np.float64) for slot in ("gamma", "beta", "mean", "variance"))
    right, wrong = gamma / np.sqrt(variance + 1e-3), gamma / np.sqrt(variance)
    return {
        "kernel": params["kernel"] / right * wrong,
        "bias": (params["bias"] - beta + mean * right) / right * wrong + beta - mean * wrong,
    }


WRONG = {
    "one channel scaled by 1.001": scaled(3, 1.001),
    "one channel scaled by 1.0001": scaled(3, 1.0001),
    "one channel scaled by 0.99999": scaled(3, 0.99999),
    "the last channel scaled by 1.0001": scaled(-1, 1.0001),
    "one tap of one channel scaled by 1.01": lambda p, bn: {
        **p,
        "kernel": p["kernel"] * np.where(np.arange(p["kernel"].size) == 100, 1.01, 1).reshape(p["kernel"].shape),
    },
    "bias forgotten": lambda p, bn: {**p, "bias": np.zeros_like(p["bias"])},
    "bias of one channel forgotten": lambda p, bn: {**p, "bias": p["bias"] * (np.arange(16) != 5)},
    "bias shifted by 1e-5": shifted(2, 1e-5),
    "beta forgotten": lambda p, bn: {**p, "bias": p["bias"] - bn["beta"]},
    "epsilon dropped": without_epsilon,
    "sign of gamma lost": lambda p, bn: {**p, "kernel": p["kernel"] * np.sign(bn["gamma"])},
    "two channels swapped": lambda p, bn: {**p, "bias": p["bias"][[1, 0, *range(2, 16)]]},
    "kernel of NaN": lambda p, bn: {**p, "kernel": p["kernel"] * np.where(np.arange(16) == 4, np.nan, 1)},
    "bias of infinity": lambda p, bn: {**p, "bias": np.where(np.arange(16) == 4, np.inf, p["bias"])},
    "stored in half precision": lambda p, bn: {slot: array.astype(np.float16) for slot, array in p.items()},
}


def test_the_right_fold_is_no_wrong_fold():
    assert check(from_keras(conv_norm()), wrong_fold(lambda params, bn: params))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("which", WRONG)
def test_a_wrong_fold_is_caught(which, seed):
    text = caught(from_keras(conv_norm(seed=seed)), wrong_fold(WRONG[which]))
    assert text.startswith("pass wrong-fold does not keep the function at bn: error ")


@pytest.mark.parametrize("size", [1, 8, 64, 256])
def test_a_fault_of_1e_4_in_one_channel_is_caught_whatever_the_number_of_terms(size):
    model = conv_norm(shape=(8, 8, size))
    assert "wrong-fold" in caught(from_keras(model), wrong_fold(scaled(3, 1.0001)))


@pytest.mark.parametrize("gamma", [1e-2, 1e-4, 1e-8])
def test_a_fault_in_a_faint_channel_is_caught_beside_strong_ones(gamma):
    model = conv_norm()
    bn = model.get_layer("bn")
    faint = np.arange(16) == 3
    for variable in (bn.gamma, bn.beta):
        variable.assign(np.where(faint, gamma, np.asarray(variable)))
    assert "wrong-fold" in caught(from_keras(model), wrong_fold(scaled(3, 1.0001)))
    assert tfpasses.run(model, "fold-batch-norms", verify="numeric").verdicts


def test_a_fault_is_caught_beside_a_channel_with_cancellation():
    model = conv_norm()
    bn = model.get_layer("bn")
    bn.moving_mean.assign(np.where(np.arange(16) == 7, 1e4, np.asarray(bn.moving_mean)))
    assert "wrong-fold" in caught(from_keras(model), wrong_fold(scaled(3, 1.0001)))


def test_a_fault_behind_dropout_is_caught():
    model = conv_norm(between=[L.Dropout(0.5, name="d1"), L.Dropout(0.2, name="d2")])
    assert "wrong-fold" in caught(from_keras(model), wrong_fold(scaled(3, 1.0001)))


def test_a_value_redirected_to_the_wrong_place_is_caught():
    x = keras.Input(SHAPE, name="x")
    one, two = L.ReLU(name="one")(x), L.Activation("tanh", name="two")(x)
    graph = from_keras(keras.Model(x, [L.Activation("linear", name="a")(one), L.Activation("linear", name="b")(two)]))

    def apply(edit):
        edit.replace(edit.nodes["a"], edit.nodes["two"])
        edit.commit("drop", "a")

    assert "pass wrong does not keep the function at outputs: error" in caught(graph, make("wrong", apply))


def test_outputs_that_changed_places_are_caught():
    x = keras.Input(SHAPE, name="x")
    graph = from_keras(keras.Model(x, [L.ReLU(name="a")(x), L.Activation("tanh", name="b")(x)]))

    def apply(edit):
        edit._outputs.reverse()
        edit.change(edit.nodes["a"], config=dict(edit.nodes["a"].config))
        edit.commit("swap", "a")

    assert "at outputs" in caught(graph, make("wrong", apply))


def test_an_output_that_was_lost_is_caught():
    x = keras.Input(SHAPE, name="x")
    graph = from_keras(keras.Model(x, [L.ReLU(name="a")(x), L.Activation("tanh", name="b")(x)]))

    def apply(edit):
        edit._outputs.pop()
        edit.change(edit.nodes["a"], config=dict(edit.nodes["a"].config))
        edit.commit("lose", "a")

    assert caught(graph, make("wrong", apply)) == "pass wrong left 1 outputs of 2"


# EXACT passes


def one_more_bit(edit):
    kernel = edit.weights[edit.nodes["conv"].params["kernel"]].copy()
    kernel[1, 1, 2, 3] = np.nextafter(kernel[1, 1, 2, 3], np.float32(9))
    edit.set_params(edit.nodes["conv"], {"kernel": kernel})
    edit.commit("nudge", "conv")


def test_an_exact_pass_that_changes_one_bit_is_caught():
    text = caught(from_keras(conv_norm()), make("exact", one_more_bit, Effect.EXACT))
    assert text.startswith("pass exact does not keep the function at conv: error ")
    assert "allowed 0 " in text


def test_the_same_change_is_rounding_to_a_pass_that_reassociates():
    assert check(from_keras(conv_norm()), make("reassociates", one_more_bit))


def swap_relu(edit):
    config = {**edit.nodes["y"].config, "threshold": -0.0}
    edit.change(edit.nodes["y"], config=config)
    edit.commit("same", "y")


def test_an_exact_pass_that_keeps_every_bit_passes():
    assert [verdict.error for verdict in check(from_keras(conv_norm()), make("exact", swap_relu, Effect.EXACT))] == [0.0, 0.0]


def test_an_exact_pass_that_turns_the_sign_of_zero_is_caught():
    x = keras.Input((4,), name="x")
    graph = from_keras(keras.Model(x, ops.multiply(L.ReLU(name="y")(x), np.float32([1, 1, 1, 1]))))

    def apply(edit):
        edit.set_params(edit.nodes["multiply.const1"], {"value": np.float32([-1, -1, -1, -1])})
        edit.commit("negate", "multiply.const1")

    assert "allowed 0 " in caught(graph, make("exact", apply, Effect.EXACT), {"x": np.float32([[-1, -2, -3, -4]])})


def test_an_exact_pass_on_integers_is_held_to_every_bit():
    x = keras.Input((4,), dtype="int64", name="x")
    graph = from_keras(keras.Model(x, ops.add(x, np.int64(2**60))))

    def apply(edit):
        edit.set_params(edit.nodes["add.const1"], {"value": np.asarray(2**60 + 1, np.int64)})
        edit.commit("nudge", "add.const1")

    assert "allowed 0 " in caught(graph, make("exact", apply, Effect.EXACT))


@pytest.mark.parametrize("effect", [Effect.APPROXIMATES, Effect.NEEDS_DATA])
def test_passes_that_change_the_function_are_not_checked(effect):
    graph = from_keras(conv_norm())
    assert check(graph, make("changes", lambda edit: wrong_fold(scaled(0, 2.0)).apply(edit, None), effect), random_inputs(graph)) == []


def test_a_pass_that_did_nothing_is_not_checked():
    assert check(from_keras(conv_norm()), make("idle")) == []


# it does not cry wolf


def random_chain(seed, policy, size):
    """Conv and norm, depthwise and norm, Dense and norm; each with statistics of its own."""
    generator = np.random.default_rng(seed)
    dtype = "float64" if policy == "float64" else "float32"
    x = keras.Input((6, 6, size), dtype=dtype, name="x")
    y = x
    for number in range(3):
        kind = generator.integers(3)
        if kind == 0:
            y = L.Conv2D(int(generator.integers(1, 9)), 3, padding="same", dtype=policy, use_bias=bool(generator.integers(2)))(y)
        elif kind == 1:
            y = L.DepthwiseConv2D(3, padding="same", depth_multiplier=int(generator.integers(1, 3)), dtype=policy)(y)
        else:
            y = L.Dense(int(generator.integers(1, 9)), dtype=policy)(y)
        y = L.BatchNormalization(dtype=policy, name=f"bn{number}")(y)
        y = L.ReLU(dtype=policy)(y) if number < 2 else y
    model = bite(keras.Model(x, y), seed)
    for number in range(3):
        bn = model.get_layer(f"bn{number}")
        variance = np.asarray(bn.moving_variance).astype(np.float64)
        bn.moving_variance.assign(np.where(generator.random(variance.shape) < 0.2, 0.0, variance))
        mean = np.asarray(bn.moving_mean).astype(np.float64)
        bn.moving_mean.assign(np.where(generator.random(mean.shape) < 0.2, mean * 100, mean))
    return model


@pytest.mark.parametrize("policy", ["float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("seed", range(12))
def test_right_folds_of_any_precision_pass(seed, policy):
    graph = from_keras(random_chain(seed, policy, size=1 + seed % 5))
    result = tfpasses.run(graph, "fold-batch-norms", verify="numeric")
    assert len(result.rewrites) == 3


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("first", "second"), [("float32", "float64"), ("float64", "float32"), ("mixed_float16", "float64")])
def test_right_folds_in_models_of_two_dtypes_pass(first, second, seed):
    """A float64 output is no more exact than what it is computed from."""
    y = x = keras.Input((7,), name="x")
    for policy in (first, second):
        for _ in range(2):
            y = L.BatchNormalization(dtype=policy)(L.Dense(5, dtype=policy)(y))
    model = bite(keras.Model(x, [y, L.BatchNormalization(dtype=second)(L.ReLU(dtype=second)(y))]), seed)
    assert len(tfpasses.run(from_keras(model), "fold-batch-norms", verify="numeric").rewrites) == 4


def test_a_wrong_fold_in_a_model_of_two_dtypes_is_caught():
    x = keras.Input(SHAPE, name="x")
    y = L.BatchNormalization(name="bn")(L.Conv2D(6, 3, name="conv")(x))
    model = bite(keras.Model(x, L.BatchNormalization(dtype="float64")(L.Dense(5, dtype="float64")(y))), 0)
    assert "does not keep the function" in caught(from_keras(model), wrong_fold(scaled(0, 1.0001)))


@pytest.mark.parametrize("seed", range(40))
def test_right_folds_with_few_outputs_pass(seed):
    x = keras.Input((50,), name="x")
    y = L.BatchNormalization()(L.Dense(1)(L.ReLU()(L.BatchNormalization()(L.Dense(20)(x)))))
    assert tfpasses.run(from_keras(bite(keras.Model(x, y), seed)), "fold-batch-norms", verify="numeric").verdicts


@pytest.mark.parametrize("seed", range(10))
def test_right_folds_of_long_sums_of_one_sign_pass(seed):
    """Where every term has the same sign, rounding errors grow the most."""
    x = keras.Input((4000,), name="x")
    model = bite(keras.Model(x, L.BatchNormalization()(L.Dense(2, name="d")(x))), seed)
    kernel = model.get_layer("d").kernel
    kernel.assign(np.abs(np.asarray(kernel)))
    data = {"x": np.random.default_rng(seed).uniform(0, 1, (2, 4000)).astype(np.float32)}
    assert tfpasses.run(model, "fold-batch-norms", verify="numeric", data=data).verdicts


@pytest.mark.parametrize("mean", [1e2, 1e4, 1e6])
def test_right_folds_with_cancellation_pass(mean):
    model = conv_norm()
    bn = model.get_layer("bn")
    bn.moving_mean.assign(np.asarray(bn.moving_mean) + np.float32(mean))
    model.get_layer("conv").bias.assign(np.asarray(model.get_layer("conv").bias) + np.float32(mean))
    assert tfpasses.run(model, "fold-batch-norms", verify="numeric").verdicts


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_no_numbers_are_compared_where_they_are_numbers(value):
    model = conv_norm()
    data = random_inputs(from_keras(model))
    data["x"][0, 4, 4, 1] = value
    assert tfpasses.run(model, "fold-batch-norms", verify="numeric", data=data).verdicts
    assert "wrong-fold" in caught(from_keras(model), wrong_fold(scaled(3, 1.0001)), data)


def test_a_nan_that_was_there_before_does_not_hide_a_fault_elsewhere():
    model = conv_norm()
    kernel = np.asarray(model.get_layer("conv").kernel).copy()
    kernel[0, 0, 0, 7] = np.nan
    model.get_layer("conv").kernel.assign(kernel)
    assert check(from_keras(model), wrong_fold(lambda params, bn: params))
    assert "wrong-fold" in caught(from_keras(model), wrong_fold(scaled(3, 1.0001)))


def test_a_nan_that_was_taken_away_is_caught():
    model = conv_norm()
    kernel = np.asarray(model.get_layer("conv").kernel).copy()
    kernel[0, 0, 0, 7] = np.nan
    model.get_layer("conv").kernel.assign(kernel)
    assert "error inf" in caught(from_keras(model), wrong_fold(lambda p, bn: {**p, "kernel": np.nan_to_num(p["kernel"])}))


# regions


def test_every_rewrite_is_a_region_of_its_own_where_they_do_not_touch():
    x = keras.Input(SHAPE, name="x")
    y = L.BatchNormalization(name="bn1")(L.Conv2D(4, 3)(x))
    model = bite(keras.Model(x, L.BatchNormalization(name="bn2")(L.Conv2D(4, 3)(L.ReLU()(y)))))
    verdicts = tfpasses.run(model, "fold-batch-norms", verify="numeric").verdicts
    assert [verdict.where for verdict in verdicts] == ["bn1", "bn2", "outputs"]


def test_rewrites_that_touch_are_put_together():
    x = keras.Input(SHAPE, name="x")
    y = L.BatchNormalization(name="bn1")(L.Conv2D(4, 3)(x))
    model = bite(keras.Model(x, L.BatchNormalization(name="bn2")(y)))
    verdicts = tfpasses.run(model, "fold-batch-norms", verify="numeric").verdicts
    assert [verdict.where for verdict in verdicts] == ["bn1, bn2", "outputs"]


def test_all_uses_of_a_shared_kernel_are_one_region():
    conv, bn = L.Conv2D(4, 3, padding="same", name="conv"), L.BatchNormalization(name="bn")
    x = keras.Input(SHAPE, name="x")
    model = bite(keras.Model(x, bn(conv(L.ReLU()(bn(conv(x)))))))
    verdicts = tfpasses.run(model, "fold-batch-norms", verify="numeric").verdicts
    assert [verdict.where for verdict in verdicts] == ["bn", "outputs"]


def balance(edit):
    """Double what c1 gives, halve what c2 takes; nothing is redirected and nothing removed."""
    for name, factor in (("c1", 2.0), ("c2", 0.5)):
        params = edit.params(edit.nodes[name])
        params["kernel"] = params["kernel"] * np.float32(factor)
        if factor > 1:
            params["bias"] = params["bias"] * np.float32(factor)
        edit.set_params(edit.nodes[name], params)
    edit.commit("balance", "c1")


def pair(activation="relu"):
    x = keras.Input(SHAPE, name="x")
    y = L.Activation(activation, name="a")(L.Conv2D(4, 3, name="c1")(x))
    return from_keras(bite(keras.Model(x, L.Conv2D(4, 3, name="c2")(y))))


def test_what_lies_between_two_changed_nodes_belongs_to_the_region():
    verdicts = check(pair(), make("balance", balance, Effect.EXACT))
    assert [(verdict.where, verdict.error) for verdict in verdicts] == [("c1", 0.0), ("outputs", 0.0)]


def test_a_scaling_through_a_function_that_does_not_scale_is_caught():
    assert "at c1: " in caught(pair("tanh"), make("balance", balance))


def test_a_region_that_takes_other_inputs_than_before_is_left_to_the_outputs():
    x = keras.Input(SHAPE, name="x")
    y = L.Conv2D(4, 3, name="conv")(L.Activation("linear", name="b")(L.Activation("linear", name="a")(x)))
    graph = from_keras(bite(keras.Model(x, y)))

    def short_cut(factor):
        def apply(edit):
            edit.set_input(edit.nodes["conv"], 0, Ref("x"))
            kernel = edit.weights[edit.nodes["conv"].params["kernel"]]
            edit.set_params(edit.nodes["conv"], {"kernel": kernel * np.float32(factor)})
            edit.commit("short cut", "conv")

        return make("short-cut", apply)

    assert [verdict.where for verdict in check(graph, short_cut(1.0))] == ["outputs"]
    assert "at outputs: " in caught(graph, short_cut(1.01))


def test_each_output_has_its_own_bound():
    x = keras.Input((16,), name="x")
    loud, quiet = L.Dense(8, name="loud")(x), L.Dense(8, name="quiet")(x)
    model = bite(keras.Model(x, [loud, quiet]))
    model.get_layer("loud").kernel.assign(np.asarray(model.get_layer("loud").kernel) * 1e6)

    def apply(edit):
        node = edit.nodes["quiet"]
        new = edit.add(attrs.evolve(node, name="new", params={**node.params}))
        edit.set_params([node, new], {"kernel": edit.params(node)["kernel"] * np.float32(1.01)})
        edit.replace(node, new)
        edit.commit("replace", "quiet")

    assert "does not keep the function" in caught(from_keras(model), make("wrong", apply))


# inputs of any kind


def test_several_inputs_and_outputs():
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    y = L.BatchNormalization(name="bn")(L.Dense(5)(L.Concatenate()([a, b])))
    model = bite(keras.Model({"a": a, "b": b}, {"y": y, "z": L.ReLU()(y)}))
    assert tfpasses.run(model, "fold-batch-norms", verify="numeric").verdicts


def test_integer_inputs():
    x = keras.Input((6,), dtype="int32", name="x")
    y = L.BatchNormalization()(L.Dense(5)(L.Embedding(2, 3)(x)))
    assert tfpasses.run(bite(keras.Model(x, y)), "fold-batch-norms", verify="numeric").verdicts


def test_boolean_and_string_inputs():
    x, flag = keras.Input((3,), dtype="string", name="x"), keras.Input((2,), dtype="bool", name="flag")
    y = L.Concatenate()([L.StringLookup(vocabulary=["a"], output_mode="multi_hot")(x), ops.cast(flag, "float32")])
    model = bite(keras.Model([x, flag], L.BatchNormalization()(L.Dense(5)(y))))
    assert tfpasses.run(model, "fold-batch-norms", verify="numeric").verdicts


def test_integer_outputs():
    x = keras.Input((6,), name="x")
    y = L.BatchNormalization()(L.Dense(5)(x))
    model = bite(keras.Model(x, [y, ops.argmax(y, -1)]))
    assert tfpasses.run(model, "fold-batch-norms", verify="numeric").verdicts


def test_unknown_dimensions():
    x = keras.Input((None, None, 3), name="x")
    model = bite(keras.Model(x, L.BatchNormalization()(L.Conv2D(5, 3)(x))))
    assert tfpasses.run(model, "fold-batch-norms", verify="numeric").verdicts


def test_opaque_layers_on_both_sides():
    x = keras.Input((9, 4), name="x")
    y = L.BatchNormalization()(L.Conv1D(5, 3)(L.LSTM(4, return_sequences=True)(x)))
    model = bite(keras.Model(x, L.GRU(3)(y)))
    assert tfpasses.run(model, "fold-batch-norms", verify="numeric").verdicts


def test_random_inputs_are_the_same_each_time_and_differ_by_seed():
    graph = from_keras(conv_norm())
    first, again, other = random_inputs(graph), random_inputs(graph), random_inputs(graph, seed=1)
    np.testing.assert_array_equal(first["x"], again["x"])
    assert not np.array_equal(first["x"], other["x"])


def test_random_inputs_have_the_shape_and_kind_asked_for():
    inputs = {
        "f": keras.Input((None, 3), name="f"),
        "h": keras.Input((3,), dtype="float16", name="h"),
        "d": keras.Input((3,), dtype="float64", name="d"),
        "i": keras.Input((3,), dtype="int32", name="i"),
        "b": keras.Input((3,), dtype="bool", name="b"),
        "s": keras.Input((3,), dtype="string", name="s"),
        "n": keras.Input(batch_shape=(7, 3), name="n"),
    }
    graph = from_keras(keras.Model(inputs, inputs["f"]))
    values = random_inputs(graph)
    assert {name: array.shape for name, array in values.items()} == {
        "f": (2, 32, 3),
        **dict.fromkeys("hdibs", (2, 3)),
        "n": (7, 3),
    }
    assert {name: array.dtype.kind for name, array in values.items()} == {
        "f": "f",
        "h": "f",
        "d": "f",
        "i": "i",
        "b": "b",
        "s": "U",
        "n": "f",
    }


def test_a_verdict_of_nan_is_not_ok():
    assert not tfpasses.manager.Verdict("p", "w", float("nan"), 0.0, 1.0).ok
