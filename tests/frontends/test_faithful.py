"""What leaves is what the graph says: changed configurations, broadcasts, and layers that do not tell all of themselves."""

import attrs
import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import tfpasses
from tfpasses.frontends.keras import from_keras, write
from tfpasses.graph import Edit, Node, Ref, Spec, UnsupportedModelError
from tfpasses.manager import Contract, Effect, Pass, VerificationError

X = np.linspace(-9, 9, 24, dtype="float32").reshape(2, 3, 4)


def model_of(*layers, shape=(3, 4)):
    x = y = keras.Input(shape, name="x")
    for layer in layers:
        y = layer(y)
    return keras.Model(x, y)


def changed(model, name, **config):
    graph = from_keras(model)
    edit = Edit(graph, "test")
    kept = {key: value for key, value in graph.nodes[name].config.items() if config.get(key, "") != "gone"}
    edit.change(graph.nodes[name], config={**kept, **{key: value for key, value in config.items() if value != "gone"}})
    return write(edit.freeze())[0]


@pytest.mark.parametrize(
    ("layer", "config", "expected"),
    [
        (L.Activation("relu6", name="a"), {"max_value": None}, np.maximum(X, 0)),
        (L.LeakyReLU(0.5, name="a"), {"max_value": 1.0}, np.minimum(np.where(X > 0, X, X / 2), 1)),
        (L.ReLU(name="a"), {"max_value": 2.0}, np.clip(X, 0, 2)),
    ],
    ids=["Activation", "LeakyReLU", "ReLU"],
)
def test_a_changed_configuration_leaves_whatever_the_source_class_could_say(layer, config, expected):
    np.testing.assert_array_equal(changed(model_of(layer), "a", **config)(X), expected)


def test_a_batch_norm_taken_out_of_training_mode_leaves_so():
    x = keras.Input((3, 4))
    model = keras.Model(x, L.BatchNormalization(epsilon=0.0, name="a")(x, training=True))
    np.testing.assert_allclose(changed(model, "a", training="gone")(X), X, rtol=1e-6)


def test_a_changed_dropout_keeps_its_rate():
    x = keras.Input((3, 4))
    model = keras.Model(x, L.GaussianNoise(0.3, name="a")(x, training=True))
    assert changed(model, "a", training="gone").get_layer("a").stddev == 0.3


def with_new_node(model, op, constant=None):
    """The model with a new node between its output and the graph's."""
    graph = from_keras(model)
    edit = Edit(graph, "test")
    (out,) = graph.outputs
    inputs = [out]
    if constant is not None:
        array = np.asarray(constant, np.float32)
        attrs_of = {"params": {"value": "c"}, "specs": (Spec(array.shape, "float32"),)}
        edit.weights["c"] = array
        inputs.append(Ref(edit.add(Node("c", "Const", **attrs_of)).name))
    new = edit.add(Node("new", op, tuple(inputs), specs=(graph.spec(out),)))
    edit.redirect(out, Ref(new.name))
    return edit.freeze()


@pytest.mark.parametrize("constant", [2.0, [1, 2, 3, 4], np.arange(12).reshape(3, 4)], ids=["scalar", "vector", "matrix"])
@pytest.mark.parametrize("op", ["Multiply", "Add", "Subtract", "Maximum"])
def test_a_new_join_with_a_constant_broadcasts_as_numpy_does(op, constant):
    graph = with_new_node(model_of(L.Identity(name="i")), op, constant)
    function = {"Multiply": np.multiply, "Add": np.add, "Subtract": np.subtract, "Maximum": np.maximum}[op]
    np.testing.assert_array_equal(graph.to_keras()(X), function(X, np.asarray(constant, np.float32)))


def test_an_output_that_is_a_constant_is_refused():
    graph = with_new_node(model_of(L.Identity(name="i")), "Add", 2.0)
    with pytest.raises(UnsupportedModelError, match="output c is a constant"):
        attrs.evolve(graph, outputs=(Ref("c"),)).to_keras()


def test_a_new_node_without_the_configuration_that_its_layer_needs_is_refused():
    with pytest.raises(UnsupportedModelError, match="node new: Keras has no layer for a new Relu node"):
        with_new_node(model_of(L.Identity(name="i")), "Relu").to_keras()


def test_a_new_dropout_has_the_dtype_of_its_node():
    x = keras.Input((4,), dtype="float64")
    graph = with_new_node(keras.Model(x, L.Identity(dtype="float64", name="i")(x)), "Dropout")
    assert graph.to_keras().output.dtype == "float64"


def test_squeeze_and_excite_is_verified():
    """A Multiply layer stretches (batch, channels) over (batch, height, width, channels) in its own way."""
    x = keras.Input((6, 6, 3))
    y = L.BatchNormalization(name="bn")(L.Conv2D(4, 3, name="conv")(x))
    gate = L.Dense(4, activation="sigmoid")(L.GlobalAveragePooling2D()(y))
    model = keras.Model(x, L.Multiply(name="gate")([y, gate]))
    result = tfpasses.run(model, "fold-batch-norms", verify="numeric")
    assert len(result.rewrites) == 1
    assert all(difference.ok for difference in tfpasses.compare_models(model, result.model))


class Forgetful(L.Layer):
    def __init__(self, k=1.0, **options):
        super().__init__(**options)
        self.k = k

    def call(self, x):
        return x * self.k

    def get_config(self):
        return super().get_config()


def test_a_custom_layer_that_does_not_tell_all_is_caught_by_numeric_verification():
    with pytest.raises(VerificationError, match=r"the written model does not compute the rewritten graph: .* get_config\(\)"):
        tfpasses.run(model_of(Forgetful(3.0)), "fold-batch-norms", verify="numeric")


@pytest.mark.parametrize("width", [4, 11])
def test_where_keras_adds_a_bias_to_the_wrong_axis_it_does_so_before_and_after(width):
    """A channels-first layer whose last axis is as long as it has channels (Keras 3.15): no fault of the rewrite."""
    x = keras.Input((4, width), name="x")
    layer = L.DepthwiseConv1D(1, data_format="channels_first", bias_initializer="random_normal")
    model = keras.Model(x, layer(L.BatchNormalization(axis=1)(x)))
    result = tfpasses.run(model, "fold-batch-norms", verify="numeric")
    assert len(result.rewrites) == 1  # no shift is moved
    notes = [remark.reason for remark in result.remarks if remark.pass_name == "write"]
    assert [note.partition(" (")[0] for note in notes] == (
        ["the written model was not compared: Keras does not compute the model that went in as its graph says"] if width == 4 else []
    )


def test_a_model_whose_value_is_chance_is_not_compared():
    x = keras.Input((3, 4))
    tfpasses.run(keras.Model(x, L.Dropout(0.5)(x, training=True)), "fold-batch-norms", verify="numeric")


def test_the_users_arrays_are_not_the_models():
    matrix = np.eye(4, dtype="float32")
    x = keras.Input((3, 4))
    result = tfpasses.run(keras.Model(x, ops.matmul(x, matrix)), "fold-batch-norms")
    matrix[:] = 7
    np.testing.assert_array_equal(result.model(X), X)


def test_a_mask_beside_a_constant_array_is_no_trouble():
    i = keras.Input((3,), dtype="int32")
    embedded = L.Activation("relu")(L.Embedding(5, 2, mask_zero=True)(i))
    model = keras.Model(i, [embedded, ops.not_equal(i, np.array([0, 1, 2]))])
    ids = np.array([[0, 1, 4]])
    for before, after in zip(model(ids), tfpasses.run(model, "fold-batch-norms").model(ids), strict=True):
        np.testing.assert_array_equal(before, after)


def test_inputs_that_do_not_suit_the_model_are_named_in_one_line():
    x = keras.Input((None, None, 3))
    y = x
    for _ in range(6):
        y = L.MaxPooling2D()(y)
    model = keras.Model(x, L.BatchNormalization()(L.Conv2D(2, 3)(y)))
    with pytest.raises(tfpasses.TfpassesError, match=r"cannot be computed on these inputs .*--data") as caught:
        tfpasses.run(model, "fold-batch-norms", verify="numeric")
    assert "\n" not in str(caught.value)


def lookups(*words):
    layer = L.StringLookup()
    layer.adapt(list(words))
    x = keras.Input((1,), dtype="string")
    return keras.Model(x, layer(x), name="m")


def test_the_digest_knows_of_a_vocabulary():
    assert from_keras(lookups("a", "b")).digest != from_keras(lookups("x", "y")).digest


def lambda_model(function):
    x = keras.Input((4,), name="x")
    return keras.Model(x, L.Lambda(function, name="f")(x), name="m")


def test_the_digest_knows_of_a_lambdas_code():
    double, triple, again = (from_keras(lambda_model(f)).digest for f in (lambda v: v * 2, lambda v: v * 3, lambda v: v * 2))
    assert double == again != triple


def test_comparing_a_model_leaves_its_state_alone():
    x = keras.Input(batch_shape=(2, 3, 4))
    model = keras.Model(x, L.LSTM(2, stateful=True)(x))
    before = [np.array(variable) for variable in model.variables]
    assert all(difference.ok for difference in tfpasses.compare_models(model, model))
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_batch_norms_in_training_mode_are_compared_as_they_are_called():
    def build(seed):
        keras.utils.set_random_seed(seed)
        x = keras.Input((4,))
        return keras.Model(x, L.BatchNormalization()(L.Dense(4)(x), training=True))

    assert not all(difference.ok for difference in tfpasses.compare_models(build(1), build(2)))


def test_a_pass_may_not_pretend(monkeypatch):
    """A pass whose rewrite is right and whose layer Keras writes differently would be seen in the model, not in the graph."""

    @attrs.frozen
    class Nothing(Pass):
        name = "nothing"
        contract = Contract(Effect.EXACT)

    model = model_of(L.Dense(4))
    monkeypatch.setattr("tfpasses.frontends.keras.build.LayerFactory.finish", lambda self, layer: layer.kernel.assign(layer.kernel * 1.01))
    with pytest.raises(VerificationError, match="does not compute"):
        tfpasses.run(model, Nothing(), verify="numeric")
