"""A GraphDef as bytes is the message that `to_graph_def` makes, however its constants are stored."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpasses
import zoo
from graph_defs import built, frozen, passed
from tfpasses.frontends.graph_def import from_concrete_function, from_graph_def, load_graph_def, to_bytes, to_graph_def
from tfpasses.graph import Edit, UnsupportedModelError

GraphDef = tf.compat.v1.GraphDef
LARGE = 1 << 16
"""So many elements are more than large constants have bytes."""


def parsed(data):
    definition = GraphDef()
    definition.ParseFromString(data)
    return definition


def with_constant(array):
    """A GraphDef that gives a constant."""
    return built(lambda x: (x, tf.constant(array, name="constant")), x=(2,))


def read(definition):
    return from_graph_def(definition, outputs=["out"])


def value(definition, name="constant"):
    return next(node for node in definition.node if node.name == name).attr["value"].tensor


def changed(graph, name, array):
    edit = Edit(graph, "change")
    edit.set_params(edit.nodes[name], {"value": array})
    return edit.freeze()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int32", "int64", "int8", "bool", "complex64", "string"])
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (5,), (2, 3), (LARGE,)])
def test_a_constant_that_nobody_touched_leaves_equal(dtype, shape):
    definition = with_constant(np.full(shape, b"text") if dtype == "string" else np.zeros(shape, tf.as_dtype(dtype).as_numpy_dtype))
    assert parsed(to_bytes(read(definition))) == definition


@pytest.mark.parametrize("size", [2, LARGE])
def test_elements_that_are_listed_stay_listed(size):
    definition = with_constant(np.zeros(size, "float32"))
    tensor = value(definition)
    tensor.ClearField("tensor_content")
    tensor.float_val[:] = np.arange(size, dtype="float32")
    assert parsed(to_bytes(read(definition))) == definition


def test_what_else_a_large_constant_says_stays():
    definition = with_constant(np.arange(LARGE, dtype="float32"))
    node = next(node for node in definition.node if node.name == "constant")
    node.device = "/device:CPU:0"
    node.attr["_class"].list.s.append(b"loc:@x")
    node.experimental_debug_info.original_node_names.append("before")
    value(definition).version_number = 1
    assert parsed(to_bytes(read(definition))) == definition


@pytest.mark.parametrize("size", [1, 2, 127, 128, LARGE])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "float16"])
def test_a_constant_that_was_changed_has_its_new_value(dtype, size):
    new = (np.arange(size) % 1000).astype(dtype)
    graph = changed(read(with_constant(np.zeros(size, dtype))), "constant", new)
    written = parsed(to_bytes(graph))
    assert written == to_graph_def(graph)
    assert np.array_equal(tf.make_ndarray(value(written)), new)


def test_a_new_value_whose_elements_do_not_lie_in_order_is_put_in_order():
    new = np.arange(6, dtype="float32").reshape(3, 2).T
    graph = changed(read(with_constant(np.zeros((2, 3), "float32"))), "constant", new)
    assert np.array_equal(tf.make_ndarray(value(parsed(to_bytes(graph)))), [[0, 2, 4], [1, 3, 5]])


def test_a_folded_network_is_the_message_too():
    model = zoo.architecture("MobileNetV2")
    definition = frozen(model)
    graph = passed(from_graph_def(definition), "canonicalize,fold-batch-norms")
    written = parsed(to_bytes(graph))
    assert written == to_graph_def(graph) and written != definition


def test_a_graph_is_saved_as_these_bytes(tmp_path):
    graph = changed(read(with_constant(np.zeros(LARGE, "float32"))), "constant", np.ones(LARGE, "float32"))
    tfpasses.save(graph, tmp_path / "saved.pb")
    assert (tmp_path / "saved.pb").read_bytes() == to_bytes(graph)
    tfpasses.save(graph, tmp_path / "saved.pbtxt")
    assert load_graph_def(tmp_path / "saved.pbtxt") == to_graph_def(graph)


def test_versions_and_functions_leave_with_it():
    @tf.function(autograph=False)
    def called(x):
        return x + 1

    with tf.Graph().as_default() as graph:
        tf.identity(called(tf.compat.v1.placeholder("float32", (2,), name="x")), name="out")
    definition = graph.as_graph_def()
    assert definition.library.function and definition.versions.producer
    assert parsed(to_bytes(read(definition))) == definition


def test_a_graph_that_reads_variables_is_refused():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    function = tf.function(lambda x: model(x) + 1).get_concrete_function(tf.TensorSpec((1, 2)))
    with pytest.raises(UnsupportedModelError, match="reads variables"):
        to_bytes(from_concrete_function(function))


def test_a_graph_that_is_keras_is_refused():
    graph = tfpasses.from_keras(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]))
    with pytest.raises(UnsupportedModelError, match="was not read from a GraphDef"):
        to_bytes(graph)
