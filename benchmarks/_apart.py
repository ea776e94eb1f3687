"""Programs that fold a file's batch norms, each in a process of its own, for `graph_fold.py`.

`serve` is the program's side: it says `ready`; then each line that comes in names two files: what is in the first is folded into the
second, and a line of JSON says how many seconds that took, from bytes to bytes. `Apart` is the other side.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def serve(fold: Callable[[bytes], bytes]) -> None:
    """Fold what standard input asks for. The garbage collector is left on, as a caller has it."""
    print("ready", flush=True)
    for line in sys.stdin:
        source, target = map(Path, json.loads(line))
        data = source.read_bytes()
        gc.collect()
        started = time.perf_counter()
        folded = fold(data)
        seconds = time.perf_counter() - started
        target.write_bytes(folded)
        del folded
        print(json.dumps(seconds), flush=True)


class Apart:
    """A program that serves: bytes -> (seconds, bytes). Raises `RuntimeError` with its last words where it ends."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.paths = folder / "in", folder / "out"
        self.errors = (folder / "errors").open("w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        if self.said() != "ready":
            raise RuntimeError(self.last_words())

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def last_words(self) -> str:
        self.process.wait()
        self.errors.seek(0)
        return (self.errors.read().strip().splitlines() or ["it gave no reason"])[-1]

    def __call__(self, data: bytes) -> tuple[float, bytes]:
        assert self.process.stdin is not None
        self.paths[0].write_bytes(data)
        self.process.stdin.write(json.dumps(list(map(str, self.paths))) + "\n")
        self.process.stdin.flush()
        answer = self.said()
        if not answer:
            raise RuntimeError(self.last_words())
        return float(json.loads(answer)), self.paths[1].read_bytes()
