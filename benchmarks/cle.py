"""What cross-layer equalization costs: `tfpasses.run(model, "cle")` against `keras.models.clone_model` + `set_weights`, and a sweep of
the scaling's arithmetic against one numpy copy of all weights, on MobileNetV2 and ResNet50 at 224 x 224.

Bounds: 1.5x, and 5x a sweep. Both sides of a ratio are timed in turn in the same process; the ratio is of medians.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _timing import clone, in_turn, report

import tfpasses
from tfpasses.passes.equalization.channels import Channels
from tfpasses.passes.equalization.scaling import equalize, units

SWEEPS = 8
RUN_BOUND, SWEEP_BOUND = 1.5, 5.0
NETWORKS = ("MobileNetV2", "ResNet50")


def network(name: str) -> keras.Model:
    """As it might be trained: as built, a batch norm does next to nothing, and all channels have about one range."""
    model = getattr(keras.applications, name)(weights=None)
    drawn = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([drawn.uniform(0.1, 3.0, weight.shape) for weight in layer.get_weights()])
    return model


def main() -> int:
    passed = True
    for name in NETWORKS:
        model = network(name)
        graph = tfpasses.run(model, "fold-batch-norms").graph
        channels = Channels.of(graph, True)
        chosen = units(channels)
        arrays = list(graph.weights.values())
        ours, theirs, sweeps, copy = in_turn(
            lambda model=model: tfpasses.run(model, "cle"),
            lambda model=model: clone(model),
            lambda channels=channels, chosen=chosen: equalize(channels, chosen, SWEEPS, 0.0),
            lambda arrays=arrays: [np.array(array) for array in arrays],
        )
        passed &= report(f"{name}: run cle / clone_model + set_weights", ours, theirs, RUN_BOUND)
        passed &= report(f"{name}: a sweep of scaling / a copy of all weights", sweeps / SWEEPS, copy, SWEEP_BOUND)
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
