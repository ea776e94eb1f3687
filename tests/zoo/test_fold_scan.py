"""The independent scan, on models whose folds are plain to see; tests/test_zoo.py has those right behind a linear layer."""

from __future__ import annotations

import keras
import pytest
from keras import layers as L

import zoo


def _model(*chain: L.Layer, shape=(8, 8, 3)) -> keras.Model:
    x = y = keras.Input(shape)
    for layer in chain:
        y = layer(y)
    return keras.Model(x, y)


def _kinds(model: keras.Model) -> list[str]:
    return [fold.kind for fold in zoo.fold_scan(model)]


def _norm(**options) -> L.Layer:
    return L.BatchNormalization(name="norm", **options)


# backward


@pytest.mark.parametrize(
    "between",
    [
        [L.AveragePooling2D(2)],
        [L.AveragePooling2D(3, strides=1, padding="same")],
        [L.GlobalAveragePooling2D()],
        [L.Cropping2D(1)],
        [L.Dropout(0.1), L.AveragePooling2D(2), L.Identity()],
    ],
)
def test_a_norm_folds_backward_through_means_and_crops(between) -> None:
    assert _kinds(_model(L.Conv2D(4, 3), *between, _norm())) == ["backward"]


@pytest.mark.parametrize("pool", [L.MaxPooling2D, lambda _: L.GlobalMaxPooling2D()])
def test_a_norm_folds_through_a_maximum_only_where_its_scale_cannot_be_negative(pool) -> None:
    assert _kinds(_model(L.Conv2D(4, 3), pool(2), _norm(scale=False))) == ["backward"]
    assert _kinds(_model(L.Conv2D(4, 3), pool(2), _norm())) == []


@pytest.mark.parametrize(
    "between",
    [
        [L.ZeroPadding2D(1)],
        [L.UpSampling2D(2)],
        [L.ReLU()],
        [L.Flatten()],
        [L.AveragePooling2D(2, data_format="channels_first")],
        [L.GlobalAveragePooling2D(data_format="channels_first")],
    ],
)
def test_a_norm_does_not_fold_backward_through(between) -> None:
    assert _kinds(_model(L.Conv2D(4, 3), *between, _norm())) == []


def _concat(*branches, axis=-1, norm=None, tail=()) -> keras.Model:
    x = keras.Input((8, 8, 3))
    y = L.Concatenate(axis=axis)([branch(x) for branch in branches])
    for layer in [*tail, norm or _norm()]:
        y = layer(y)
    return keras.Model(x, y)


def _conv(name):
    return L.Conv2D(4, 3, name=name)


def test_a_norm_folds_into_all_branches_of_a_concatenation() -> None:
    model = _concat(_conv("a"), lambda x: L.AveragePooling2D(2, 1)(L.DepthwiseConv2D(2, name="b")(x)), tail=[L.Dropout(0.1)])
    assert zoo.fold_scan(model) == [zoo.Fold("norm", ("a", "b"), "concat")]
    assert zoo.foldable(model) == [("a", "norm"), ("b", "norm")]
    assert zoo.fold_count(model) == 1


def test_a_norm_folds_into_a_concatenation_through_a_global_mean() -> None:
    assert _kinds(_concat(_conv("a"), _conv("b"), tail=[L.GlobalAveragePooling2D()])) == ["concat"]


def _joined_twice() -> keras.Model:
    x = keras.Input((8, 8, 3))
    y = L.Conv2D(4, 3)(x)
    return keras.Model(x, _norm()(L.Concatenate()([y, y])))


@pytest.mark.parametrize(
    "model",
    [
        lambda: _concat(_conv("a"), L.Cropping2D(1)),
        lambda: _concat(_conv("a"), lambda x: L.ReLU()(L.Conv2D(4, 3)(x))),
        lambda: _concat(_conv("a"), L.Conv2D(4, 3, activation="relu")),
        lambda: _concat(*[_conv("a")] * 2),
        lambda: _concat(_conv("a"), _conv("b"), axis=1),
        lambda: _concat(_conv("a"), _conv("b"), norm=_norm(axis=1)),
        lambda: _concat(_conv("a"), _conv("b"), axis=1, norm=_norm(axis=1)),
        _joined_twice,
    ],
)
def test_no_norm_folds_into_a_concatenation_of_which_a_branch_cannot_take_it(model) -> None:
    assert _kinds(model()) == []


# forward


@pytest.mark.parametrize(
    "behind",
    [
        [L.Conv2D(4, 3)],
        [L.Conv2D(4, 3, activation="relu")],
        [L.Conv2D(4, 1, padding="same", strides=2)],
        [L.Conv2D(4, 2, padding="same", strides=2)],
        [L.Conv2D(4, 8, padding="same", strides=8)],
        [L.DepthwiseConv2D(3)],
        [L.SeparableConv2D(4, 3)],
        [L.Conv2DTranspose(4, 1)],
        [L.Dense(4)],
        [L.Dropout(0.1), L.AveragePooling2D(3, padding="same"), L.Cropping2D(1), L.Conv2D(4, 1)],
        [L.GlobalAveragePooling2D(), L.Dense(4)],
        [L.Flatten(), L.Dense(4)],
        [L.AveragePooling2D(2), L.Flatten(), L.Dropout(0.1), L.Dense(4)],
        [L.Reshape((64, 3)), L.Conv1D(4, 3)],
        [L.Reshape((8, 24)), L.Dense(4)],
    ],
)
def test_a_norm_folds_forward_where_no_padding_meets_the_kernel(behind) -> None:
    assert _kinds(_model(_norm(), *behind)) == ["forward"]


@pytest.mark.parametrize(
    "behind",
    [
        [L.Conv2D(4, 3, padding="same")],
        [L.Conv2D(4, 2, padding="same", dilation_rate=2)],
        [L.ZeroPadding2D(1), L.Conv2D(4, 3)],
        [L.Conv2DTranspose(4, 2)],
        [L.Conv2DTranspose(4, 1, strides=2)],
    ],
)
def test_of_a_norm_before_padding_the_scale_folds_forward(behind) -> None:
    assert _kinds(_model(_norm(), *behind)) == ["scale"]


def test_of_a_norm_before_a_causal_convolution_the_scale_folds_forward() -> None:
    assert _kinds(_model(_norm(), L.Conv1D(4, 2, padding="causal"), shape=(8, 3))) == ["scale"]


def test_a_size_that_is_not_known_is_taken_as_padded() -> None:
    assert _kinds(_model(_norm(), L.Conv2D(4, 2, padding="same", strides=2), shape=(None, None, 3))) == ["scale"]


def test_a_maximum_lets_a_norm_forward_only_where_its_scale_cannot_be_negative() -> None:
    assert _kinds(_model(_norm(scale=False), L.MaxPooling2D(2), L.Conv2D(4, 3))) == ["forward"]
    assert _kinds(_model(_norm(), L.MaxPooling2D(2), L.Conv2D(4, 3))) == []


def test_a_norm_between_two_linear_layers_folds_backward() -> None:
    assert zoo.fold_scan(_model(L.Conv2D(4, 3, name="a"), _norm(), L.Conv2D(4, 3, name="b"))) == [zoo.Fold("norm", ("a",), "backward")]


def _read_twice() -> keras.Model:
    x = keras.Input((8, 8, 3))
    y = _norm()(x)
    return keras.Model(x, L.Add()([L.Conv2D(3, 1)(y), y]))


def _called_twice() -> keras.Model:
    x = keras.Input((8, 8, 3))
    conv = L.Conv2D(3, 1)
    return keras.Model(x, conv(conv(_norm()(x))))


def _is_an_output() -> keras.Model:
    x = keras.Input((8, 8, 3))
    y = _norm()(x)
    return keras.Model(x, [L.Conv2D(3, 1)(y), y])


@pytest.mark.parametrize(
    "model",
    [
        _read_twice,
        _called_twice,
        _is_an_output,
        lambda: _model(_norm()),
        lambda: _model(_norm(), L.ReLU(), L.Conv2D(4, 3)),
        lambda: _model(_norm(axis=1), L.Conv2D(4, 3)),
        lambda: _model(_norm(axis=1), L.Reshape((64, 3)), L.Conv1D(4, 1)),
        lambda: _model(_norm(), L.Reshape((24, 8)), L.Dense(4)),
        lambda: _model(_norm(), L.Flatten(), L.Reshape((3, 64)), L.Dense(4)),
        lambda: _model(_norm(), L.AveragePooling2D(2, data_format="channels_first"), L.Conv2D(4, 1)),
    ],
)
def test_a_norm_does_not_fold_forward(model) -> None:
    assert _kinds(model()) == []


def test_a_norm_on_any_axis_folds_into_a_dense_layer_behind_a_flattening() -> None:
    assert _kinds(_model(_norm(axis=1), L.Flatten(), L.Dense(4))) == ["forward"]


def test_a_norm_that_trains_does_not_fold_forward() -> None:
    x = keras.Input((8, 8, 3))
    assert _kinds(keras.Model(x, L.Conv2D(4, 3)(_norm()(x, training=True)))) == []
