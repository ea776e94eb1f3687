"""The named pipeline `cle` as a user calls it: on every kind of model, whole and in two halves, with options and with other passes."""

from __future__ import annotations

import json
import shutil

import keras
import numpy as np
import pytest
from keras import layers as L

import tfpasses

SPLITS = {
    "after the fold": ("fold-batch-norms", "fold-constant-channels{padding=border-map},cross-layer-scaling,high-bias-fold"),
    "after the constant channels": ("fold-batch-norms,fold-constant-channels{padding=border-map}", "cross-layer-scaling,high-bias-fold"),
    "before the high-bias fold": ("fold-batch-norms,fold-constant-channels{padding=border-map},cross-layer-scaling", "high-bias-fold"),
}
KINDS = {"model.keras": ".keras", "model.h5": ".keras", "model.pb": ".pb", "folder": ""}
"""A file, and the ending of what is written from it: `.h5` cannot hold limits per channel."""


def network():
    """An inverted residual block with ReLU6, a dead channel, and a layer of high biases before a pointwise one."""
    rng = np.random.default_rng(5)
    image = keras.Input((10, 10, 3), name="image")

    def block(x, layer, number, limit=None, active=True):
        x = L.BatchNormalization(name=f"bn{number}")(layer(x))
        return L.ReLU(limit, name=f"relu{number}")(x) if active else x

    x = block(image, L.Conv2D(6, 3, padding="same", use_bias=False, name="conv1"), 1, 6)
    y = block(x, L.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise"), 2, 6)
    y = block(y, L.Conv2D(6, 1, name="project"), 3, active=False)
    y = block(L.Add(name="add")([x, y]), L.Conv2D(5, 3, name="conv4"), 4)
    y = L.Conv2D(4, 1, name="conv5")(y)
    model = keras.Model(image, L.Dense(3, name="scores")(L.GlobalAveragePooling2D(name="pool")(y)))
    for variable in model.variables:
        array = rng.normal(0, 0.5, variable.shape).astype("float32")
        variable.assign(np.abs(array) + 0.3 if "variance" in variable.name else array)
    kernel = np.asarray(model.get_layer("conv1").kernel).copy()
    kernel[..., 2] = 0
    model.get_layer("conv1").kernel.assign(kernel)
    model.get_layer("bn4").beta.assign(np.full(5, 3.0))
    model.get_layer("bn4").gamma.assign(np.full(5, 0.4))
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The same network as every kind of file."""
    folder = tmp_path_factory.mktemp("cle")
    model = network()
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    model.export(folder / "folder", verbose=False)
    tfpasses.save(tfpasses.from_saved_model(folder / "folder"), folder / "model.pb")
    return folder


def weights(path):
    """By name, without those of the calls that a weight of a SavedModel lies in: one more with each writing."""
    found = tfpasses.run(path, "canonicalize").graph.weights
    return {key.replace("StatefulPartitionedCall/", ""): array for key, array in found.items()}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model_is_equalized(cli, models, tmp_path, name):
    said = cli("run", models / name, "-p", "cle", "-o", tmp_path / f"out{KINDS[name]}").stdout
    lines = [line.split() for line in said.splitlines()]
    rewrites = {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}
    rewrites.pop("canonicalize", None)
    assert rewrites == {"fold-batch-norms": 4, "fold-constant-channels": 1, "cross-layer-scaling": 1, "high-bias-fold": 1}


@pytest.mark.parametrize("name", ["model.keras", "model.pb", "folder"])
def test_all_but_the_high_bias_fold_keeps_the_function(cli, models, tmp_path, name):
    first, _ = SPLITS["before the high-bias fold"]
    out = tmp_path / f"out{KINDS[name]}"
    cli("run", models / name, "-p", first, "-o", out, "--verify", "numeric")
    assert cli("verify", models / name, out).stdout.split()[-1] == "ok"


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", KINDS)
def test_two_halves_with_saved_facts_give_the_same_bit_for_bit(cli, models, tmp_path, name, split):
    whole, half, other, facts = *(tmp_path / f"{part}{KINDS[name]}" for part in ("whole", "half", "other")), tmp_path / "facts.npz"
    cli("run", models / name, "-p", "cle", "-o", whole)
    cli("run", models / name, "-p", SPLITS[split][0], "-o", half, "--facts", facts)
    cli("run", half, "-p", SPLITS[split][1], "-o", other, "--load-facts", facts)
    ours, theirs = weights(whole), weights(other)
    assert ours.keys() == theirs.keys()
    for key, array in ours.items():
        np.testing.assert_array_equal(array, theirs[key], err_msg=key)


def test_without_the_facts_the_second_half_is_refused_with_the_remedy(cli, refusal, models, tmp_path):
    first, second = SPLITS["before the high-bias fold"]
    cli("run", models / "folder", "-p", first, "-o", tmp_path / "half")
    assert "load facts saved by an earlier run" in refusal("run", tmp_path / "half", "-p", second, "-o", tmp_path / "other")


def test_facts_of_a_saved_model_go_with_its_folder_wherever_that_is_and_however_often_it_is_read(cli, models, tmp_path):
    cli("run", models / "folder", "-p", "fold-batch-norms", "-o", tmp_path / "half", "--facts", tmp_path / "facts.npz")
    shutil.copytree(tmp_path / "half", tmp_path / "copy")
    for _ in range(2):  # TensorFlow numbers the functions that it reads
        facts = tfpasses.run(tmp_path / "copy", "canonicalize", facts=tmp_path / "facts.npz").graph.facts
        assert len(facts) == 4


def test_facts_of_another_saved_model_are_refused(refusal, cli, models, tmp_path):
    cli("run", models / "folder", "-p", "fold-batch-norms", "-o", tmp_path / "half", "--facts", tmp_path / "facts.npz")
    said = refusal("run", models / "folder", "-p", "cle", "-o", tmp_path / "out", "--load-facts", tmp_path / "facts.npz")
    assert "these facts belong to another model" in said


def test_facts_of_a_copied_saved_model_stay_with_it(cli, models, tmp_path):
    cli("run", models / "folder", "-p", "fold-batch-norms", "-o", tmp_path / "half", "--facts", tmp_path / "facts.npz")
    again = ("-p", "fold-batch-norms", "-o", tmp_path / "copy", "--load-facts", tmp_path / "facts.npz", "--facts", tmp_path / "again.npz")
    cli("run", tmp_path / "half", *again)
    assert len(tfpasses.load(tmp_path / "copy", tmp_path / "again.npz").facts) == 4


@pytest.mark.parametrize("out", ["out.pb", "out"])
def test_facts_about_keras_layers_are_not_kept_for_operations_of_tensorflow(refusal, models, tmp_path, out):
    said = refusal("run", models / "model.keras", "-p", "fold-batch-norms", "-o", tmp_path / out, "--facts", tmp_path / "facts.npz")
    assert "facts.npz: facts about conv1 cannot be kept, since the model that was written has no such node" in said
    assert not (tmp_path / "facts.npz").exists()


def test_relu6_is_replaced_first_where_that_is_asked_for_so_that_h5_can_hold_the_rest(cli, refusal, models, tmp_path):
    assert "write a .keras file" in refusal("run", models / "model.h5", "-p", "cle", "-o", tmp_path / "out.h5")
    done = json.loads(
        cli("run", models / "model.h5", "-p", "cle{relu6=replace padding=refuse}", "-o", tmp_path / "out.h5", "--json").stdout
    )
    assert "relu6-to-relu,cross-layer-scaling," in done["pipeline"]
    read = keras.models.load_model(tmp_path / "out.h5", compile=False)
    assert all(layer.max_value is None for layer in read.layers if isinstance(layer, L.ReLU))


def test_kernels_are_quantized_behind_it(cli, models, tmp_path):
    cli("run", models / "model.keras", "-p", "cle", "-o", tmp_path / "equal.keras")
    cli("run", models / "model.keras", "-p", "cle,quantize-weights{bits=6 symmetric=true}", "-o", tmp_path / "quantized.keras")
    equal, quantized = weights(tmp_path / "equal.keras"), weights(tmp_path / "quantized.keras")
    for key, array in equal.items():
        if not key.endswith("kernel"):
            np.testing.assert_array_equal(quantized[key], array, err_msg=key)
            continue
        delta = np.abs(array.astype(np.float64)).max() / 31
        np.testing.assert_allclose(quantized[key], np.rint(array / delta) * delta, rtol=1e-6, atol=1e-7, err_msg=key)


@pytest.mark.parametrize(
    ("pipeline", "why"),
    [
        ("cle{relu6=none}", "pipeline cle, option relu6: 'none' is not clip|replace|skip|bound (default clip)"),
        ("cle{padding=same}", "pipeline cle, option padding: 'same' is not refuse|border-map|approximate"),
        ("cle{sweeps=3}", "pipeline cle has no option 'sweeps'; it has 'relu6', 'padding'"),
        ("cle{relu6=clip relu6=skip}", "option relu6 is given twice"),
        ("cle{relu6}", "key=value or a closing brace is expected at column 5"),
        ("clee", "unknown pass 'clee'; did you mean cle?"),
        ("xyz", "relu6-to-relu, cle"),
        ("cle{", "key=value or a closing brace is expected at column 5"),
    ],
)
def test_bad_options_are_refused(refusal, models, tmp_path, pipeline, why):
    assert why in refusal("run", models / "model.keras", "-p", pipeline, "-o", tmp_path / "out.keras")
    assert not (tmp_path / "out.keras").exists()


def test_passes_that_look_at_data_take_it_without_numeric_verification(cli, refusal, models, tmp_path):
    np.savez(tmp_path / "data.npz", image=np.zeros((2, 10, 10, 3), "float32"))
    data = ("-o", tmp_path / "out.keras", "--data", tmp_path / "data.npz")
    assert "touched" in cli("run", models / "model.keras", "-p", "cle{relu6=replace}", *data).stdout
    assert "on the given data" in cli("run", models / "model.keras", "-p", "relu6-to-relu", *data).stdout
    said = refusal("run", models / "model.keras", "-p", "fold-batch-norms", *data)
    assert "is only used with --verify numeric, and by passes that look at data; here is none" in said
