"""What cross-layer equalization costs: `tfpasses.run(model, "cle")` against `keras.models.clone_model` + `set_weights`, and a sweep of
the scaling's arithmetic against one numpy copy of all weights, on MobileNetV2 and ResNet50 at 224 x 224.

Bounds: 1.5x, and 5x a sweep. Both sides of a ratio are timed in turn in the same process; the ratio is of medians.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import tfpasses
from tfpasses.passes.equalization.channels import Channels
from tfpasses.passes.equalization.scaling import equalize, units

RUNS, SWEEPS = 7, 8
RUN_BOUND, SWEEP_BOUND = 1.5, 5.0
NETWORKS = ("MobileNetV2", "ResNet50")


def in_turn(*functions: Callable[[], object]) -> list[float]:
    """Median seconds of each function, run in turn after one warm-up each."""
    times: list[list[float]] = [[] for _ in functions]
    for number in range(RUNS + 1):
        for values, function in zip(times, functions, strict=True):
            gc.collect()
            start = time.perf_counter()
            function()
            if number:
                values.append(time.perf_counter() - start)
    return [statistics.median(values) for values in times]


def network(name: str) -> keras.Model:
    """As it might be trained: as built, a batch norm does next to nothing, and all channels have about one range."""
    model = getattr(keras.applications, name)(weights=None)
    drawn = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([drawn.uniform(0.1, 3.0, weight.shape) for weight in layer.get_weights()])
    return model


def clone(model: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def report(what: str, ours: float, theirs: float, bound: float) -> bool:
    ratio = ours / theirs
    print(
        f"{what}: {ours * 1000:.1f} ms / {theirs * 1000:.1f} ms = {ratio:.2f}x (bound {bound}x): {'PASS' if ratio <= bound else 'FAIL'}",
        flush=True,
    )
    return ratio <= bound


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
