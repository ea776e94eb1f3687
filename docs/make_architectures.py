"""Write docs/architectures.md: what batch-norm folding does to each architecture of keras.applications.

    .venv/bin/python docs/make_architectures.py                      # all of them
    .venv/bin/python docs/make_architectures.py MobileNet Xception   # these; the other rows of the table stay as they are

The models are those of the tests (tests/zoo): seeded weights, measured statistics, small images. The table is written anew after each
model, so that a run may be stopped, and it holds what was measured alone.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the errors are those of one CPU
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import keras

import tfpasses
import zoo

PAGE = Path(__file__).with_name("architectures.md")
IMAGES = 4

HEAD = """\
# Batch-norm folding on the architectures of keras.applications

`fold-batch-norms` with its default options. Backward: into the linear layer before, among them (in brackets) those that go into
all branches of a concatenation. Forward: into the linear layer behind, whole, or the scale alone. Error: of the folded model's logits
against float64, in proportion to the original's own error, which is the figure before it (largest difference over largest
logit). Weights are seeded and statistics measured, as in the tests: gammas may be negative, and no shift is zero.
Written by `make architectures`, with TensorFlow {tensorflow} and Keras {keras}; the errors depend a little on the CPU.

| architecture | input | batch norms | backward | forward | scale only | stay | own error | error, times own |
| :-- | --: | --: | --: | --: | --: | --: | --: | --: |
"""
WHY = "\n## Why they stay\n\nThe layer's kind stands for its name.\n\n| architecture | batch norms | reason |\n| :-- | --: | :-- |\n"


def main() -> None:
    """Measure, a line of progress a model, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="ARCHITECTURE", help="default: all, the largest last")
    parser.add_argument("--output", type=Path, default=PAGE, help="default: %(default)s")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in zoo.APPLICATIONS]
    if unknown:
        parser.error(f"no such architecture: {', '.join(unknown)}; there are {', '.join(zoo.APPLICATIONS)}")
    names = options.names or list(zoo.APPLICATIONS)
    rows = read(options.output) if options.names else {}
    for number, name in enumerate(names, 1):
        start = time.perf_counter()
        rows[name] = measure(name)
        write(options.output, rows)
        print(f"[{number}/{len(names)}] {name}: {summary(rows[name])}, {time.perf_counter() - start:.0f} s", flush=True)


def measure(name: str) -> list[str]:
    """The lines of one architecture: its row, and a line a reason."""
    model, x = zoo.build.__wrapped__(name), zoo.typical(name, IMAGES)
    result = tfpasses.run(model, "fold-batch-norms")
    truth = zoo.float64_outputs(model, x)
    own = zoo.relative_error(model(x, training=False), truth)
    new = zoo.relative_error(result.model(x, training=False), truth)
    rules = Counter(rewrite.rule for rewrite in result.rewrites)
    missed = [remark for remark in result.remarks if remark.kind == "missed"]
    backward = str(rules["backward"] + rules["concat"]) + (f" ({rules['concat']})" if rules["concat"] else "")
    size = "x".join(map(str, zoo.APPLICATIONS[name].input_shape[:2]))
    cells = [size, batch_norms(model), backward, rules["forward"], rules["scale"], len(missed), f"{own:.1e}", f"{new / own:.2f}"]
    if batch_norms(result.model) != len(missed):
        raise AssertionError(f"{name}: {batch_norms(result.model)} batch norms stay, {len(missed)} have a remark")
    kinds = {node.name: node.op for node in result.journal[0].before.nodes.values()}
    reasons = Counter(in_general(remark.reason, kinds) for remark in missed)
    lines = [f"| {' | '.join([name, *map(str, cells)])} |"]
    lines += [f"| {name} | {count} | {reason} |" for reason, count in reasons.most_common()]
    del model, result, truth
    gc.collect()
    keras.backend.clear_session()
    return lines


def batch_norms(model: keras.Model) -> int:
    """How many batch norms a model has."""
    return sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model._flatten_layers())


def in_general(reason: str, kinds: dict[str, str]) -> str:
    """A reason with the nodes' kinds for their names."""
    said = re.sub(r"[\w./#]*\w", lambda word: kinds.get(word[0], word[0]), reason)
    return re.sub(r"(\w+): it is \1\b", r"it is \1", said)


def summary(lines: list[str]) -> str:
    """The row of one architecture, for the terminal."""
    _, _, total, backward, forward, scale, stay, _, ratio = (cell.strip() for cell in lines[0].strip("|").split("|"))
    return f"{total} batch norms, {backward} backward, {forward} forward, {scale} by scale, {stay} stay, error {ratio} times its own"


def read(page: Path) -> dict[str, list[str]]:
    """The lines of each architecture on a page written before."""
    rows: dict[str, list[str]] = {}
    for line in page.read_text().splitlines() if page.exists() else []:
        name = line.strip("|").split("|")[0].strip()
        if name in zoo.APPLICATIONS:
            rows.setdefault(name, []).append(line)
    return rows


def write(page: Path, rows: dict[str, list[str]]) -> None:
    """The page, beside its place and then over it."""
    import tensorflow as tf

    ordered = [rows[name] for name in zoo.APPLICATIONS if name in rows]
    reasons = [line for lines in ordered for line in lines[1:]]
    text = HEAD.format(tensorflow=tf.__version__, keras=keras.__version__) + "".join(f"{lines[0]}\n" for lines in ordered)
    text += WHY + "".join(f"{line}\n" for line in reasons) if reasons else ""
    beside = page.with_suffix(".tmp")
    beside.write_text(text)
    beside.replace(page)


if __name__ == "__main__":
    main()
