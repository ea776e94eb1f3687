"""Damaged and nonsensical GraphDefs: each gives a sound graph or one clear line, soon, and in bounded memory.

Thousands of mutants under `-m slow`, some hundred of them always. A failure says which: `mutant("layers", "structure", 17)` of
`graph_def_mutants` makes the one that failed again.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from graph_def_mutants import KINDS, SOURCES, Mutant, changed_file, mutant
from graph_defs import passed
from tfpasses.frontends.graph_def import from_graph_def, load_graph_def, to_graph_def
from tfpasses.graph import Graph, TfpassesError, UnsupportedModelError, check_structure
from tfpasses.manager import PassError

SECONDS = 5.0
"""What no mutant may take; the sound ones take some hundredths."""
BYTES = 400 << 20
"""What no mutant may take beyond what there was: a constant may be one element 2^24 times, to look at which takes as many float64."""
LONGEST = 1000
"""Characters of a message, which may hold names of a file."""


# what a mutant is put through


def read(one: Mutant) -> Graph:
    """The graph, sound, that can be looked at; the definition is what it was."""
    before = one.definition.SerializeToString(deterministic=True)
    graph = from_graph_def(one.definition, outputs=one.outputs or None)
    check_structure(graph)
    assert str(graph).startswith("graph graph_def\n")
    assert len(graph.digest) == 32
    assert one.definition.SerializeToString(deterministic=True) == before, "reading changed the definition"
    return graph


def write(one: Mutant) -> None:
    """What nobody touched leaves equal, in the graph's order."""
    written = to_graph_def(read(one))
    nodes = {node.name: node.SerializeToString(deterministic=True) for node in written.node}
    assert nodes == {node.name: node.SerializeToString(deterministic=True) for node in one.definition.node}


def canonicalize(one: Mutant) -> None:
    """Raised, with its calls inlined, and written again. A rule that fails is a fault of the rule."""
    graph = read(one)
    try:
        graph = passed(graph, "canonicalize")
    except PassError as error:
        raise AssertionError(str(error)) from error
    check_structure(graph)
    assert str(graph).startswith("graph graph_def\n")
    to_graph_def(graph)


JOURNEYS: dict[str, Callable[[Mutant], Any]] = {"read and write": write, "canonicalize": canonicalize}


def peak() -> int:
    """The most memory that this process has had, in bytes, since it was last asked."""
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
    try:
        peak()
        resident = peak()
        yield
        assert peak() - resident <= BYTES, f"more than {BYTES} bytes"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.perf_counter() - started <= SECONDS


def ends(journey: Callable[[Mutant], Any], one: Mutant) -> str:
    """What a journey ends in: nothing, or the line that says why not."""
    try:
        with bounded():
            journey(one)
    except TfpassesError as error:
        line = str(error)
        assert line.strip() and line.isprintable() and len(line) <= LONGEST, f"no clear line: {line[:2000]!r}"
        return line
    return ""


def put_through(journey: Callable[[Mutant], Any], name: str, kind: str, seeds: range) -> list[str]:
    """The ends of several mutants. Fails with what repeats the first that does not end well."""
    found = []
    for seed in seeds:
        one = mutant(name, kind, seed)
        try:
            found.append(ends(journey, one))
        except Exception as error:
            pytest.fail(f"mutant({name!r}, {kind!r}, {seed}): {type(error).__name__}: {error}\n" + "\n".join(one.changes))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("journey", JOURNEYS)
def test_what_is_wrong_gives_a_sound_graph_or_one_line(journey, name, kind):
    found = put_through(JOURNEYS[journey], name, kind, range(80 if kind == "structure" else 30))
    assert "" in found and any(found)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(4))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("journey", JOURNEYS)
def test_thousands_more(journey, name, kind, block):
    put_through(JOURNEYS[journey], name, kind, range(100 + 100 * block, 200 + 100 * block))


@pytest.mark.parametrize("suffix", [".pb", ".pbtxt"])
@pytest.mark.parametrize("name", SOURCES)
def test_a_changed_file_gives_a_definition_or_one_line(name, suffix, tmp_path):
    file = tmp_path / f"changed{suffix}"
    refused = 0
    for seed in range(60):
        data, changes = changed_file(name, suffix, seed)
        file.write_bytes(data)
        try:
            with bounded():
                load_graph_def(file)
        except UnsupportedModelError as error:
            assert str(error).startswith(f"{file}: ") and str(error).isprintable(), (seed, changes)
            refused += 1
        except Exception as error:
            pytest.fail(f"changed_file({name!r}, {suffix!r}, {seed}): {type(error).__name__}: {error}\n" + "\n".join(changes))
    assert 0 < refused < 60
