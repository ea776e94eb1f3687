"""docs/workers.md: the scripts for Kubernetes and Slurm give each worker a TF_CONFIG that makes sense, and a command that is one."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tfpasses.cli import main
from tfpasses.manager import Pipeline
from tfpasses.workers import told

TEXT = (Path(__file__).parents[1] / "docs" / "workers.md").read_text()


def block(language):
    return re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)[1]


def program(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def ran(folder, script, **environment):
    """TF_CONFIG and the arguments that `tfpasses` gets in a script."""
    program(folder, "tfpasses", 'printf "%s\\0" "$TF_CONFIG" "$@"')
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", **environment}
    out = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True).stdout
    config, *arguments = out.split("\0")[:-1]
    return config, arguments


def assert_command(arguments):
    """All but the files are as the program takes it."""
    known = {option for parameter in main.commands["run"].params for option in parameter.opts}
    assert arguments[0] == "run" and {one for one in arguments if one.startswith("-")} <= known
    assert Pipeline.parse(arguments[arguments.index("-p") + 1]).passes[-1].name == "empirical-bias-correction"


@pytest.mark.parametrize("index", range(3))
def test_kubernetes(tmp_path, index):
    service, job = yaml.safe_load_all(block("yaml"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    config, arguments = ran(tmp_path, container["args"][0], JOB_COMPLETION_INDEX=str(index))
    addresses, mine = told(config)
    assert len(addresses) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert addresses[mine] == f"{job['metadata']['name']}-{index}.{service['metadata']['name']}:12345"
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert_command(arguments)


@pytest.mark.parametrize("index", range(3))
def test_slurm(tmp_path, index):
    program(tmp_path, "scontrol", "printf 'node%s\\n' 4 5 7")
    program(tmp_path, "srun", 'exec "$@"')
    config, arguments = ran(tmp_path, block("bash"), SLURM_JOB_NODELIST="node[4-5,7]", SLURM_PROCID=str(index))
    addresses, mine = told(config)
    assert list(addresses.values()) == ["node4:12345", "node5:12345", "node7:12345"]
    assert list(addresses).index(mine) == index
    assert_command(arguments)


def test_the_plain_command():
    command = re.search(r"    TF_CONFIG=.*\\\n.*", TEXT)[0]
    config, *arguments = shlex.split(command.replace("\\\n", " "))
    assert len(told(config.removeprefix("TF_CONFIG="))[0]) == 2
    assert_command(arguments[1:])


def test_the_option_is_told_of_by_help():
    assert "--strategy" in CliRunner().invoke(main, ["run", "--help"]).output
