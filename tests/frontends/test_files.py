"""Models into files and out of them again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_custom as custom
from keras_models import MODELS, build
from keras_same import assert_same_outputs, inputs_for
from tfpasses.frontends.keras import from_keras, load_model, save_model, to_keras
from tfpasses.graph import UnsupportedModelError

CUSTOM = {name: getattr(custom, name) for name in custom.__all__}
IN_MEMORY_ONLY = {"lambdas", "activation_that_cannot_be_described", "optional_and_sparse_inputs"}
IN_TWO_MODELS = {"nested_shared_between_two_models", "shared_by_a_model_and_a_nested_one"}
IN_FILES = sorted(set(MODELS) - IN_MEMORY_ONLY - IN_TWO_MODELS)
MERGED = {"lora"}
"""Keras adds the low-rank weights to the kernel when it saves."""
WITH_OPERATIONS = {name for name in MODELS if "operation" in name} | {"policy_set_for_all", "names_that_look_like_ours"}


def saved(model: keras.Model, file: Path) -> Path:
    save_model(model, file)
    return file


@pytest.mark.parametrize("name", IN_FILES)
def test_a_model_exported_saved_and_loaded_is_the_same_graph(name, tmp_path):
    model = to_keras(from_keras(build(name)))
    loaded = load_model(saved(model, tmp_path / "m.keras"), CUSTOM)
    assert_same_outputs(loaded, model, inputs_for(model))
    if name not in MERGED:
        assert from_keras(to_keras(from_keras(loaded))).digest == from_keras(model).digest


@pytest.mark.parametrize("name", ["nested_with_dicts", "nested_functional_subclass", "masks_joined", "shared_layer_with_activation"])
def test_a_loaded_model_exported_saved_and_loaded_again_is_still_the_same_graph(name, tmp_path):
    first = load_model(saved(build(name), tmp_path / "first.keras"), CUSTOM)
    second = load_model(saved(to_keras(from_keras(first)), tmp_path / "second.keras"), CUSTOM)
    assert from_keras(second).digest == from_keras(first).digest


@pytest.mark.parametrize("name", ["nested", "sequential", "shared_layer", "multi", "initial_states", "frozen_parts", "training_calls"])
def test_a_model_exported_to_h5_is_the_same_graph(name, tmp_path):
    model = to_keras(from_keras(build({"multi": "nested_with_several_inputs_and_outputs"}.get(name, name))))
    assert from_keras(load_model(saved(model, tmp_path / "m.h5"))).digest == from_keras(model).digest


def test_a_fresh_process_reads_the_same_graph(tmp_path):
    digests = []
    for name in ("masked_lstm", "sequential_of_masked_layers"):
        model = to_keras(from_keras(build(name)))
        save_model(model, tmp_path / f"{name}.keras")
        digests.append(from_keras(model).digest)
    program = """
import sys
from tfpasses.frontends.keras import from_keras, load_model
for file in sys.argv[1:]:
    print(from_keras(load_model(file)).digest)
"""
    files = [str(tmp_path / f"{name}.keras") for name in ("masked_lstm", "sequential_of_masked_layers")]
    done = subprocess.run([sys.executable, "-c", program, *files], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == digests


@pytest.mark.parametrize("name", sorted(WITH_OPERATIONS - IN_MEMORY_ONLY))
def test_h5_of_a_model_with_operations_is_refused_with_the_advice_to_use_keras(name, tmp_path):
    with pytest.raises(
        UnsupportedModelError, match=r"m\.h5: Keras cannot load keras\.ops operations \(\w+\) back from \.h5; write a \.keras file"
    ):
        save_model(build(name), tmp_path / "m.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(IN_TWO_MODELS))
def test_keras_of_a_layer_in_two_models_is_refused_with_the_advice_to_use_h5(name, tmp_path):
    model = build(name)
    model.save(tmp_path / "plain.keras")
    with pytest.raises(ValueError, match="could not be loaded"):
        keras.saving.load_model(tmp_path / "plain.keras")
    with pytest.raises(
        UnsupportedModelError, match=r"m\.keras: Keras cannot load layer \w+, which lies in two models .*; write a \.h5 file"
    ):
        save_model(model, tmp_path / "m.keras")
    assert_same_outputs(load_model(saved(model, tmp_path / "m.h5")), model, inputs_for(model))


@pytest.mark.parametrize("suffix", [".tf", ".pb", ""])
def test_a_model_is_not_saved_under_a_name_of_another_kind(suffix, tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"models are written as \.keras or \.h5; give the name one of these endings"):
        save_model(build("sequential"), tmp_path / f"m{suffix}")


def test_a_model_that_keras_cannot_describe_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"m\.keras: Keras cannot save this model: Cannot serialize object") as error:
        save_model(build("activation_that_cannot_be_described"), tmp_path / "m.keras")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    file = saved(build("sequential"), tmp_path / "m.keras")
    before = file.read_bytes()
    with pytest.raises(UnsupportedModelError):
        save_model(build("activation_that_cannot_be_described"), file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
