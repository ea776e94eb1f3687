"""What becomes of layers, activations and operations that a pass has changed, made or moved."""

from __future__ import annotations

import attrs
import keras
import numpy as np
import pytest
from keras import Input, Model, ops
from keras import layers as L

from keras_layers import CANONICAL, randomize
from keras_models import build
from keras_same import assert_same_outputs, inputs_for, outputs_of
from tfpasses.frontends.keras import from_keras, to_keras, write
from tfpasses.frontends.keras.layers import ACTIVATIONS, KINDS
from tfpasses.graph import Edit, Node, Ref, Spec
from tfpasses.graph.ops import VOCABULARY


def edited(model: keras.Model, change) -> tuple[keras.Model, list[str], dict[str, str]]:
    """The model after an edit, the notes, and the new names of nodes."""
    edit = Edit(from_keras(model), made_by="a-pass")
    change(edit)
    notes: list[str] = []
    new, renamed = write(edit.freeze(), notes.append)
    return new, notes, renamed


def two_relus() -> keras.Model:
    x, dense = Input((4,), name="x"), L.Dense(4, activation="relu", name="d")
    model = Model(x, dense(dense(x)))
    randomize(model)
    return model


# activations


def test_an_activation_that_follows_its_layer_at_every_use_goes_back_into_it():
    new = to_keras(from_keras(two_relus()))
    assert [layer.name for layer in new.layers] == ["x", "d"]
    assert new.get_layer("d").activation is keras.activations.relu


def test_an_activation_removed_at_one_use_becomes_a_layer_at_the_others():
    def change(edit):
        edit.replace(edit.nodes["d.activation"], Ref("d"))

    model = two_relus()
    new, _, _ = edited(model, change)
    assert [(layer.name, type(layer)) for layer in new.layers] == [("x", L.InputLayer), ("d", L.Dense), ("d.activation", L.Activation)]
    assert new.get_layer("d").activation is keras.activations.linear
    kernel, bias = (np.asarray(w) for w in model.get_layer("d").weights)
    x = inputs_for(model)
    expected = np.maximum((x @ kernel + bias) @ kernel + bias, 0)
    np.testing.assert_allclose(new(x), expected, rtol=1e-5, atol=1e-6)


def test_an_activation_removed_at_every_use_is_gone():
    def change(edit):
        for name in ("d.activation", "d#1.activation"):
            edit.replace(edit.nodes[name], edit.nodes[name].inputs[0])

    new, _, _ = edited(two_relus(), change)
    assert [layer.name for layer in new.layers] == ["x", "d"]
    assert new.get_layer("d").activation is keras.activations.linear


def test_a_layer_whose_sum_is_used_elsewhere_loses_its_activation_to_a_layer():
    def change(edit):
        y = edit.add(Node("new", "Relu", (Ref("d"),), {"max_value": 6.0, "negative_slope": 0.0, "threshold": 0.0}))
        edit.redirect(Ref("d#1.activation"), Ref(y.name))
        edit.remove(edit.nodes["d#1.activation"])
        edit.remove(edit.nodes["d#1"])

    new, _, _ = edited(two_relus(), change)
    assert "new" in [layer.name for layer in new.layers]
    assert isinstance(new.get_layer("new"), L.ReLU)


def test_an_activation_that_a_pass_has_changed_becomes_a_layer():
    def change(edit):
        for name in ("d.activation", "d#1.activation"):
            edit.change(edit.nodes[name], config={"max_value": 1.0, "negative_slope": 0.0, "threshold": 0.0})

    model = two_relus()
    new, _, _ = edited(model, change)
    assert new.get_layer("d").activation is keras.activations.linear
    kernel, bias = (np.asarray(w) for w in model.get_layer("d").weights)
    x = inputs_for(model)
    once = np.clip(x @ kernel + bias, 0, 1)
    np.testing.assert_allclose(new(x), np.clip(once @ kernel + bias, 0, 1), rtol=1e-5, atol=1e-6)


def test_something_put_between_a_layer_and_its_activation_keeps_them_apart():
    def change(edit):
        y = edit.add(Node("between", "Identity", (Ref("d"),)))
        edit.set_input(edit.nodes["d.activation"], 0, Ref(y.name))

    x = Input((4,), name="x")
    model = Model(x, L.Dense(3, activation="tanh", name="d")(x))
    randomize(model)
    new, _, _ = edited(model, change)
    assert [layer.name for layer in new.layers] == ["x", "d", "between", "d.activation"]
    assert_same_outputs(new, model, inputs_for(model))


def test_an_opaque_activation_function_that_has_to_leave_alone_is_the_same_function():
    def cube(t):
        return t * t * t

    def change(edit):
        y = edit.add(Node("between", "Identity", (Ref("d"),)))
        edit.set_input(edit.nodes["d.activation"], 0, Ref(y.name))

    x = Input((4,), name="x")
    model = Model(x, L.Dense(3, activation=cube, name="d")(x))
    new, _, _ = edited(model, change)
    assert new.get_layer("d.activation").activation is cube
    assert_same_outputs(new, model, inputs_for(model))


# new and changed nodes


@pytest.mark.parametrize("case", [case for case in CANONICAL if not case.startswith("activation ")])
def test_a_canonical_node_without_its_layer_is_written_as_a_new_layer_that_computes_the_same(case):
    model = CANONICAL[case].model()
    graph = from_keras(model)
    nodes = {
        name: attrs.evolve(node, owner=None, call=None, made_by="a-pass") if node.op != "Input" else node
        for name, node in graph.nodes.items()
    }
    new = to_keras(attrs.evolve(graph, nodes=nodes))
    if case not in ("conv2d channels first", "transpose2d dilated"):
        assert_same_outputs(new, model, inputs_for(model), training=False)
    assert [w.shape for w in new.weights] == [w.shape for w in model.weights]


def test_every_operation_of_the_vocabulary_can_be_written():
    """Const is an argument of others, Input has its own way, Variable is TensorFlow's; the rest is covered by the layers above and the
    activations.
    """
    written = set(KINDS) | {op for op, _ in ACTIVATIONS.values()} | {"Dropout", "Input", "Const", "Variable"}
    assert set(VOCABULARY) <= written


def test_a_changed_layer_keeps_its_name_and_the_rest_of_its_configuration():
    def change(edit):
        node = edit.nodes["conv"]
        kernel = edit.params(node)["kernel"]
        edit.set_params(node, {"kernel": kernel[..., :2], "bias": np.zeros(2, "float32")})
        edit.change(edit.nodes["conv"], specs=(Spec((*node.specs[0].shape[:-1], 2), "float32"),))

    x = Input((8, 8, 3), name="x")
    model = Model(x, L.Conv2D(4, 3, padding="same", kernel_regularizer="l2", use_bias=False, name="conv")(x))
    new, _, _ = edited(model, change)
    config = new.get_layer("conv").get_config()
    assert (config["filters"], config["use_bias"], config["padding"]) == (2, True, "same")
    assert config["kernel_regularizer"]["class_name"] == "L2"


def test_a_shared_layer_changed_at_one_use_becomes_two_layers():
    def change(edit):
        edit.change(edit.nodes["d#1"], config={**edit.nodes["d#1"].config, "changed": True})

    x, dense = Input((4,), name="x"), L.Dense(4, name="d")
    new, notes, renamed = edited(Model(x, dense(dense(x))), change)
    assert [layer.name for layer in new.layers] == ["x", "d", "d_1"]
    assert renamed == {"d#1": "d_1"}
    assert notes == [
        "layer d_1 has a copy of d/kernel, which it shared with layer d",
        "layer d_1 has a copy of d/bias, which it shared with layer d",
        "output d is now named d_1: another layer has its old name",
    ]


def test_a_constant_that_a_pass_changed_is_the_operations_argument():
    def change(edit):
        edit.set_params(edit.nodes["add.const1"], {"value": np.float32([1, 2, 3, 4])})

    x = Input((4,), name="x")
    add = ops.add(x, np.zeros(4, "float32"))
    add._keras_history.operation.name = "add"
    new, _, _ = edited(Model(x, add), change)
    np.testing.assert_array_equal(outputs_of(new, np.zeros((1, 4), "float32"))[0], [[1, 2, 3, 4]])


def test_a_removed_operation_leaves_the_rest_as_it_was():
    def change(edit):
        node = next(node for node in edit.nodes.values() if node.op == "Multiply")
        edit.replace(node, node.inputs[0])

    x = Input((4,), name="x")
    new, _, _ = edited(Model(x, L.Dense(2, name="d")(x * 2.0)), change)
    assert [operation.name for operation in new.operations] == ["x", "d"]


# names


@pytest.mark.parametrize(
    "name", ["nested_in_nested", "nested_used_twice", "shared_layer_with_activation", "nested_shared_between_two_models"]
)
def test_nodes_that_get_another_name_are_told_and_all_others_keep_theirs(name):
    """One edit on both sides of every border flattens all nested models."""

    def change(edit):
        for path, scope in edit.source.scopes.items():
            edit.add(Node(f"{path}/new", "Identity", (scope.inputs[0],)))
            edit.add(Node(f"outside_{path.replace('/', '_')}", "Identity", (Ref(f"{path}/new"),)))
        edit.commit("border", "")

    model = build(name)
    new, _, renamed = edited(model, change)
    before, after = set(from_keras(model).nodes), set(from_keras(new).nodes)
    assert {renamed.get(node, node) for node in before} <= after
    assert_same_outputs(new, model, inputs_for(model))
