"""Batch-norm folding by Intel Neural Compressor; `graph_fold.py` runs this in `.venv-nc`, which `make bench` makes.

Says `ready`. Then each line that comes in names two files: the GraphDef in the first is folded into the second, and a line of JSON says how
many seconds that took, from bytes to bytes. Here by turns with the other tools: all of them feel the same slow moments of the machine.

The fold is what the toolkit does before it quantizes and no more: Identities are taken out, batch norms in parts are fused, then folded.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from neural_compressor.tensorflow.quantization.utils.graph_rewriter.generic.fold_batch_norm import FoldBatchNormNodesOptimizer
from neural_compressor.tensorflow.quantization.utils.graph_rewriter.generic.fuse_decomposed_bn import FuseDecomposedBNOptimizer
from neural_compressor.tensorflow.quantization.utils.graph_rewriter.generic.remove_training_nodes import RemoveTrainingNodesOptimizer
from tensorflow.core.framework.graph_pb2 import GraphDef

GIVE_BACK = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)
"""Gives free memory back to the system; glibc has it."""


def fold(data, output):
    definition = GraphDef.FromString(data)
    definition = RemoveTrainingNodesOptimizer(definition, protected_nodes=[output]).do_transformation()
    definition = FuseDecomposedBNOptimizer(definition).do_transformation()
    return FoldBatchNormNodesOptimizer(definition).do_transformation().SerializeToString()


def main():
    output = sys.argv[1]
    logging.disable(logging.INFO)  # the toolkit tells how long each step took
    print("ready", flush=True)
    for line in sys.stdin:
        source, target = map(Path, json.loads(line))
        data = source.read_bytes()
        gc.collect()
        GIVE_BACK(0)
        started = time.process_time()
        folded = fold(data, output)
        seconds = time.process_time() - started
        target.write_bytes(folded)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
