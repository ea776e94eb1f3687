"""Two or more things timed by turns in one process, and ratios of them against their bounds; for the other files of this folder."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import keras

RUNS = 7


def in_turn(*functions: Callable[[], object], runs: int = RUNS) -> list[float]:
    """Median seconds of each function, run in turn after one warm-up each."""
    times: list[list[float]] = [[] for _ in functions]
    for number in range(runs + 1):
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


def report(what: str, ours: float, theirs: float, bound: float) -> bool:
    ratio = ours / theirs
    print(
        f"{what}: {ours * 1000:.1f} ms / {theirs * 1000:.1f} ms = {ratio:.2f}x (bound {bound}x): {'PASS' if ratio <= bound else 'FAIL'}",
        flush=True,
    )
    return ratio <= bound
