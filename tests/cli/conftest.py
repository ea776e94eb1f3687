import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import model_files
from tfpasses.cli import main

TFPASSES = Path(sys.executable).with_name("tfpasses")


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A folder of model files, read only by agreement."""
    folder = tmp_path_factory.mktemp("models")
    for build in (model_files.small, model_files.nested, model_files.arithmetic):
        build().save(folder / f"{build.__name__}.keras")
    model_files.small("other", filters=6).save(folder / "other.keras")
    model_files.small().save(folder / "small.h5")
    return folder


@pytest.fixture
def cli():
    """Run a command in this process; by default it must end without an error."""

    def run(*arguments, code=0):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def refusal(cli):
    """The one line that a command says on standard error when it refuses."""

    def run(*arguments, code=2):
        result = cli(*arguments, code=code)
        assert result.stdout == ""
        assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
        assert "Traceback" not in result.stderr and "internal error" not in result.stderr
        return result.stderr.removeprefix("error: ").rstrip("\n")

    return run


@pytest.fixture
def shell():
    """Run the installed program as a user does."""

    def run(*arguments, **options):
        environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"} | options.pop("env", {})
        return subprocess.run(
            [str(TFPASSES), *map(str, arguments)], capture_output=True, text=True, env=environment, check=False, timeout=120, **options
        )

    return run
