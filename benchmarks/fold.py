"""What folding costs: `tfpasses.run(model, "fold-batch-norms")` against `keras.models.clone_model` + `set_weights`, and the
arithmetic alone against one numpy copy of all weights, on MobileNetV2 and ResNet50 at 224 x 224.

Bounds: 0.9x (a third of the layers need not be built again) and 3x. Both sides of a ratio are timed in turn in the same process;
the ratio is of medians.
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
from tfpasses.graph import LinearView
from tfpasses.passes.fold import Affine, fold_backward

RUNS = 7
RUN_BOUND, ARITHMETIC_BOUND = 0.9, 3.0
MODELS = {"MobileNetV2": keras.applications.MobileNetV2, "ResNet50": keras.applications.ResNet50}


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


def clone(model: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def arithmetic(model: keras.Model) -> tuple[Callable[[], object], Callable[[], object]]:
    """The folds of a model without anything around them, and a copy of all its weights."""
    graph = tfpasses.from_keras(model)
    pairs = []
    for bn in graph.nodes.values():
        if bn.op == "BatchNorm":
            linear = graph.nodes[bn.inputs[0].node]
            pairs.append((LinearView.of(linear, graph), bn))
    arrays = list(graph.weights.values())
    return (lambda: [fold_backward(linear, Affine.of(bn, graph)) for linear, bn in pairs]), (lambda: [np.array(array) for array in arrays])


def report(what: str, ours: float, theirs: float, bound: float) -> bool:
    ratio = ours / theirs
    print(f"{what}: {ours * 1000:.1f} ms / {theirs * 1000:.1f} ms = {ratio:.2f}x (bound {bound}x): {'PASS' if ratio <= bound else 'FAIL'}")
    return ratio <= bound


def main() -> int:
    ok = True
    for name, build in MODELS.items():
        model = build(weights=None, classifier_activation=None)
        ours, theirs = in_turn(lambda model=model: tfpasses.run(model, "fold-batch-norms"), lambda model=model: clone(model))
        ok &= report(f"{name}, run against clone_model + set_weights", ours, theirs, RUN_BOUND)
        fold, copy = arithmetic(model)
        ours, theirs = in_turn(fold, copy)
        ok &= report(f"{name}, arithmetic against one copy of the weights", ours, theirs, ARITHMETIC_BOUND)
    return int(not ok)


if __name__ == "__main__":
    sys.exit(main())
