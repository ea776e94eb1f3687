"""A program of TensorFlow 1, with eager execution turned off: that holds for a whole process, so it is another one."""

import subprocess
import sys

PROGRAM = """
import numpy as np
import tensorflow as tf
import tfpasses

tf.compat.v1.disable_v2_behavior()
graph = tf.Graph()
with graph.as_default(), tf.compat.v1.Session() as session:
    x = tf.compat.v1.placeholder("float32", (None, 8, 8, 3), name="x")
    y = tf.nn.conv2d(x, tf.compat.v1.get_variable("k", (3, 3, 3, 4)), 1, "SAME")
    vectors = [tf.constant([1.0, 2.0, 3.0, 4.0])] * 4
    tf.identity(tf.compat.v1.nn.fused_batch_norm(y, *vectors, is_training=False)[0], name="y")
    session.run(tf.compat.v1.global_variables_initializer())
    ones = np.ones((1, 8, 8, 3), "float32")
    result = tfpasses.run(session, "fold-batch-norms", inputs=["x"], outputs=["y"], verify="numeric")
    assert [rewrite.rule for rewrite in result.rewrites if rewrite.pass_name == "fold-batch-norms"] == ["backward"]
    before, after = (one.run("y:0", {"x:0": ones}) for one in (session, result.model))
    assert 0 < abs(after - before).max() <= 1e-5 * abs(before).max()
    assert not tf.executing_eagerly()
"""


def test_a_session_is_rewritten_and_verified():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
