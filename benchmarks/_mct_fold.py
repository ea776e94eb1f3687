"""Batch-norm folding by Sony's Model Compression Toolkit beside Keras 2's own clone; `fold.py` runs this in `.venv-mct`, which
`make bench` makes. Prints a JSON line an architecture: median seconds of both, and what came of the fold.

The fold is what the toolkit does to a float model and no more: read, substitute, build. Its own pipeline goes on to quantize.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from types import SimpleNamespace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from model_compression_toolkit.core.common.model_builder_mode import ModelBuilderMode
from model_compression_toolkit.core.common.quantization.node_quantization_config import ActivationQuantizationMode
from model_compression_toolkit.core.common.substitutions.apply_substitutions import substitute
from model_compression_toolkit.core.keras.default_framework_info import DEFAULT_KERAS_INFO
from model_compression_toolkit.core.keras.graph_substitutions.substitutions.batchnorm_folding import keras_batchnorm_folding
from model_compression_toolkit.core.keras.keras_implementation import KerasImplementation

UNQUANTIZED = SimpleNamespace(quant_mode=ActivationQuantizationMode.NO_QUANT)
"""The builder asks every node how it is quantized, even for a float model."""


def fold(model):
    toolkit = KerasImplementation()
    graph = toolkit.model_reader(model, None)
    graph.set_fw_info(DEFAULT_KERAS_INFO)
    graph = substitute(graph, [keras_batchnorm_folding()])
    for node in graph.nodes:
        node.final_activation_quantization_cfg = UNQUANTIZED
    return toolkit.model_builder(graph, ModelBuilderMode.FLOAT)[0]


def clone(model):
    copy = tf.keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def batch_norms(model):
    return sum(isinstance(layer, tf.keras.layers.BatchNormalization) for layer in model.layers)


def train_a_little(model):
    """Statistics that a fold has to deal with; as built, a batch norm does next to nothing."""
    drawn = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.set_weights([drawn.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])


def main():
    runs, names = int(sys.argv[1]), sys.argv[2:]
    for name in names:
        model = getattr(tf.keras.applications, name)(weights=None, classifier_activation=None)
        train_a_little(model)
        times = {"fold": [], "clone": []}
        for number in range(runs + 1):
            for what, function in (("fold", fold), ("clone", clone)):
                gc.collect()
                start = time.perf_counter()
                made = function(model)
                if number:
                    times[what].append(time.perf_counter() - start)
                if what == "fold":
                    folded = made
        x = np.random.default_rng(1).uniform(0, 1, (1, 224, 224, 3)).astype("float32")
        ours, theirs = (np.asarray(each(x)) for each in (model, folded))
        record = {
            "name": name,
            **{what: statistics.median(values) for what, values in times.items()},
            "batch_norms": [batch_norms(model), batch_norms(folded)],
            "difference": float(np.abs(ours - theirs).max() / np.abs(ours).max()),
        }
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
