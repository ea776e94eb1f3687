"""AIMET's batch-norm folding of Keras models: the layers that the caller holds change, and both models compute what the one did."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers as L

import zoo
from fold_cases import CASES, batch, bite, chain, expected_weights, scale_and_shift
from fold_check import assert_near
from in_float64 import outputs, truth
from tfpasses.graph import TfpassesError, UnsupportedModelError
from tfpasses.passes.aimet.keras.batch_norm_fold import fold_all_batch_norms, fold_given_batch_norms

UNIT = 2.0**-24


def copy_of(model):
    """The same model with weights of its own."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def assert_both_compute_it(original, x, *models):
    own, exact = outputs(original, x), truth(original, x)
    for model in models:
        assert_near(outputs(model, x), own, exact, original, x, UNIT)


def names(model):
    return [layer.name for layer in model.layers]


def two_norms(padding="valid"):
    """Convolution, batch norm, ReLU, batch norm, convolution; the second norm folds forward."""
    made = [L.Conv2D(4, 3, use_bias=False, name="first"), L.BatchNormalization(name="after"), L.ReLU(name="relu")]
    made += [L.BatchNormalization(name="before"), L.Conv2D(3, 3, padding=padding, name="second")]
    return chain(*made, shape=(9, 8, 3))


@pytest.mark.parametrize("use_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("name", CASES)
def test_the_layer_itself_has_the_weights_of_the_arithmetic_and_both_models_compute_the_same(name, use_bias):
    case = CASES[name]
    layer, bn = case.make(use_bias), L.BatchNormalization(axis=case.axis, name="bn")
    model = chain(layer, bn, shape=case.shape)
    original, expected = copy_of(model), expected_weights(layer, bn)
    pairs, new = fold_all_batch_norms(model)
    assert pairs == [(layer, bn)]
    assert names(new) == ["x", "linear", "y"]
    assert all(new.get_layer(name) is model.get_layer(name) for name in names(new))
    assert layer.use_bias and [weight.name for weight in layer.weights][-1] == "bias"
    for got, wanted in zip(layer.weights, expected, strict=True):
        np.testing.assert_array_max_ulp(np.asarray(got), wanted, maxulp=1)
    assert_both_compute_it(original, batch(model), model, new)


def test_a_folded_batch_norm_is_an_identity_that_remembers():
    model = two_norms()
    bn = model.get_layer("after")
    gamma, beta = np.asarray(bn.gamma).copy(), np.asarray(bn.beta).copy()
    fold_all_batch_norms(model)
    np.testing.assert_array_equal(bn.original_gamma, gamma)
    np.testing.assert_array_equal(bn.original_beta, beta)
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 4)).astype("float32")
    for training in (False, True):
        np.testing.assert_array_equal(bn(x, training=training), x)


@pytest.mark.parametrize(("scale", "center"), [(False, True), (True, False), (False, False)])
def test_a_batch_norm_without_gamma_or_beta_remembers_1_and_0(scale, center):
    layer, bn = L.Conv2D(4, 3, name="linear"), L.BatchNormalization(scale=scale, center=center, name="bn")
    model = chain(layer, bn, shape=(6, 6, 2))
    original, gamma, beta = copy_of(model), bn.gamma, bn.beta
    wanted = (np.ones(4) if gamma is None else np.asarray(gamma).copy(), np.zeros(4) if beta is None else np.asarray(beta).copy())
    _, new = fold_all_batch_norms(model)
    np.testing.assert_array_equal(bn.original_gamma, wanted[0])
    np.testing.assert_array_equal(bn.original_beta, wanted[1])
    assert_both_compute_it(original, batch(model), model, new)


def test_pairs_come_backward_first_then_forward_each_in_the_order_of_the_model():
    model = two_norms()
    original = copy_of(model)
    pairs, new = fold_all_batch_norms(model)
    assert [(layer.name, bn.name) for layer, bn in pairs] == [("first", "after"), ("second", "before")]
    assert [bn.tells_of for _, bn in pairs] == ["first", None]
    assert names(new) == ["x", "first", "relu", "second", "y"]
    assert_both_compute_it(original, batch(model), model, new)


def test_where_zero_padding_meets_the_kernel_a_forward_fold_would_be_wrong_and_the_batch_norm_stays_converted():
    model = two_norms("same")
    original, bn = copy_of(model), model.get_layer("before")
    scale, shift = scale_and_shift(bn)
    pairs, new = fold_all_batch_norms(model)
    assert [(layer.name, bn.name) for layer, bn in pairs] == [("first", "after")]
    assert "before" in names(new)
    np.testing.assert_allclose(bn.gamma, scale, rtol=2e-7)
    np.testing.assert_allclose(bn.beta, shift, rtol=2e-7, atol=1e-7)
    assert not np.any(bn.moving_mean) and np.all(np.asarray(bn.moving_variance) == 1) and bn.epsilon == 0
    assert_both_compute_it(original, batch(model), model, new)


@pytest.mark.parametrize(("scale", "center"), [(True, True), (False, True), (True, False), (False, False)])
def test_what_stays_is_gamma_x_plus_beta_also_where_it_had_neither_and_after_a_file(scale, center, tmp_path):
    model = chain(L.ReLU(), L.BatchNormalization(scale=scale, center=center, name="bn"), L.Softmax(), shape=(6, 6, 3))
    original, bn = copy_of(model), model.get_layer("bn")
    expected = scale_and_shift(bn)
    pairs, new = fold_all_batch_norms(model)
    assert pairs == []
    for got, wanted in zip((bn.gamma, bn.beta), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-7, atol=1e-7)
    assert [weight.name for weight in bn.weights] == ["gamma", "beta", "moving_mean", "moving_variance"]
    x = batch(model)
    assert_both_compute_it(original, x, model, new)
    new.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "m.keras")(x), new(x))


def test_a_batch_norm_called_in_training_mode_stays_as_it_was():
    x = keras.Input((6, 6, 3), name="x")
    bn = L.BatchNormalization(name="bn")
    model = bite(keras.Model(x, bn(L.Conv2D(4, 3)(x), training=True)))
    before = [np.asarray(weight).copy() for weight in bn.weights]
    pairs, _ = fold_all_batch_norms(model)
    assert pairs == [] and bn.trainable and bn.epsilon > 0
    for got, wanted in zip(bn.weights, before, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_batch_norm_whose_scale_cannot_be_stored_stays_as_it_was():
    bn = L.BatchNormalization(dtype="float16", name="bn")
    model = chain(L.ReLU(dtype="float16"), bn, L.Softmax(dtype="float16"), shape=(6, 6, 3), dtype="float16")
    bn.gamma.assign(np.full(3, 6e4))
    bn.moving_variance.assign(np.full(3, 0.1))
    before = [np.asarray(weight).copy() for weight in bn.weights]
    fold_all_batch_norms(model)
    for got, wanted in zip(bn.weights, before, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_missing_bias_is_in_the_configuration_and_in_the_files(tmp_path):
    model = two_norms()
    _, new = fold_all_batch_norms(model)
    x = batch(model)
    for number, one in enumerate((model, new)):
        path = tmp_path / f"{number}.keras"
        one.save(path)
        np.testing.assert_array_equal(keras.models.load_model(path)(x), one(x))
        one.save_weights(tmp_path / f"{number}.weights.h5")


def test_a_layer_in_half_precision_gets_a_bias_of_the_kind_that_it_would_have_been_given():
    with keras.device("cpu"):
        layer = L.Conv2D(4, 3, use_bias=False, dtype="mixed_float16", name="linear")
        model = chain(layer, L.BatchNormalization(dtype="mixed_float16"), shape=(6, 6, 2), dtype="float16")
    other = L.Conv2D(4, 3, dtype="mixed_float16")
    other.build((None, 6, 6, 2))
    fold_all_batch_norms(model)
    assert (layer.bias.dtype, layer.bias.trainable, layer.bias._autocast) == (other.bias.dtype, True, other.bias._autocast)


def test_what_predict_has_traced_is_forgotten():
    model = two_norms()
    original, x = copy_of(model), batch(model)
    model.predict(x, verbose=0)
    _, new = fold_all_batch_norms(model)
    exact = truth(original, x)
    for one in (model, new):
        assert_near([one.predict(x, verbose=0)], outputs(original, x), exact, original, x, UNIT)


def test_what_evaluate_and_fit_have_traced_is_forgotten():
    model = two_norms()
    x = batch(model)
    y = [np.zeros_like(value) for value in outputs(model, x)]
    model.compile("sgd", "mse")
    before = model.evaluate(x, y, verbose=0)
    model.make_train_function()
    traced = model.train_function, model.test_function
    fold_all_batch_norms(model)
    assert model.train_function not in traced and model.test_function not in traced
    assert model.evaluate(x, y, verbose=0) == pytest.approx(before, rel=1e-5)


def test_a_built_optimizer_is_an_error_and_nothing_changes():
    model = two_norms()
    before = model.get_weights()
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    with pytest.raises(UnsupportedModelError, match=r"^model m: its optimizer keeps a state.*compile\(\) it anew"):
        fold_all_batch_norms(model)
    for got, wanted in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, wanted)
    model.compile("adam", "mse")
    pairs, new = fold_all_batch_norms(model)
    assert len(pairs) == 2
    assert not new.compiled


def test_the_new_model_trains():
    _, new = fold_all_batch_norms(two_norms())
    x = batch(new)
    new.compile("sgd", "mse")
    before = [np.asarray(weight).copy() for weight in new.trainable_weights]
    assert len(before) == 4
    new.fit(x, new.predict(x, verbose=0) + 1, verbose=0)
    assert all(np.any(np.asarray(got) != old) for got, old in zip(new.trainable_weights, before, strict=True))


# whole models


def test_a_sequential_stays_one():
    model = bite(keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU()], name="s"))
    original = copy_of(model)
    pairs, new = fold_all_batch_norms(model)
    assert type(new) is keras.Sequential and new.name == "s"
    assert new.layers == [model.layers[0], model.layers[2]]
    assert pairs == [(model.layers[0], model.layers[1])]
    assert_both_compute_it(original, batch(model), model, new)


@pytest.mark.parametrize("sequential", [False, True])
def test_an_output_keeps_its_name_where_a_batch_norm_gave_it(sequential):
    layers = [L.Conv2D(4, 3), L.BatchNormalization(name="end")]
    if sequential:
        model = bite(keras.Sequential([keras.Input((8, 8, 3)), *layers]))
    else:
        x = keras.Input((8, 8, 3))
        model = bite(keras.Model(x, {"a": layers[1](layers[0](x))}))
    original, x = copy_of(model), batch(model)
    _, new = fold_all_batch_norms(model)
    assert isinstance(new.get_layer("end"), L.Identity)
    assert [tensor._keras_history.operation.name for tensor in new.outputs] == ["end"]
    assert_both_compute_it(original, x, model, new)


def test_outputs_of_one_batch_norm_called_twice_keep_their_names():
    conv, bn = L.Conv2D(3, 3, padding="same", name="c"), L.BatchNormalization(name="b")
    x = keras.Input((6, 6, 3), name="x")
    y = bn(conv(x))
    model = bite(keras.Model(x, [y, bn(conv(L.ReLU()(y))), y]))
    original = copy_of(model)
    _, new = fold_all_batch_norms(model)
    assert new.output_names == model.output_names == ["b", "b", "b"]
    assert_both_compute_it(original, batch(model), model, new)


def nested(calls=1):
    """A nested model that is called `calls` times, with a batch norm in it."""
    inner = keras.Sequential([keras.Input((8, 8, 4)), L.Conv2D(4, 3, padding="same", name="c"), L.BatchNormalization(name="b"), L.ReLU()])
    inner.name = "inner"
    x = y = keras.Input((10, 10, 3), name="x")
    y = L.BatchNormalization(name="outer")(L.Conv2D(4, 3, name="d")(y))
    for _ in range(calls):
        y = inner(y)
    return bite(keras.Model(x, y, name="m"))


@pytest.mark.parametrize("calls", [1, 2])
def test_in_a_nested_model_batch_norms_fold_where_they_are_whatever_the_number_of_calls(calls):
    model = nested(calls=calls)
    original, inner = copy_of(model), model.get_layer("inner")
    pairs, new = fold_all_batch_norms(model)
    assert [(layer.name, bn.name) for layer, bn in pairs] == [("d", "outer"), ("c", "b")]
    rewired = new.get_layer("inner")
    assert type(rewired) is keras.Sequential and rewired.layers == [inner.layers[0], inner.layers[2]]
    assert_both_compute_it(original, batch(model), model, new)


def test_a_nested_model_without_such_a_batch_norm_is_the_same_object():
    inner = keras.Sequential([keras.Input((6, 6, 4)), L.Conv2D(4, 3), L.ReLU()])
    x = keras.Input((8, 8, 3))
    model = bite(keras.Model(x, inner(L.BatchNormalization()(L.Conv2D(4, 3)(x)))))
    _, new = fold_all_batch_norms(model)
    assert new.layers[-1] is inner


def test_what_predict_of_a_nested_model_has_traced_is_forgotten():
    model = nested()
    inner = model.get_layer("inner")
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    inner.predict(x, verbose=0)
    fold_all_batch_norms(model)
    np.testing.assert_allclose(inner.predict(x, verbose=0), inner(x), rtol=1e-5, atol=1e-5)


def test_a_batch_norm_of_several_places_folds_where_all_fold_alike():
    conv, bn = L.Conv2D(4, 3, padding="same", use_bias=False, name="c"), L.BatchNormalization(name="b")
    x = keras.Input((6, 6, 4), name="x")
    model = bite(keras.Model(x, bn(conv(L.ReLU()(bn(conv(x)))))))
    original = copy_of(model)
    pairs, new = fold_all_batch_norms(model)
    assert pairs == [(conv, bn)]
    assert [layer.name for layer in new.layers if layer.name in "bc"] == ["c", "b"]  # the Identity that names the output
    assert_both_compute_it(original, batch(model), model, new)


def test_a_batch_norm_of_several_places_stays_where_one_of_them_does_not_fold():
    conv, bn = L.Conv2D(4, 3, padding="same", name="c"), L.BatchNormalization(name="b")
    other = L.BatchNormalization(name="other")
    x = keras.Input((6, 6, 3), name="x")
    y = L.ReLU()(bn(conv(x)))
    model = bite(keras.Model(x, other(L.Conv2D(5, 3)(L.Softmax()(bn(y))))))
    original = copy_of(model)
    before = np.asarray(conv.kernel).copy()
    pairs, new = fold_all_batch_norms(model)
    assert [two for _, two in pairs] == [other]
    np.testing.assert_array_equal(conv.kernel, before)
    assert bn in new.layers
    assert_both_compute_it(original, batch(model), model, new)


def test_a_batch_norm_folds_into_all_branches_of_a_concatenate():
    x = keras.Input((6, 6, 3), name="x")
    one, two, bn = L.Conv2D(4, 3, name="one"), L.Conv2D(2, 3, use_bias=False, name="two"), L.BatchNormalization(name="bn")
    model = bite(keras.Model(x, L.ReLU()(bn(L.Concatenate()([one(x), two(x)])))))
    original = copy_of(model)
    pairs, new = fold_all_batch_norms(model)
    assert pairs == [(one, bn), (two, bn)]
    assert_both_compute_it(original, batch(model), model, new)


def test_operations_and_masks_are_wired_as_they_were():
    x = keras.Input((6,), dtype="int32", name="x")
    y = L.Embedding(9, 4, mask_zero=True)(x)
    y = L.BatchNormalization()(L.Dense(5, use_bias=False)(y))
    model = bite(keras.Model(x, [L.GlobalAveragePooling1D()(y), keras.ops.relu(y) * 2.0]))
    original = copy_of(model)
    pairs, new = fold_all_batch_norms(model)
    assert len(pairs) == 1
    x = np.random.default_rng(0).integers(0, 3, (4, 6))  # with zeros, which are masked
    assert_both_compute_it(original, x, model, new)


def test_the_layers_values_of_the_given_model_may_still_be_asked_for():
    model = two_norms()
    original, x = copy_of(model), batch(model)
    fold_all_batch_norms(model)
    wanted, got = (keras.Model(one.inputs[0], one.get_layer("relu").output) for one in (original, model))
    assert_near(outputs(got, x), outputs(wanted, x), truth(wanted, x), wanted, x, UNIT)


def test_a_second_fold_finds_nothing_to_do():
    model = two_norms()
    _, new = fold_all_batch_norms(model)
    before = new.get_weights()
    pairs, again = fold_all_batch_norms(new)
    assert pairs == []
    for got, wanted in zip(again.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_the_given_model_may_be_folded_again_and_its_batch_norms_remember_what_they_first_were():
    model = two_norms()
    original, x = copy_of(model), batch(model)
    first, _ = fold_all_batch_norms(model)
    remembered = [(bn.original_gamma, bn.original_beta, bn.tells_of) for _, bn in first]
    weights = [np.asarray(weight).copy() for layer, _ in first for weight in layer.weights]
    again, new = fold_all_batch_norms(model)
    assert again == first
    for (_, bn), (gamma, beta, tells_of) in zip(again, remembered, strict=True):
        np.testing.assert_array_equal(bn.original_gamma, gamma)
        np.testing.assert_array_equal(bn.original_beta, beta)
        assert bn.tells_of == tells_of
    for got, wanted in zip([weight for layer, _ in first for weight in layer.weights], weights, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert_both_compute_it(original, x, model, new)


def test_a_subclassed_model_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(UnsupportedModelError, match="subclassed"):
        fold_all_batch_norms(Own())


# given pairs


@pytest.mark.parametrize(
    "pair",
    [("first", "after"), ("after", "first"), ("first", "after", True), ("second", "before", False), ("before", "second")],
    ids=lambda pair: " ".join(map(str, pair)),
)
def test_one_given_pair_folds_in_whatever_order_it_is_named_and_nothing_else(pair):
    model = two_norms()
    original = copy_of(model)
    layer, bn = sorted((model.get_layer(name) for name in pair[:2]), key=lambda layer: isinstance(layer, L.BatchNormalization))
    other = model.get_layer("before" if bn.name == "after" else "after")
    before = [np.asarray(weight).copy() for weight in other.weights]
    new = fold_given_batch_norms(model, layer_pairs=[(model.get_layer(pair[0]), model.get_layer(pair[1]), *pair[2:])])
    assert names(new) == [name for name in names(model) if name != bn.name]
    assert new.get_layer(layer.name) is layer
    for got, wanted in zip(other.weights, before, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert_both_compute_it(original, batch(model), model, new)


def test_no_pairs_change_nothing():
    model = two_norms()
    before = model.get_weights()
    assert names(fold_given_batch_norms(model, [])) == names(model)
    for got, wanted in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("pair", "why"),
    [
        (lambda m: (m.get_layer("second"), m.get_layer("before")), "^before cannot fold into second: .*second pads with zeros"),
        (lambda m: (m.get_layer("second"), m.get_layer("after")), "^after cannot fold into second: "),
        (lambda m: (m.get_layer("first"), m.get_layer("second")), "^first and second are no pair of a linear layer and a batch norm"),
        (lambda m: (m.get_layer("relu"), m.get_layer("after")), "^after cannot fold into relu: "),
        (lambda m: (L.Conv2D(2, 3, name="stray"), m.get_layer("after")), "^stray is no layer of model m"),
        (lambda m: (m.get_layer("first"),), "is no pair of layers"),
        (lambda m: ("first", "after"), "is no pair of layers"),
        (lambda m: m.get_layer("first"), "name=first.* is no pair of layers"),
    ],
)
def test_a_given_pair_that_does_not_fold_is_an_error_that_says_why_and_nothing_changes(pair, why):
    model = two_norms("same")
    before = model.get_weights()
    with pytest.raises(TfpassesError, match=why):
        fold_given_batch_norms(model, [(model.get_layer("first"), model.get_layer("after")), pair(model)])
    for got, wanted in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_importing_the_interface_imports_neither_tensorflow_nor_keras():
    modules = ["keras.batch_norm_fold", "keras.cross_layer_equalization", "keras.utils.model_transform_utils", "batch_norm_fold"]
    modules += ["cross_layer_equalization", "utils.graph_saver", "utils.op.conv"]
    code = f"import sys; {'; '.join(f'import tfpasses.passes.aimet.{module}' for module in modules)}"
    code += "; sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("MobileNetV2", 52), ("ResNet50", 53), ("DenseNet121", 59)])
def test_networks_of_keras_applications(name, count):
    original = zoo.build(name)
    model = copy_of(original)
    pairs, new = fold_all_batch_norms(model)
    assert len({id(bn) for _, bn in pairs}) == count
    assert_both_compute_it(original, zoo.inputs(name, 2, 1), model, new)
