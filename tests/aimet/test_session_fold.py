"""AIMET's batch-norm folding in sessions of TensorFlow 1, and what goes with it: biases, and sessions saved and loaded."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tensorflow as tf

import v1_graphs
from keras2_sessions import in_session
from tfpasses.graph import TfpassesError, UnsupportedModelError
from tfpasses.passes.aimet.batch_norm_fold import fold_all_batch_norms, fold_given_batch_norms
from tfpasses.passes.aimet.utils.graph_saver import save_and_load_graph
from tfpasses.passes.aimet.utils.op.conv import BiasUtils

tf_keras = pytest.importorskip("tf_keras", reason="Keras 2 is not installed (pip install tf-keras)")

v1 = tf.compat.v1
X = np.random.default_rng(1).normal(size=(2, 12, 12, 3)).astype("float32")


def small(padding="valid"):
    """Convolution, batch norm, ReLU6, depthwise with a bias, batch norm, ReLU, batch norm, convolution, pool, dense."""
    layers = tf_keras.layers
    x = y = tf_keras.Input((12, 12, 3))
    y = layers.ReLU(6.0)(layers.BatchNormalization(name="bn_a")(layers.Conv2D(4, 3, use_bias=False, name="a")(y)))
    y = layers.ReLU()(layers.BatchNormalization(name="bn_b")(layers.DepthwiseConv2D(3, name="b")(y)))
    y = layers.Conv2D(5, 3, padding=padding, name="c")(layers.BatchNormalization(name="bn_c")(y))
    return tf_keras.Model(x, layers.Dense(3, name="d")(layers.GlobalAveragePooling2D()(y)))


@pytest.fixture
def model():
    return in_session(small)


def assert_near(got, wanted):
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def scale_and_shift(model, name, epsilon=1e-3):
    gamma, beta, mean, variance = (model.value(f"{name}/{part}") for part in ("gamma", "beta", "moving_mean", "moving_variance"))
    a = gamma / np.sqrt(variance + epsilon)
    return a, beta - mean * a


def kinds(session):
    return [operation.type for operation in session.graph.get_operations()]


def names(pairs):
    return [tuple(operation.name for operation in pair) for pair in pairs]


# folding all


def test_the_new_session_computes_the_same_with_the_weights_of_the_arithmetic_and_the_given_one_is_as_it_was(model):
    before, kernel, depthwise, bias = model.run(X), model.value("a/kernel"), model.value("b/depthwise_kernel"), model.value("b/bias")
    (a, shift), (b, other) = scale_and_shift(model, "bn_a"), scale_and_shift(model, "bn_b")
    new, pairs = fold_all_batch_norms(model.session, model.source, model.target)
    assert names(pairs) == [("a/Conv2D", "bn_a/cond"), ("b/depthwise", "bn_b/cond"), ("c/Conv2D", "bn_c/cond")]
    assert all(operation.graph is model.session.graph for pair in pairs for operation in pair)
    assert not {"FusedBatchNormV3", "If"} & set(kinds(new))
    np.testing.assert_allclose(model.value("a/kernel", new), kernel * a, rtol=3e-7)
    np.testing.assert_allclose(BiasUtils.get_bias_as_numpy_data(new, model.op("a/Conv2D", new)), shift, rtol=3e-7, atol=1e-7)
    np.testing.assert_allclose(model.value("b/depthwise_kernel", new), depthwise * b.reshape(1, 1, -1, 1), rtol=3e-7)
    np.testing.assert_allclose(model.value("b/bias", new), bias * b + other, rtol=3e-7, atol=1e-6)
    assert_near(model.run(X, new), before)
    np.testing.assert_array_equal(model.run(X), before)


def test_names_may_come_in_lists_and_a_second_fold_finds_nothing(model):
    new, _ = fold_all_batch_norms(model.session, [model.source], [model.target])
    again, pairs = fold_all_batch_norms(new, model.source, [model.target])
    assert pairs == []
    np.testing.assert_array_equal(model.run(X, again), model.run(X, new))


def test_where_zero_padding_meets_the_kernel_a_shift_stays_and_the_function_does():
    model = in_session(lambda: small("same"))
    before = model.run(X)
    new, pairs = fold_all_batch_norms(model.session, model.source, model.target)
    assert ("c/Conv2D", "bn_c/cond") in names(pairs)
    assert_near(model.run(X, new), before)


@pytest.mark.parametrize("use_resource", v1_graphs.KINDS.values(), ids=list(v1_graphs.KINDS))
def test_a_session_that_was_written_by_hand_for_training_folds(use_resource):
    session = v1_graphs.network(use_resource)
    before = v1_graphs.run(session)
    new, pairs = fold_all_batch_norms(session, "x", "y")
    assert names(pairs) == [("conv/Conv2D", "norm/fused")]
    after = v1_graphs.run(new)
    assert_near(after, before)


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [("input", "d/BiasAdd", "input input: there is no such placeholder"), ("input_1", "softmax", "output softmax: there is no such node")],
)
def test_names_that_are_not_there_are_an_error(model, source, target, why):
    with pytest.raises(TfpassesError, match=why):
        fold_all_batch_norms(model.session, source, target)


@pytest.mark.parametrize("nothing", [None, []])
def test_without_outputs_there_is_nothing_to_fold(model, nothing):
    with pytest.raises(TfpassesError, match="name the outputs"):
        fold_all_batch_norms(model.session, model.source, nothing)


def test_a_closed_session_is_an_error(model):
    model.session.close()
    with pytest.raises(UnsupportedModelError, match="closed"):
        fold_all_batch_norms(model.session, model.source, model.target)


# folding some


@pytest.mark.parametrize(
    ("pair", "flag"),
    [
        (("a/Conv2D", "bn_a/cond"), (True,)),
        (("a/Conv2D", "bn_a/cond"), ()),
        (("bn_a/cond", "a/Conv2D"), ()),
        (("b/depthwise", "bn_b/cond"), (True,)),
        (("b/BiasAdd", "bn_b/cond"), (True,)),
        (("c/Conv2D", "bn_c/cond"), (False,)),
    ],
)
def test_one_given_pair_folds_and_nothing_else(model, pair, flag):
    before = model.run(X)
    norm = next(name for name in pair if name.startswith("bn"))
    new = fold_given_batch_norms(
        sess=model.session,
        input_op_names=model.source,
        output_op_names=model.target,
        layer_pairs=[(*(model.op(name) for name in pair), *flag)],
    )
    left = {operation.name.split("/")[0] for operation in new.graph.get_operations() if operation.type == "FusedBatchNormV3"}
    assert left == {"bn_a", "bn_b", "bn_c"} - {norm.split("/")[0]}
    assert_near(model.run(X, new), before)


def test_a_batch_norm_of_a_plain_graph_goes_by_its_own_name():
    session = v1_graphs.network(True)
    before = v1_graphs.run(session)
    operations = [session.graph.get_operation_by_name(name) for name in ("conv/Conv2D", "norm/fused")]
    new = fold_given_batch_norms(session, "x", "y", [(*operations, True)])
    assert "FusedBatchNorm" not in " ".join(kinds(new))
    assert_near(v1_graphs.run(new), before)


def test_no_pairs_fold_nothing(model):
    new = fold_given_batch_norms(model.session, model.source, model.target, [])
    assert kinds(new).count("FusedBatchNormV3") == 3


@pytest.mark.parametrize(
    ("pair", "error", "why"),
    [
        (("a/Conv2D", "bn_b/cond"), TfpassesError, "a/Conv2D:bn_b/.* cannot fold"),
        (
            ("a/Conv2D", "b/depthwise"),
            ValueError,
            "^a/Conv2D and b/depthwise are no pair of a convolution or matrix",
        ),
        (("re_lu/Relu6", "bn_b/cond"), ValueError, "are no pair"),
    ],
)
def test_a_given_pair_that_does_not_fold_is_an_error_that_says_why(model, pair, error, why):
    with pytest.raises(error, match=why):
        fold_given_batch_norms(model.session, model.source, model.target, [tuple(model.op(name) for name in pair)])


# sessions


def test_a_session_that_is_saved_and_loaded_is_another_that_computes_the_same_and_leaves_no_file(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new = save_and_load_graph("./temp", model.session)
    assert new is not model.session and new.graph is not model.session.graph
    np.testing.assert_array_equal(model.run(X, new), model.run(X))
    assert os.listdir(tmp_path) == []
    before = model.run(X)
    with new.graph.as_default():
        assign = v1.global_variables()[0].initializer
    new.run(assign, {assign.inputs[1]: np.zeros((3, 3, 3, 4))})
    np.testing.assert_array_equal(model.run(X), before)


def test_what_was_added_to_the_graph_is_in_the_loaded_session(model):
    with model.session.graph.as_default():
        tf.identity(model.op(model.target).outputs[0] * 2, "twice")
    new = save_and_load_graph("temp", model.session)
    np.testing.assert_array_equal(new.run("twice:0", {f"{model.source}:0": X}), 2 * model.run(X))


def test_what_was_not_initialized_is_not_in_the_loaded_session_either():
    session = v1_graphs.network(True, initialize=False)
    new = save_and_load_graph("temp", session)
    with pytest.raises(tf.errors.FailedPreconditionError):
        v1_graphs.run(new)


# biases


@pytest.mark.parametrize(
    ("name", "none", "shape"),
    [("a/Conv2D", True, [4]), ("b/depthwise", False, [4]), ("b/BiasAdd", False, [4]), ("c/Conv2D", False, [5]), ("d/MatMul", False, [3])],
)
def test_whether_an_operation_has_a_bias_and_of_what_shape(model, name, none, shape):
    assert BiasUtils.is_bias_none(model.op(name)) == none
    assert BiasUtils.get_shape(model.op(name)) == shape


def test_a_depthwise_bias_has_one_element_an_output():
    model = in_session(lambda: tf_keras.Sequential([tf_keras.layers.DepthwiseConv2D(3, depth_multiplier=2, input_shape=(6, 6, 3))]))
    assert BiasUtils.get_shape(model.op("depthwise_conv2d/depthwise")) == [6]


def test_biases_are_read_and_changed_in_the_session(model):
    op, before = model.op("b/depthwise"), model.run(X)
    np.testing.assert_array_equal(BiasUtils.get_bias_as_numpy_data(model.session, op), model.value("b/bias"))
    new = np.arange(4.0)
    BiasUtils.update_bias_for_op(model.session, op, new)
    np.testing.assert_array_equal(model.value("b/bias"), new)
    assert np.abs(model.run(X) - before).max() > 0.01


@pytest.mark.parametrize("use_resource", v1_graphs.KINDS.values(), ids=list(v1_graphs.KINDS))
def test_a_session_gets_biases_where_it_has_none_and_computes_the_same(use_resource):
    session = v1_graphs.network(use_resource, train=False)
    assert BiasUtils.is_bias_none(session.graph.get_operation_by_name("conv/Conv2D"))
    new = BiasUtils.initialize_model_with_bias(session, ["x"], ["y"])
    op = new.graph.get_operation_by_name("conv/Conv2D")
    assert not BiasUtils.is_bias_none(op) and BiasUtils.is_bias_none(session.graph.get_operation_by_name("conv/Conv2D"))
    np.testing.assert_array_equal(BiasUtils.get_bias_as_numpy_data(new, op), np.zeros(4))
    np.testing.assert_allclose(v1_graphs.run(new), v1_graphs.run(session), rtol=1e-6)
    BiasUtils.update_bias_for_op(new, op, np.ones(4))
    assert np.abs(v1_graphs.run(new) - v1_graphs.run(session)).max() > 0.01


def test_operations_without_a_bias_or_a_kernel_are_errors(model):
    with pytest.raises(ValueError, match=r"^a/Conv2D, a Conv2D, has no bias; BiasUtils\.initialize_model_with_bias gives"):
        BiasUtils.get_bias_as_numpy_data(model.session, model.op("a/Conv2D"))
    with pytest.raises(ValueError, match="has no bias"):
        BiasUtils.update_bias_for_op(model.session, model.op("a/Conv2D"), np.zeros(4))
    with pytest.raises(ValueError, match="has no kernel of known shape"):
        BiasUtils.get_shape(model.op(model.source))


def test_a_bias_that_is_no_variable_cannot_be_changed():
    with tf.Graph().as_default() as graph:
        x = v1.placeholder("float32", (None, 3), "x")
        tf.nn.bias_add(tf.matmul(x, tf.ones((3, 2)), name="product"), tf.zeros(2), name="y")
    with v1.Session(graph=graph) as session, pytest.raises(TfpassesError, match=r"product: its bias, zeros.*, is no variable"):
        BiasUtils.update_bias_for_op(session, graph.get_operation_by_name("product"), np.ones(2))


def test_an_empty_graph_is_an_error():
    with tf.Graph().as_default(), v1.Session() as session, pytest.raises(UnsupportedModelError, match="has no operations"):
        save_and_load_graph("temp", session)


def by_hand(build):
    """A session of TensorFlow 1 with a graph, variables of seeded numbers in it."""
    rng = np.random.default_rng(3)

    def variable(name, *shape):
        return v1.get_variable(name, initializer=tf.constant(rng.normal(size=shape).astype("float32")), use_resource=True)

    with tf.Graph().as_default() as graph:
        build(v1.placeholder("float32", (None, 12, 12, 3), "x"), variable)
        session = v1.Session(graph=graph)
        session.run(v1.global_variables_initializer())
    return session


def test_a_bias_that_is_added_by_a_sum_is_one():
    def build(x, variable):
        tf.nn.relu(tf.nn.conv2d(x, variable("k", 3, 3, 3, 4), 1, "VALID", name="conv") + variable("b", 4), name="y")

    session = by_hand(build)
    conv = session.graph.get_operation_by_name("conv")
    assert not BiasUtils.is_bias_none(conv)
    bias = BiasUtils.get_bias_as_numpy_data(session, conv)
    kernel = session.run("k/Read/ReadVariableOp:0")
    windows = np.lib.stride_tricks.sliding_window_view(X, (3, 3), (1, 2))
    wanted = np.maximum(0, np.einsum("nhwcij,ijco->nhwo", windows, kernel) + bias)
    np.testing.assert_allclose(session.run("y:0", {"x:0": X}), wanted, rtol=1e-4, atol=1e-5)
    new = BiasUtils.initialize_model_with_bias(session, "x", "y")
    np.testing.assert_array_equal(BiasUtils.get_bias_as_numpy_data(new, new.graph.get_operation_by_name("conv")), bias)
    BiasUtils.update_bias_for_op(session, conv, np.full(4, -100.0))
    assert not session.run("y:0", {"x:0": X}).any()


def test_what_is_added_along_another_axis_than_the_channels_is_no_bias():
    def build(x, variable):
        y = tf.nn.conv2d(tf.transpose(x, (0, 3, 1, 2)), variable("k", 3, 3, 3, 10), 1, "VALID", data_format="NCHW", name="conv")
        tf.identity(y + variable("b", 10), name="y")

    assert BiasUtils.is_bias_none(by_hand(build).graph.get_operation_by_name("conv"))


def test_a_kernel_that_is_used_with_a_bias_and_without_keeps_the_bias_that_there_is():
    def build(x, variable):
        kernel = variable("k", 3, 3, 3, 4)
        without = tf.nn.conv2d(x, kernel, 1, "VALID", name="without")
        tf.add(without, tf.nn.bias_add(tf.nn.conv2d(2.0 * x, kernel, 1, "VALID", name="with"), variable("b", 4)), name="y")

    session = by_hand(build)
    new = BiasUtils.initialize_model_with_bias(session, "x", "y")
    biases = [BiasUtils.get_bias_as_numpy_data(new, new.graph.get_operation_by_name(name)) for name in ("without", "with")]
    np.testing.assert_array_equal(biases, [np.zeros(4), session.run("b/Read/ReadVariableOp:0")])
    np.testing.assert_allclose(new.run("y:0", {"x:0": X}), session.run("y:0", {"x:0": X}), rtol=1e-5, atol=1e-5)


def test_the_shape_of_a_bias_counts_the_outputs_wherever_the_kernel_has_them():
    def build(x, variable):
        tf.nn.conv2d_transpose(x, variable("a", 3, 3, 7, 3), (2, 12, 12, 7), 1, name="plane")
        tf.nn.conv3d_transpose(x[:, None], variable("b", 3, 3, 3, 8, 3), (2, 1, 12, 12, 8), (1, 1, 1, 1, 1), name="volume")
        rows = tf.reshape(x, (-1, 3))
        tf.matmul(rows, variable("c", 9, 3), transpose_b=True, name="turned")
        tf.matmul(rows, variable("d", 3, 10), name="product")
        tf.raw_ops.BatchMatMulV2(x=x, y=variable("e", 11, 3), adj_y=True, name="batch")

    graph = by_hand(build).graph
    shapes = {name: BiasUtils.get_shape(graph.get_operation_by_name(name)) for name in ("plane", "volume", "turned", "product", "batch")}
    assert shapes == {"plane": [7], "volume": [8], "turned": [9], "product": [10], "batch": [11]}
