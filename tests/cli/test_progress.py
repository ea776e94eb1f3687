"""The progress bar of passes that tell their steps: on a terminal, from the command line and from Python; nowhere else."""

import re
import subprocess
import sys

import pytest

from terminals import on_a_terminal

# A pass of ten steps of a tenth of a second; how many there are it knows from the fourth on.
SLOW_PASS = """
import sys, time, attrs, numpy as np
import tfpasses
from tfpasses.manager import Contract, Effect, Pass, register

@register
@attrs.frozen
class Slow(Pass):
    '''It takes its time.'''

    name = "slow"
    contract = Contract(Effect.EXACT)
    fails: bool = False

    def apply(self, edit, context):
        for step in range(1, 11):
            time.sleep(0.15)
            context.on_progress(step, 10 if step > 3 else None)
        if self.fails:
            raise ValueError("no luck")
        return ()
"""
COMMAND_LINE = SLOW_PASS + "\nfrom tfpasses.cli import main\nmain(sys.argv[1:])"
PYTHON = SLOW_PASS + "\ntfpasses.run(sys.argv[1], 'slow', progress={progress})\nprint('done')"


def rows(seen):
    """What was drawn, without colours and movements, a row a line."""
    return [line for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)) if line.strip()]


def assert_steps_were_shown(seen):
    steps = [row for row in rows(seen) if row.lstrip().startswith("steps")]
    assert any(re.search(r"[123] done *$", row) for row in steps), steps
    shares = [int(match[1]) for row in steps if (match := re.search(r"(\d+) %", row))]
    assert shares == sorted(shares) and {50, 80} & set(shares)
    assert any(re.search(r"\d0 % 0:00:0[01] left", row) for row in steps), steps


def test_a_pass_that_tells_its_steps_has_a_row_with_the_share_and_the_time_left(files, tmp_path):
    seen, code = on_a_terminal(
        [sys.executable, "-c", COMMAND_LINE, "run", files / "small.keras", "-p", "slow", "-o", tmp_path / "out.keras"]
    )
    assert code == 0
    assert_steps_were_shown(seen)
    assert any(re.match(r"slow .*1/3", row) for row in rows(seen))  # the row of the run, above
    assert "steps" not in rows(seen)[-1] and "->" in rows(seen)[-1]


def test_the_row_goes_where_the_pass_fails(files, tmp_path):
    command = ["run", files / "small.keras", "-p", "slow{fails=true}", "-o", tmp_path / "out.keras"]
    seen, code = on_a_terminal([sys.executable, "-c", COMMAND_LINE, *command])
    assert code == 2
    assert rows(seen)[-1] == "error: pass slow failed after 0 rewrites: ValueError: no luck"


def test_from_python_there_is_a_bar_where_it_is_asked_for(files):
    seen, code = on_a_terminal([sys.executable, "-c", PYTHON.format(progress=True), files / "small.keras"])
    assert (code, rows(seen)[-1]) == (0, "done")
    assert_steps_were_shown(seen)


@pytest.mark.parametrize("progress", [True, False])
def test_from_python_there_is_none_where_nobody_looks_or_nobody_asks(files, progress):
    command = [sys.executable, "-c", PYTHON.format(progress=progress), files / "small.keras"]
    if progress:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        assert (done.stdout, "steps" in done.stderr, "slow" in done.stderr) == ("done\n", False, False)
    else:
        seen, code = on_a_terminal(command)
        assert (code, rows(seen)[-1], "steps" in seen, "\x1b[" in seen) == (0, "done", False, False)
