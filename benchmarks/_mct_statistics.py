"""The statistics that Sony's Model Compression Toolkit collects before it quantizes, beside plain forwards of the same network;
`bias_correction.py` runs this in `.venv-mct`, which `make bench` makes.

Arguments: how many images, how many a batch, and names of keras.applications. Prints a JSON line a network: seconds of its graph's
preparation, of the collection from all images, and of a forward of the network folded by the toolkit over the same images, compiled, in
batches of the same size: the mean of one before and one after.
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from _mct_fold import fold
from model_compression_toolkit import get_target_platform_capabilities
from model_compression_toolkit.core import CoreConfig
from model_compression_toolkit.core.common.model_collector import ModelCollector
from model_compression_toolkit.core.graph_prep_runner import graph_preparation_runner
from model_compression_toolkit.core.keras.default_framework_info import DEFAULT_KERAS_INFO
from model_compression_toolkit.core.keras.keras_implementation import KerasImplementation
from model_compression_toolkit.target_platform_capabilities.targetplatform2framework.attach2keras import AttachTpcToKeras
from model_compression_toolkit.target_platform_capabilities.tpc_io_handler import load_target_platform_capabilities


def network(name):
    """As `cle.py` draws it, for the Keras of this environment."""
    model = getattr(tf.keras.applications, name)(weights=None)
    drawn = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.set_weights([drawn.uniform(0.1, 3.0, weight.shape) for weight in layer.get_weights()])
    return model


def prepared(model, batches):
    """The steps of the toolkit's post-training quantization up to its statistics, with its defaults."""
    toolkit, config = KerasImplementation(), CoreConfig().quantization_config
    capabilities = AttachTpcToKeras().attach(load_target_platform_capabilities(get_target_platform_capabilities()))
    graph = graph_preparation_runner(model, batches, config, DEFAULT_KERAS_INFO, toolkit, capabilities)
    return ModelCollector(graph, toolkit, DEFAULT_KERAS_INFO, None, config)


def seconds(function):
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def main():
    images, size, names = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    x = np.random.default_rng(1).normal(size=(images, 224, 224, 3)).astype("float32")

    def batches():
        for start in range(0, images, size):
            yield [x[start : start + size]]

    for name in names:
        tf.keras.utils.set_random_seed(0)
        model = network(name)
        folded = fold(model)
        plain = tf.function(lambda batch, folded=folded: folded(batch, training=False), reduce_retracing=True)

        def forward(plain=plain):
            for (batch,) in batches():
                plain(tf.constant(batch)).numpy()

        forward()
        _, before = seconds(forward)
        collector, preparing = seconds(lambda model=model: prepared(model, batches))

        def collect(collector=collector):
            for batch in batches():
                collector.infer(batch)

        _, collecting = seconds(collect)
        _, after = seconds(forward)
        print(json.dumps({"name": name, "prepare": preparing, "collect": collecting, "forward": (before + after) / 2}), flush=True)


if __name__ == "__main__":
    main()
