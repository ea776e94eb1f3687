"""Which mutants TensorFlow's own import takes. Asked in another process: of some, TensorFlow dies.

As a program, `tensorflow_takes.py NAME FIRST END` prints a line for each seed.
"""

from __future__ import annotations

import subprocess
import sys

__all__ = ["taken_by_tensorflow"]


def taken_by_tensorflow(name: str, seeds: range) -> list[int]:
    """The seeds of the structure mutants of a source that `tf.import_graph_def` takes."""
    taken, first = [], seeds.start
    while first < seeds.stop:
        command = [sys.executable, __file__, name, str(first), str(seeds.stop)]
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300).stdout.splitlines()
        taken += [first + place for place, line in enumerate(said) if line == "taken"]
        first += len(said) + 1  # it died of the one after those of which it spoke, or came to the end
    return taken


def main(name: str, first: str, end: str) -> None:
    import tensorflow as tf

    from graph_def_mutants import mutant

    for seed in range(int(first), int(end)):
        definition = mutant(name, "structure", seed).definition
        try:
            with tf.Graph().as_default():
                tf.import_graph_def(definition, name="")
            said = "taken"
        except (ValueError, TypeError, tf.errors.OpError):
            said = "refused"
        print(said, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
