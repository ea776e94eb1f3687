"""empirical-bias-correction on graphs and data that are out of the common: what else a session has in it, words, scalars, many sizes."""

from __future__ import annotations

import logging
import resource
import tempfile
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import tfpasses
from fold_cases import bite
from normal_networks import on_grid
from tfpasses.graph import TfpassesError
from tfpasses.manager import PassError

NAME = "empirical-bias-correction"
BITS = 4
v1 = tf.compat.v1
METHODS = pytest.mark.parametrize("method", ["sequential", "fast"])


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(0.3, 1.0, shape).astype("float32")


def constant(*shape, seed=0):
    return tf.constant(numbers(*shape, seed=seed))


def correct(model, data, options="", **keywords):
    return tfpasses.run(model, f"{NAME}{{bits={BITS} {options}}}", data=data, **keywords)


def remarks(result, kind="missed"):
    return {remark.node: remark.reason for remark in result.remarks if remark.kind == kind}


def biases(result):
    """By the name of each linear node."""
    graph = result.graph
    return {node.name: graph.weights[node.params["bias"]] for node in graph.nodes.values() if "bias" in node.params}


def two_layers(hidden=lambda y: y):
    """x[?, 6] -> out[?, 3] in the default graph."""
    x = v1.placeholder(tf.float32, [None, 6], name="x")
    y = hidden(tf.nn.relu(tf.matmul(x, constant(6, 5), name="a")))
    return tf.identity(tf.matmul(y, constant(5, 3, seed=1), name="b"), name="out")


def definition(build):
    with tf.Graph().as_default() as graph:
        build()
    return graph.as_graph_def()


# other things in a session's graph


@METHODS
def test_what_no_output_needs_is_left_alone_and_needs_no_data(method):
    def with_loss():
        out = two_layers()
        wanted = v1.placeholder(tf.float32, [None, 3], name="wanted")
        v1.gradients(tf.reduce_mean((out - wanted) ** 2) + tf.reduce_sum(tf.matmul(wanted, constant(3, 2), name="c")), out)

    x = numbers(20, 6)
    result = correct(definition(with_loss), x, f"method={method}", inputs=["x"], outputs=["out"])
    assert remarks(result)["c"] == "no output needs it"
    same = biases(correct(definition(two_layers), x, f"method={method}", inputs=["x"], outputs=["out"]))
    assert set(same) == {"a", "b"} and set(biases(result)) == {"a", "b"}
    for name, values in same.items():
        np.testing.assert_array_equal(biases(result)[name], values)


def test_what_no_output_needs_cannot_be_corrected_by_its_name():
    def apart():
        two_layers()
        tf.matmul(v1.placeholder(tf.float32, [None, 3], name="z"), constant(3, 2), name="c")

    with pytest.raises(PassError, match="only='c': c cannot be corrected: no output needs it"):
        correct(definition(apart), numbers(20, 6), "only=c", inputs=["x"], outputs=["out"])


@METHODS
def test_a_kernel_that_stays_is_said_to_whichever_the_method(method):
    def shared():
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        kernel = constant(4, 4)
        y = tf.nn.relu(tf.matmul(x, kernel, name="a")) + tf.reduce_sum(tf.sin(kernel))
        tf.identity(tf.matmul(y, constant(4, 2, seed=1), name="b"), name="out")

    result = correct(definition(shared), numbers(20, 4), f"method={method}", inputs=["x"], outputs=["out"])
    assert "it shares its kernel with" in remarks(result)["a"]
    assert set(remarks(result)) == {"a"} and set(biases(result)) == {"b"}


# inputs without samples


@pytest.mark.parametrize("order", [["scale", "x"], ["x", "scale"]])
@pytest.mark.parametrize("elements", [False, True], ids=["arrays", "element by element"])
@METHODS
def test_an_input_that_is_one_number_is_none_of_the_samples(order, elements, method):
    def scaled():
        scale = v1.placeholder(tf.float32, [], name="scale")
        two_layers(lambda y: y * scale)

    x, scale = numbers(20, 6), np.float32(0.5)
    data = [{"x": part, "scale": scale} for part in np.split(x, 4)] if elements else {"x": x, "scale": scale}
    result = correct(definition(scaled), data, f"method={method} samples=20", inputs=order, outputs=["out"])
    assert not any("samples were read" in reason for reason in remarks(result, "note").values())
    wanted = biases(correct(definition(lambda: two_layers(lambda y: y * 0.5)), x, f"method={method}", inputs=["x"], outputs=["out"]))
    for name, values in wanted.items():
        np.testing.assert_allclose(biases(result)[name], values, rtol=1e-5, atol=1e-6)


# values that wait


def words_wait():
    """What is made of the input's words before the first layer is read behind it."""
    x = v1.placeholder(tf.float32, [None, 6], name="x")
    words = tf.strings.as_string(tf.cast(x[:, 0], tf.int32))
    y = tf.nn.relu(tf.matmul(x, constant(6, 5), name="a"))
    found = tf.gather(constant(7, 4), tf.strings.to_hash_bucket_fast(tf.strings.join([words, tf.strings.as_string(y[:, 0] > 0)]), 7))
    tf.identity(tf.matmul(tf.concat([y, found], 1), constant(9, 3, seed=1), name="b"), name="out")


def lists_wait():
    """The same of a list of tensors."""
    x = v1.placeholder(tf.float32, [None, 6], name="x")
    made = tf.raw_ops.TensorListReserve(element_shape=tf.constant([-1, 6]), num_elements=1, element_dtype=tf.float32)
    made = tf.raw_ops.TensorListSetItem(input_handle=made, index=0, item=x * 2)
    y = tf.nn.relu(tf.matmul(x, constant(6, 5), name="a"))
    place = tf.cast(tf.reduce_sum(y) * 0, tf.int32)
    item = tf.raw_ops.TensorListGetItem(input_handle=made, index=place, element_shape=tf.constant([-1, 6]), element_dtype=tf.float32)
    item.set_shape([None, 6])
    tf.identity(tf.matmul(tf.concat([y, item], 1), constant(11, 3, seed=1), name="b"), name="out")


@pytest.mark.parametrize("build", [words_wait, lists_wait])
def test_what_are_no_numbers_waits_too(build):
    x = numbers(20, 6)
    found = [biases(correct(definition(build), x, f"memory-limit={limit}", inputs=["x"], outputs=["out"])) for limit in ("2GB", "0")]
    assert set(found[0]) == {"a", "b"}
    for name, values in found[0].items():
        assert np.abs(values).max() > 1e-3
        np.testing.assert_allclose(found[1][name], values, rtol=1e-4, atol=1e-6)


def test_a_folder_that_is_not_there_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(TfpassesError, match=r"values that wait for later layers cannot be written to .* \(No such file .*TMPDIR"):
        correct(definition(two_layers), numbers(20, 6), "memory-limit=0", inputs=["x"], outputs=["out"])


def test_a_disk_that_is_full_is_one_clear_line_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        with pytest.raises(TfpassesError, match=r"cannot be written to .* \(.*\); allow more memory \(memory-limit=..\)"):
            correct(definition(two_layers), numbers(20, 6), "memory-limit=0", inputs=["x"], outputs=["out"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


# sizes


def test_images_of_more_sizes_than_are_compiled_count_by_their_places():
    keras.utils.clear_session()
    x = keras.Input((None, None, 3), name="x")
    model = bite(keras.Model(x, L.Conv2D(4, 3, strides=2, padding="same", name="a")(x)))
    images = [numbers(5 + number % 7, 4 + number % 3, 3, seed=number) for number in range(25)]
    layer = model.get_layer("a")
    change = on_grid(layer.kernel, BITS).astype(np.float64) - np.asarray(layer.kernel)
    places = [tf.nn.conv2d(image[None].astype(np.float64), change, 2, "SAME").numpy().reshape(-1, 4) for image in images]
    for method in ("sequential", "fast"):
        after = correct(model, images, f"method={method}").model.get_layer("a")
        np.testing.assert_allclose(np.asarray(layer.bias) - np.asarray(after.bias), np.concatenate(places).mean(axis=0), atol=1e-5)


@METHODS
def test_a_value_without_channels_is_nothing(method):
    keras.utils.clear_session()
    x = keras.Input((6,), name="x")
    y = L.Lambda(lambda value: value[:, :0])(L.Dense(4, name="a")(x))
    model = bite(keras.Model(x, L.Dense(2, name="b")(y)))
    result = correct(model, numbers(20, 6), f"method={method}")
    assert remarks(result, "note")["b"] == "its kernel is on the grid already"
    np.testing.assert_array_equal(result.model.get_layer("b").bias, model.get_layer("b").bias)
    assert np.any(np.asarray(result.model.get_layer("a").bias) != np.asarray(model.get_layer("a").bias))


# what is said


def test_a_call_of_a_layer_is_not_corrected_without_the_others():
    keras.utils.clear_session()
    x = keras.Input((6,), name="x")
    shared = L.Dense(6, name="s")
    model = bite(keras.Model(x, shared(keras.ops.relu(shared(x)))))
    with pytest.raises(PassError, match="only='s#1': s#1 shares its bias with s; name both or neither"):
        correct(model, numbers(20, 6), "only=s#1")


@METHODS
def test_no_one_is_warned_of_what_is_meant(method, caplog):
    keras.utils.clear_session()
    x = y = keras.Input((6,), name="x")
    for place in range(8):
        y = L.ReLU()(L.Dense(6, name=f"d{place}")(y))
    model = bite(keras.Model(x, y))
    kernel = np.asarray(model.get_layer("d3").kernel).copy()
    kernel[0, 0] = np.inf
    model.get_layer("d3").kernel.assign(kernel)
    tensorflow = logging.getLogger("tensorflow")
    tensorflow.addHandler(caplog.handler)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", category=RuntimeWarning)
            correct(model, numbers(20, 6), f"method={method}")
    finally:
        tensorflow.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records if "retracing" in record.getMessage()] == []
