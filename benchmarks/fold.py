"""What folding costs: `tfpasses.run(model, "fold-batch-norms")` against `keras.models.clone_model` + `set_weights`, and the
arithmetic alone against one numpy copy of all weights, on four networks at 224 x 224; how the run grows with the model; and Sony's
Model Compression Toolkit on the same networks against the clone of its own Keras 2.

Bounds: 0.9x (a third of the layers need not be built again) and 3x; growth with the number of layers at most n^1.1. Both sides of a
ratio are timed in turn in the same process; the ratio is of medians.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _timing import RUNS, clone, in_turn, report

import tfpasses
from tfpasses.frontends.keras import write
from tfpasses.graph import LinearView, has_trait
from tfpasses.manager import Pipeline, run_passes
from tfpasses.passes.folding.arithmetic import Affine, fold_backward

RUN_BOUND, ARITHMETIC_BOUND = 0.9, 3.0
NETWORKS = ("MobileNetV2", "ResNet50", "DenseNet121", "EfficientNetB0")
LAYERS, GROWTH_BOUND, GROWTH_RUNS = (100, 1_000, 5_000), 1.1, 2
RECURSION = 100_000  # Keras walks a model by recursion: one of 1,000 layers in a row cannot be built within Python's default
SONY = Path(__file__).parents[1] / ".venv-mct" / "bin" / "python"


def arithmetic(model: keras.Model) -> tuple[Callable[[], object], Callable[[], object]]:
    """The folds of a model (into the layer right below) without anything around them, and a copy of all its weights."""
    graph = tfpasses.from_keras(model)
    pairs = []
    for bn in graph.nodes.values():
        if bn.op == "BatchNorm" and has_trait(linear := graph.nodes[bn.inputs[0].node], "linear"):
            pairs.append((LinearView.of(linear, graph), bn))
    arrays = list(graph.weights.values())
    return (lambda: [fold_backward(linear, Affine.of(bn, graph)) for linear, bn in pairs]), (lambda: [np.array(array) for array in arrays])


def chain(layers: int) -> keras.Model:
    """Conv, batch norm, ReLU, again and again, as small as can be."""
    x = inputs = keras.Input((4, 4, 4))
    for number in range(layers):
        x = (keras.layers.Conv2D(4, 1), keras.layers.BatchNormalization(), keras.layers.ReLU())[number % 3](x)
    return keras.Model(inputs, x)


def exponent(seconds: list[float]) -> float:
    """The slope of the straight line through the points on log-log paper."""
    return float(np.polyfit(np.log(LAYERS), np.log(seconds), 1)[0])


def growth() -> bool:
    """How a run grows with the model, its steps one by one, and Keras's clone beside it."""
    sys.setrecursionlimit(RECURSION)
    pipeline = Pipeline.parse("fold-batch-norms")
    rows = []
    for layers in LAYERS:
        model = chain(layers)
        graph = tfpasses.from_keras(model)
        folded = run_passes(graph, pipeline)
        steps: dict[str, Callable[[], object]] = {
            "tfpasses.run": lambda model=model: tfpasses.run(model, pipeline),
            "  reading": lambda model=model: tfpasses.from_keras(model),
            "  rewriting": lambda model=model: run_passes(tfpasses.from_keras(model), pipeline),
            "  writing": lambda folded=folded: write(folded),
            "clone_model + set_weights": lambda model=model: clone(model),
        }
        seconds = dict(zip(steps, in_turn(*steps.values(), runs=GROWTH_RUNS), strict=True))
        seconds["  rewriting"] -= seconds["  reading"]
        rows.append(seconds)
    for name in rows[0]:
        seconds = [row[name] for row in rows]
        slope = exponent(seconds)
        figures = ", ".join(f"{layers:,}: {1000 * taken:.0f} ms" for layers, taken in zip(LAYERS, seconds, strict=True))
        bound = f" (bound n^{GROWTH_BOUND}): {'PASS' if slope <= GROWTH_BOUND else 'FAIL'}" if name == "tfpasses.run" else ""
        print(f"{name}, by layers: {figures}; grows as n^{slope:.2f}{bound}", flush=True)
    return exponent([row["tfpasses.run"] for row in rows]) <= GROWTH_BOUND


def compare_with_sony(ours: dict[str, float]) -> None:
    """Both folds as ratios to the clone of their own Keras: the two cannot live in one process."""
    if not SONY.exists():
        print("Sony MCT: skipped, it is not installed; `make bench` puts it into .venv-mct where Python 3.11 is to be had")
        return
    script = str(Path(__file__).with_name("_mct_fold.py"))
    command = [str(SONY), script, str(RUNS), *NETWORKS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            theirs = json.loads(line)
            name, ratio, (before, after) = theirs["name"], theirs["fold"] / theirs["clone"], theirs["batch_norms"]
            taken, cloning = (f"{theirs[what] * 1000:.0f} ms" for what in ("fold", "clone"))
            print(
                f"{name}, Sony MCT on Keras 2: {taken} / {cloning} = {ratio:.2f}x its clone; ours on Keras 3: {ours[name]:.2f}x", flush=True
            )
            print(f"  it leaves {after} of {before} batch norms; outputs off by {theirs['difference']:.1g}", flush=True)
    if done.returncode:
        print(f"Sony MCT: skipped, it ended with {done.returncode}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")


def main() -> int:
    ok, ratios = True, {}
    for name in NETWORKS:
        model = getattr(keras.applications, name)(weights=None, classifier_activation=None)
        ours, theirs = in_turn(lambda model=model: tfpasses.run(model, "fold-batch-norms"), lambda model=model: clone(model))
        ratios[name] = ours / theirs
        ok &= report(f"{name}, run against clone_model + set_weights", ours, theirs, RUN_BOUND)
        fold, copy = arithmetic(model)
        ours, theirs = in_turn(fold, copy)
        ok &= report(f"{name}, arithmetic against one copy of the weights", ours, theirs, ARITHMETIC_BOUND)
    compare_with_sony(ratios)
    ok &= growth()
    return int(not ok)


if __name__ == "__main__":
    sys.exit(main())
