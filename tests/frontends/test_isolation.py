"""The caller's model is only looked at; what is read and what is written are independent of it."""

from __future__ import annotations

import gc

import attrs
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import tfpasses
from keras_models import MODELS, build
from keras_same import arrays_of, assert_same_arrays, configuration, graph_size, inputs_for, outputs_of
from tfpasses.frontends.keras import from_keras, keras_evaluator, save_model, to_keras
from tfpasses.frontends.keras.read import layer_array
from tfpasses.frontends.keras.weights import new_tensor
from tfpasses.graph import Ref

DESCRIBED = sorted(set(MODELS) - {"activation_that_cannot_be_described"})
TRAINED = (
    "sequential",
    "nested_used_twice",
    "shared_layer_with_activation",
    "nested_with_several_inputs_and_outputs",
    "functional_subclass",
)


@pytest.mark.parametrize("name", DESCRIBED)
def test_reading_and_writing_leave_the_model_untouched(name):
    model = build(name)
    before = configuration(model), graph_size(model), arrays_of(model), dict(vars(model))
    graph = from_keras(model)
    to_keras(graph)
    assert configuration(model) == before[0]
    assert graph_size(model) == before[1]
    assert_same_arrays(arrays_of(model), before[2])
    assert vars(model) == before[3]


@pytest.mark.parametrize("name", ["stateful", "training_calls", "nested_functional_subclass", "masked_lstm", "custom_layers", "quantized"])
def test_evaluating_leaves_the_model_untouched(name):
    model = build(name)
    graph, before, size = from_keras(model), arrays_of(model), graph_size(model)
    x = keras.tree.flatten(inputs_for(model))
    keras_evaluator().compile(graph, [Ref(n) for n in graph.inputs], graph.outputs)(
        {Ref(n): v for n, v in zip(graph.inputs, x, strict=True)}
    )
    assert_same_arrays(arrays_of(model), before)
    assert graph_size(model) == size


def fit(model: keras.Model) -> None:
    """One step, far enough to change every weight that a gradient reaches."""
    x = inputs_for(model)
    targets = keras.tree.map_structure(lambda y: np.ones(y.shape, "float32"), model(x))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(x, targets, verbose=0)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("first", ["the original", "the copy"])
def test_training_one_model_changes_neither_the_other_nor_the_graph(name, first):
    model = build(name)
    graph = from_keras(model)
    again, digest = to_keras(graph), graph.digest
    trained, other = (model, again) if first == "the original" else (again, model)
    before = arrays_of(other)
    fit(trained)
    assert any(a.tobytes() != b.tobytes() for a, b in zip(arrays_of(trained), before, strict=True))
    assert_same_arrays(arrays_of(other), before)
    assert attrs.evolve(graph).digest == digest
    fit(other)


def test_a_functional_subclass_keeps_its_training_step():
    model = to_keras(from_keras(build("functional_subclass")))
    steps = type(model).steps
    fit(model)
    assert type(model).steps == steps + 1


def test_one_graph_gives_any_number_of_independent_models():
    graph = from_keras(build("sequential"))
    first, second = to_keras(graph), to_keras(graph)
    before = arrays_of(second)
    fit(first)
    assert_same_arrays(arrays_of(second), before)


def test_weights_in_a_graph_cannot_be_written_to():
    graph = from_keras(build("sequential"))
    for array in graph.weights.values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_weights_in_a_graph_survive_an_assignment_to_the_model():
    model = build("sequential")
    graph = from_keras(model)
    digest = graph.digest
    for variable in model.weights:
        variable.assign(variable * 0)
        variable.assign_add(variable + 1)
    assert attrs.evolve(graph).digest == digest


def test_opaque_layers_are_evaluated_with_the_weights_of_the_graph():
    model = keras.Sequential([keras.Input((4, 3)), L.LSTM(2)])
    graph, x = from_keras(model), inputs_for(model)
    (expected,) = outputs_of(model, x)
    for variable in model.weights:
        variable.assign(variable * 0)
    (value,) = keras_evaluator().compile(graph, [Ref(graph.inputs[0])], graph.outputs)({Ref(graph.inputs[0]): x})
    np.testing.assert_array_equal(value, expected)


def test_a_graph_without_its_model_can_still_be_written(tmp_path):
    def read():
        return from_keras(build("nested"))

    graph = read()
    save_model(to_keras(graph), tmp_path / "m.keras")
    assert (tmp_path / "m.keras").stat().st_size > 0


def test_names_given_later_do_not_disturb(tmp_path):
    """Keras counts names up for the whole process; a written model takes none of them."""
    to_keras(from_keras(build("sequential_built_later")))
    first = L.Dense(1).name
    to_keras(from_keras(keras.Sequential([keras.Input((3,)), L.Dense(1, name="mine")])))
    number = int(first.rpartition("_")[2]) if "_" in first else 0
    assert L.Dense(1).name == f"dense_{number + 1}"


def test_a_constant_array_of_the_caller_stays_writable_and_apart():
    factors, x = np.ones(4, "float32"), keras.Input((4,), name="x")
    graph = from_keras(keras.Model(x, x * factors))
    factors[:] = 7
    assert [float(array.max()) for array in graph.weights.values()] == [1.0]


def folded():
    x = keras.Input((6, 6, 3))
    layer = L.Conv2D(4, 3, name="conv", bias_initializer="random_normal")
    model = keras.Model(x, L.Dense(2, name="dense")(L.Flatten()(L.BatchNormalization(name="bn")(layer(x)))))
    return tfpasses.run(model, "fold-batch-norms")


def test_a_folded_weight_is_held_once_by_the_written_model_and_its_graph():
    result = folded()
    for key, variable in (("conv/kernel", result.model.get_layer("conv").kernel), ("conv/bias", result.model.get_layer("conv").bias)):
        assert np.shares_memory(result.graph.weights[key], layer_array(variable))
        assert not result.graph.weights[key].flags.writeable


@pytest.mark.parametrize("change", ["fit", "assign", "assign_add"])
def test_changing_a_written_model_leaves_folded_weights_in_the_graph(change):
    result = folded()
    before = {key: array.copy() for key, array in result.graph.weights.items()}
    if change == "fit":
        fit(result.model)
    for variable in result.model.weights if change != "fit" else ():
        getattr(variable, change)(variable + 1)
    assert np.any(result.model.get_layer("conv").kernel.numpy() != before["conv/kernel"])
    for key, array in before.items():
        np.testing.assert_array_equal(result.graph.weights[key], array)


def test_folded_weights_outlive_the_written_model():
    result = folded()
    graph, values = result.graph, {key: array.copy() for key, array in result.graph.weights.items()}
    del result
    gc.collect()
    np.ones(10_000_000)
    for key, array in values.items():
        np.testing.assert_array_equal(graph.weights[key], array)


def test_a_weight_that_the_caller_can_write_to_is_never_shared_with_a_model():
    graph = from_keras(keras.Sequential([keras.Input((3,)), L.Dense(2, name="d")]))
    kernel = np.ones((3, 2), "float32")
    graph = attrs.evolve(graph, weights={**graph.weights, "d/kernel": kernel})
    model = to_keras(graph)
    kernel[:] = 7
    assert graph.weights["d/kernel"] is kernel
    np.testing.assert_array_equal(model.get_layer("d").kernel.numpy(), np.ones((3, 2)))


def test_a_second_model_of_one_graph_shares_nothing_with_the_first():
    result = folded()
    second = to_keras(result.graph)
    before = arrays_of(second)
    fit(result.model)
    assert_same_arrays(arrays_of(second), before)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "uint8", "bool", "bfloat16"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 4)])
def test_a_new_tensor_has_an_arrays_values_and_none_of_its_memory(dtype, shape):
    array = (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 5).astype(keras.ops.convert_to_tensor([0], dtype).numpy().dtype)
    variable = tf.Variable(lambda: new_tensor(array))
    assert variable.dtype.name == dtype
    before = array.copy()
    variable.assign(tf.zeros_like(variable))
    np.testing.assert_array_equal(array, before)
    assert variable.shape == shape
