"""Several real processes that correct biases together, on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as L

import tfpasses
from fold_cases import bite
from tfpasses.manager import WorkerError
from tfpasses.workers import StrategyWorkers, told

TFPASSES = Path(sys.executable).with_name("tfpasses")
PIPELINE = "fold-batch-norms,empirical-bias-correction{bits=4}"
PART = "fold-batch-norms,empirical-bias-correction{bits=4 samples=20}"
SAMPLES = 41
pytestmark = pytest.mark.xdist_group("workers")

PROGRAM = """
import os, sys
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras, numpy as np, tensorflow as tf
import tfpasses
strategy = tf.distribute.MultiWorkerMirroredStrategy()
model = keras.models.load_model(sys.argv[1])
data = tf.data.Dataset.from_tensor_slices(np.load(sys.argv[2])["x"]).batch(3)
result = tfpasses.run(model, sys.argv[3], data=data, strategy=strategy)
np.savez(sys.argv[4], **{w.path: np.asarray(w) for w in result.model.weights})
"""

SLOW = """
import os, sys, time
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras, numpy as np, tensorflow as tf
import tfpasses
strategy = tf.distribute.MultiWorkerMirroredStrategy()
model = keras.models.load_model(sys.argv[1])

def samples():
    for sample in np.load(sys.argv[2])["x"]:
        print("reading", flush=True)
        time.sleep(0.3)
        yield sample

try:
    tfpasses.run(model, sys.argv[3], data=samples(), strategy=strategy).model.save(sys.argv[4])
except tfpasses.TfpassesError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    x = keras.Input((8, 8, 3), name="x")
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(5, 3, padding="same", name="a")(x)))
    z = L.Add()([y, L.Conv2D(5, 3, padding="same", name="b")(y)])
    bite(keras.Model(x, L.Dense(3, name="c")(L.GlobalAveragePooling2D()(z)))).save(folder / "m.keras")
    np.savez(folder / "data.npz", x=np.random.default_rng(0).normal(0.3, 1, (SAMPLES, 8, 8, 3)).astype("float32"))
    return folder


@pytest.fixture(scope="module")
def alone(files):
    """The biases of one process, by the pipeline."""
    model = keras.models.load_model(files / "m.keras")
    return {pipeline: biases(tfpasses.run(model, pipeline, data=files / "data.npz").model) for pipeline in (PIPELINE, PART)}


def biases(model):
    return {layer.name: np.asarray(layer.bias) for layer in model.layers if getattr(layer, "bias", None) is not None}


def ports(count):
    """So many that are free."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return found


def environments(count):
    """TF_CONFIG for each of some workers."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports(count)]}
    for index in range(count):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        yield {**os.environ, "TF_CONFIG": config, "CUDA_VISIBLE_DEVICES": "-1"}, cluster["worker"][index]


def start(command, environment):
    return subprocess.Popen([*map(str, command)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(processes, seconds=180):
    """(status, standard output, standard error) of each."""
    found = []
    try:
        for process in processes:
            out, error = process.communicate(timeout=seconds)
            found.append((process.returncode, out, error))
    finally:
        for process in processes:
            process.kill()
    return found


@pytest.mark.parametrize(("count", "pipeline"), [(2, PIPELINE), (3, PART)], ids=["two", "three, a part of the samples"])
def test_workers_on_the_command_line_give_what_one_process_gives_and_the_chief_writes(files, alone, tmp_path, count, pipeline):
    command = [TFPASSES, "run", files / "m.keras", "-p", pipeline, "--data", files / "data.npz", "--strategy", "multi-worker"]
    outputs = [tmp_path / f"{index}.keras" for index in range(count)]
    processes = [start([*command, "-o", output], env) for output, (env, _) in zip(outputs, environments(count), strict=True)]
    found = ended(processes)
    assert [(status, error) for status, _, error in found] == [(0, "")] * count
    assert [output.exists() for output in outputs] == [True] + [False] * (count - 1)
    for index, (_, out, _) in enumerate(found[1:], 1):
        assert out.splitlines()[-1] == f"{files / 'm.keras'} -> {outputs[index]} (worker {index} of {count}: worker 0 writes)"
    for name, bias in biases(keras.models.load_model(outputs[0])).items():
        np.testing.assert_allclose(bias, alone[pipeline][name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("count", [2, 3])
def test_workers_with_a_dataset_have_the_same_bits(files, alone, tmp_path, count):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    outputs = [tmp_path / f"{index}.npz" for index in range(count)]
    command = [sys.executable, program, files / "m.keras", files / "data.npz", PIPELINE]
    found = ended([start([*command, output], env) for output, (env, _) in zip(outputs, environments(count), strict=True)])
    assert [status for status, _, _ in found] == [0] * count, found
    first, *others = [dict(np.load(output)) for output in outputs]
    for other in others:
        assert {key: array.tobytes() for key, array in other.items()} == {key: array.tobytes() for key, array in first.items()}
    for name, bias in alone[PIPELINE].items():
        np.testing.assert_allclose(first[f"{name}/bias"], bias, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_lost_worker_is_named_and_nothing_is_written(files, tmp_path, how):
    output = tmp_path / "out.keras"
    slow = tmp_path / "slow.py"
    slow.write_text(SLOW)
    made = list(environments(2))
    processes = [start([sys.executable, slow, files / "m.keras", files / "data.npz", PIPELINE, output], env) for env, _ in made]
    try:
        assert processes[1].stdout.readline() == "reading\n"
        processes[1].send_signal(how)
        _, error = processes[0].communicate(timeout=180)
    finally:
        for process in processes:
            process.kill()
    assert processes[0].returncode == 1
    assert f"lost worker 1 ({made[1][1]})" in error.splitlines()[-1]
    assert not output.exists()


def test_workers_that_never_come_are_named(files, tmp_path):
    (env, _), (_, other) = environments(2)
    command = [
        TFPASSES,
        "run",
        files / "m.keras",
        "-p",
        PIPELINE,
        "--data",
        files / "data.npz",
        "--strategy",
        "multi-worker",
        "--wait",
        "1",
    ]
    begun = time.monotonic()
    ((status, _, error),) = ended([start([*command, "--wait", 1, "-o", tmp_path / "out.keras"], env)])
    assert (status, error) == (2, f"error: worker 1 ({other}): not there after 1 seconds; start one process for each worker\n")
    assert time.monotonic() - begun < 60 and not (tmp_path / "out.keras").exists()


def test_an_address_that_is_taken_is_named(files, tmp_path):
    (env, mine), _ = environments(2)
    command = [TFPASSES, "run", files / "m.keras", "-p", PIPELINE, "--data", files / "data.npz", "--strategy", "multi-worker"]
    with socket.create_server(("", int(mine.split(":")[1]))):
        ((status, _, error),) = ended([start([*command, "-o", tmp_path / "out.keras"], env)])
    assert (status, error.count("\n")) == (2, 1)
    assert error.startswith(f"error: worker 0 ({mine}) cannot listen at its address: [Errno 98] Address already in use")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "TF_CONFIG is not set in the environment"),
        ("{", r"TF_CONFIG cannot be understood \(JSONDecodeError"),
        ("[]", r"TF_CONFIG cannot be understood \(TypeError"),
        ('{"cluster": {"worker": ["a:1"]}}', r"TF_CONFIG cannot be understood \(KeyError: 'task'\)"),
        (
            '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 2}}',
            r"the task is worker 2, which is not in the cluster; it has worker 0 \(a:1\), worker 1 \(b:2\)",
        ),
    ],
)
def test_a_tf_config_that_says_nothing_is_refused(text, message):
    with pytest.raises(WorkerError, match=message):
        told(text)


def test_a_chief_is_the_first():
    config = {"cluster": {"worker": ["b:2", "c:3"], "chief": ["a:1"], "ps": ["d:4"]}, "task": {"type": "worker", "index": 0}}
    addresses, mine = told(json.dumps(config))
    assert list(addresses.values()) == ["a:1", "b:2", "c:3"]
    assert list(addresses).index(mine) == 1


def test_another_strategy_is_refused():
    import tensorflow as tf

    with pytest.raises(WorkerError, match=r"strategy is of type OneDeviceStrategy; give a tf\.distribute\.MultiWorkerMirroredStrategy"):
        StrategyWorkers.of(tf.distribute.OneDeviceStrategy("/cpu:0"))
