"""The zoo bites: its models tell images apart, and none of their batch norms can lose its beta unnoticed."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import zoo
from zoo.lost_betas import effects_of_lost_betas
from zoo.measured_statistics import measuring
from zoo.seeded_models import calibration

_SLOW = {"NASNetMobile", "DenseNet121", "ResNet50"}


def _each_model() -> list:
    """One parameter a model, all tests of it on one worker: the model is built once a process."""
    slow = {name: [pytest.mark.slow] if name in _SLOW else [] for name in zoo.ARCHITECTURES}
    return [pytest.param(name, marks=[pytest.mark.xdist_group(name), *slow[name]]) for name in zoo.ARCHITECTURES]


each_model = pytest.mark.parametrize("name", _each_model())


@each_model
def test_two_images_give_different_outputs(name: str) -> None:
    first, second = np.asarray(zoo.build(name)(zoo.inputs(name, 2, seed=1), training=False))
    assert zoo.relative_error(first, second) > 0.05


@each_model
def test_every_lost_beta_moves_the_output_by_a_hundred_tolerances(name: str) -> None:
    model, x = zoo.build(name), zoo.inputs(name, 2, seed=1)
    effects = effects_of_lost_betas(model, x)
    assert len(effects) == zoo.ARCHITECTURES[name].batch_norms
    least = 100 * zoo.tolerance(model, x)
    assert {path: effect for path, effect in effects.items() if not effect >= least} == {}


@each_model
def test_foldable_batch_norms_are_as_many_as_counted_by_hand(name: str) -> None:
    assert zoo.fold_count(zoo.build(name)) == zoo.ARCHITECTURES[name].foldable


@pytest.mark.xdist_group("EfficientNetB0")
def test_inference_on_the_calibration_images_repeats_the_measuring_pass() -> None:
    """Holds only if the statistics are those of the batch and no dropout was active while they were measured."""
    model, x = zoo.build.__wrapped__("EfficientNetB0"), calibration("EfficientNetB0")
    inference = model(x, training=False)
    with measuring(model):
        assert zoo.relative_error(model(x, training=True), inference) < zoo.tolerance(model, x)


@pytest.mark.xdist_group("MobileNetV3Small")
def test_layer_names_do_not_depend_on_what_was_built_before() -> None:
    first = [layer.name for layer in zoo.architecture("MobileNetV3Small").layers]
    layers.Conv2D(1, 1)
    assert [layer.name for layer in zoo.architecture("MobileNetV3Small").layers] == first


def test_fresh_names_give_the_old_counters_back() -> None:
    before = layers.Dense(1).name
    with zoo.fresh_names():
        assert layers.Dense(1).name == "dense"
    assert layers.Dense(1).name not in ("dense", before)


def test_images_are_reproducible_and_within_their_pixels() -> None:
    first, again = zoo.images(3, (8, 9, 3), 5, (0.0, 255.0)), zoo.images(3, (8, 9, 3), 5, (0.0, 255.0))
    assert first.dtype == np.float32
    assert first.shape == (3, 8, 9, 3)
    assert first.min() >= 0.0
    assert first.max() <= 255.0
    np.testing.assert_array_equal(first, again)


# float64 reference


def _input(*shape: int, dtype: str = "float32") -> keras.KerasTensor:
    return keras.Input(shape, dtype=dtype)


def test_float64_outputs_are_numpys_for_a_dense_layer() -> None:
    x = _input(5)
    model = keras.Model(x, layers.Dense(4, activation="sigmoid")(x))
    kernel, bias = (weight.numpy().astype(np.float64) for weight in model.weights)
    data = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    expected = 1.0 / (1.0 + np.exp(-(data.astype(np.float64) @ kernel + bias)))
    assert zoo.relative_error(zoo.float64_outputs(model, data), expected) < 1e-15


def test_float64_outputs_widen_shared_nested_and_cast_layers_and_keep_the_outputs_structure() -> None:
    x = _input(6)
    shared = layers.Dense(6, name="shared")
    inner = keras.Sequential([layers.Input((6,)), layers.Dense(6, name="within"), layers.BatchNormalization()], name="inner")
    y = keras.ops.cast(inner(shared(shared(x))) + 3.0, "float32") / 3.0
    model = keras.Model(x, {"sum": layers.Add()([y, x]), "inner": inner(y)})
    zoo.golden_weights(model)
    data = np.random.default_rng(1).normal(size=(2, 6)).astype(np.float32)
    outputs = zoo.float64_outputs(model, data)
    assert {key: value.dtype for key, value in outputs.items()} == {"sum": np.float64, "inner": np.float64}

    def dense(layer: layers.Layer, value: np.ndarray) -> np.ndarray:
        kernel, bias = (weight.numpy().astype(np.float64) for weight in layer.weights)
        return value @ kernel + bias

    def inner_of(value: np.ndarray) -> np.ndarray:
        norm = inner.layers[1]
        gamma, beta, mean, variance = (weight.numpy().astype(np.float64) for weight in norm.weights)
        return (dense(inner.layers[0], value) - mean) / np.sqrt(variance + norm.epsilon) * gamma + beta

    expected = (inner_of(dense(shared, dense(shared, data.astype(np.float64)))) + 3.0) / 3.0
    assert zoo.relative_error(outputs["sum"], expected + data) < 1e-14
    assert zoo.relative_error(outputs["inner"], inner_of(expected)) < 1e-14


def test_float64_outputs_leave_integer_inputs_integers() -> None:
    x = _input(3, dtype="int32")
    model = keras.Model(x, layers.Embedding(7, 2)(x))
    indices = np.array([[0, 3, 6]], np.int32)
    np.testing.assert_array_equal(zoo.float64_outputs(model, indices)[0], model.weights[0].numpy()[[0, 3, 6]])


def test_float64_outputs_use_an_adapted_normalization() -> None:
    x = _input(2)
    normalization = layers.Normalization()
    model = keras.Model(x, normalization(x))
    normalization.adapt(np.array([[1.0, 2.0], [3.0, 6.0]]))  # mean 2, 4; deviation 1, 2
    np.testing.assert_allclose(zoo.float64_outputs(model, np.array([[4.0, 0.0]], np.float32)), [[2.0, -2.0]], rtol=1e-15)


def test_float64_outputs_refuse_a_layer_that_computes_in_float32() -> None:
    x = _input(2, 2, 1)
    model = keras.Model(x, layers.UpSampling2D(interpolation="bilinear")(x))
    with pytest.raises(ArithmeticError, match="ResizeBilinear"):
        zoo.float64_outputs(model, np.ones((1, 2, 2, 1), np.float32))


class _NarrowWithin(layers.Layer):
    """float64 outside, float32 within a function of its own."""

    @tf.function
    def call(self, x):
        return tf.cast(tf.sqrt(tf.cast(x, tf.float32)), x.dtype)


def test_float64_outputs_refuse_a_function_within_a_layer_that_computes_in_float32() -> None:
    x = _input(2)
    with pytest.raises(ArithmeticError, match="Sqrt"):
        zoo.float64_outputs(keras.Model(x, _NarrowWithin()(x)), np.ones((1, 2), np.float32))


def test_float64_outputs_leave_keras_as_it_was() -> None:
    x = _input(2)
    zoo.float64_outputs(keras.Model(x, layers.Dense(1)(x)), np.ones((1, 2), np.float32))
    assert (keras.config.floatx(), layers.Dense(1).dtype_policy.name) == ("float32", "float32")


# fold scan


def _folds(tail) -> int:
    """Folds of the model that `tail` makes of an image."""
    x = _input(8, 8, 3)
    return zoo.fold_count(keras.Model(x, tail(x)))


@pytest.mark.parametrize(
    "linear",
    [
        lambda: layers.Conv2D(4, 3),
        lambda: layers.DepthwiseConv2D(3),
        lambda: layers.SeparableConv2D(4, 3),
        lambda: layers.Conv2DTranspose(4, 3),
        lambda: layers.Dense(4),
    ],
)
def test_norm_behind_a_linear_layer_folds(linear) -> None:
    assert _folds(lambda x: layers.BatchNormalization()(linear()(x))) == 1


def test_norm_folds_through_dropout() -> None:
    assert _folds(lambda x: layers.BatchNormalization()(layers.SpatialDropout2D(0.1)(layers.Conv2D(4, 3)(x)))) == 1


def test_pairs_name_layer_and_norm_within_nested_models() -> None:
    inner = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(3, 1, name="c"), layers.BatchNormalization(name="n")], name="s")
    x = _input(8, 8, 3)
    assert zoo.foldable(keras.Model(x, inner(inner(x)))) == [("s/c", "s/n")]


def _norm_reads_the_input(x):
    return layers.BatchNormalization()(x)


def _conv_read_twice(x):
    y = layers.Conv2D(3, 1)(x)
    return layers.Add()([layers.BatchNormalization()(y), y])


def _conv_called_twice(x):
    conv = layers.Conv2D(3, 1)
    return layers.BatchNormalization()(conv(conv(x)))


def _conv_is_an_output(x):
    y = layers.Conv2D(3, 1)(x)
    return [layers.BatchNormalization()(y), y]


def _dropout_read_twice(x):
    y = layers.Dropout(0.1)(layers.Conv2D(3, 1)(x))
    return layers.Add()([layers.BatchNormalization()(y), y])


def _conv_ends_a_nested_model(x):
    return layers.BatchNormalization()(keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(3, 1)])(x))


@pytest.mark.parametrize(
    "tail",
    [
        _conv_read_twice,
        _conv_called_twice,
        _conv_is_an_output,
        _dropout_read_twice,
        _conv_ends_a_nested_model,
        _norm_reads_the_input,
        lambda x: layers.BatchNormalization()(layers.Conv2D(3, 1, activation="relu")(x)),
        lambda x: layers.BatchNormalization()(layers.ReLU()(layers.Conv2D(3, 1)(x))),
        lambda x: layers.BatchNormalization(axis=1)(layers.Conv2D(3, 1)(x)),
        lambda x: layers.BatchNormalization()(layers.Conv2D(3, 1)(x), training=True),
    ],
)
def test_norm_does_not_fold(tail) -> None:
    assert _folds(tail) == 0


# golden weights


def test_golden_weights_are_integers_scaled_by_powers_of_two_whatever_the_layer() -> None:
    x = _input(8, 8, 3)
    y = layers.SeparableConv2D(4, 3)(layers.DepthwiseConv2D(3)(layers.Normalization()(x)))
    model = keras.Model(x, layers.Dense(40)(layers.Flatten()(layers.BatchNormalization()(layers.Conv2DTranspose(5, 2)(y)))))
    zoo.golden_weights(model)
    for weight in model.weights:
        values = weight.numpy().astype(np.float64)
        assert (values * 2**16 == np.round(values * 2**16)).all(), weight.path
        assert weight.name == "count" or np.abs(values).max() > 0, weight.path
        if "variance" in weight.name:
            assert values.min() > 0, weight.path


def test_golden_weights_are_the_raw_stream_of_pcg64() -> None:
    """The first bias, written down: integers -127 + (bits 40 and up, mod 255), over 256."""
    x = _input(1)
    model = keras.Model(x, layers.Dense(3)(x))
    zoo.golden_weights(model)
    np.testing.assert_array_equal(model.weights[1].numpy(), [22 / 256, 73 / 256, -90 / 256])


def test_golden_weights_differ_by_seed() -> None:
    x = _input(4)
    model = keras.Model(x, layers.Dense(4)(x))
    zoo.golden_weights(model, seed=1)
    first = model.weights[0].numpy()
    zoo.golden_weights(model, seed=2)
    assert (model.weights[0].numpy() != first).any()


# relative error


def test_relative_error_is_the_largest_difference_over_the_largest_reference() -> None:
    assert zoo.relative_error([1.0, -3.0], [1.0, -4.0]) == 0.25


def test_relative_error_does_not_hide_a_nan() -> None:
    assert not zoo.relative_error([np.nan, 1.0], [1.0, 1.0]) < 1.0


def test_relative_error_refuses_to_broadcast() -> None:
    with pytest.raises(ValueError, match="shape"):
        zoo.relative_error([1.0], [[1.0], [1.0]])
