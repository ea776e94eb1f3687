"""What `empirical-bias-correction` costs on MobileNetV2 and ResNet50 at 224 x 224, folded beforehand, on 256 images of random numbers.

Time: `tfpasses.run(model, "empirical-bias-correction{..}", data=images)` against plain forwards over the same images: the Keras model
called by a compiled `tf.function`, in batches of the size that is fastest. `method=sequential` against one forward of the float and one of
the quantized network: at most 2.5x on MobileNetV2, 1.7x on ResNet50. `method=fast` against one forward: at most 2x. All of them are timed
in turn in one process; a ratio is of medians of three.

Beside them, without a bound, on the same networks: the published procedure done naively (for every layer both networks are run up to it,
and it is corrected by the mean of the difference), on MobileNetV2 and 32 images, its runs counted in forwards over as many, and how far
our biases are from its; and what Sony's Model Compression Toolkit collects from 256 images before it quantizes, against forwards in its
own environment.

Memory, in a process of its own: by how much resident memory grows at most while MobileNetV2 is corrected with `method=sequential
memory-limit=500MB`, from what is resident when the model and the images are there and a forward of one image has been run, and what is
free was given back: at most 1.2x the limit. And what waited in files, and the time against that with 8GB.

Workers: MobileNetV2 corrected by one process, and by two and three on this machine that share the images. The biases of all workers must
have the same bits, and differ by at most 1e-6 from those of one process (relative where a bias is above 1: sums of a batch are float32, and
batches are others). The times are told; the processes share the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from _timing import in_turn, report
from cle import network
from memory import MB, settle, status

import tfpasses
from tfpasses.passes.correction import empirical
from tfpasses.passes.correction.live import Live, read_size

PASS = "empirical-bias-correction"
SEQUENTIAL_BOUNDS, FAST_BOUND = {"MobileNetV2": 2.5, "ResNet50": 1.7}, 2.0
IMAGES, RUNS = 256, 3
BATCHES = (4, 8, 16, 32)
SMALL = "MobileNetV2"
"""What all but the times are measured on."""
TRIED = 64
"""So many images tell which batch is fastest."""
FEW = 32
"""The naive procedure is run on so many: on all it would take minutes."""
BETWEEN = 8
"""The naive procedure's yardstick is laid on before every eighth layer."""
LIMIT, PLENTY, MEMORY_BOUND = "500MB", "8GB", 1.2
WORKERS, DIFFERENCE_BOUND, PATIENCE = (2, 3), 1e-6, 1200
SONY, SONY_BATCH = Path(__file__).parents[1] / ".venv-mct" / "bin" / "python", 16

Array = np.ndarray[Any, Any]
Forward = Callable[[Array, int], None]


def folded(name: str) -> keras.Model:
    """The network without batch norms; the same in every process."""
    keras.utils.set_random_seed(0)
    return tfpasses.run(network(name), "fold-batch-norms").model


def images(count: int = IMAGES) -> Array:
    """So many, [count, 224, 224, 3], float32."""
    return np.random.default_rng(1).standard_normal((count, 224, 224, 3), "float32")


def forward(model: keras.Model) -> Forward:
    """A run of a model over some images, so many at once."""
    function = tf.function(lambda batch: model(batch, training=False), input_signature=[tf.TensorSpec((None, 224, 224, 3))])

    def run(x: Array, size: int) -> None:
        for start in range(0, len(x), size):
            function(tf.constant(x[start : start + size])).numpy()

    return run


def fastest(run: Forward, x: Array) -> int:
    """The size of batches that takes least time."""
    seconds = in_turn(*(lambda size=size: run(x, size) for size in BATCHES), runs=RUNS)
    return BATCHES[int(np.argmin(seconds))]


def correct(model: keras.Model, x: Array, options: str = "", **keywords: Any) -> keras.Model:
    return tfpasses.run(model, f"{PASS}{{{options}}}" if options else PASS, data=x, **keywords).model


def biases(model: keras.Model) -> dict[str, Array]:
    return {layer.name: np.asarray(layer.bias, np.float64) for layer in model.layers if getattr(layer, "bias", None) is not None}


def difference(ours: dict[str, Array], theirs: dict[str, Array]) -> float:
    """The largest difference of two networks' biases: of those above 1, relative."""
    assert ours.keys() == theirs.keys()
    return max(float((np.abs(ours[name] - theirs[name]) / np.maximum(1.0, np.abs(theirs[name]))).max()) for name in theirs)


# times


def times(name: str, x: Array) -> bool:
    model = folded(name)
    plain = forward(model)
    quantized = forward(tfpasses.run(model, "quantize-weights").model)
    size = fastest(plain, x[:TRIED])
    print(f"{name}: forwards in batches of {size}", flush=True)
    ours, fast, first, second = in_turn(
        lambda: correct(model, x, "method=sequential"),
        lambda: correct(model, x, "method=fast"),
        lambda: plain(x, size),
        lambda: quantized(x, size),
        runs=RUNS,
    )
    passed = report(f"{name}: sequential / a float and a quantized forward", ours, first + second, SEQUENTIAL_BOUNDS[name])
    return report(f"{name}: fast / one forward", fast, first, FAST_BOUND) and passed


# the published procedure


def naive(model: keras.Model, x: Array, size: int, yardstick: Callable[[], object]) -> tuple[keras.Model, float, float]:
    """The corrected network with quantized kernels, seconds without those in which runs are compiled, and the median of seconds that a
    yardstick takes meanwhile.
    """
    twin = tfpasses.run(model, "quantize-weights").model
    for one in (model, twin):
        for layer in one.layers:
            if isinstance(layer, keras.layers.Dense):
                layer.activation = keras.activations.linear  # what is corrected comes before it
    seconds, beside = 0.0, []
    for number, layer in enumerate(layer for layer in twin.layers if getattr(layer, "bias", None) is not None):
        if number % BETWEEN == 0:
            beside.append(in_turn(yardstick, runs=1)[0])
        sums = []
        for one in (model, twin):
            upto = keras.Model(one.inputs, one.get_layer(layer.name).output)
            spec = tf.TensorSpec((None, 224, 224, 3))
            run = tf.function(lambda batch, upto=upto: upto(batch, training=False)).get_concrete_function(spec)
            begun = time.perf_counter()
            channels = [np.asarray(run(tf.constant(x[start : start + size]))) for start in range(0, len(x), size)]
            sums.append(np.mean([each.reshape(-1, each.shape[-1]).mean(axis=0, dtype=np.float64) for each in channels], axis=0))
            seconds += time.perf_counter() - begun
        layer.bias.assign_sub(sums[1] - sums[0])
    return twin, seconds, statistics.median(beside)


def compare_with_naive(x: Array) -> None:
    model = folded(SMALL)
    run, quantized = forward(model), forward(tfpasses.run(model, "quantize-weights").model)
    size = fastest(run, x)
    ours = biases(correct(model, x))
    twin, seconds, both = naive(folded(SMALL), x, size, lambda: (run(x, size), quantized(x, size)))
    print(
        f"{SMALL}: the published procedure done naively, on {len(x)} images: {seconds:.0f} s / {both:.2f} s = {seconds / both:.0f}x a "
        f"float and a quantized forward, without compiling; our biases differ from its by {difference(ours, biases(twin)):.1g}",
        flush=True,
    )


def compare_with_sony() -> None:
    if not SONY.exists():
        print("Sony MCT: skipped, it is not installed; `make bench` puts it into .venv-mct where Python 3.11 is to be had")
        return
    script = str(Path(__file__).with_name("_mct_statistics.py"))
    command = [str(SONY), script, str(IMAGES), str(SONY_BATCH), *SEQUENTIAL_BOUNDS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            found = json.loads(line)
            print(
                f"{found['name']}: Sony MCT's statistics of {IMAGES} images: {found['collect']:.0f} s / {found['forward']:.1f} s = "
                f"{found['collect'] / found['forward']:.0f}x one forward in its environment, and {found['prepare']:.0f} s of preparation",
                flush=True,
            )
    if done.returncode:
        print(f"Sony MCT: skipped, it ended with {done.returncode}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")


# memory


class Told(Live):
    """Remembers what was written to files."""

    last = 0

    def __exit__(self, *error: Any) -> None:
        Told.last = self.spilled
        super().__exit__(*error)


def memory_job() -> None:
    """Prints, as JSON: by how many bytes the process grows, bytes that were written to files, seconds with the limit and with plenty."""
    empirical.Live = Told  # type: ignore[misc]
    model, x = folded(SMALL), images()
    forward(model)(x[:1], 1)  # of one image: what larger forwards take TensorFlow keeps, and would lend to what is measured
    before = settle()
    correct(model, x, f"memory-limit={LIMIT}")
    found = {"grown": status("VmHWM") - before, "spilled": Told.last}
    limits = [(lambda limit=limit: correct(model, x, f"memory-limit={limit}")) for limit in (LIMIT, PLENTY)]
    print(json.dumps({**found, "seconds": in_turn(*limits, runs=RUNS)}))


def memory() -> bool:
    if not Path("/proc/self/clear_refs").exists():
        print("memory: skipped, peaks are only measured on Linux")
        return True
    (found,) = children([os.environ], "memory")
    allowed = read_size(LIMIT)
    passed = found["grown"] <= MEMORY_BOUND * allowed
    limited, free = found["seconds"]
    print(
        f"{SMALL}: sequential with memory-limit={LIMIT} grows by {found['grown'] / MB:.0f} MB = {found['grown'] / allowed:.2f}x the limit "
        f"(bound {MEMORY_BOUND}x): {'PASS' if passed else 'FAIL'}"
    )
    print(
        f"  {found['spilled'] / MB:.0f} MB waited in files; {limited:.1f} s / {free:.1f} s = {limited / free:.2f}x the time with {PLENTY}",
        flush=True,
    )
    return passed


# workers


def worker_job(output: str, together: bool) -> None:
    """Corrects the network, alone or with others; writes its biases, and prints its seconds as JSON."""
    keywords = {"strategy": tf.distribute.MultiWorkerMirroredStrategy()} if together else {}
    model, x = folded(SMALL), images()
    begun = time.perf_counter()
    found = biases(correct(model, x, **keywords))
    print(json.dumps(time.perf_counter() - begun), flush=True)
    np.savez(output, **found)


def environments(count: int) -> Iterator[dict[str, str]]:
    """One for each of some workers on this machine."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    for index in range(count):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        yield {**os.environ, "TF_CONFIG": json.dumps(config)}


def children(environments: list[Any], *arguments: str) -> list[Any]:
    """What jobs print last, one for each environment; `INDEX` in an argument is the job's number. Raises `SystemExit` where one fails."""
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, *(argument.replace("INDEX", str(index)) for argument in arguments)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, environment in enumerate(environments)
    ]
    found = []
    try:
        for process in processes:
            out, error = process.communicate(timeout=PATIENCE)
            if process.returncode:
                raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}: {error[-2000:]}")
            found.append(json.loads(out.splitlines()[-1]))
    finally:
        for process in processes:
            process.kill()
    return found


def workers() -> bool:
    passed = True
    with tempfile.TemporaryDirectory() as folder:
        (alone,) = children([os.environ], "worker", f"{folder}/alone.npz")
        wanted = dict(np.load(f"{folder}/alone.npz"))
        print(f"{SMALL}: one process: {alone:.1f} s", flush=True)
        for count in WORKERS:
            seconds = children(list(environments(count)), "worker", f"{folder}/{count}-INDEX.npz", "--together")
            first, *others = [dict(np.load(f"{folder}/{count}-{index}.npz")) for index in range(count)]
            same = all(first[name].tobytes() == other[name].tobytes() for other in others for name in first)
            apart = difference(first, wanted)
            ok = same and apart <= DIFFERENCE_BOUND
            print(
                f"{SMALL}: {count} workers: {max(seconds):.1f} s; their biases have {'the same' if same else 'other'} bits and differ from "
                f"those of one process by {apart:.1g} (bound {DIFFERENCE_BOUND:g}): {'PASS' if ok else 'FAIL'}",
                flush=True,
            )
            passed &= ok
    return passed


def main() -> int:
    x = images()
    passed = True
    for name in SEQUENTIAL_BOUNDS:
        passed &= times(name, x)
    compare_with_naive(x[:FEW])
    compare_with_sony()
    passed &= memory()
    passed &= workers()
    return int(not passed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", nargs="?", choices=["memory", "worker"], help="what a child process is to do; without: everything")
    parser.add_argument("output", nargs="?")
    parser.add_argument("--together", action="store_true")
    arguments = parser.parse_args()
    if arguments.job == "memory":
        memory_job()
    elif arguments.job == "worker":
        worker_job(arguments.output, arguments.together)
    else:
        sys.exit(main())
