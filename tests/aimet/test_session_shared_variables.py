"""Variables of a session that more than the given set computes with: the set is scaled all the same, with a warning."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tensorflow as tf

import v1_graphs
from tfpasses.passes.aimet.batch_norm_fold import fold_all_batch_norms
from tfpasses.passes.aimet.cross_layer_equalization import CrossLayerScaling, HighBiasFold, equalize_model
from tfpasses.passes.aimet.utils.op.conv import BiasUtils

v1 = tf.compat.v1
X = np.random.default_rng(1).normal(size=(2, 12, 12, 3)).astype("float32")


@pytest.fixture(autouse=True)
def no_warning():
    """A set that is safe is scaled without a word."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "scaling")
        yield


def assert_near(got, wanted):
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


USES = {
    "convolution with the first kernel": lambda x, k, m, b: tf.nn.conv2d(x, k, 1, "SAME", name="other"),
    "convolution with the second kernel": lambda x, k, m, b: tf.nn.conv2d(tf.concat([x, x[..., :1]], -1), m, 1, "SAME", name="other"),
    "sum with the bias": lambda x, k, m, b: tf.add(x[..., :1], b, name="other"),
    "penalty": lambda x, k, m, b: tf.nn.l2_loss(tf.identity(k), name="other"),
    "branch": lambda x, k, m, b: tf.cond(x[0, 0, 0, 0] > 0, lambda: tf.nn.l2_loss(b), lambda: 0.0, name="other"),
    "function": lambda x, k, m, b: tf.identity(tf.function(lambda x: tf.nn.conv2d(x, k, 1, "SAME"))(x), name="other"),
}
MAINTAINED = {
    "nothing": lambda k: None,
    "saving": lambda k: v1.train.Saver(),
    "a copy that nothing computes with": tf.identity,
    "assigning": lambda k: v1.assign(k, tf.zeros_like(k)),
}


def two_layers_and_more(use_resource, more):
    """Two convolutions of which the first has a bias, and something else on another input."""
    generator = np.random.default_rng(3)
    with tf.Graph().as_default() as graph, v1.variable_scope("", use_resource=use_resource):
        shapes = {"k": (3, 3, 3, 4), "m": (3, 3, 4, 2), "b": (4,)}
        k, m, b = (v1.get_variable(name, initializer=generator.normal(size=shape).astype("float32")) for name, shape in shapes.items())
        x = v1.placeholder("float32", (None, 12, 12, 3), "x")
        y = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, k, 1, "SAME", name="first"), b))
        tf.identity(tf.nn.conv2d(y, m, 1, "VALID", name="second"), "y")
        more(v1.placeholder("float32", (None, 12, 12, 3), "z"), k, m, b)
        session = v1.Session(graph=graph)
        session.run(v1.global_variables_initializer())
    return session


@pytest.mark.parametrize("use_resource", v1_graphs.KINDS.values(), ids=list(v1_graphs.KINDS))
@pytest.mark.parametrize("use", USES)
def test_a_variable_that_another_part_of_the_session_computes_with_is_warned_of(use, use_resource):
    session = two_layers_and_more(use_resource, USES[use])
    first, second = (session.graph.get_operation_by_name(name) for name in ("first", "second"))
    kernels, before = session.run([one.inputs[1] for one in (first, second)]), session.run("y:0", {"x:0": X})
    with pytest.warns(UserWarning, match="^scaling first, second: .*(computes with [kmb], too|shares a weight with|is Input)"):
        scale = CrossLayerScaling.scale_cls_set(session, (first, second))
    np.testing.assert_allclose(session.run(first.inputs[1]), kernels[0] / scale, rtol=3e-7)
    assert_near(session.run("y:0", {"x:0": X}), before)


@pytest.mark.parametrize("use", MAINTAINED)
def test_what_loads_and_saves_a_variable_is_no_use_of_it(use):
    session = two_layers_and_more(True, lambda x, k, m, b: MAINTAINED[use](k))
    before = session.run("y:0", {"x:0": X})
    CrossLayerScaling.scale_cls_set(session, [session.graph.get_operation_by_name(name) for name in ("first", "second")])
    assert_near(session.run("y:0", {"x:0": X}), before)


def test_the_bias_of_the_last_layer_may_be_used_elsewhere():
    generator = np.random.default_rng(5)
    with tf.Graph().as_default() as graph, v1.variable_scope("", use_resource=True):
        shapes = {"k": (5, 4), "m": (4, 3), "b": (3,)}
        k, m, b = (v1.get_variable(name, initializer=generator.normal(size=shape).astype("float32")) for name, shape in shapes.items())
        x = v1.placeholder("float32", (None, 5), "x")
        tf.nn.bias_add(tf.matmul(tf.nn.relu(tf.matmul(x, k, name="first")), m, name="second"), b, name="y")
        tf.add(v1.placeholder("float32", (None, 3), "z"), b, name="other")
        session = v1.Session(graph=graph)
        session.run(v1.global_variables_initializer())
    before = session.run("y:0", {"x:0": X[0, 0, :5, :1].T})
    CrossLayerScaling.scale_cls_set(session, [graph.get_operation_by_name(name) for name in ("first", "second")])
    assert_near(session.run("y:0", {"x:0": X[0, 0, :5, :1].T}), before)


def siamese(use_resource):
    """A network of two convolutions and a batch norm that is applied to two inputs, and the difference of what it gives."""
    generator = np.random.default_rng(3)
    with tf.Graph().as_default() as graph, v1.variable_scope("", use_resource=use_resource):
        values = {name: generator.normal(size=shape) for name, shape in {"k": (3, 3, 3, 4), "m": (3, 3, 4, 2), "b": 4, "c": 2}.items()}
        values |= {"gamma": [1, 1, 2, 0.1], "beta": [5, 6, 2, 1], "mean": [0, 1, 0, 0.3], "variance": [1, 2, 1, 1]}
        k, m, b, c, *norm = [v1.get_variable(name, initializer=np.float32(value)) for name, value in values.items()]
        found = []
        for name in ("x", "z"):
            y = tf.nn.bias_add(tf.nn.conv2d(v1.placeholder("float32", (None, 12, 12, 3), name), k, 1, "SAME", name="first"), b)
            y, *_ = v1.nn.fused_batch_norm(y, *norm, is_training=False)
            found.append(tf.nn.bias_add(tf.nn.conv2d(tf.nn.relu(y), m, 1, "VALID", name="second"), c))
        tf.subtract(*found, name="y")
        session = v1.Session(graph=graph)
        session.run(v1.global_variables_initializer())
    return session


@pytest.mark.parametrize("use_resource", v1_graphs.KINDS.values(), ids=list(v1_graphs.KINDS))
def test_layers_that_are_applied_to_two_inputs_are_equalized_for_both(use_resource):
    def value(session):
        return session.run("y:0", {"x:0": X, "z:0": 2 * X[::-1]})

    session = siamese(use_resource)
    before = value(session)
    folded, pairs = fold_all_batch_norms(session, ["x", "z"], "y")
    scaled, infos = CrossLayerScaling.scale_model(folded, ["x", "z"], "y")
    assert_near(value(scaled), before)
    ((pair,),) = [info.cls_pair_info_list for info in infos]
    in_place = [folded.graph.get_operation_by_name(layer.name) for layer in (pair.layer1, pair.layer2)]
    np.testing.assert_allclose(CrossLayerScaling.scale_cls_set(folded, in_place), pair.scale_factor, rtol=1e-12)
    assert_near(value(folded), before)
    moved = HighBiasFold.bias_fold(scaled, pairs, infos)
    shift = np.maximum(0, [5 - 3 * 1, 6 - 3 * 1, 2 - 3 * 2, 1 - 3 * 0.1]) / pair.scale_factor
    bias = {one: BiasUtils.get_bias_as_numpy_data(one, one.graph.get_operation_by_name(pair.layer1.name)) for one in (scaled, moved)}
    np.testing.assert_allclose(bias[moved], bias[scaled] - shift, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(value(equalize_model(session, ["x", "z"], "y")), value(moved))
