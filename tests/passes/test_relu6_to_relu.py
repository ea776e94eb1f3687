"""`relu6-to-relu`: which limits go in which spellings, and what is said of how often they were reached."""

from __future__ import annotations

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from keras import ops

import tfpasses
from tfpasses.data import samples_of
from tfpasses.frontends.keras import keras_evaluator
from tfpasses.graph import ChannelStats, Ref
from tfpasses.manager import PassError, Pipeline, RemarkLog, run_passes

A = keras.activations
X = np.random.default_rng(3).normal(0, 6, (40, 5)).astype("float32")


def of_two(one, other):
    """The larger of two functions of a value."""
    return lambda y: ops.maximum(one(y), other(y))


SPELLINGS = {
    "ReLU layer": L.ReLU(6.0),
    "Activation layer": L.Activation("relu6"),
    "relu6 function": A.relu6,
    "relu with a maximum": lambda x: A.relu(x, max_value=6.0),
    "relu6 operation": ops.relu6,
    "clip": lambda x: ops.clip(x, 0.0, 6.0),
    "clip at whole numbers": lambda x: ops.clip(x, 0, 6),
    "minimum": lambda x: ops.minimum(ops.relu(x), 6.0),
    "minimum of an array": lambda x: ops.minimum(ops.relu(x), np.full(5, 6.0, "float32")),
    "number first": lambda x: ops.minimum(6.0, ops.relu(x)),
    "minimum and maximum": lambda x: ops.minimum(ops.maximum(x, 0.0), 6.0),
    "maximum and minimum": lambda x: ops.maximum(ops.minimum(x, 6), 0),
    "numbers first": lambda x: ops.maximum(0.0, ops.minimum(6.0, x)),
    "minimum before a relu": lambda x: L.ReLU()(ops.minimum(x, 6.0)),
    "minimum of an array before two": lambda x: of_two(ops.relu, lambda y: ops.maximum(y, 0.0))(ops.minimum(x, np.full(5, 6.0, "float32"))),
    "minimum before a dropout": lambda x: ops.relu(L.Dropout(0.5)(ops.minimum(x, 6.0))),
    "minimum of a whole number": lambda x: ops.minimum(ops.relu(x), np.int64(6)),
    "clip at numbers of NumPy": lambda x: ops.clip(x, np.float32(0), np.int32(6)),
    "operation as activation": L.Activation(ops.relu6),
    "activation of TensorFlow": L.Activation(tf.nn.relu6),
}
OTHERS = {
    "clip from another number": lambda x: ops.clip(x, -1.0, 6.0),
    "clip at an array": lambda x: ops.clip(x, 0.0, np.full(5, 6.0, "float32")),
    "clip from 0 to 0": lambda x: ops.clip(x, 0.0, 0.0),
    "minimum alone": lambda x: ops.minimum(x, 6.0),
    "minimum that something else reads too": lambda x: of_two(ops.relu, L.Identity())(ops.minimum(x, 6.0)),
    "minimum with 0 before a relu": lambda x: ops.relu(ops.minimum(x, 0.0)),
    "minimum before a threshold": lambda x: L.ReLU(threshold=1.0)(ops.minimum(x, 6.0)),
    "minimum before another maximum": lambda x: ops.maximum(ops.minimum(x, 6.0), -1.0),
    "maximum with another number": lambda x: ops.minimum(ops.maximum(x, 1.0), 6.0),
    "minimum that computes in another precision": lambda x: ops.minimum(ops.relu(x), np.full(5, 6.0)),
    "minimum of two values": lambda x: ops.minimum(ops.relu(x), x),
    "hard sigmoid": L.Activation("hard_sigmoid"),
    "relu": ops.relu,
}


def network(activation, first=None):
    """A dense layer, an activation, a dense layer, of seeded weights."""
    x = keras.Input((5,), name="x")
    model = keras.Model(x, L.Dense(3, name="last")(activation((first or L.Dense(5, name="first"))(x))))
    rng = np.random.default_rng(4)
    model.set_weights([rng.normal(size=weight.shape).astype("float32") for weight in model.get_weights()])
    return model


def dense(model, name, x):
    kernel, bias = (np.asarray(array, np.float64) for array in model.get_layer(name).get_weights())
    return x @ kernel + bias


def unlimited(model):
    """What the network computes where its activation is a ReLU, in float64."""
    return dense(model, "last", np.maximum(0, dense(model, "first", X.astype(np.float64))))


def share(remark):
    return float(re.search(r"touched (\S+) % of its values", remark.reason)[1]) / 100


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_loses_its_limit_and_the_share_on_the_data_is_said(spelling):
    model = network(SPELLINGS[spelling])
    result = tfpasses.run(model, "relu6-to-relu", data={"x": X})
    np.testing.assert_allclose(result.model(X), unlimited(model), rtol=1e-4, atol=1e-4)
    assert np.abs(np.asarray(model(X)) - unlimited(model)).max() > 1
    (remark,) = result.remarks
    assert share(remark) == pytest.approx((dense(model, "first", X.astype(np.float64)) > 6).mean(), rel=1e-2)


@pytest.mark.parametrize("other", OTHERS)
def test_nothing_else_changes(other):
    model = network(OTHERS[other])
    result = tfpasses.run(model, "relu6-to-relu")
    assert not result.rewrites and not result.remarks
    np.testing.assert_array_equal(result.model(X), model(X))


def test_a_clip_that_nothing_changes_stays_the_operation_that_it_was():
    model = network(SPELLINGS["clip"])
    result = tfpasses.run(model, "quantize-weights")
    assert [type(one).__name__ for one in result.model.operations].count("Clip") == 1


IN_GRAPHS = {
    "clip_by_value": lambda x: tf.clip_by_value(x, 0.0, 6.0),
    "clip_by_value of arrays": lambda x: tf.clip_by_value(x, np.zeros(5, "float32"), np.full(5, 6.0, "float32")),
    "ClipByValue": lambda x: tf.raw_ops.ClipByValue(t=x, clip_value_min=0.0, clip_value_max=6.0),
    "relu6": tf.nn.relu6,
    "minimum and maximum": lambda x: tf.minimum(tf.maximum(x, 0.0), 6.0),
    "maximum and minimum": lambda x: tf.maximum(tf.minimum(x, 6.0), 0.0),
    "numbers first": lambda x: tf.maximum(0.0, tf.minimum(6.0, x)),
    "minimum of an array": lambda x: tf.maximum(tf.minimum(x, np.full((1, 5), 6.0, "float32")), 0.0),
    "minimum before a relu": lambda x: tf.nn.relu(tf.minimum(x, 6.0)),
}


@pytest.mark.parametrize("spelling", IN_GRAPHS)
def test_the_spellings_of_a_tf_graph(spelling):
    clip = IN_GRAPHS[spelling]
    kernel = tf.constant(np.random.default_rng(4).normal(size=(5, 5)).astype("float32"))
    function = tf.function(lambda x: clip(x @ kernel)).get_concrete_function(tf.TensorSpec((None, 5), "float32", "x"))
    result = tfpasses.run(function, "relu6-to-relu", data={"x": X})
    values = X.astype(np.float64) @ kernel.numpy()
    np.testing.assert_allclose(np.asarray(result.model(tf.constant(X))), np.maximum(0, values), rtol=1e-4, atol=1e-4)
    (remark,) = (one for one in result.remarks if one.pass_name == "relu6-to-relu")
    assert share(remark) == pytest.approx((values > 6).mean(), rel=1e-2)


@pytest.mark.parametrize("spelling", ["ReLU layer", "minimum and maximum", "maximum and minimum", "clip"])
def test_without_data_the_share_is_that_of_the_normal_variable_that_the_batch_norm_gave(spelling):
    def activation(x):
        return SPELLINGS[spelling](L.BatchNormalization(name="norm")(x))

    model = network(activation)
    mean, std = np.linspace(-2, 8, 5), np.array([-1.0, 2.0, 0.5, 4.0, 1.0])  # of either sign
    model.get_layer("norm").set_weights([std, mean, np.zeros(5), np.abs(model.get_layer("norm").moving_variance)])
    result = tfpasses.run(model, "fold-batch-norms,relu6-to-relu")
    (remark,) = (one for one in result.remarks if one.pass_name == "relu6-to-relu")
    wanted = np.mean([0.5 * math.erfc((6 - m) / abs(s) / math.sqrt(2)) for m, s in zip(mean, std, strict=True)])
    assert remark.reason.endswith("by the statistics of the batch norm before it")
    assert share(remark) == pytest.approx(wanted, rel=1e-2)


def test_where_neither_data_nor_statistics_are_known_the_remark_says_so():
    (remark,) = tfpasses.run(network(SPELLINGS["ReLU layer"]), "relu6-to-relu").remarks
    assert remark.reason == "the limit is gone; how many of its values it touched is not known"
    assert remark.remedy == "give data, or fold batch norms first, to know how many"


def test_a_deviation_of_0_reaches_the_limit_always_or_never():
    model = network(SPELLINGS["ReLU layer"])
    facts = {(Ref("first"), ChannelStats.kind): ChannelStats([7.0, 5.0, 6.0, 9.0, -1.0], [0.0] * 5)}
    (remark,) = tfpasses.run(model, "relu6-to-relu", facts=facts).remarks
    assert share(remark) == pytest.approx(2 / 5)


def test_only_the_named_activations_change():
    model = network(lambda x: L.ReLU(4.0, name="b")(L.Dense(5, name="middle")(L.ReLU(6.0, name="a")(x))))
    result = tfpasses.run(model, "relu6-to-relu{only=b}")
    assert [result.model.get_layer(name).max_value for name in "ab"] == [6.0, None]
    assert [rewrite.root for rewrite in result.rewrites] == ["b"]


def test_the_activation_of_a_layer_is_named_by_the_layer():
    model = network(lambda x: x, L.Dense(5, activation="relu6", name="first"))
    result = tfpasses.run(model, "relu6-to-relu{only=first}", data={"x": X})
    np.testing.assert_allclose(result.model(X), unlimited(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "why"), [("last", "last is no activation with an upper limit"), ("nowhere", "there is no layer 'nowhere'")]
)
def test_a_name_that_is_none_is_an_error(name, why):
    with pytest.raises(PassError, match=f"only={name!r}: {why}$"):
        tfpasses.run(network(SPELLINGS["ReLU layer"]), f"relu6-to-relu{{only={name}}}")


def test_several_workers_count_together():
    x = keras.Input((4,), name="x")
    graph = tfpasses.from_keras(keras.Model(x, L.ReLU(6.0, name="clip")(x)))
    samples = samples_of(graph, np.array([[7, 1, 1, 1], [7, 7, 1, 1], [7, 7, 7, 1]], "float32"))

    class Two:
        """Another has seen as many values, none above the limit."""

        rank, count = 0, 2

        def gathered(self, array):
            return [array, np.array([[0.0, 12.0]])]

    log = RemarkLog()
    run_passes(graph, Pipeline.parse("relu6-to-relu"), [log], keras_evaluator(), samples, Two())
    (remark,) = log.remarks
    assert "it touched 25 % of its values on the given data" in remark.reason
