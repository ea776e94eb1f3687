"""A kernel that is used more than once folds at all its uses at once, or not at all."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers as L

import tfpasses
from fold_cases import batch, bite, expected_weights, own_error_ratio
from tfpasses.graph import ChannelStats
from tfpasses.passes.folding.arithmetic import Affine

SHAPE = (8, 8, 4)


def conv(name="linear", **options):
    return L.Conv2D(4, 3, padding="same", name=name, **options)


def norm(name="bn", **options):
    return L.BatchNormalization(name=name, **options)


def two_uses(after_one, after_two, layer=None):
    """A model of two branches: the same layer on x and on relu(x), something behind each use, then their difference."""
    layer = layer or conv()
    x = keras.Input(SHAPE, name="x")
    one, two = after_one(layer(x)), after_two(layer(L.ReLU(name="relu")(x)))
    return bite(keras.Model(x, L.Subtract(name="y")([one, two])))


def run(model):
    return tfpasses.run(model, "fold-batch-norms{direction=backward}", verify="numeric")


def missed(result):
    return {remark.node: remark.reason for remark in result.remarks if remark.kind == "missed"}


def norms_left(model):
    return sum(isinstance(layer, L.BatchNormalization) for layer in model._flatten_layers())


def assert_folded(result, model, uses=2):
    assert len(result.rewrites) == 1
    assert norms_left(result.model) == 0
    assert len(list(result.graph.facts_of(ChannelStats))) == uses
    assert own_error_ratio(result.model, model, batch(model)) <= 4


def test_a_shared_conv_behind_a_shared_batch_norm_folds_at_both_uses():
    bn = norm()
    model = two_uses(bn, bn)
    result = run(model)
    assert_folded(result, model)
    for got, wanted in zip(result.model.get_layer("linear").weights, expected_weights(model.get_layer("linear"), bn), strict=True):
        np.testing.assert_array_max_ulp(np.asarray(got), wanted, maxulp=1)


def test_a_shared_conv_without_bias_gains_one_shared_bias():
    bn = norm()
    model = two_uses(bn, bn, conv(use_bias=False))
    result = run(model)
    assert_folded(result, model)
    assert len(result.model.get_layer("linear").weights) == 2


def test_two_batch_norms_with_equal_parameters_fold():
    one, two = norm("bn1"), norm("bn2")
    model = two_uses(one, two)
    two.set_weights(one.get_weights())
    assert_folded(run(model), model)


def test_two_uses_through_different_no_ops_fold():
    bn = norm()
    model = two_uses(lambda y: bn(L.Dropout(0.5)(y)), lambda y: bn(L.Identity()(L.Dropout(0.2)(y))))
    assert_folded(run(model), model)


def test_three_uses_fold_at_once():
    layer, bn = conv(), norm()
    x = keras.Input(SHAPE, name="x")
    branches = [bn(layer(y)) for y in (x, L.ReLU()(x), L.Activation("tanh")(x))]
    model = bite(keras.Model(x, L.Add(name="y")(branches)))
    assert_folded(run(model), model, uses=3)


def test_one_use_behind_the_other_folds():
    layer, bn = conv(), norm()
    x = keras.Input(SHAPE, name="x")
    model = bite(keras.Model(x, L.ReLU(name="y")(bn(layer(L.ReLU()(bn(layer(x))))))))
    assert_folded(run(model), model)


def test_one_use_directly_behind_the_other_folds():
    layer, bn = conv(), norm()
    x = keras.Input(SHAPE, name="x")
    model = bite(keras.Model(x, L.ReLU(name="y")(bn(layer(bn(layer(x)))))))
    assert_folded(run(model), model)


def test_a_shared_batch_norm_behind_two_convs_folds_into_both():
    bn = norm()
    x = keras.Input(SHAPE, name="x")
    model = bite(keras.Model(x, L.Subtract(name="y")([bn(conv("one")(x)), bn(conv("two")(x))])))
    result = run(model)
    assert len(result.rewrites) == 2
    assert norms_left(result.model) == 0
    for name in ("one", "two"):
        for got, wanted in zip(result.model.get_layer(name).weights, expected_weights(model.get_layer(name), bn), strict=True):
            np.testing.assert_array_max_ulp(np.asarray(got), wanted, maxulp=1)


def test_a_shared_batch_norm_of_which_one_use_cannot_fold_stays_there():
    bn = norm()
    x = keras.Input(SHAPE, name="x")
    model = bite(keras.Model(x, L.Subtract(name="y")([bn(conv("one")(x)), bn(L.ReLU(name="relu")(x))])))
    result = run(model)
    assert len(result.rewrites) == 1
    assert norms_left(result.model) == 1
    assert missed(result) == {"bn#1": "relu: it is Relu, not a linear op"}
    assert own_error_ratio(result.model, model, batch(model)) <= 4


def nested():
    return keras.Sequential([keras.Input(SHAPE), conv(), norm(), L.ReLU(name="r")], name="inner")


def test_a_nested_model_folds_inside():
    x = keras.Input(SHAPE, name="x")
    model = bite(keras.Model(x, nested()(x)))
    result = run(model)
    assert_folded(result, model, uses=1)
    assert [layer.name for layer in result.model.get_layer("inner").layers] == ["linear", "r"]


def test_a_nested_model_used_twice_folds_at_both_uses():
    inner = nested()
    x = keras.Input(SHAPE, name="x")
    model = bite(keras.Model(x, L.Subtract(name="y")([inner(x), inner(L.ReLU()(x))])))
    result = run(model)
    assert_folded(result, model)
    assert [layer.name for layer in result.model.get_layer("inner").layers] == ["linear", "r"]


def test_a_batch_norm_outside_a_nested_model_folds_into_it():
    inner = keras.Sequential([keras.Input(SHAPE), L.ReLU(), conv()], name="inner")
    x = keras.Input(SHAPE, name="x")
    model = bite(keras.Model(x, L.ReLU(name="y")(norm()(inner(x)))))
    assert_folded(run(model), model, uses=1)


def test_a_nested_model_used_twice_with_a_batch_norm_behind_one_use_stays():
    inner = keras.Sequential([keras.Input(SHAPE), L.ReLU(), conv()], name="inner")
    x = keras.Input(SHAPE, name="x")
    model = bite(keras.Model(x, L.Subtract(name="y")([norm()(inner(x)), inner(L.Activation("tanh")(x))])))
    result = run(model)
    assert not result.rewrites
    assert list(missed(result)) == ["bn"]
    assert "and no batch norm follows it that could fold with this one" in missed(result)["bn"]


def test_different_batch_norms_behind_a_shared_conv_stay():
    result = run(two_uses(norm("bn1"), norm("bn2")))
    assert not result.rewrites
    assert missed(result) == {
        "bn1": "linear shares a weight with linear#1, but bn2 scales it in another way",
        "bn2": "linear#1 shares a weight with linear, but bn1 scales it in another way",
    }


def test_batch_norms_that_differ_only_in_epsilon_stay():
    one, two = norm("bn1"), norm("bn2", epsilon=1e-5)
    model = two_uses(one, two)
    two.set_weights(one.get_weights())
    assert not run(model).rewrites


def test_batch_norms_that_differ_only_in_one_beta_stay():
    one, two = norm("bn1"), norm("bn2")
    model = two_uses(one, two)
    two.set_weights(one.get_weights())
    two.beta.assign(np.nextafter(np.asarray(two.beta), np.float32(9)))
    assert not run(model).rewrites


def test_a_shared_conv_with_one_use_without_batch_norm_stays():
    result = run(two_uses(norm(), L.ReLU(name="r")))
    assert not result.rewrites
    assert missed(result) == {"bn": "linear shares a weight with linear#1, and no batch norm follows it that could fold with this one"}


def test_a_shared_conv_whose_other_use_is_an_output_too_stays():
    layer, bn = conv(), norm()
    x = keras.Input(SHAPE, name="x")
    other = layer(L.ReLU(name="relu")(x))
    result = run(bite(keras.Model(x, [bn(layer(x)), bn(other), other])))
    assert not result.rewrites
    assert set(missed(result)) == {"bn", "bn#1"}


def test_a_shared_conv_whose_other_batch_norm_is_in_training_stays():
    bn = norm()
    layer = conv()
    x = keras.Input(SHAPE, name="x")
    model = bite(keras.Model(x, [bn(layer(L.ReLU()(x))), bn(layer(x), training=True)]))
    result = tfpasses.run(model, "fold-batch-norms{direction=backward}")
    assert not result.rewrites
    assert missed(result) == {
        "bn": "it is called with training=True, so it has no fixed scale and shift",
        "bn#1": "linear shares a weight with linear#1, and no batch norm follows it that could fold with this one",
    }


def test_a_shared_conv_whose_other_batch_norm_is_on_another_axis_stays():
    x = keras.Input((8, 8, 8), name="x")
    layer = L.Conv2D(8, 3, padding="same", name="linear")
    model = bite(keras.Model(x, [norm("bn1")(layer(x)), norm("bn2", axis=1)(layer(L.ReLU()(x)))]))
    result = run(model)
    assert not result.rewrites
    assert missed(result) == {
        "bn1": "it normalises axis 1; the channels of linear are on axis 3",
        "bn2": "it normalises axis 1; the channels of linear are on axis 3",
    }


def test_a_conv_whose_kernel_a_custom_layer_reads_too_stays():
    layer = conv()

    class Spy(L.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.layer = layer

        def call(self, x):
            return x * keras.ops.mean(self.layer.kernel)

    x = keras.Input(SHAPE, name="x")
    model = bite(keras.Model(x, [norm()(layer(x)), Spy(name="spy")(x)]))
    journal = tfpasses.run(tfpasses.from_keras(model), "fold-batch-norms{direction=backward}")  # Keras cannot rebuild such a layer
    assert not journal.rewrites
    assert missed(journal) == {"bn": "linear shares a weight with spy, which uses it in another way"}


def test_uses_after_the_first_that_differs_are_not_looked_at(monkeypatch):
    x, layer, asked, of = keras.Input(SHAPE, name="x"), conv(), [], Affine.of
    uses = [L.BatchNormalization(name=f"bn{i}", epsilon=0.1 * (i + 1))(layer(L.Rescaling(i + 1.0)(x))) for i in range(6)]
    monkeypatch.setattr(Affine, "of", lambda node, graph: asked.append(node.name) or of(node, graph))
    assert len(missed(tfpasses.run(bite(keras.Model(x, L.Add(name="y")(uses))), "fold-batch-norms{direction=backward}"))) == 6
    assert len(asked) == 18  # two a root, and one for the remedy
