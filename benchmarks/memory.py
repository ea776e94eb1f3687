"""What a run needs beyond the model that goes in and the model that comes out, on a model of 2.2 GB: at most 1.2x its largest layer.

Six convolutions and six dense layers of about 200 MB each, every one with a batch norm that folds. Every figure is of a fresh process.

In Python: `tfpasses.run(model, "fold-batch-norms")`. The peak of resident memory while it runs (VmHWM, set back before), less what
was resident before it, less the weights of the written model. What was resident before holds the model that goes in. A model of
the same kind with tiny layers has been run first, so that what TensorFlow loads when first asked counts as there already.

On the command line: `tfpasses run big.keras -p fold-batch-norms -o out.keras`. The process's peak (ru_maxrss), less that of the same
command on the tiny model, less the weights of both models. Keras reads and writes the files, with copies of its own, which are
measured by themselves: writing holds two copies of a layer, reading three (random weights are drawn before those in the file are
read, but there is one model then).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

BOUND = 1.2
MB = 1e6
SIZES = {"big": (2304, 7168), "tiny": (8, 8)}
"""Channels of the convolutions, units of the dense layers."""
NEEDED_MEMORY, NEEDED_DISK = 9e9, 9e9
PROGRAM = str(Path(sys.executable).parent / "tfpasses")


# what the child processes do


def build(size: str) -> Any:
    import keras
    from keras import layers

    channels, units = SIZES[size]
    x = inputs = keras.Input((4, 4, channels))
    for _ in range(6):
        x = layers.Conv2D(channels, 3, padding="same", use_bias=False, kernel_initializer="random_uniform")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    for _ in range(6):
        x = layers.Dense(units, kernel_initializer="random_uniform")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(inputs, x)


def weight_bytes(weights: Any) -> int:
    return sum(weight.numpy().nbytes for weight in weights)


def status(key: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def settle() -> int:
    """Give back what is free, set the peak back, and say what is resident."""
    import ctypes
    import gc

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def make(size: str, path: str) -> None:
    """Write a model's file; print the bytes of all its weights and of its largest layer."""
    model = build(size)
    model.save(path)
    print(weight_bytes(model.weights), max(weight_bytes(layer.weights) for layer in model.layers))


def run_in_python(verify: Any) -> None:
    """Print the bytes that a run took beyond its two models."""
    import tfpasses

    tfpasses.run(build("tiny"), "fold-batch-norms", verify=verify)
    model = build("big")
    before = settle()
    result = tfpasses.run(model, "fold-batch-norms", verify=verify)
    peak = status("VmHWM")
    if len(result.rewrites) != 12:
        raise SystemExit(f"{len(result.rewrites)} of 12 batch norms were folded")
    print(peak - before - weight_bytes(result.model.weights))


def keras_reads(path: str) -> None:
    import keras

    keras.saving.load_model(path, compile=False)


def keras_writes(path: str) -> None:
    """Print the bytes that Keras takes to write a model."""
    build("tiny").save(path)
    model = build("big")
    before = settle()
    model.save(path)
    print(status("VmHWM") - before)


JOBS: dict[str, Callable[..., None]] = {"make": make, "run": run_in_python, "reads": keras_reads, "writes": keras_writes}


# what the parent does; it stays small, since a child's peak begins with its parent's size


def child(*arguments: str) -> list[int]:
    """The numbers that a job prints."""
    command = [sys.executable, __file__, *arguments]
    return [int(word) for word in subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()]


def peak_of(*command: str) -> int:
    """Peak resident bytes of a process."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_maxrss * 1024


def figure(taken: float, largest: int) -> str:
    return f"{taken / MB:.0f} MB, {taken / largest:.2f}x the largest layer"


def verdict(what: str, taken: float, largest: int, bound: float = BOUND) -> bool:
    passed = taken <= bound * largest
    print(f"{what}: {figure(taken, largest)} (bound {bound:.2f}x): {'PASS' if passed else 'FAIL'}", flush=True)
    return passed


def lacking(folder: str) -> str:
    """What this machine has too little of, or nothing."""
    free = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    memory, disk = int(free["MemAvailable"].split()[0]) * 1024, shutil.disk_usage(folder).free
    if memory < NEEDED_MEMORY:
        return f"{memory / MB:.0f} MB of memory are free, {NEEDED_MEMORY / MB:.0f} MB are needed"
    return f"{disk / MB:.0f} MB of disk are free, {NEEDED_DISK / MB:.0f} MB are needed" if disk < NEEDED_DISK else ""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        if not Path("/proc/self/clear_refs").exists() or lacking(folder):
            print(f"memory: skipped, {lacking(folder) or 'peaks are only measured on Linux'}")
            return 0
        files = {size: f"{folder}/{size}.keras" for size in SIZES}
        (total, largest), _ = (child("make", size, path) for size, path in files.items())
        print(f"the model: {total / MB:.0f} MB of weights, largest layer {largest / MB:.0f} MB", flush=True)

        (taken,) = child("run", "shapes")
        passed = verdict("tfpasses.run, beyond both models", taken, largest)
        (taken,) = child("run", "numeric")
        print(f"  with verify=numeric: {figure(taken, largest)} (no bound)", flush=True)

        def beyond(models: int, *command: str) -> int:
            """What a command takes of the big model more than of the tiny one, beyond a number of models."""
            peaks = [peak_of(*(word.replace("SIZE", size) for word in command)) for size in SIZES]
            Path(f"{folder}/out.keras").unlink(missing_ok=True)
            return peaks[0] - peaks[1] - models * total

        source, output = f"{folder}/SIZE.keras", f"{folder}/out.keras"
        reading = beyond(1, sys.executable, __file__, "reads", source)
        (writing,) = child("writes", output)
        print(f"  Keras by itself, reading the file, beyond its model: {figure(reading, largest)}", flush=True)
        print(f"  Keras by itself, writing the file: {figure(writing, largest)}", flush=True)
        taken = beyond(2, PROGRAM, "run", source, "-p", "fold-batch-norms", "-o", output)
        passed &= verdict("tfpasses run, beyond both models", taken, largest, BOUND)
    return int(not passed)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", nargs="*", help="what a child process is to do; without: everything")
    job = parser.parse_args().job
    if not job:
        sys.exit(main())
    JOBS[job[0]](*job[1:])
