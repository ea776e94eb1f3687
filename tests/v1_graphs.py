"""Small graphs of TensorFlow 1, built by hand, with everything that a training program leaves in them."""

import numpy as np
import tensorflow as tf

__all__ = ["KINDS", "X", "names", "network", "run"]

v1 = tf.compat.v1
KINDS = {"by handle": True, "by reference": False}
"""The two kinds of variables -> `use_resource`."""
X = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")


def network(use_resource, table=None, initialize=True, train=True):
    """A session: convolution, fused batch norm, relu, dense, with an optimizer, a saver, devices and colocations."""
    graph = tf.Graph()
    with graph.as_default():
        v1.set_random_seed(3)
        x = v1.placeholder(tf.float32, (None, 6, 6, 3), "x")
        v1.placeholder_with_default(False, (), "training")
        positive = v1.random_uniform_initializer(0.5, 2)
        with v1.variable_scope("", use_resource=use_resource), tf.device("/cpu:0"):
            kernel = v1.get_variable("conv/kernel", (3, 3, 3, 4))
            gamma = v1.get_variable("norm/gamma", (4,), initializer=positive)
            beta = v1.get_variable("norm/beta", (4,), initializer=v1.zeros_initializer())
            mean = v1.get_variable("norm/moving_mean", (4,), initializer=positive, trainable=False)
            variance = v1.get_variable("norm/moving_variance", (4,), initializer=positive, trainable=False)
            weights = v1.get_variable("head/weights", (4, 2))
        y = tf.nn.conv2d(x, kernel, 1, "SAME", name="conv/Conv2D")
        y, _, _ = v1.nn.fused_batch_norm(y, gamma, beta, mean, variance, is_training=False, name="norm/fused")
        with v1.colocate_with(y.op):
            y = tf.nn.relu(y, "relu")
        y = tf.add(tf.matmul(tf.reduce_mean(y, (1, 2)), weights), 1.0, "y")
        v1.get_variable("counted", (), initializer=v1.zeros_initializer(), collections=[v1.GraphKeys.LOCAL_VARIABLES])
        step = v1.train.get_or_create_global_step()
        if train:
            v1.train.MomentumOptimizer(0.1, 0.9).minimize(tf.reduce_sum(y**2), step, name="train")
        if table is not None:
            asset = tf.constant(str(table), name="vocabulary")
            v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, asset)
            lines = (tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER)
            words = v1.placeholder(tf.string, (None,), "words")
            tf.identity(tf.lookup.StaticHashTable(tf.lookup.TextFileInitializer(asset, *lines), -1).lookup(words), "ids")
        v1.train.Saver()
        session = v1.Session(graph=graph)
        if initialize:
            session.run([v1.global_variables_initializer(), v1.local_variables_initializer(), v1.tables_initializer()])
    return session


def names(definition):
    """The nodes of a GraphDef, by name."""
    return {node.name: node for node in definition.node}


def run(session, fetches="y:0", x=X, **more):
    return session.run(fetches, {"x:0": x, **{f"{name}:0": value for name, value in more.items()}})
