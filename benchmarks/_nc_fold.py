"""Batch-norm folding by Intel Neural Compressor; `graph_fold.py` runs this in `.venv-nc`, which `make bench` makes.

The fold is what the toolkit does before it quantizes and no more: Identities are taken out, batch norms in parts are fused, then folded.
"""

from __future__ import annotations

import logging
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from _apart import serve
from neural_compressor.tensorflow.quantization.utils.graph_rewriter.generic.fold_batch_norm import FoldBatchNormNodesOptimizer
from neural_compressor.tensorflow.quantization.utils.graph_rewriter.generic.fuse_decomposed_bn import FuseDecomposedBNOptimizer
from neural_compressor.tensorflow.quantization.utils.graph_rewriter.generic.remove_training_nodes import RemoveTrainingNodesOptimizer
from tensorflow.core.framework.graph_pb2 import GraphDef


def fold(data: bytes) -> bytes:
    definition = GraphDef.FromString(data)
    definition = RemoveTrainingNodesOptimizer(definition, protected_nodes=[sys.argv[1]]).do_transformation()
    definition = FuseDecomposedBNOptimizer(definition).do_transformation()
    return FoldBatchNormNodesOptimizer(definition).do_transformation().SerializeToString()


if __name__ == "__main__":
    logging.disable(logging.INFO)  # the toolkit tells how long each step took
    serve(fold)
