"""What quantization costs real networks: top-1 accuracy with quantized weights (activations stay floats), as each pass is added in turn,
at 8 and 6 bits, symmetric and asymmetric, per tensor and per channel; first without data, then with corrected biases.

    .venv-bench/bin/python benchmarks/dfq.py [NETWORK ..]

The networks and 500 labelled images lie beside the project (`../shared/real`); without them it says so and stops. They were probably
trained on these images: read differences. 500 images: a difference of 1.5 points is noise. Biases are corrected on images other than those
evaluated: on one half for the other, and the other way round. (What the analytical correction knows of MobileNetV2 was measured on these
images: its batch norms were made anew from them.)

Bounds, at 8 bits per tensor, with the better of symmetric and asymmetric: for MobileNetV2 `cle` keeps at least 0.87 of the images right,
and without any quantization changes at most one of them; with corrected biases MobileNetV2 is at 0.885 or more, MobileNetV1 0.5 at 0.74 or
more. No correction costs more than the noise, at any number of bits.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import tfpasses
from tfpasses.graph import Graph

REAL = Path(__file__).parents[2] / "shared" / "real"
NETWORKS = ("mobilenet_v2", "mobilenet_v1_050")
FOLD = "fold-batch-norms"
CONSTANT = f"{FOLD},fold-constant-channels{{padding=border-map}}"
SCALED = f"{CONSTANT},cross-layer-scaling"
CLE = "+ high-bias fold: cle"
ROWS = {
    "naive": FOLD,
    "+ constant channels": CONSTANT,
    "+ cross-layer scaling": SCALED,
    CLE: "cle",
    "scaling alone": f"{FOLD},cross-layer-scaling",
    "cle{relu6=replace}": "cle{relu6=replace}",
}
CORRECTED = {
    "naive, biases corrected on data": ("naive", "empirical-bias-correction"),
    "cle, biases corrected by statistics: dfq": (CLE, "analytical-bias-correction"),
    "cle, biases corrected on data, fast": (CLE, "empirical-bias-correction{method=fast}"),
    "cle, biases corrected on data": (CLE, "empirical-bias-correction"),
    "cle, biases corrected by both: hybrid": (CLE, "bias-correction"),
}
"""Title -> the row that it is compared with, and the pass."""
COLUMNS = [(bits, symmetric, per_channel) for bits in (8, 6) for symmetric in (False, True) for per_channel in (False, True)]
BATCH = 50
CLE_BOUND, MOST_CHANGED = 0.87, 1
CORRECTED_BOUNDS = {"mobilenet_v2": 0.885, "mobilenet_v1_050": 0.74}
NOISE = 0.015


def options(bits: int, symmetric: bool, per_channel: bool) -> str:
    return f"bits={bits} symmetric={str(symmetric).lower()} per-channel={str(per_channel).lower()}"


def quantized(graph: Graph, column: tuple[int, bool, bool]) -> Graph:
    return tfpasses.run(graph, f"quantize-weights{{{options(*column)}}}").graph


def right(graph: Graph, images: Any, labels: Any) -> Any:
    """Which of the images a network puts into the class that they are of."""
    model = graph.to_keras()
    values = [np.asarray(model(images[start : start + BATCH], training=False)) for start in range(0, len(images), BATCH)]
    return np.concatenate(values).argmax(axis=1) == labels


def corrected_right(graph: Graph, correction: str, column: tuple[int, bool, bool], images: Any, labels: Any) -> Any:
    """Which of the images are put right with quantized weights and corrected biases, each half by what was measured on the other."""
    name, _, more = correction.rstrip("}").partition("{")
    text = f"{name}{{{f'{more} {options(*column)}'.strip()}}}"
    if name == "analytical-bias-correction":
        return right(quantized(tfpasses.run(graph, text).graph, column), images, labels)
    found = np.zeros(len(images), bool)
    for half, other in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        done = tfpasses.run(graph, text, data={graph.inputs[0]: images[other]}).graph
        found[half] = right(quantized(done, column), images[half], labels[half])
    return found


def best_per_tensor(figures: list[float]) -> float:
    """At 8 bits, of symmetric and asymmetric."""
    return max(figure for figure, (bits, _, per_channel) in zip(figures, COLUMNS, strict=True) if bits == 8 and not per_channel)


def verdict(what: str, figure: str, bound: str, passed: bool) -> bool:
    print(f"  {what:<52} {figure:>6} (bound: {bound}): {'PASS' if passed else 'FAIL'}", flush=True)
    return passed


def main() -> int:
    if not REAL.exists():
        print(f"skipped: {REAL} is not there")
        return 0
    sys.path.insert(0, str(REAL))
    import networks

    passed = True
    for name in sys.argv[1:] or NETWORKS:
        model, preprocess = getattr(networks, name)()
        images, labels = networks.images(preprocess)
        before = np.concatenate([np.asarray(model(images[i : i + BATCH], training=False)) for i in range(0, len(images), BATCH)])
        correct = before.argmax(axis=1) == labels
        print(f"{name}: float {correct.mean():.3f} of {len(labels)} images", flush=True)
        titles = [f"{bits}{'s' if symmetric else 'a'}{'c' if per_channel else 't'}" for bits, symmetric, per_channel in COLUMNS]
        print(f"  {'bits, (s)ymmetric or (a), per (t)ensor or (c)hannel':<52} {'float':>6} {' '.join(f'{title:>6}' for title in titles)}")
        graphs: dict[str, Graph] = {}
        found: dict[str, list[float]] = {}

        def told(row: str, own: str, figures: list[float], start: float, found: dict[str, list[float]] = found) -> None:
            found[row] = figures
            print(f"  {row:<52} {own:>6} {' '.join(f'{x:>6.3f}' for x in figures)}   {time.perf_counter() - start:.0f} s", flush=True)

        for row, pipeline in ROWS.items():
            start = time.perf_counter()
            graph = graphs[row] = tfpasses.run(model, pipeline).graph
            own = right(graph, images, labels)
            told(row, f"{own.mean():.3f}", [float(right(quantized(graph, column), images, labels).mean()) for column in COLUMNS], start)
            if name == "mobilenet_v2" and row == CLE:
                changed = abs(int(own.sum()) - int(correct.sum()))
                best = best_per_tensor(found[CLE])
                passed &= verdict("cle, 8 bits per tensor, the better of two", f"{best:.3f}", f"at least {CLE_BOUND}", best >= CLE_BOUND)
                passed &= verdict("cle, float: images more or fewer", f"{changed}", f"at most {MOST_CHANGED}", changed <= MOST_CHANGED)
        for row, (base, correction) in CORRECTED.items():
            start = time.perf_counter()
            told(row, "", [float(corrected_right(graphs[base], correction, column, images, labels).mean()) for column in COLUMNS], start)
        best = max(best_per_tensor(found[row]) for row in CORRECTED)
        bound = CORRECTED_BOUNDS[name]
        passed &= verdict("biases corrected, 8 bits per tensor, the best", f"{best:.3f}", f"at least {bound}", best >= bound)
        lost = max(was - now for row, (base, _) in CORRECTED.items() for was, now in zip(found[base], found[row], strict=True))
        passed &= verdict("the most that a correction costs", f"{max(lost, 0.0):.3f}", f"at most {NOISE}", lost <= NOISE)
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
