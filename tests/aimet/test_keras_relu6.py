"""AIMET's replacement of ReLU6 in Keras models."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

from fold_cases import batch, bite, chain
from in_float64 import outputs
from tfpasses.graph import UnsupportedModelError
from tfpasses.passes.aimet.keras.utils.model_transform_utils import replace_relu6_with_relu


def expected(x, model):
    """A convolution and max(0, x), by TensorFlow."""
    return np.maximum(outputs(keras.Model(model.inputs[0], model.get_layer("c").output), x)[0], 0)


SPELLINGS = {
    "ReLU(6)": lambda: [L.ReLU(6.0, name="r")],
    "Activation": lambda: [L.Activation("relu6", name="r")],
    "Activation of a function": lambda: [L.Activation(keras.activations.relu6, name="r")],
}


def wide(model):
    """The same with values beyond 6."""
    model.get_layer("c").kernel.assign(model.get_layer("c").kernel * 8)
    return model


@pytest.mark.parametrize("name", SPELLINGS)
def test_layers_become_relus_of_the_same_name_in_a_new_model(name):
    model = wide(chain(L.Conv2D(4, 3, name="c"), *SPELLINGS[name](), shape=(6, 6, 3)))
    x = batch(model)
    before = outputs(model, x)[0]
    new, changed = replace_relu6_with_relu(model)
    assert changed == {"r": {}}
    assert [layer.name for layer in new.layers] == ["x", "c", "r", "y"]
    np.testing.assert_array_equal(outputs(new, x)[0], expected(x, model))
    np.testing.assert_array_equal(outputs(model, x)[0], before)
    assert before.max() == 6 < outputs(new, x)[0].max()
    assert new.get_layer("c") is not model.get_layer("c")


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("make", [lambda: L.Conv2D(4, 3, activation="relu6", name="c"), lambda: L.Dense(4, activation="relu6", name="c")])
def test_the_activation_of_a_layer_becomes_a_layer_or_stays_in_it(make, fused):
    model = wide(chain(make(), shape=(6, 6, 3)))
    x = batch(model)
    new, changed = replace_relu6_with_relu(model, remain_fusing=fused)
    assert changed == {"c": {}}
    layer = new.get_layer("c")
    assert layer.activation is (keras.activations.relu if fused else keras.activations.linear)
    assert len(new.layers) == (3 if fused else 4)
    plain = keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    plain.get_layer("c").activation = keras.activations.linear
    np.testing.assert_array_equal(outputs(new, x)[0], np.maximum(outputs(plain, x)[0], 0))
    assert model.get_layer("c").activation is keras.activations.relu6


def test_a_fused_model_is_saved_and_read(tmp_path):
    model = wide(chain(L.Conv2D(4, 3, activation="relu6", name="c"), shape=(6, 6, 3)))
    new, _ = replace_relu6_with_relu(model, True)
    new.save(tmp_path / "m.keras")
    x = batch(model)
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "m.keras")(x), new(x))


@pytest.mark.parametrize("fused", [False, True])
def test_in_a_nested_model_and_in_a_layer_that_is_used_twice(fused):
    c = L.Conv2D(3, 3, padding="same", activation="relu6", name="c")
    inner = keras.Sequential([keras.Input((6, 6, 3)), c, L.ReLU(6.0, name="r")], name="inner")
    x = keras.Input((6, 6, 3), name="x")
    model = bite(keras.Model(x, inner(inner(x))))
    new, changed = replace_relu6_with_relu(model, fused)
    assert set(changed) == {"inner/c", "inner/r"}
    limits = [getattr(layer, "max_value", None) for layer in new._flatten_layers()]
    assert limits and not any(limits)
    nested = new.get_layer("inner")
    assert (nested.get_layer("c").activation is keras.activations.relu) == fused
    plain = keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    for layer in plain.get_layer("inner").layers:
        layer.activation, layer.max_value = keras.activations.relu, None
    x = 4 * batch(model)
    np.testing.assert_array_equal(outputs(new, x)[0], outputs(plain, x)[0])


@pytest.mark.parametrize("layer", [lambda: L.ReLU(5.0), L.ReLU, lambda: L.ReLU(1.0), lambda: L.Activation("hard_silu")])
def test_other_activations_stay_as_they_are(layer):
    model = wide(chain(L.Conv2D(4, 3, name="c"), layer(), shape=(6, 6, 3)))
    new, changed = replace_relu6_with_relu(model)
    assert changed == {}
    np.testing.assert_array_equal(outputs(new, batch(model))[0], outputs(model, batch(model))[0])


def test_what_is_no_model_is_refused():
    with pytest.raises(UnsupportedModelError):
        replace_relu6_with_relu("model.keras")
