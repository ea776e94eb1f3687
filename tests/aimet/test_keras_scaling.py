"""AIMET's cross-layer scaling of Keras layers: the closed forms, in place; and what it does where a set is not safe."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from keras import layers as L

import zoo
from cle_by_hand import float64, given_range, pair_scale, read_range, scaled_given, scaled_read, triplet_scales
from fold_cases import CASES, batch, bite, chain
from fold_check import assert_near
from in_float64 import outputs, truth
from tfpasses.graph import UnsupportedModelError
from tfpasses.passes.aimet.keras.batch_norm_fold import fold_all_batch_norms, fold_given_batch_norms
from tfpasses.passes.aimet.keras.cross_layer_equalization import ClsSetInfo, CrossLayerScaling
from tfpasses.passes.aimet.keras.utils.model_transform_utils import replace_relu6_with_relu

UNIT = 2.0**-24
FIRST = {"data_format": "channels_first"}


@pytest.fixture(autouse=True)
def no_warning():
    """A set that is safe is scaled without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def copy_of(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def assert_computes(model, original, x):
    assert_near(outputs(model, x), outputs(original, x), truth(original, x), original, x, UNIT)


def assert_close(weight, wanted):
    np.testing.assert_allclose(np.asarray(weight), wanted, rtol=3e-7, atol=0)


def names(infos):
    return [(*(pair.layer1.name for pair in one.cls_pair_info_list), one.cls_pair_info_list[-1].layer2.name) for one in infos]


def flags(infos):
    return [tuple(pair.relu_activation_between_layers for pair in one.cls_pair_info_list) for one in infos]


def pair_of(first, second):
    """What scaling makes of two layers, by hand: the scale, the first's kernel and bias, the second's kernel."""
    scale = pair_scale(first, second)
    bias = None if first.bias is None else float64(first.bias) / scale
    return scale, scaled_given(first, scale), bias, scaled_read(second, scale)


def giver(layer):
    return layer.pointwise_kernel if hasattr(layer, "pointwise_kernel") else layer.kernel


def reader(layer):
    return layer.depthwise_kernel if hasattr(layer, "depthwise_kernel") else layer.kernel


# closed forms


@pytest.mark.parametrize("use_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("name", CASES)
def test_whatever_the_first_layer_the_scale_and_the_weights_are_those_of_the_closed_form(name, use_bias):
    case = CASES[name]
    first = case.make(use_bias)
    second = L.Dense(3, name="second") if case.axis == -1 else L.DepthwiseConv2D(2, name="second", **FIRST)
    model = chain(first, L.ReLU(), second, shape=case.shape)
    original, (scale, kernel, bias, other) = copy_of(model), pair_of(first, second)
    before = np.asarray(second.bias).copy()
    got = CrossLayerScaling.scale_cls_set_with_conv_layers((first, second))
    np.testing.assert_allclose(got, scale, rtol=1e-12)
    assert_close(giver(first), kernel)
    assert_close(reader(second), other)
    if use_bias:
        assert_close(first.bias, bias)
    np.testing.assert_array_equal(second.bias, before)
    np.testing.assert_allclose(given_range(first), read_range(second), rtol=1e-6)
    assert_computes(model, original, batch(model))


@pytest.mark.parametrize("name", CASES)
def test_whatever_the_second_layer_the_scale_and_the_weights_are_those_of_the_closed_form(name):
    case = CASES[name]
    second = case.make(True)
    width = case.shape[0 if case.axis == 1 else -1]
    first = L.Dense(width, name="first") if case.axis == -1 else L.DepthwiseConv2D(1, name="first", **FIRST)
    model = chain(first, L.LeakyReLU(), second, shape=case.shape)
    original, (scale, kernel, bias, other) = copy_of(model), pair_of(first, second)
    np.testing.assert_allclose(CrossLayerScaling.scale_cls_set_with_conv_layers([first, second]), scale, rtol=1e-12)
    for weight, wanted in ((giver(first), kernel), (first.bias, bias), (reader(second), other)):
        assert_close(weight, wanted)
    assert_computes(model, original, batch(model))


@pytest.mark.parametrize("use_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("rank", [1, 2])
def test_three_layers_with_a_depthwise_one_in_the_middle_are_scaled_at_once(rank, use_bias):
    conv, depthwise = (L.Conv1D, L.DepthwiseConv1D) if rank == 1 else (L.Conv2D, L.DepthwiseConv2D)
    first = conv(6, 3, use_bias=use_bias, name="a")
    middle, last = depthwise(3, padding="same", use_bias=use_bias, name="b"), conv(4, 1, name="c")
    model = chain(first, L.ReLU(), middle, L.ReLU(), last, shape=(9, 8, 3)[-rank - 1 :])
    original = copy_of(model)
    one, two = triplet_scales(first, middle, last)
    wanted = [scaled_given(first, one), scaled_given(middle, two, scaled_read(middle, one)), scaled_read(last, two)]
    biases = [float64(first.bias) / one, float64(middle.bias) / two] if use_bias else []
    got = CrossLayerScaling.scale_cls_set_with_depthwise_conv_layers((first, middle, last))
    assert isinstance(got, tuple)
    np.testing.assert_allclose(got, (one, two), rtol=1e-12)
    for layer, kernel in zip((first, middle, last), wanted, strict=True):
        assert_close(layer.kernel, kernel)
    for layer, bias in zip((first, middle), biases, strict=False):
        assert_close(layer.bias, bias)
    np.testing.assert_allclose(given_range(first), given_range(middle), rtol=1e-6)
    np.testing.assert_allclose(given_range(middle), read_range(last), rtol=1e-6)
    assert_computes(model, original, batch(model))


def test_three_layers_without_a_depthwise_one_are_scaled_as_two_pairs():
    layers = [L.Conv2D(4, 3, name=name) for name in "abc"]
    model = chain(layers[0], L.ReLU(), layers[1], L.ReLU(), layers[2], shape=(9, 8, 3))
    original, twin = copy_of(model), copy_of(model)
    one, two = CrossLayerScaling.scale_cls_sets([tuple(layers)])[0]
    pairs = [tuple(twin.get_layer(name) for name in pair) for pair in ("ab", "bc")]
    np.testing.assert_allclose((one, two), CrossLayerScaling.scale_cls_sets(pairs), rtol=1e-6)
    assert_computes(model, original, batch(model))


def test_channels_of_range_0_and_what_is_no_number_keep_their_scale():
    first, second = L.Conv2D(4, 3, name="a"), L.Conv2D(3, 3, name="b")
    chain(first, L.ReLU(), second, shape=(9, 8, 3))
    kernel, other = np.asarray(first.kernel).copy(), np.asarray(second.kernel).copy()
    kernel[..., 0], other[..., 1, :], kernel[..., 2] = 0, 0, np.nan
    first.kernel.assign(kernel)
    second.kernel.assign(other)
    with pytest.warns(UserWarning, match="not finite"):
        (scale,) = CrossLayerScaling.scale_cls_sets([(first, second)])
    np.testing.assert_array_equal(scale[:3], 1)
    assert scale[3] != 1 and np.isfinite(scale[3])


def test_a_range_of_1e_30_gives_a_bounded_scale():
    first, second = L.Conv2D(2, 3, name="a"), L.Conv2D(3, 3, name="b")
    model = chain(first, L.ReLU(), second, shape=(9, 8, 3))
    first.kernel.assign(first.kernel * np.array([1e-30, 1.0], "float32"))
    original = copy_of(model)
    (scale,) = CrossLayerScaling.scale_cls_sets([(first, second)])
    assert scale[0] == 2.0**-16
    assert np.isfinite(np.asarray(second.kernel)).all()
    assert_computes(model, original, batch(model))


# what is not safe


def other_of(y):
    """What another convolution makes of what a value was made of."""
    return L.Conv2D(4, 3, name="other")(y._keras_history.operation._inbound_nodes[0].input_tensors[0])


def branch(way):
    """Two convolutions, with something between that keeps them from being scaled."""
    x = keras.Input((9, 8, 3), name="x")
    a, b = L.Conv2D(4, 3, name="a"), L.Conv2D(3, 3, name="b")
    y = a(x)
    outs = way(y, b)
    bite(keras.Model(x, outs))
    return a, b


UNSAFE = {
    "a second reader": (lambda y, b: [b(L.ReLU()(y)), L.Conv2D(2, 1, name="other")(y)], "^scaling a, b: .*other reads what a gives, too"),
    "ReLU6": (lambda y, b: b(L.ReLU(6.0, name="relu6")(y)), "^scaling a, b: .*relu6: it clips at 6"),
    "swish": (lambda y, b: b(L.Activation("silu", name="silu")(y)), "silu: it is Silu, which no scale passes through"),
    "a sum": (lambda y, b: b(L.Add()([y, other_of(y)])), "other gives to the same channels as a"),
    "an operation": (lambda y, b: b(keras.ops.sin(y)), "which no scale passes through"),
    "a sum with a number": (lambda y, b: b(1.0 - L.ReLU()(y)), "it computes with a constant, which is not scaled"),
    "a limit from below": (
        lambda y, b: b(keras.ops.maximum(np.full((1, 1, 4), 0.5, "float32"), y)),
        "it computes with a constant, which is",
    ),
    "another order": (lambda y, b: b(L.Concatenate()([y[..., 2:], y[..., :2]])), "no scale passes through"),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_set_is_scaled_all_the_same_with_a_warning_that_says_why(name):
    way, why = UNSAFE[name]
    a, b = branch(way)
    scale, kernel, bias, other = pair_of(a, b)
    with pytest.warns(UserWarning, match=why) as caught:
        got = CrossLayerScaling.scale_cls_sets([(a, b)])
    assert caught[0].filename == __file__
    np.testing.assert_allclose(got, [scale], rtol=1e-12)
    for weight, wanted in ((a.kernel, kernel), (a.bias, bias), (b.kernel, other)):
        assert_close(weight, wanted)


def test_a_constant_of_zero_needs_no_scale():
    a, b = branch(lambda y, b: b(keras.ops.maximum(keras.ops.add(y, np.zeros(4, "float32")), 0.0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CrossLayerScaling.scale_cls_sets([(a, b)])


def test_layers_that_are_far_apart_are_scaled_with_a_warning():
    layers = [L.Conv2D(4, 3, padding="same", name=name) for name in "abc"]
    chain(*layers, shape=(9, 8, 4))
    with pytest.warns(UserWarning, match="scaling a, c: c does not read what a gives"):
        CrossLayerScaling.scale_cls_sets([(layers[0], layers[2])])


def test_layers_of_no_common_model_are_scaled_with_a_warning():
    first, second = L.Conv2D(4, 3, name="a"), L.Conv2D(3, 3, name="b")
    chain(first, shape=(9, 8, 3))
    chain(second, shape=(9, 8, 4))
    scale = pair_scale(first, second)
    with pytest.warns(UserWarning, match="scaling a, b: they are together in no model that can be looked into"):
        got = CrossLayerScaling.scale_cls_set_with_conv_layers((first, second))
    np.testing.assert_allclose(got, scale, rtol=1e-12)


def test_a_model_that_shares_the_first_layer_alone_does_not_count_but_one_that_shares_both_does():
    first, second = L.Conv2D(4, 3, name="a"), L.Conv2D(3, 3, name="b")
    chain(first, L.ReLU(), second, shape=(9, 8, 3))
    x = keras.Input((9, 8, 3))
    keras.Model(x, L.Softmax()(first(x)))
    CrossLayerScaling.scale_cls_sets([(first, second)])
    keras.Model(x, second(L.Activation("tanh", name="tanh")(first(x))))
    with pytest.warns(UserWarning, match="tanh"):
        CrossLayerScaling.scale_cls_sets([(first, second)])


def test_a_sequential_that_was_put_together_layer_by_layer_is_safe():
    model = keras.Sequential([keras.Input((9, 8, 3))])
    for layer in (L.Conv2D(4, 3, name="a"), L.ReLU(), L.Conv2D(3, 3, name="b"), L.ReLU(), L.Conv2D(2, 3, name="c")):
        model.add(layer)
    original = copy_of(bite(model))
    a, b, c = (model.get_layer(name) for name in "abc")
    CrossLayerScaling.scale_cls_sets([(a, b), (b, c)])
    assert_computes(model, original, batch(model))


def test_layers_within_a_nested_model_are_looked_at():
    a, b = L.Conv2D(4, 3, name="a"), L.Conv2D(3, 3, name="b")
    inner = keras.Sequential([keras.Input((8, 8, 3)), a, L.ReLU(6.0, name="six"), b])
    x = keras.Input((8, 8, 3))
    bite(keras.Model(x, inner(x)))
    with pytest.warns(UserWarning, match="six: it clips at 6"):
        CrossLayerScaling.scale_cls_sets([(a, b)])


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        (lambda: (L.ReLU(name="r"), L.Conv2D(3, 3)), "^r is no convolution or dense layer"),
        (lambda: (L.Conv2D(3, 3, name="unbuilt"), L.Conv2D(3, 3)), "^unbuilt is no convolution or dense layer that has been built"),
        (lambda: ("a", "b"), "is no convolution or dense layer"),
    ],
)
def test_what_is_no_linear_layer_is_an_error(layers, why):
    with pytest.raises(ValueError, match=why):
        CrossLayerScaling.scale_cls_sets([layers()])


def test_layers_that_do_not_fit_each_other_are_an_error_and_nothing_changes():
    first, second = L.Conv2D(4, 3, name="a"), L.Conv2D(3, 3, name="b")
    chain(first, shape=(9, 8, 3))
    chain(second, shape=(9, 8, 5))
    before = np.asarray(first.kernel).copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="a gives 4 channels, b reads 5; they cannot be scaled together"):
            CrossLayerScaling.scale_cls_sets([(first, second)])
    np.testing.assert_array_equal(first.kernel, before)


def test_a_set_of_another_number_of_layers_than_the_call_says_is_an_error():
    layers = [L.Conv2D(4, 1, name=name) for name in "abc"]
    chain(*layers, shape=(9, 8, 4))
    with pytest.raises(ValueError, match="3 layers was given where one of 2 is asked for"):
        CrossLayerScaling.scale_cls_set_with_conv_layers(layers)
    with pytest.raises(ValueError, match="2 layers was given where one of 3 is asked for"):
        CrossLayerScaling.scale_cls_set_with_depthwise_conv_layers(layers[:2])
    for some in ([layers[:1]], [[]], [[*layers, layers[0]]]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ValueError, match=f"a set of {len(some[0])} layers was given; a set has two, or three"):
                CrossLayerScaling.scale_cls_sets(some)
    with pytest.raises(ValueError, match="'a' is no set of layers; give a list of sets, each a tuple of two layers or three"):
        CrossLayerScaling.scale_cls_sets((layers[0], layers[1]))


# whole models


def mobile():
    """Convolution, depthwise, pointwise, convolution, and a sum; batch norms behind each, ReLUs between."""
    x = keras.Input((12, 12, 3), name="x")

    def normed(y, layer, active=True):
        y = L.BatchNormalization(name=f"{layer.name}_bn")(layer(y))
        return L.ReLU()(y) if active else y

    y = normed(x, L.Conv2D(6, 3, use_bias=False, name="conv"))
    y = normed(y, L.DepthwiseConv2D(3, use_bias=False, padding="same", name="depthwise"))
    z = normed(y, L.Conv2D(4, 1, use_bias=False, name="project"), False)
    y = normed(z, L.Conv2D(8, 1, use_bias=False, name="expand"))
    y = normed(y, L.Conv2D(4, 3, use_bias=False, padding="same", name="inner"), False)
    y = L.GlobalAveragePooling2D()(L.ReLU()(L.Add()([y, z])))
    return bite(keras.Model(x, L.Dense(5, name="head")(y), name="m"))


def test_the_sets_of_a_model_are_scaled_one_after_the_other_with_their_flags():
    model = mobile()
    _, new = fold_all_batch_norms(model)
    original, twin = copy_of(new), copy_of(new)
    infos = CrossLayerScaling.scale_model(new)
    assert names(infos) == [("conv", "depthwise", "project"), ("expand", "inner")]
    assert flags(infos) == [(True, True), (True,)]
    layers = [tuple(twin.get_layer(name) for name in one) for one in names(infos)]
    by_hand = [triplet_scales(*layers[0]), (pair_scale(*layers[1]),)]
    for one, scales in zip(infos, by_hand, strict=True):
        for pair, scale in zip(one.cls_pair_info_list, scales, strict=True):
            np.testing.assert_allclose(pair.scale_factor, scale, rtol=1e-12)
    assert_close(new.get_layer("conv").kernel, scaled_given(twin.get_layer("conv"), by_hand[0][0]))
    assert_computes(new, original, batch(new))


def test_a_chain_is_scaled_set_by_set_each_with_the_weights_as_they_are_by_then():
    layers = [L.Conv2D(4, 3, name=name) for name in "abc"]
    model = chain(layers[0], L.ReLU(), layers[1], layers[2], shape=(9, 8, 3))
    original = copy_of(model)
    first, _, _, other = pair_of(*layers[:2])
    second = np.sqrt(np.abs(other).max((0, 1, 2)) / read_range(layers[2]))
    infos = CrossLayerScaling.scale_model(model)
    assert names(infos) == [("a", "b"), ("b", "c")] and flags(infos) == [(True,), (False,)]
    np.testing.assert_allclose(infos[0].cls_pair_info_list[0].scale_factor, first, rtol=1e-12)
    np.testing.assert_allclose(infos[1].cls_pair_info_list[0].scale_factor, second, rtol=1e-6)
    assert_computes(model, original, batch(model))


def test_the_model_that_was_given_to_a_fold_is_scaled_as_the_new_one_and_both_compute_the_same():
    model, twin = mobile(), mobile()
    original = copy_of(model)
    _, new = fold_all_batch_norms(model)
    _, other = fold_all_batch_norms(twin)
    infos, again = CrossLayerScaling.scale_model(model), CrossLayerScaling.scale_model(other)
    assert names(infos) == names(again)
    for a, b in zip(infos, again, strict=True):
        for one, two in zip(a.cls_pair_info_list, b.cls_pair_info_list, strict=True):
            np.testing.assert_array_equal(one.scale_factor, two.scale_factor)
    for one in (model, new):
        assert_computes(one, original, batch(original))


def test_given_sets_may_be_scaled_after_some_batch_norms_were_folded():
    model = mobile()
    original = copy_of(model)
    layers = [model.get_layer(name) for name in ("conv", "depthwise", "project")]
    fold_given_batch_norms(model, [(layer, model.get_layer(f"{layer.name}_bn")) for layer in layers])
    CrossLayerScaling.scale_cls_sets([tuple(layers)])
    assert_computes(model, original, batch(original))


def test_a_batch_norm_that_was_not_folded_makes_a_set_unsafe():
    model = mobile()
    with pytest.warns(UserWarning, match="expand_bn: it is BatchNorm"):
        CrossLayerScaling.scale_cls_sets([(model.get_layer("expand"), model.get_layer("inner"))])


ALONE = {
    "an output": lambda a, b: lambda x: [b(y := L.ReLU()(a(x))), y],
    "a clip": lambda a, b: lambda x: b(L.ReLU(6.0)(a(x))),
    "a sum": lambda a, b: lambda x: b(L.Add()([a(x), x])),
    "a constant added": lambda a, b: lambda x: b(a(x) + np.arange(3, dtype="float32")),
    "two ways": lambda a, b: lambda x: b(L.Maximum()([L.ReLU()(y := a(x)), y])),
    "a Flatten": lambda a, b: lambda x: L.Dense(2)(L.Flatten()(a(x))),
    "training": lambda a, b: lambda x: b(L.Dropout(0.5)(a(x), training=True)),
    "a threshold": lambda a, b: lambda x: b(L.ReLU(threshold=1.0)(a(x))),
}


@pytest.mark.parametrize("name", ALONE)
def test_scale_model_leaves_alone_what_it_would_change(name):
    a, b = L.Conv2D(3, 3, padding="same", name="a"), L.Conv2D(3, 3, name="b")
    x = keras.Input((9, 8, 3), name="x")
    model = bite(keras.Model(x, ALONE[name](a, b)(x)))
    before = model.get_weights()
    assert CrossLayerScaling.scale_model(model) == []
    for got, wanted in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, wanted)


THROUGH = {
    "nothing": [],
    "activation=": [],
    "PReLU": [L.PReLU(shared_axes=[1, 2])],
    "leaky ReLU": [L.LeakyReLU(0.3)],
    "pools and padding": [L.ReLU(), L.ZeroPadding2D(1), L.MaxPooling2D(2), L.AveragePooling2D(2), L.Dropout(0.3)],
}


@pytest.mark.parametrize("name", THROUGH)
def test_scale_model_scales_through_what_a_scale_passes(name):
    between = [type(layer).from_config(layer.get_config()) for layer in THROUGH[name]]
    a = L.Conv2D(4, 3, activation="relu" if name == "activation=" else None, name="a")
    model = chain(a, *between, L.SeparableConv2D(3, 2, name="b"), L.Conv2D(2, 1, name="c"), shape=(16, 16, 3))
    original = copy_of(model)
    infos = CrossLayerScaling.scale_model(model)
    assert names(infos) == [("a", "b"), ("b", "c")]
    assert flags(infos) == [(name not in ("nothing",),), (False,)]
    assert_computes(model, original, batch(model, size=2))


def test_layers_that_are_used_twice_are_scaled_once():
    a, b = L.Conv2D(4, 3, name="a"), L.Conv2D(3, 3, name="b")
    one, two = keras.Input((9, 8, 3), name="one"), keras.Input((9, 8, 3), name="two")
    model = bite(keras.Model([one, two], [b(L.ReLU()(a(x))) for x in (one, two)]))
    original, scale = copy_of(model), pair_scale(a, b)
    (info,) = CrossLayerScaling.scale_model(model)
    np.testing.assert_allclose(info.cls_pair_info_list[0].scale_factor, scale, rtol=1e-12)
    x = [batch(model), batch(model, 2)]
    assert_near(outputs(model, x), outputs(original, x), truth(original, x), original, x, UNIT)


def test_a_layer_that_reads_another_both_with_and_without_an_activation_makes_a_set_with_it():
    a, b = L.Conv2D(4, 3, name="a"), L.Conv2D(3, 3, name="b")
    x = keras.Input((9, 8, 3), name="x")
    y = a(x)
    model = bite(keras.Model(x, [b(L.ReLU()(y)), b(y)]))
    original = copy_of(model)
    infos = CrossLayerScaling.scale_model(model)
    assert names(infos) == [("a", "b")] and flags(infos) == [(True,)]
    assert_near(outputs(model, batch(model)), outputs(original, batch(model)), truth(original, batch(model)), original, batch(model), UNIT)


def test_more_depthwise_layers_in_a_row_than_a_set_has_places_for_are_scaled_pair_by_pair():
    made = [L.Conv2D(4, 1, name="a"), L.DepthwiseConv2D(3, name="b"), L.DepthwiseConv2D(3, name="c"), L.Conv2D(3, 1, name="d")]
    model = chain(*made, shape=(9, 8, 3))
    original = copy_of(model)
    assert names(CrossLayerScaling.scale_model(model)) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert_computes(model, original, batch(model))


def test_the_argument_of_older_versions_is_taken_and_a_built_optimizer_is_not():
    model = chain(L.Conv2D(4, 3, name="a"), L.Conv2D(3, 3, name="b"), shape=(9, 8, 3))
    assert len(CrossLayerScaling.scale_model(model, (9, 8, 3))) == 1
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    with pytest.raises(UnsupportedModelError, match="its optimizer keeps a state"):
        CrossLayerScaling.scale_model(model)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sets"), [("MobileNet", 14), ("ResNet50", 32), ("VGG16", 15)])
def test_networks_of_keras_applications_keep_their_function(name, sets):
    model = copy_of(zoo.build(name))
    _, new = fold_all_batch_norms(model)
    new, _ = replace_relu6_with_relu(new)
    original = copy_of(new)
    infos = CrossLayerScaling.scale_model(new)
    assert len(infos) == sets and all(isinstance(one, ClsSetInfo) for one in infos)
    assert_computes(new, original, zoo.inputs(name, 2, 1))
