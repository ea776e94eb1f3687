"""What a rewrite leaves of a Keras model: nested models, activations, output names, Sequential."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model
from keras import layers as L

from keras_layers import randomize
from keras_models import backbone, build, image
from keras_same import inputs_for, outputs_of
from tfpasses.frontends.keras import from_keras, write
from tfpasses.manager import Pipeline, run_passes


def folded(model: keras.Model) -> tuple[keras.Model, list[str]]:
    """The model after fold-batch-norms, and the notes; its outputs are the original's within float32 rounding."""
    notes: list[str] = []
    new, renamed = write(run_passes(from_keras(model), Pipeline.parse("fold-batch-norms")), notes.append)
    x = inputs_for(model)
    for a, b in zip(outputs_of(new, x, training=False), outputs_of(model, x, training=False), strict=True):
        # sums of at most 27·4 products, twice rounded differently
        np.testing.assert_allclose(a, b, rtol=0, atol=256 * np.finfo(np.float32).eps * max(1.0, float(np.abs(b).max())))
    reread = from_keras(new)
    assert set(renamed.values()) <= set(reread.nodes)
    return new, notes


def random(model: keras.Model) -> keras.Model:
    randomize(model)
    return model


def names(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers]


def norms(model: keras.Model) -> list[str]:
    return [layer.name for layer in model._flatten_layers() if isinstance(layer, L.BatchNormalization)]


# nested models


def test_a_fold_inside_a_nested_model_leaves_it_nested():
    new, notes = folded(build("nested"))
    assert notes == []
    assert names(new) == ["x", "backbone", "pool"]
    assert names(new.get_layer("backbone")) == ["pixels", "conv", "relu"]
    assert new.get_layer("backbone").get_layer("conv").use_bias


def test_a_fold_two_models_deep_leaves_both_nested():
    new, notes = folded(build("nested_in_nested"))
    assert notes == []
    assert names(new.get_layer("middle").get_layer("backbone")) == ["pixels", "conv", "relu"]


def norm_first(name: str = "inner") -> keras.Model:
    x = image("pixels")
    return Model(x, L.ReLU(name="relu")(L.BatchNormalization(name="bn")(x)), name=name)


def test_a_fold_across_the_border_flattens_the_model_with_dotted_names_and_a_note():
    x = image()
    new, notes = folded(random(Model(x, norm_first()(L.Conv2D(3, 1, name="conv")(x)))))
    assert notes == ["nested model inner is flattened: a rewrite straddles its border"]
    assert names(new) == ["x", "conv", "inner.relu", "inner"]
    assert new.output_names == ["inner"]
    assert type(new.get_layer("inner")) is L.Identity


def test_a_fold_across_an_outer_border_leaves_the_inner_model_nested():
    x, y = image(), image("y")
    middle = Model(y, backbone()(L.BatchNormalization(name="bn")(y)), name="middle")
    new, notes = folded(random(Model(x, L.Flatten(name="flat")(middle(L.Conv2D(3, 1, name="conv")(x))))))
    assert notes == ["nested model middle is flattened: a rewrite straddles its border"]
    assert names(new) == ["x", "conv", "middle.backbone", "flat"]


def test_a_fold_across_an_inner_border_leaves_the_outer_model_nested():
    x, y = image(), image("y")
    middle = Model(y, norm_first()(L.Conv2D(3, 1, name="conv")(y)), name="middle")
    new, notes = folded(random(Model(x, L.Flatten(name="flat")(middle(x)))))
    assert notes == ["nested model middle/inner is flattened: a rewrite straddles its border"]
    assert names(new) == ["x", "middle", "flat"]
    assert names(new.get_layer("middle"))[:3] == ["y", "conv", "inner.relu"]


def test_a_model_used_twice_and_folded_alike_stays_one_model():
    new, notes = folded(build("nested_used_twice"))
    assert notes == []
    assert norms(new) == []
    shared = new.get_layer("backbone")
    assert len(shared._inbound_nodes) == 2


def test_a_model_used_twice_and_not_folded_alike_is_flattened():
    """The batch norm inside follows a convolution at one use only; both uses are outputs of one name, and only one can have it."""
    a, b, shared = image("a"), image("b"), norm_first()
    new, notes = folded(random(Model([a, b], [shared(L.Conv2D(3, 1, name="conv")(a)), shared(b)])))
    assert norms(new) == ["inner.bn"]
    assert notes == [
        "nested model inner is flattened: a rewrite straddles its border",
        "output inner is now named inner.relu: another layer has its old name",
    ]
    assert new.output_names == ["inner", "inner.relu"]


def test_a_model_of_the_same_name_inside_a_flattened_one_does_not_clash():
    x, y = image(), image("y")
    middle = Model(y, backbone()(L.BatchNormalization(name="bn")(y)), name="middle")
    model = random(Model(x, L.Flatten(name="flat")(backbone()(middle(L.Conv2D(3, 1, name="conv")(x))))))
    new, _ = folded(model)
    assert names(new) == ["x", "conv", "middle.backbone", "backbone", "flat"]


def test_a_flattened_model_called_with_training_tells_its_layers():
    x, y = image(), image("y")
    inner = Model(y, L.BatchNormalization(name="late")(L.ReLU(name="relu")(L.BatchNormalization(name="bn")(y))), name="inner")
    model = random(Model(x, inner(L.Conv2D(3, 1, name="conv")(x), training=False)))
    new, notes = folded(model)
    assert notes == ["nested model inner is flattened: a rewrite straddles its border"]
    before = [np.array(w) for w in new.get_layer("inner.late").non_trainable_weights]
    new(inputs_for(new))
    for old, w in zip(before, new.get_layer("inner.late").non_trainable_weights, strict=True):
        np.testing.assert_array_equal(old, w)
    (node,) = new.get_layer("inner.late")._inbound_nodes
    assert node.arguments.kwargs["training"] is False


def test_nothing_is_folded_in_a_model_called_with_training():
    new, notes = folded(build("nested_called_with_training"))
    assert norms(new) == ["bn"]
    assert notes == []


def test_a_sequential_inside_stays_sequential():
    x = image()
    inner = keras.Sequential([Input((8, 8, 3)), L.Conv2D(2, 3, name="c"), L.BatchNormalization(name="n"), L.ReLU(name="r")], name="inner")
    new, notes = folded(random(Model(x, L.Flatten()(inner(x)))))
    assert notes == []
    assert type(new.get_layer("inner")) is keras.Sequential
    assert names(new.get_layer("inner")) == ["c", "r"]


# Sequential and classes of models


def test_a_sequential_stays_sequential():
    model = build("sequential")
    new, notes = folded(model)
    assert type(new) is keras.Sequential
    assert notes == []
    assert len(new.layers) == len(model.layers) - 1


def test_a_sequential_that_ends_in_a_batch_norm_ends_in_an_identity_of_its_name():
    model = random(keras.Sequential([Input((8, 8, 3)), L.Conv2D(2, 3, name="conv"), L.BatchNormalization(name="bn")]))
    new, _ = folded(model)
    assert type(new) is keras.Sequential
    assert [(type(layer), layer.name) for layer in new.layers] == [(L.Conv2D, "conv"), (L.Identity, "bn")]


def test_a_subclass_keeps_its_class():
    import keras_custom as custom

    x = image()
    new, notes = folded(random(custom.Trainer(x, L.BatchNormalization()(L.Conv2D(2, 1)(x)))))
    assert type(new) is custom.Trainer
    assert notes == []


# outputs


def test_a_batch_norm_that_is_an_output_leaves_its_name_to_an_identity():
    x = image()
    y = L.BatchNormalization(name="bn")(L.Conv2D(2, 3, name="conv")(x))
    new, notes = folded(random(Model(x, {"only": y})))
    assert new.output_names == ["bn"]
    assert list(new.output) == ["only"]
    assert names(new) == ["x", "conv", "bn"]
    assert notes == []


def test_an_output_whose_name_another_layer_has_by_now_is_renamed_with_a_note():
    """The layer called `inner` inside the flattened model takes no name at the top, but a layer named like the lost output does."""
    x, y = image(), image("y")
    inner = Model(y, L.BatchNormalization(name="bn")(y), name="inner")
    model = random(Model(x, [inner(L.Conv2D(3, 1, name="conv")(x)), L.Conv2D(2, 1, name="inner.bn")(x)]))
    new, notes = folded(model)
    assert new.output_names == ["inner", "inner.bn"]
    assert notes == ["nested model inner is flattened: a rewrite straddles its border"]


def test_one_folded_value_as_two_outputs_keeps_both_names():
    x = image()
    y = L.BatchNormalization(name="bn")(L.Conv2D(2, 3, name="conv")(x))
    new, _ = folded(random(Model(x, [y, y])))
    assert new.output_names == ["bn", "bn"]


# weights and activations


def test_weights_that_no_rewrite_touched_are_bit_identical():
    x = image()
    y = L.Conv2D(4, 1, name="top", activation="relu")(backbone()(x))
    model = random(Model(x, y))
    new, _ = folded(model)
    for a, b in zip(new.get_layer("top").weights, model.get_layer("top").weights, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_a_batch_norm_behind_an_activation_stays_and_the_activation_stays_in_its_layer():
    x = image()
    model = random(Model(x, L.BatchNormalization(name="bn")(L.Conv2D(2, 1, activation="relu", name="conv")(x))))
    new, _ = folded(model)
    assert names(new) == ["x", "conv", "bn"]
    assert new.get_layer("conv").activation is keras.activations.relu


def test_a_folded_layer_keeps_what_else_it_was_configured_with():
    x = image()
    conv = L.Conv2D(
        2,
        3,
        strides=2,
        padding="same",
        use_bias=False,
        kernel_regularizer="l2",
        kernel_initializer="he_normal",
        trainable=False,
        name="conv",
    )
    model = random(Model(x, L.ReLU()(L.BatchNormalization()(conv(x)))))
    new, _ = folded(model)
    expected = {**conv.get_config(), "use_bias": True}
    assert new.get_layer("conv").get_config() == expected


def test_a_shared_layer_stays_shared():
    a, b, conv, bn = image("a"), image("b"), L.Conv2D(2, 3, name="conv"), L.BatchNormalization(name="bn")
    model = random(Model([a, b], [L.ReLU()(bn(conv(a))), L.ReLU()(bn(conv(b)))]))
    new, _ = folded(model)
    assert norms(new) == []
    assert len(new.get_layer("conv")._inbound_nodes) == 2


@pytest.mark.parametrize("layer", [L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D])
def test_a_layer_whose_configuration_tells_another_dtype_keeps_its_policy(layer):
    x = keras.Input((*[2] * int(layer.__name__[-2]), 3), name="x")
    model = Model(x, layer(0.5, dtype="mixed_float16", name="drop")(x))
    assert from_keras(model).to_keras().get_layer("drop").dtype_policy.name == "mixed_float16"


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "mixed_bfloat16", "float64"])
def test_a_folded_layer_keeps_its_dtype_policy(policy):
    x = image()
    conv = L.Conv2D(2, 3, name="conv", dtype=policy)
    model = random(Model(x, L.ReLU(dtype=policy)(L.BatchNormalization(dtype=policy)(conv(x)))))
    new = write(run_passes(from_keras(model), Pipeline.parse("fold-batch-norms")))[0]
    assert new.get_layer("conv").dtype_policy == conv.dtype_policy
    assert [w.dtype for w in new.get_layer("conv").weights] == [w.dtype for w in conv.weights]
    assert norms(new) == []


def test_the_folded_model_can_be_saved_and_loaded(tmp_path):
    new, _ = folded(build("nested_in_nested"))
    new.save(tmp_path / "m.keras")
    assert from_keras(keras.saving.load_model(tmp_path / "m.keras")).digest == from_keras(new).digest
