"""What a damaged GraphDef is put through, within bounds of time and memory."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graph_defs import passed
from tfpasses.frontends.graph_def import from_graph_def, to_graph_def
from tfpasses.graph import Graph, TfpassesError, check_structure
from tfpasses.manager import PassError

__all__ = ["JOURNEYS", "Journey", "bounded", "ends"]

Journey = Callable[[Any, Sequence[str] | None], Any]
"""From a definition, and the outputs that it should have, to anything."""
SECONDS = 10.0
"""What none may take; sound ones of their size take some hundredths."""
BYTES = 400 << 20
"""What none may take beyond what there was: a constant may be one element 2^24 times, to look at which takes as many float64."""
LONGEST = 1000
"""Characters of a message, which may hold names of a file."""


# the journeys


def read(definition: Any, outputs: Sequence[str] | None) -> Graph:
    """The graph, sound, that can be looked at; the definition is what it was."""
    before = definition.SerializeToString(deterministic=True)
    graph = from_graph_def(definition, outputs=outputs)
    check_structure(graph)
    assert str(graph).startswith("graph graph_def\n")
    assert len(graph.digest) == 32
    assert definition.SerializeToString(deterministic=True) == before, "reading changed the definition"
    return graph


def read_and_write(definition: Any, outputs: Sequence[str] | None) -> None:
    """What nobody touched leaves equal, in the graph's order."""
    written = to_graph_def(read(definition, outputs))
    nodes = {node.name: node.SerializeToString(deterministic=True) for node in written.node}
    assert nodes == {node.name: node.SerializeToString(deterministic=True) for node in definition.node}


def canonicalize_and_fold(definition: Any, outputs: Sequence[str] | None) -> None:
    """Raised, with its calls inlined; batch norms folded; written each time. A rule that fails is a fault of the rule."""
    graph = read(definition, outputs)
    for name in ("canonicalize", "fold-batch-norms"):
        try:
            graph = passed(graph, name)
        except PassError as error:
            raise AssertionError(str(error)) from error
        check_structure(graph)
        assert str(graph).startswith("graph graph_def\n")
        to_graph_def(graph)


JOURNEYS: dict[str, Journey] = {"read and write": read_and_write, "canonicalize and fold": canonicalize_and_fold}


# the bounds


def peak() -> int:
    """The most memory that this process has had, in bytes, since it was last asked; 0 where the system does not say."""
    if not Path("/proc/self/clear_refs").exists():
        return 0
    lines = Path("/proc/self/status").read_text().splitlines()
    found = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    Path("/proc/self/clear_refs").write_text("5")
    return found * 1024


@contextmanager
def bounded() -> Iterator[None]:
    """Fails what takes too long or too much memory."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    started = time.perf_counter()
    peak()
    resident = peak()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        assert time.perf_counter() - started <= SECONDS, f"more than {SECONDS} s"
        assert peak() - resident <= BYTES, f"more than {BYTES} bytes"


def ends(journey: Journey, definition: Any, outputs: Sequence[str] | None = None) -> str:
    """What a journey ends in: nothing, or the line that says why not."""
    try:
        with bounded():
            journey(definition, outputs)
    except TfpassesError as error:
        line = str(error)
        assert line.strip() and line.isprintable() and len(line) <= LONGEST, f"no clear line: {line[:2000]!r}"
        return line
    return ""
