"""What is no model that can be read or written: one clear error each, with what to do."""

from __future__ import annotations

import attrs
import keras
import numpy as np
import pytest
from keras import layers as L

import keras_custom as custom
from tfpasses.frontends.keras import from_keras, keras_evaluator, to_keras
from tfpasses.graph import GraphError, Node, Ref, Slot, Spec, UnsupportedModelError


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x)


class OwnCall(keras.Model):
    def call(self, x, training=None):
        return super().call(x, training=training) * 2


class OwnSequentialCall(keras.Sequential):
    def call(self, x, training=None, mask=None):
        return super().call(x, training=training) * 2


def refusal(action, *arguments) -> str:
    with pytest.raises(UnsupportedModelError) as error:
        action(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("built", [False, True])
def test_a_subclassed_model_is_refused_with_the_advice_to_rebuild_it(built):
    model = Subclassed()
    if built:
        model(np.ones((1, 3), "float32"))
    text = refusal(from_keras, model)
    assert text.startswith(
        "model mine is a subclassed model (Subclassed): its graph is Python code, not data; rebuild it with the functional API"
    )


def test_the_advice_for_a_subclassed_model_works():
    model, x = Subclassed(), keras.Input((3,))
    assert [node.op for node in from_keras(keras.Model(x, model.call(x))).nodes.values()] == ["Input", "Dense"]


def test_a_functional_subclass_that_computes_something_else_is_refused():
    x = keras.Input((3,))
    assert "has a call() of its own" in refusal(from_keras, OwnCall(x, L.Dense(2)(x)))
    assert "has a call() of its own" in refusal(from_keras, OwnSequentialCall([keras.Input((3,)), L.Dense(2)]))


def test_a_nested_model_that_computes_something_else_is_a_layer_like_any_other():
    x, y = keras.Input((3,)), keras.Input((3,))
    graph = from_keras(keras.Model(y, OwnCall(x, L.Dense(2)(x), name="inner")(y)))
    assert [node.op for node in graph.nodes.values()] == ["Input", "keras.OwnCall"]


def test_a_sequential_without_a_shape_is_refused_with_the_advice_to_build_it():
    text = refusal(from_keras, keras.Sequential([L.Dense(2)], name="s"))
    assert text == "model s is not built, so its shapes are unknown; call model.build(input_shape), or add a keras.Input"


def test_an_empty_sequential_is_refused():
    refusal(from_keras, keras.Sequential())


@pytest.mark.parametrize("thing", [None, 3, "model.keras", L.Dense(2), np.zeros(3), keras.Model])
def test_what_is_no_model_is_refused(thing):
    assert "is not a Keras model; read a file with tfpasses.load(path)" in refusal(from_keras, thing)


def test_a_layer_without_a_configuration_is_refused_by_name_with_the_advice_to_give_it_one():
    x = keras.Input((3,))
    graph = from_keras(keras.Model(x, custom.WithoutConfig(keras.ops.abs, name="odd")(x)))
    text = refusal(to_keras, graph)
    assert text.startswith("layer odd: WithoutConfig cannot be rebuilt from its configuration (NotImplementedError: ")
    assert text.endswith("give it a get_config() that returns all arguments of its constructor")


def test_a_layer_whose_configuration_forgets_an_argument_is_refused():
    x = keras.Input((3,))
    graph = from_keras(keras.Model(x, custom.Forgetful(5, name="odd")(x)))
    assert refusal(to_keras, graph) == (
        "layer odd: rebuilt from its configuration, Forgetful has other weights (1 instead of 1, or other shapes); "
        "its get_config() does not tell all"
    )


def test_a_layer_defined_inside_a_function_is_rebuilt():
    class Local(L.Layer):
        def __init__(self, inner, **options):
            super().__init__(**options)
            self.inner = keras.saving.deserialize_keras_object(inner) if isinstance(inner, dict) else inner

        def call(self, x):
            return self.inner(x)

        def get_config(self):
            return {**super().get_config(), "inner": keras.saving.serialize_keras_object(self.inner)}

    x = keras.Input((3,))
    model = keras.Model(x, Local(Local(L.Dense(2)))(x))
    data = np.ones((1, 3), "float32")
    np.testing.assert_array_equal(to_keras(from_keras(model))(data), model(data))


def test_a_new_node_that_keras_has_no_layer_for_is_refused():
    x = Node("x", "Input", specs=(Spec((None, 3), "float32"),))
    odd = Node("odd", "Relu", (Ref("x"),), {"max_value": 3.0, "negative_slope": 0.0, "threshold": np.zeros(3)}, specs=x.specs)
    graph = attrs.evolve(
        from_keras(keras.Model(i := keras.Input((3,)), L.ReLU()(i))), nodes={"x": x, "odd": odd}, inputs=("x",), outputs=(Ref("odd"),)
    )
    refusal(to_keras, graph)
    made_up = attrs.evolve(odd, op="keras.Imaginary", config={})
    assert "no layer for a new keras.Imaginary node" in refusal(to_keras, attrs.evolve(graph, nodes={"x": x, "odd": made_up}))


def test_a_node_of_nothing_cannot_be_run():
    graph = from_keras(keras.Model(i := keras.Input((3,), name="i"), L.ReLU()(i)))
    odd = Node("odd", "keras.Imaginary", (Ref("i"),), specs=(Spec((None, 3), "float32"),))
    graph = attrs.evolve(graph, nodes={**graph.nodes, "odd": odd}, outputs=(Ref("odd"),), output_structure=Slot(0))
    run = keras_evaluator().compile(graph, [Ref("i")], graph.outputs)
    with pytest.raises(GraphError, match=r"node odd: keras\.Imaginary has no source and no lowering, so it cannot be run"):
        run({Ref("i"): np.zeros((1, 3), "float32")})
