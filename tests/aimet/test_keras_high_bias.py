"""AIMET's high-bias fold of Keras layers, against arithmetic by hand; and cross-layer equalization in one call."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

from cle_by_hand import float64, pair_scale, response, triplet_scales
from fold_cases import CASES, batch, bite, chain
from fold_check import assert_near
from in_float64 import outputs, truth
from tfpasses.graph import UnsupportedModelError
from tfpasses.passes.aimet.keras.batch_norm_fold import fold_all_batch_norms
from tfpasses.passes.aimet.keras.cross_layer_equalization import (
    ClsSetInfo,
    CrossLayerScaling,
    HighBiasFold,
    equalize_bn_folded_model,
    equalize_model,
)

UNIT = 2.0**-24


def copy_of(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def lifted(model):
    """Batch norms whose beta is far above three gammas in some channels, and gammas of both signs."""
    bite(model)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            beta = np.asarray(layer.beta).copy()
            beta[::2] = np.abs(beta[::2]) + 5
            layer.beta.assign(beta)
            layer.gamma.assign(layer.gamma * 0.5)
    return model


def two(active=True, second=None):
    """Convolution, batch norm, perhaps a ReLU, another layer."""
    between = [L.ReLU()] if active else []
    second = second or L.Conv2D(3, 3, name="b")
    return lifted(chain(L.Conv2D(4, 3, use_bias=False, name="a"), L.BatchNormalization(name="bn"), *between, second, shape=(9, 8, 3)))


def shift_by_hand(bn, scale, active, sign=abs):
    """max(0, beta - 3·|gamma|) / s behind a ReLU, beta / s where nothing lies between."""
    gamma, beta = float64(bn.original_gamma), float64(bn.original_beta)
    return (np.maximum(0, beta - 3 * np.abs(gamma)) if active else beta) / scale


def assert_moved(first, second, biases, shift):
    np.testing.assert_allclose(first.bias, float64(biases[0]) - shift, rtol=3e-7, atol=1e-6)
    np.testing.assert_allclose(second.bias, float64(biases[1]) + response(second, shift), rtol=3e-7, atol=1e-5)
    assert (shift > 0).any() and (np.abs(np.asarray(first.bias) - biases[0]) > 0.1).any()


@pytest.mark.parametrize("active", [True, False], ids=["relu", "nothing between"])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if len(case.shape) == 3 and case.axis == -1])
def test_whatever_the_second_layer_the_biases_are_those_of_the_arithmetic(name, active):
    second = CASES[name].make(True)
    shape = CASES[name].shape
    first = L.Conv2D(shape[-1], 3, padding="same", name="a") if len(shape) == 3 else L.Dense(shape[-1], name="a")
    between = [L.ReLU()] if active else []
    model = lifted(chain(first, L.BatchNormalization(name="bn"), *between, second, shape=shape))
    pairs, new = fold_all_batch_norms(model)
    scale = pair_scale(first, second)
    infos = CrossLayerScaling.scale_model(new)
    assert [pair.relu_activation_between_layers for pair in infos[0].cls_pair_info_list] == [active]
    biases = [np.asarray(layer.bias).copy() for layer in (first, second)]
    HighBiasFold.bias_fold(infos, pairs)
    assert_moved(first, second, biases, shift_by_hand(model.get_layer("bn"), scale, active))


def test_of_three_layers_each_pair_is_folded_with_its_own_scale():
    made = [L.Conv2D(4, 3, name="a"), L.BatchNormalization(name="a_bn"), L.ReLU(), L.DepthwiseConv2D(3, name="b")]
    made += [L.BatchNormalization(name="b_bn"), L.ReLU(), L.Conv2D(3, 1, name="c")]
    model = lifted(chain(*made, shape=(9, 8, 3)))
    pairs, new = fold_all_batch_norms(model)
    a, b, c = (model.get_layer(name) for name in "abc")
    one, other = triplet_scales(a, b, c)
    infos = CrossLayerScaling.scale_model(new)
    biases = [np.asarray(layer.bias).copy() for layer in (a, b, c)]
    HighBiasFold.bias_fold(infos, pairs)
    first, second = shift_by_hand(model.get_layer("a_bn"), one, True), shift_by_hand(model.get_layer("b_bn"), other, True)
    np.testing.assert_allclose(a.bias, biases[0] - first, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(b.bias, biases[1] + response(b, first) - second, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(c.bias, biases[2] + response(c, second), rtol=1e-6, atol=1e-5)


def test_where_nothing_lies_between_the_function_stays():
    model = two(active=False)
    original = copy_of(model)
    pairs, new = fold_all_batch_norms(model)
    HighBiasFold.bias_fold(CrossLayerScaling.scale_model(new), pairs)
    x = batch(model)
    assert_near(outputs(new, x), outputs(original, x), truth(original, x), original, x, UNIT)


def test_behind_a_relu_values_that_are_below_the_shift_alone_are_off():
    model = two()
    original = copy_of(model)
    pairs, new = fold_all_batch_norms(model)
    infos = CrossLayerScaling.scale_model(new)
    HighBiasFold.bias_fold(infos, pairs)
    x = batch(model)
    inner = [keras.Model(one.inputs[0], one.get_layer("re_lu").output) for one in (original, model)]
    before, after = (np.asarray(outputs(one, x)[0], np.float64) for one in inner)
    scale = infos[0].cls_pair_info_list[0].scale_factor
    shift = shift_by_hand(model.get_layer("bn"), 1.0, True)
    np.testing.assert_allclose(after * scale, np.maximum(0, before - shift), atol=1e-4)


@pytest.mark.parametrize("kind", ["dict", "list", "triples", "tuple of pairs", "batch norms first", "dict by batch norm"])
def test_the_folded_batch_norms_come_as_a_dict_or_as_pairs(kind):
    model, twin = two(), two()
    pairs, new = fold_all_batch_norms(model)
    turned = [(bn, layer) for layer, bn in pairs]
    kinds = {"dict": dict(pairs), "list": pairs, "triples": [(*pair, True) for pair in pairs], "tuple of pairs": tuple(pairs)}
    given = {**kinds, "batch norms first": turned, "dict by batch norm": dict(turned)}[kind]
    HighBiasFold.bias_fold(CrossLayerScaling.scale_model(new), given)
    others, other = fold_all_batch_norms(twin)
    HighBiasFold.bias_fold(CrossLayerScaling.scale_model(other), others)
    for got, wanted in zip(new.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert np.abs(np.asarray(new.get_layer("a").bias)).max() < np.abs(np.asarray(model.get_layer("bn").original_beta)).max()


def test_what_does_not_belong_together_is_an_error_and_nothing_changes():
    pairs, new = fold_all_batch_norms(two())
    infos = CrossLayerScaling.scale_model(new)
    a, b = new.get_layer("a"), new.get_layer("b")
    before = new.get_weights()
    for sets, given, why in (
        (infos, infos, "ClsSetInfo object .* is no pair of a layer and a batch norm"),
        (infos, [(a, b)], "is no pair of a layer and a batch norm"),
        (infos, [a], "name=a.* is no pair of a layer and a batch norm"),
        (pairs, pairs, "is no ClsSetInfo"),
        (CrossLayerScaling.create_cls_set_info_list([(a, b)], [np.ones(7)], [True]), pairs, r"there are 7 scales of shape \(7,\)"),
        (CrossLayerScaling.create_cls_set_info_list([(a, a)], [np.ones(4)], [True]), pairs, "a gives 4 channels, a reads 3"),
    ):
        with pytest.raises(ValueError, match=why):
            HighBiasFold.bias_fold(sets, given)
    for got, wanted in zip(new.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, wanted)


def assert_nothing_moves(new, infos, pairs):
    before = new.get_weights()
    HighBiasFold.bias_fold(infos, pairs)
    for got, wanted in zip(new.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("nothing", [{}, []], ids=["dict", "list"])
def test_without_batch_norms_nothing_moves(nothing):
    _, new = fold_all_batch_norms(two())
    assert_nothing_moves(new, CrossLayerScaling.scale_model(new), nothing)


def test_without_a_bias_in_the_second_layer_nothing_moves():
    pairs, new = fold_all_batch_norms(two(second=L.Conv2D(3, 3, use_bias=False, name="b")))
    assert_nothing_moves(new, CrossLayerScaling.scale_model(new), pairs)


def test_a_batch_norm_that_was_folded_forward_tells_nothing_of_the_layer():
    made = [
        L.Conv2D(4, 3, name="a"),
        L.ReLU(),
        L.BatchNormalization(name="bn"),
        L.Conv2D(4, 3, name="b"),
        L.ReLU(),
        L.Conv2D(4, 1, name="c"),
    ]
    pairs, new = fold_all_batch_norms(lifted(chain(*made, shape=(9, 8, 3))))
    assert [(layer.name, bn.name) for layer, bn in pairs] == [("b", "bn")]
    infos = CrossLayerScaling.scale_model(new)
    assert [info.cls_pair_info_list[0].layer1.name for info in infos] == ["a", "b"]
    assert_nothing_moves(new, infos, pairs)


def test_a_batch_norm_that_was_folded_through_a_pool_tells_nothing_of_the_layer():
    made = [L.Conv2D(4, 3, name="a"), L.AveragePooling2D(2), L.BatchNormalization(name="bn"), L.ReLU(), L.Conv2D(4, 3, name="b")]
    pairs, new = fold_all_batch_norms(lifted(chain(*made, shape=(9, 8, 3))))
    assert len(pairs) == 1
    assert_nothing_moves(new, CrossLayerScaling.scale_model(new), pairs)


def test_of_two_batch_norms_in_a_row_the_last_tells_of_the_layer():
    made = [
        L.Conv2D(4, 3, name="a"),
        L.BatchNormalization(name="one"),
        L.BatchNormalization(name="two"),
        L.ReLU(),
        L.Conv2D(4, 3, name="b"),
    ]
    model = lifted(chain(*made, shape=(9, 8, 3)))
    pairs, new = fold_all_batch_norms(model)
    assert [bn.tells_of for _, bn in pairs] == [None, "a"]
    a, b = model.get_layer("a"), model.get_layer("b")
    scale = pair_scale(a, b)
    infos = CrossLayerScaling.scale_model(new)
    biases = [np.asarray(layer.bias).copy() for layer in (a, b)]
    HighBiasFold.bias_fold(infos, pairs)
    assert_moved(a, b, biases, shift_by_hand(model.get_layer("two"), scale, True))


def test_a_layer_with_a_batch_norm_on_either_side_is_told_of_by_the_one_behind_it():
    made = [L.ReLU(), L.BatchNormalization(name="before"), L.Conv2D(4, 3, name="a"), L.BatchNormalization(name="after"), L.ReLU()]
    model = lifted(chain(*made, L.Conv2D(4, 3, name="b"), shape=(9, 8, 4)))
    pairs, new = fold_all_batch_norms(model)
    assert [(layer.name, bn.name) for layer, bn in pairs] == [("a", "after"), ("a", "before")]
    a, b = model.get_layer("a"), model.get_layer("b")
    scale = pair_scale(a, b)
    infos = CrossLayerScaling.scale_model(new)
    biases = [np.asarray(layer.bias).copy() for layer in (a, b)]
    HighBiasFold.bias_fold(infos, pairs)
    assert_moved(a, b, biases, shift_by_hand(model.get_layer("after"), scale, True))


def test_a_batch_norm_that_was_not_folded_here_counts_as_it_is():
    a, b, bn = L.Conv2D(4, 3, name="a"), L.Conv2D(3, 3, name="b"), L.BatchNormalization(name="bn")
    chain(a, L.ReLU(), b, shape=(9, 8, 3))
    lifted(chain(bn, shape=(2, 2, 4)))
    info = ClsSetInfo(ClsSetInfo.ClsSetLayerPairInfo(a, b, np.full(4, 2.0), True))
    biases = [np.asarray(layer.bias).copy() for layer in (a, b)]
    shift = np.maximum(0, float64(bn.beta) - 3 * np.abs(float64(bn.gamma))) / 2
    HighBiasFold.bias_fold([info], {a: bn})
    assert_moved(a, b, biases, shift)


# in one call


def mobile():
    made = [L.Conv2D(6, 3, padding="same", use_bias=False, name="a"), L.BatchNormalization(name="a_bn"), L.ReLU(6.0, name="a_relu")]
    made += [L.DepthwiseConv2D(3, use_bias=False, name="b"), L.BatchNormalization(name="b_bn"), L.Activation("relu6", name="b_relu")]
    return lifted(chain(*made, L.Conv2D(4, 1, activation="relu6", name="c"), L.Dense(3, name="d"), shape=(9, 8, 3)))


def test_one_call_is_the_four_steps_one_after_the_other_and_leaves_the_given_model_alone():
    from tfpasses.passes.aimet.keras.utils.model_transform_utils import replace_relu6_with_relu

    model, twin = mobile(), mobile()
    before = model.get_weights()
    new = equalize_model(model)
    other, _ = replace_relu6_with_relu(twin)
    pairs, other = fold_all_batch_norms(other)
    HighBiasFold.bias_fold(CrossLayerScaling.scale_model(other), dict(pairs))
    assert [layer.name for layer in new.layers] == [layer.name for layer in other.layers]
    for got, wanted in zip(new.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)
    for got, wanted in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert not [layer for layer in new.layers if isinstance(layer, L.BatchNormalization) or getattr(layer, "max_value", None)]


def test_a_folded_model_and_its_pairs_are_equalized_in_place():
    model, twin = two(), two()
    pairs, new = fold_all_batch_norms(model)
    assert equalize_bn_folded_model(new, pairs) is None
    for got, wanted in zip(new.get_weights(), equalize_model(twin, (9, 8, 3)).get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_model_without_batch_norms_is_scaled_alone():
    model = chain(L.Conv2D(4, 3, name="a"), L.ReLU(), L.Conv2D(3, 3, name="b"), shape=(9, 8, 3))
    new, x = equalize_model(model), batch(model)
    assert np.any(np.asarray(new.get_layer("a").kernel) != np.asarray(model.get_layer("a").kernel))
    assert_near(outputs(new, x), outputs(model, x), truth(model, x), model, x, UNIT)


def test_a_trained_model_is_equalized_since_it_is_not_changed():
    model = two()
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    assert not equalize_model(model).compiled


def test_a_subclassed_model_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(UnsupportedModelError, match="subclassed"):
        equalize_model(Own())
