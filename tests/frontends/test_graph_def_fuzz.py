"""Damaged and nonsensical GraphDefs: each gives a sound graph or one clear line, soon, and in bounded memory.

Thousands of mutants under `-m slow`, some hundred of them always. A failure says which: `mutant("layers", "structure", 17)` of
`graph_def_mutants` makes the one that failed again.
"""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from graph_def_journeys import JOURNEYS, Journey, bounded, ends
from graph_def_mutants import KINDS, SOURCES, changed_file, mutant
from tensorflow_takes import taken_by_tensorflow
from tfpasses.cli import main
from tfpasses.frontends.graph_def import from_graph_def, load_graph_def
from tfpasses.graph import GraphError, UnsupportedModelError

SEEDS = {"structure": range(60), ".pb": range(20), ".pbtxt": range(8)}
"""Of the mutants that are always tried."""


def put_through(journey: Journey, name: str, kind: str, seeds: range) -> list[str]:
    """The ends of several mutants. Fails with what repeats the first that does not end well."""
    found = []
    for seed in seeds:
        one = mutant(name, kind, seed)
        try:
            found.append(ends(journey, one.definition, one.outputs or None))
        except Exception as error:
            pytest.fail(f"mutant({name!r}, {kind!r}, {seed}): {type(error).__name__}: {error}\n" + "\n".join(one.changes))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("journey", JOURNEYS)
def test_what_is_wrong_gives_a_sound_graph_or_one_line(journey, name, kind):
    found = put_through(JOURNEYS[journey], name, kind, SEEDS[kind])
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
    for seed in range(25):
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
    assert 0 < refused < 25


SEEN_LATE = ("its constant cannot be read", "some are in a loop and some are not")
"""What TensorFlow looks at when it runs a graph: a constant's elements, and which nodes run in which loop."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_what_tensorflow_takes_is_refused_only_for_what_it_would_refuse_to_run(name):
    taken = taken_by_tensorflow(name, range(200))
    assert taken
    for seed in taken:
        one = mutant(name, "structure", seed)
        try:
            from_graph_def(one.definition, outputs=[])
        except GraphError as error:
            assert any(text in str(error) for text in SEEN_LATE), (seed, one.changes, str(error))


@pytest.mark.parametrize("suffix", [".pb", ".pbtxt"])
def test_the_program_says_what_is_wrong_in_one_line_and_ends_with_2(suffix, tmp_path):
    file = tmp_path / f"changed{suffix}"
    refused = 0
    for seed in range(8):
        file.write_bytes(changed_file("first graph", suffix, seed)[0])
        result = CliRunner().invoke(main, ["show", str(file)])
        assert result.exit_code in (0, 2), (seed, result.output)
        if result.exit_code:
            assert result.stdout == "" and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, (seed, result.stderr)
            refused += 1
    assert 0 < refused < 8
