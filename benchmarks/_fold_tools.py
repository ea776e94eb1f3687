"""The folds that `graph_fold.py` compares, from bytes to bytes, and the yardstick: `python _fold_tools.py NAME OUTPUT` serves one."""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from _apart import serve


def parsed(data: bytes) -> Any:
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(data)
    return definition


class Yardstick:
    """`ParseFromString`, `SerializeToString` and one numpy copy of the weights."""

    def __init__(self) -> None:
        self.arrays: dict[int, list[Any]] = {}
        """The weights of a file, by its length."""

    def __call__(self, data: bytes, output: str) -> bytes:
        from tfpasses.frontends.graph_def import from_graph_def

        if len(data) not in self.arrays:
            self.arrays[len(data)] = list(from_graph_def(parsed(data)).weights.values())
        arrays = self.arrays[len(data)]
        written = bytes(parsed(data).SerializeToString())
        copies = [np.array(array) for array in arrays]
        assert len(copies) == len(arrays)
        return written


def ours(data: bytes, output: str) -> bytes:
    from tfpasses.frontends.graph_def import from_graph_def, to_bytes
    from tfpasses.manager import Pipeline, run_passes

    graph = from_graph_def(parsed(data), outputs=[output])
    return to_bytes(run_passes(graph, Pipeline.parse("canonicalize,fold-batch-norms")))


def of_tensorflow(data: bytes, output: str) -> bytes:
    """The steps of `optimize_for_inference` that have to do with batch norms."""
    from tensorflow.python.framework import graph_util
    from tensorflow.python.tools import optimize_for_inference_lib

    definition = graph_util.remove_training_nodes(parsed(data), [output])
    definition = optimize_for_inference_lib.fuse_decomposed_batch_norm(definition)
    return bytes(optimize_for_inference_lib.fold_batch_norms(definition).SerializeToString())


def of_grappler(data: bytes, output: str) -> bytes:
    """What a session does to a graph, with all that may lead to a fold."""
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
    from tensorflow.python.grappler import tf_optimizer

    definition = parsed(data)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
        meta = tf.compat.v1.train.export_meta_graph(graph_def=definition, graph=graph)
    meta.collection_def["train_op"].CopyFrom(meta_graph_pb2.CollectionDef(node_list={"value": [output]}))
    options = rewriter_config_pb2.RewriterConfig(
        min_graph_nodes=-1, meta_optimizer_iterations="ONE", optimizers=["constfold", "remapping", "arithmetic"]
    )
    config = config_pb2.ConfigProto(graph_options={"rewrite_options": options})
    return bytes(tf_optimizer.OptimizeGraph(config, meta).SerializeToString())


def of_onnxscript(data: bytes, output: str) -> bytes:
    import onnx
    from onnxscript import rewriter

    return bytes(rewriter.rewrite(onnx.ModelProto.FromString(data)).SerializeToString())


def of_onnxscript_rule(data: bytes, output: str) -> bytes:
    """Its batch-norm rule alone."""
    import onnx
    from onnxscript import rewriter
    from onnxscript.rewriter.rules import common

    model = onnx.ModelProto.FromString(data)
    return bytes(rewriter.rewrite(model, pattern_rewrite_rules=[common.fuse_batchnorm_into_conv_rule]).SerializeToString())


YARDSTICK, OURS = "yardstick", "ours"
OF_GRAPHS = {
    YARDSTICK: Yardstick(),
    OURS: ours,
    "TensorFlow, optimize_for_inference_lib": of_tensorflow,
    "TensorFlow, grappler": of_grappler,
}
OF_ONNX = {"onnxscript, the rule alone": of_onnxscript_rule, "onnxscript, all rules": of_onnxscript}


if __name__ == "__main__":
    fold = (OF_GRAPHS | OF_ONNX)[sys.argv[1]]
    serve(lambda data: fold(data, sys.argv[2]))
