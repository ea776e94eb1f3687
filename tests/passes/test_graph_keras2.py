"""Networks of Keras 2 in a TensorFlow 1 session: their batch norms lie inside `If`s over the learning phase."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

import tfpasses

tf_keras = pytest.importorskip("tf_keras", reason="Keras 2 is not installed (pip install tf-keras)")

INFERENCE = "canonicalize{training=false},fold-batch-norms"


def in_session(make, seed=0):
    """A model in a session of its own, with statistics that bite; its input's and output's names."""
    graph = tf.Graph()
    with graph.as_default():
        session = tf.compat.v1.Session(graph=graph)
        tf_keras.src.backend.set_session(session)
        model = make()
        session.run(tf.compat.v1.global_variables_initializer())
        generator = np.random.default_rng(seed)
        for variable in model.weights:
            name, shape = variable.name, tuple(variable.shape)
            if "moving_variance" in name:
                variable.load(generator.uniform(0.3, 2.0, shape), session)
            elif "gamma" in name:
                variable.load(generator.uniform(0.5, 1.5, shape) * generator.choice([-1, 1], shape), session)
            elif "beta" in name or "moving_mean" in name:
                variable.load(generator.normal(0.0, 0.3, shape), session)
    return session, model.inputs[0].op.name, model.outputs[0].op.name


def run(session, source, target, x):
    return session.run(f"{target}:0", {f"{source}:0": x})


def folds(result):
    return Counter(rewrite.rule for rewrite in result.rewrites if rewrite.pass_name == "fold-batch-norms")


def small():
    x = y = tf_keras.Input((12, 12, 3))
    for filters in (4, 6):
        y = tf_keras.layers.Conv2D(filters, 3, use_bias=False)(y)
        y = tf_keras.layers.ReLU()(tf_keras.layers.BatchNormalization()(y))
    return tf_keras.Model(x, tf_keras.layers.Dense(3)(tf_keras.layers.GlobalAveragePooling2D()(y)))


def assert_session_folds(make, count, shape, verify="shapes"):
    session, source, target = in_session(make)
    x = np.random.default_rng(1).normal(size=shape).astype("float32")
    before = run(session, source, target, x)
    result = tfpasses.run(session, INFERENCE, inputs=[source], outputs=[target], verify=verify)
    assert folds(result) == {"backward": count}
    assert bool(result.verdicts) == (verify == "numeric")
    assert not [remark for remark in result.remarks if "not compared" in remark.reason]
    assert isinstance(result.model, tf.compat.v1.Session)
    after = run(result.model, source, target, x)
    assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max()
    assert not np.array_equal(after, before)
    np.testing.assert_array_equal(run(session, source, target, x), before)
    return session, result


def test_a_small_network_goes_in_and_comes_out():
    _, result = assert_session_folds(small, 2, (2, 12, 12, 3), "numeric")
    operations = Counter(op.type for op in result.model.graph.get_operations())
    assert not {"If", "FusedBatchNormV3", "AssignSubVariableOp"} & operations.keys()
    assert operations["Conv2D"] == 2
    assert operations["VarHandleOp"] == 2 * 2 + 2 + 2 * 4  # kernels and new biases, the dense layer's, what only initialisers know of
    assert any("training's, and left out" in remark.reason for remark in result.remarks)


@pytest.mark.parametrize("again", [1, 2])
def test_layers_behind_dropout_are_raised(again):
    """Dropout is a branch within a branch, of which TensorFlow knows no shape."""

    def make():
        y = x = tf_keras.Input((12, 12, 3))
        for _ in range(again):
            y = tf_keras.layers.Dropout(0.5)(y)
        y = tf_keras.layers.Dropout(0.5)(tf_keras.layers.BatchNormalization()(tf_keras.layers.Conv2D(4, 3)(y)))
        return tf_keras.Model(x, tf_keras.layers.Dense(3)(tf_keras.layers.Flatten()(y)))

    session, source, target = in_session(make)
    result = tfpasses.run(session, INFERENCE, inputs=[source], outputs=[target], verify="numeric")
    assert folds(result) == {"backward": 1}
    assert [node.op for node in result.graph.nodes.values() if node.op in ("Conv", "Dense")] == ["Conv", "Dense"]
    x = np.random.default_rng(1).normal(size=(2, 12, 12, 3)).astype("float32")
    np.testing.assert_allclose(run(result.model, source, target, x), run(session, source, target, x), rtol=1e-4, atol=1e-5)


def test_without_the_learning_phase_nothing_folds_and_the_session_is_as_it_was():
    session, source, target = in_session(small)
    result = tfpasses.run(session, "fold-batch-norms", inputs=[source], outputs=[target])
    assert not folds(result)
    written, read = (sorted(map(str, one.graph.as_graph_def().node)) for one in (result.model, session))
    assert written == read


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("MobileNetV2", 52), ("ResNet50", 53)])
def test_networks_of_its_applications(name, count):
    assert_session_folds(lambda: getattr(tf_keras.applications, name)(weights=None, input_shape=(96, 96, 3)), count, (2, 96, 96, 3))
