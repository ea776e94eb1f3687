"""Folding the batch norms of a frozen network, from bytes to bytes, against the least that any program does with one, and against others.

    .venv-bench/bin/python benchmarks/graph_fold.py

MobileNetV2, of the same weights in three forms (`_mobilenet.py`). Beside ours: TensorFlow's `optimize_for_inference_lib`, its grappler,
Intel Neural Compressor, and onnxscript with its batch-norm rule alone and with all its rules. For each: how many of the batch norms are
folded (one is where no multiplication is left behind the convolution), how far the outputs are from those before, and the median of its
times.

The yardstick is `ParseFromString`, `SerializeToString` and one numpy copy of the weights. Ours takes at most 6 times as long, and less time
than any other that folds; what it takes of the FusedBatchNormV3 graph stands beside ONNX, which has one node a batch norm too.

Each runs in a process of its own (`_fold_tools.py`), by turns, and the time that passes is measured, the file read before: in one
process, what a tool leaves to the memory allocator makes the yardstick up to twice as fast, or not.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import _mobilenet as mobilenet
import numpy as np
import tensorflow as tf
from _apart import Apart
from _fold_tools import OF_GRAPHS, OF_ONNX, OURS, YARDSTICK, parsed
from _mobilenet import INPUT, OUTPUT

BOUND = 6.0
ROUNDS, SLOW, SLOW_ROUNDS = 21, 1.0, 3
"""What takes more than so many seconds is measured in the first rounds only."""
RIGHT = 1e-3
"""The most that outputs may be off, of the largest of them: 52 layers in a row each round anew."""
KERAS, LEGACY, ONNX = "Keras 3", "FusedBatchNormV3", "ONNX"
COMPRESSOR = Path(__file__).parents[1] / ".venv-nc" / "bin" / "python"
CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")

failed: list[str] = []


def report(name: str, figure: str, bound: str, passed: bool) -> None:
    print(f"{name:<76} {figure:>10}   bound {bound:<9} {'PASS' if passed else 'FAIL'}", flush=True)
    if not passed:
        failed.append(name)


def note(name: str, figure: str) -> None:
    print(f"{name:<76} {figure:>10}", flush=True)


# what came of it


def left(data: bytes, form: str) -> int:
    """How many batch norms are left."""
    if form == ONNX:
        import onnx

        return sum(node.op_type == "BatchNormalization" for node in onnx.ModelProto.FromString(data).graph.node)
    nodes = parsed(data).node
    convolved = {node.name for node in nodes if node.op in CONVOLUTIONS}
    behind = [node.op for node in nodes if not convolved.isdisjoint(node.input)]
    return sum(op == "Mul" or op.startswith("FusedBatchNorm") for op in behind)


def computed(data: bytes, form: str, image: Any) -> Any:
    """The outputs for an image, channels last."""
    if form == ONNX:
        import onnx
        from onnx.reference import ReferenceEvaluator

        return ReferenceEvaluator(onnx.ModelProto.FromString(data)).run(None, {INPUT: image.transpose(0, 3, 1, 2)})[0]
    with tf.Graph().as_default():
        tf.import_graph_def(parsed(data), name="")
        with tf.compat.v1.Session() as session:
            return session.run(f"{OUTPUT}:0", {f"{INPUT}:0": image})


# the whole


def tools(forms: Collection[str], folder: Path) -> dict[tuple[str, str], Apart]:
    """Who is measured on what, those that are there, each in a process of its own."""
    own = [str(Path(__file__).with_name("_fold_tools.py"))]
    wanted = [(name, form, [sys.executable, *own, name, OUTPUT]) for name in OF_GRAPHS for form in (KERAS, LEGACY)]
    if COMPRESSOR.exists():
        command = [str(COMPRESSOR), str(Path(__file__).with_name("_nc_fold.py")), OUTPUT]
        wanted += [("Neural Compressor", form, command) for form in (KERAS, LEGACY)]
    else:
        print("Neural Compressor: skipped, it is not installed; `make bench` puts it into .venv-nc")
    if ONNX in forms:
        wanted += [(name, ONNX, [sys.executable, *own, name, OUTPUT]) for name in OF_ONNX]
    found = {}
    for number, (name, form, command) in enumerate(wanted):
        place = folder / str(number)
        place.mkdir()
        try:
            found[name, form] = Apart(command, place)
        except RuntimeError as error:
            if name in (YARDSTICK, OURS):
                raise
            print(f"{name}: skipped, it does not start: {error}")
    return found


def main() -> int:
    model = mobilenet.network()
    files = {KERAS: mobilenet.decomposed(model).SerializeToString(), LEGACY: mobilenet.fused(model).SerializeToString()}
    try:
        import onnxscript  # noqa: F401

        files[ONNX] = mobilenet.onnx_model(model).SerializeToString()
    except ModuleNotFoundError as error:
        print(f"onnxscript: skipped, {error.name} is not installed; pip install 'tfpasses[bench]'")
    image = np.random.default_rng(1).uniform(-1, 1, (1, 224, 224, 3)).astype("float32")
    whole = {form: left(data, form) for form, data in files.items()}
    before = {form: computed(data, form, image) for form, data in files.items()}
    seconds: dict[tuple[str, str], list[float]] = {}
    folded: dict[tuple[str, str], int] = {}
    with tempfile.TemporaryDirectory() as folder:
        measured = tools(files, Path(folder))
        for (name, form), run in measured.items():  # each once, to warm up, and to see what comes of it
            taken, data = run(files[form])
            seconds[name, form] = [taken]
            if name == YARDSTICK:
                continue
            folded[name, form] = whole[form] - left(data, form)
            off = float(np.abs(computed(data, form, image) - before[form]).max() / np.abs(before[form]).max())
            note(f"{name}, {form}: folds", f"{folded[name, form]} of {whole[form]}")
            if name == OURS:
                report(
                    f"{name}, {form}: outputs are off by", f"{off:.1g}", f"{RIGHT:g}", off <= RIGHT and folded[name, form] == whole[form]
                )
            else:
                note(f"{name}, {form}: outputs are off by", f"{off:.1g}{'' if off <= RIGHT else ', WRONG'}")
        for number in range(ROUNDS):
            for (name, form), run in measured.items():
                if number < SLOW_ROUNDS or seconds[name, form][0] < SLOW:
                    seconds[name, form].append(run(files[form])[0])
    medians = {key: statistics.median(taken[1:]) for key, taken in seconds.items()}
    for (name, form), taken in medians.items():
        note(f"{name}, {form}, {len(files[form]) / 1e6:.1f} MB", f"{1e3 * taken:.1f} ms")
    for form in (KERAS, LEGACY):
        ratio = medians[OURS, form] / medians[YARDSTICK, form]
        report(f"ours against the yardstick, {form}", f"{ratio:.2f}x", f"{BOUND:g}x", ratio <= BOUND)
    for (name, form), taken in medians.items():
        if name not in (YARDSTICK, OURS) and folded[name, form]:
            mine = medians[OURS, LEGACY if form == ONNX else form]
            report(f"times faster than {name}, {form}", f"{taken / mine:.2f}x", "1x", taken > mine)
    if failed:
        print(f"missed: {'; '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
