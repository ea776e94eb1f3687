"""Several processes that run one pipeline together, under a `tf.distribute` strategy. TensorFlow is imported by the calls that need it."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from tfpasses.graph import Array
from tfpasses.manager import WorkerError

__all__ = ["StrategyWorkers", "await_workers", "multi_worker_strategy"]

TASK = re.compile(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)")
KINDS = ("chief", "worker")
"""The kinds of tasks that work, in the order of rank."""
REACHED_WITHIN = 2.0
"""Seconds in which another machine answers."""


Task = tuple[str, int]


def ranked(cluster: Mapping[str, Sequence[str]]) -> dict[Task, str]:
    """The addresses of all workers by kind and number, in the order of rank."""
    return {(kind, number): address for kind in KINDS for number, address in enumerate(cluster.get(kind, ()))}


@attrs.define(eq=False)
class StrategyWorkers:
    """The workers of a strategy; see `tfpasses.manager.Workers`."""

    strategy: Any
    rank: int
    addresses: dict[Task, str]
    _gather: Callable[[Any], Any]

    @classmethod
    def of(cls, strategy: Any) -> StrategyWorkers:
        """The workers of a `tf.distribute.MultiWorkerMirroredStrategy`. Raises `WorkerError` for another."""
        import tensorflow as tf

        resolver = getattr(strategy, "cluster_resolver", None)
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or resolver is None:
            raise WorkerError(
                f"strategy is of type {type(strategy).__name__}; give a tf.distribute.MultiWorkerMirroredStrategy, made in each process"
            )
        addresses = ranked(resolver.cluster_spec().as_dict()) or {("worker", 0): "localhost"}
        mine = (resolver.task_type or "worker", int(resolver.task_id or 0))

        def gather(numbers: Any) -> Any:
            return strategy.run(lambda: tf.distribute.get_replica_context().all_gather(numbers[None], axis=0))

        signature = [tf.TensorSpec([None], tf.float64)]
        return cls(strategy, list(addresses).index(mine), addresses, tf.function(gather, input_signature=signature, autograph=False))

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.addresses)

    def gathered(self, array: Array) -> list[Array]:
        """The arrays of all, float64, in the order of rank. Raises `WorkerError` where one is lost."""
        import tensorflow as tf
        from tensorflow.python.eager import context

        flat = np.asarray(array, np.float64).reshape(-1)
        try:
            with context.eager_mode():
                rows = self.strategy.experimental_local_results(self._gather(tf.constant(flat)))[0].numpy()
        except tf.errors.OpError as error:
            raise WorkerError(self.lost(str(error))) from error
        each = len(rows) // self.count  # replicas of one worker give the same
        return [np.asarray(row).reshape(array.shape) for row in rows[::each]]

    def meet(self) -> None:
        """Go on when all have come here: nobody leaves before the chief has written. Raises `WorkerError` where one is lost."""
        self.gathered(np.zeros(1))

    def lost(self, text: str) -> str:
        """Who is lost, by what TensorFlow says of it."""
        named = [task for kind, number in TASK.findall(text) if (task := (kind, int(number))) in self.addresses]
        others = [task for place, task in enumerate(self.addresses) if place != self.rank]
        gone = list(dict.fromkeys(task for task in named if task in others)) or [
            task for task in others if not reached(self.addresses[task])
        ]
        if not gone:
            return f"the workers lost one another ({' '.join(text.split())[:200]}); start all of them again"
        return f"lost {said(gone, self.addresses)}; nothing was written; start all workers again"


def said(tasks: Sequence[Task], addresses: Mapping[Task, str]) -> str:
    """Workers as a user knows them."""
    return ", ".join(f"{kind} {number} ({addresses[kind, number]})" for kind, number in tasks)


def reached(address: str) -> bool:
    """Whether somebody listens at an address."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), REACHED_WITHIN):
            return True
    except (OSError, ValueError):
        return False


BEFORE_SAID = 10.0
"""Seconds before a user is told that others are waited for."""
BETWEEN = 0.1


def await_workers(patience: float, say: Callable[[str], None] = print) -> None:
    """Wait until somebody listens at the address of each worker in TF_CONFIG, and listen at one's own meanwhile: TensorFlow itself waits
    without end, and cannot be interrupted. `say` is told of those who are not there.

    Raises `WorkerError`, one line: TF_CONFIG is missing or makes no sense, or others are not there after `patience` seconds.
    """
    addresses, mine = told(os.environ.get("TF_CONFIG", ""))
    try:
        listening = socket.create_server(("", int(addresses[mine].rpartition(":")[2])), backlog=len(addresses) * 4)
    except (OSError, ValueError, OverflowError) as error:
        raise WorkerError(f"{said([mine], addresses)} cannot listen at its address: {error}") from error
    begun, told_so = time.monotonic(), False
    missing = [task for task in addresses if task != mine]
    with listening:
        while missing := [task for task in missing if not reached(addresses[task])]:
            waited = time.monotonic() - begun
            if waited > patience:
                raise WorkerError(f"{said(missing, addresses)}: not there after {patience:g} seconds; start one process for each worker")
            if waited > BEFORE_SAID and not told_so:
                say(f"waiting for {said(missing, addresses)}")
                told_so = True
            time.sleep(BETWEEN)


def multi_worker_strategy() -> Any:
    """A `tf.distribute.MultiWorkerMirroredStrategy` by what TF_CONFIG says. Raises `WorkerError`, one line, where there is none."""
    import tensorflow as tf

    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise WorkerError(f"the workers did not come together: {' '.join(str(error).split())[:300]}") from error


def told(text: str) -> tuple[dict[Task, str], Task]:
    """The addresses of all workers and which of them this process is, by TF_CONFIG. Raises `WorkerError`, one line."""
    example = '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, "task": {"type": "worker", "index": 0}}'
    if not text:
        raise WorkerError(f"TF_CONFIG is not set in the environment; it says who the workers are, and which this one is: {example}")
    try:
        config = json.loads(text)
        addresses = ranked(config["cluster"])
        mine = (str(config["task"]["type"]), int(config["task"]["index"]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WorkerError(f"TF_CONFIG cannot be understood ({type(error).__name__}: {error}); write {example}") from error
    if mine not in addresses:
        raise WorkerError(
            f"TF_CONFIG: the task is {mine[0]} {mine[1]}, which is not in the cluster; it has {said(list(addresses), addresses)}"
        )
    return addresses, mine
