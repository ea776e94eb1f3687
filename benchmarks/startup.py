"""How long `tfpasses --help` and `tfpasses list` take, against `python -c "import numpy"`, each as a whole process.

Bound: at most 3x. The three commands run in turn, so that a slow moment of the machine hits all of them; the ratio is of medians.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 15
BOUND = 3.0
PROGRAM = str(Path(sys.executable).parent / "tfpasses")
COMMANDS = {
    'python -c "import numpy"': [sys.executable, "-c", "import numpy"],
    "tfpasses --help": [PROGRAM, "--help"],
    "tfpasses list": [PROGRAM, "list"],
}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    baseline, *rest = medians.items()
    print(f"{baseline[0]}: {baseline[1] * 1000:.0f} ms")
    failed = False
    for name, value in rest:
        ratio = value / baseline[1]
        failed |= ratio > BOUND
        print(f"{name}: {value * 1000:.0f} ms, {ratio:.2f}x (bound {BOUND}x): {'PASS' if ratio <= BOUND else 'FAIL'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
