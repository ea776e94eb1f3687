"""What data-free quantization does to real networks: top-1 accuracy with quantized weights (activations stay floats), as each pass is
added in turn, at 8 and 6 bits, symmetric and asymmetric, per tensor and per channel.

    .venv-bench/bin/python benchmarks/dfq.py [NETWORK ..]

The networks and 500 labelled images lie beside the project (`../shared/real`); without them it says so and stops. They were probably
trained on these images: read differences. 500 images: a difference of 1.5 points is noise.

Bounds, for MobileNetV2: at 8 bits per tensor `cle` keeps at least 0.87 of the images right with the better of symmetric and asymmetric, and
without any quantization it changes at most one of them.
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
ROWS = {
    "naive": FOLD,
    "+ constant channels": CONSTANT,
    "+ cross-layer scaling": SCALED,
    "+ high-bias fold: cle": "cle",
    "scaling alone": f"{FOLD},cross-layer-scaling",
    "cle{relu6=replace}": "cle{relu6=replace}",
}
COLUMNS = [(bits, symmetric, per_channel) for bits in (8, 6) for symmetric in (False, True) for per_channel in (False, True)]
BATCH = 50
BOUND, MOST_CHANGED = 0.87, 1


def quantize(bits: int, symmetric: bool, per_channel: bool) -> str:
    return f"quantize-weights{{bits={bits} symmetric={str(symmetric).lower()} per-channel={str(per_channel).lower()}}}"


def right(graph: Graph, images: Any, labels: Any) -> Any:
    """Which of the images a network puts into the class that they are of."""
    model = graph.to_keras()
    values = [np.asarray(model(images[start : start + BATCH], training=False)) for start in range(0, len(images), BATCH)]
    return np.concatenate(values).argmax(axis=1) == labels


def main() -> int:
    if not REAL.exists():
        print(f"skipped: {REAL} is not there")
        return 0
    sys.path.insert(0, str(REAL))
    import networks

    failed = False
    for name in sys.argv[1:] or NETWORKS:
        model, preprocess = getattr(networks, name)()
        images, labels = networks.images(preprocess)
        before = np.concatenate([np.asarray(model(images[i : i + BATCH], training=False)) for i in range(0, len(images), BATCH)])
        correct = before.argmax(axis=1) == labels
        print(f"{name}: float {correct.mean():.3f} of {len(labels)} images", flush=True)
        titles = [f"{bits}{'s' if symmetric else 'a'}{'c' if per_channel else 't'}" for bits, symmetric, per_channel in COLUMNS]
        print(f"  {'bits, (s)ymmetric or (a), per (t)ensor or (c)hannel':<52} {'float':>6} {' '.join(f'{title:>6}' for title in titles)}")
        found: dict[str, list[float]] = {}
        for row, pipeline in ROWS.items():
            start = time.perf_counter()
            graph = tfpasses.run(model, pipeline).graph
            own = right(graph, images, labels)
            found[row] = [float(right(tfpasses.run(graph, quantize(*column)).graph, images, labels).mean()) for column in COLUMNS]
            figures = " ".join(f"{figure:>6.3f}" for figure in found[row])
            print(f"  {row:<52} {own.mean():>6.3f} {figures}   {time.perf_counter() - start:.0f} s", flush=True)
            if name == "mobilenet_v2" and pipeline == "cle":
                changed = abs(int(own.sum()) - int(correct.sum()))
                best = max(
                    figure for figure, (bits, _, per_channel) in zip(found[row], COLUMNS, strict=True) if bits == 8 and not per_channel
                )
                for what, figure, bound, passed in (
                    ("cle, 8 bits per tensor, the better of two", f"{best:.3f}", f"at least {BOUND}", best >= BOUND),
                    ("cle, float: images more or fewer", f"{changed}", f"at most {MOST_CHANGED}", changed <= MOST_CHANGED),
                ):
                    print(f"  {what:<52} {figure:>6} (bound: {bound}): {'PASS' if passed else 'FAIL'}", flush=True)
                    failed |= not passed
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
