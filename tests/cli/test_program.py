"""The installed program, as a process: what a shell, a terminal and a kill see of it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tfpasses
from terminals import on_a_terminal

TFPASSES = Path(sys.executable).with_name("tfpasses")
FOLD = ("-p", "fold-batch-norms")


def test_a_run_says_nothing_on_standard_error_and_only_its_own_on_standard_output(shell, files, tmp_path):
    done = shell("run", files / "small.keras", *FOLD, "-o", tmp_path / "out.h5", "--verify", "numeric", "--facts", tmp_path / "facts.npz")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines() if line.strip(" ─")] == [
        "pass",
        "fold-batch-norms",
        str(files / "small.keras"),
    ]


def test_a_refusal_is_one_line(shell, files, tmp_path):
    (tmp_path / "cut.h5").write_bytes((files / "small.h5").read_bytes()[:9000])
    done = shell("show", tmp_path / "cut.h5")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_standard_output_is_the_graph_and_nothing_else_whatever_the_hash_seed(shell, files):
    done = shell("show", files / "nested.keras", env={"PYTHONHASHSEED": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == tfpasses.load(files / "nested.keras").to_text()


def test_help_is_there_without_an_argument(shell):
    done = shell()
    assert "Usage: tfpasses" in done.stderr + done.stdout


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["list"], ["list", "--json"], ["--version"], ["show", "none.keras"]], ids=" ".join
)
def test_what_needs_no_tensorflow_loads_none(arguments):
    program = (
        "import sys\nfrom tfpasses.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "print([m for m in ('tensorflow', 'keras') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "command", ["'{tfpasses}' list | head -c 1", "'{tfpasses}' list | true", "'{tfpasses}' show '{model}' | head -c 1"]
)
def test_a_reader_that_goes_away_is_no_error(files, command):
    line = command.format(tfpasses=TFPASSES, model=files / "small.keras")
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.stderr == ""


# A model that is slow to write: half of a file, then a long wait. A shell lets what it starts in the background ignore interrupts.
SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
import tfpasses.cli, tfpasses.frontends.keras.files as files
import keras
def save(model, path, *rest, **options):
    Path(path).write_bytes(b"half")
    time.sleep(60)
keras.Model.save = save
tfpasses.cli.main(sys.argv[1:])
"""


@contextlib.contextmanager
def writing(files, folder):
    """A run that has written half of its output over an old one."""
    (folder / "out.keras").write_bytes(b"old")
    command = [sys.executable, "-c", SLOW, "run", files / "small.keras", *FOLD, "-o", folder / "out.keras"]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            deadline = time.monotonic() + 90
            while not any(path.read_bytes() == b"half" for path in folder.iterdir()):
                assert process.poll() is None and time.monotonic() < deadline, process.communicate()
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


def test_a_kill_in_the_middle_of_writing_leaves_the_old_output(files, tmp_path):
    with writing(files, tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=30) == -signal.SIGKILL
    assert (tmp_path / "out.keras").read_bytes() == b"old"


def test_an_interrupt_leaves_the_old_output_alone_and_no_traceback(files, tmp_path):
    with writing(files, tmp_path) as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said.split()[-1], "Traceback" in said) == (130, "interrupted", False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"out.keras": b"old"}


def test_a_terminal_sees_a_progress_bar_and_a_clean_end(files, tmp_path):
    seen, code = on_a_terminal([TFPASSES, "run", files / "small.keras", *FOLD, "-o", tmp_path / "out.keras"])
    assert code == 0
    assert "reading small.keras" in seen and "0/3" in seen  # one pass, reading and writing
    assert "fold-batch-norms" in seen and "->" in seen.splitlines()[-1]
