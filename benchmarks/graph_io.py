"""Reading a GraphDef into a graph and writing it again, against the least that any program does with one.

    .venv-bench/bin/python benchmarks/graph_io.py

The yardstick: `ParseFromString`, a Python loop that looks at every node's name, operation and inputs, and `SerializeToString`. To read
and to write 100,000 nodes together takes at most 8 times as long, and grows with the graph no faster than n^1.1. Everything is measured
by turns, so that a slow moment of the machine hits all alike, in processor time (one thread); each figure is the best of its runs. The
garbage collector is left on, as a caller has it.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from tfpasses.frontends.graph_def import from_graph_def, to_graph_def

SIZES = (1_000, 10_000, 100_000)
RATIO = 8.0
EXPONENT = 1.1
ROUNDS = 9

failed: list[str] = []


def report(name: str, figure: str, bound: str, passed: bool) -> None:
    print(f"{name:<58} {figure:>16}   bound {bound:<8} {'PASS' if passed else 'FAIL'}", flush=True)
    if not passed:
        failed.append(name)


def note(name: str, figure: str) -> None:
    print(f"{name:<58} {figure:>16}", flush=True)


# the graph


def variable(array: Any, name: str) -> Any:
    """What freezing leaves of a variable: a constant that an Identity reads."""
    return tf.identity(tf.constant(array, name=name), f"{name}/ReadVariableOp")


def batch_norm(x: Any, name: str) -> Any:
    """As Keras computes it in inference."""
    ones = np.ones(x.shape[-1], "float32")
    mean, variance, gamma, beta = (variable(ones, f"{name}/{slot}") for slot in ("mean", "variance", "gamma", "beta"))
    scale = tf.math.rsqrt(variance + tf.constant(np.float32(1e-3))) * gamma
    return x * scale + (beta - mean * scale)


def block(x: Any) -> Any:
    """A residual block of MobileNetV2, of 8 channels that widen to 16."""
    wide = tf.nn.conv2d(x, variable(np.zeros((1, 1, 8, 16), "float32"), "expand/kernel"), 1, "SAME")
    wide = tf.nn.relu6(batch_norm(wide, "expand_bn"))
    deep = tf.nn.depthwise_conv2d(wide, variable(np.zeros((3, 3, 16, 1), "float32"), "depthwise/kernel"), [1] * 4, "SAME")
    deep = tf.nn.relu6(batch_norm(deep, "depthwise_bn"))
    narrow = tf.nn.conv2d(deep, variable(np.zeros((1, 1, 16, 8), "float32"), "project/kernel"), 1, "SAME")
    return x + batch_norm(narrow, "project_bn")


def network(size: int) -> Any:
    """A GraphDef of just so many nodes: one block as TensorFlow writes it, again and again."""
    with tf.Graph().as_default() as graph:
        last = block(tf.compat.v1.placeholder(tf.float32, (None, 16, 16, 8), "x")).op.name
    placeholder, *nodes = graph.as_graph_def().node
    definition = tf.compat.v1.GraphDef(node=[placeholder])
    reads = "x"
    for number in range((size - 2) // len(nodes)):
        for node in nodes:
            one = definition.node.add()
            one.CopyFrom(node)
            one.name = f"block{number}/{node.name}"
            one.input[:] = [reads if text == "x" else f"block{number}/{text}" for text in node.input]
        reads = f"block{number}/{last}"
    while len(definition.node) < size:
        one = definition.node.add(name=f"end{len(definition.node)}", op="Identity", input=[reads])
        one.attr["T"].type = tf.float32.as_datatype_enum
        reads = one.name
    return definition


# the jobs


def parsed(data: bytes) -> Any:
    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(data)
    return definition


def yardstick(data: bytes) -> Any:
    definition = parsed(data)
    letters = 0
    for node in definition.node:
        letters += len(node.name) + len(node.op)
        for text in node.input:
            letters += len(text)
    return definition.SerializeToString(), letters


def timed(run: Callable[[Any], Any], subject: Any) -> tuple[float, Any]:
    """Seconds, and what came out: letting go of it is no part of the job."""
    gc.collect()
    started = time.process_time()
    result = run(subject)
    return time.process_time() - started, result


def measure(data: bytes) -> tuple[float, float, float]:
    """Seconds of the yardstick, of reading and of writing."""
    least, _ = timed(yardstick, data)
    read, graph = timed(from_graph_def, parsed(data))
    write, _ = timed(to_graph_def, graph)
    return least, read, write


def main() -> int:
    definitions = [network(size) for size in SIZES]
    assert all(to_graph_def(from_graph_def(definition)) == definition for definition in definitions)
    files = [definition.SerializeToString() for definition in definitions]
    del definitions
    rounds = [[measure(data) for data in files] for _ in range(ROUNDS)]
    seconds = [[min(times) for times in zip(*runs, strict=True)] for runs in zip(*rounds, strict=True)]
    both = [read + write for _, read, write in seconds]
    for name, taken in zip(("yardstick", "read", "write"), seconds[-1], strict=True):
        note(f"{name}, {SIZES[-1]:,} nodes", f"{1e3 * taken:.0f} ms")
    for size, (least, *_), taken in zip(SIZES, seconds, both, strict=True):
        figure, label = f"{taken / least:.2f}x", f"read and write, {size:,} nodes, against the yardstick"
        if size == SIZES[-1]:
            report(label, figure, f"{RATIO:g}x", taken / least <= RATIO)
        else:
            note(label, figure)
    slope = float(np.polyfit(np.log(SIZES), np.log(both), 1)[0])
    report("read and write, growth with the graph", f"n^{slope:.3f}", f"n^{EXPONENT}", slope <= EXPONENT)
    if failed:
        print(f"missed: {'; '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
