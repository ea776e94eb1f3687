"""Files that hold no model, or one that is not read: one line, with the file's name and what to do. Never another exception."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import h5py
import keras
import pytest
from keras import layers as L

import keras_custom as custom
from keras_models import build
from tfpasses.frontends.keras import load_model
from tfpasses.graph import UnsupportedModelError

SUFFIXES = (".keras", ".h5")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound file of either kind."""
    folder = tmp_path_factory.mktemp("sound")
    model = build("sequential_built_later")
    for suffix in SUFFIXES:
        model.save(folder / f"m{suffix}")
    return {suffix: (folder / f"m{suffix}").read_bytes() for suffix in SUFFIXES}


def refusal(file: Path) -> str:
    """The message with which a file is refused, without its name at the front."""
    with pytest.raises(UnsupportedModelError) as error:
        load_model(file)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 600
    assert text.startswith(f"{file}: ")
    return text.removeprefix(f"{file}: ")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.0005, 0.01, 0.3, 0.7, 0.95, 0.999])
def test_a_truncated_file_is_refused(suffix, share, sound, tmp_path):
    file = tmp_path / f"m{suffix}"
    file.write_bytes(sound[suffix][: int(len(sound[suffix]) * share) + 1])
    text = refusal(file)
    assert "corrupted" in text or "truncated" in text


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("seed", range(12))
def test_a_file_with_flipped_bytes_is_refused_or_read_but_nothing_else(suffix, seed, sound, tmp_path):
    data, draw = bytearray(sound[suffix]), random.Random(seed)
    for _ in range(20):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    file = tmp_path / f"m{suffix}"
    file.write_bytes(data)
    try:
        load_model(file)
    except UnsupportedModelError as error:
        assert str(error).startswith(f"{file}: ")
        assert "\n" not in str(error)


@pytest.mark.parametrize("members", [{}, {"a.txt": "a"}, {"config.json": "{}"}, {"config.json": "no json", "metadata.json": "{}"}])
def test_a_zip_file_without_a_models_members_is_refused(members, tmp_path):
    file = tmp_path / "m.keras"
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    assert "corrupted" in refusal(file)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("content", "reason"), [(b"", "the file is empty"), (b"Dear Sir or Madam,\n" * 99, "not a .* file")])
def test_a_file_of_something_else_is_refused(suffix, content, reason, tmp_path):
    file = tmp_path / f"m{suffix}"
    file.write_bytes(content)
    assert refusal(file).startswith(reason.replace(".*", suffix))


def test_each_kind_under_the_others_name_is_refused(sound, tmp_path):
    for suffix, other in zip(SUFFIXES, reversed(SUFFIXES), strict=True):
        (tmp_path / f"m{suffix}").write_bytes(sound[other])
        assert refusal(tmp_path / f"m{suffix}").startswith(f"not a {suffix} file")


def test_a_directory_is_refused(tmp_path):
    assert "is a directory; name a .keras or .h5 file" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.onnx", "m"])
def test_a_missing_file_is_refused(name, tmp_path):
    assert refusal(tmp_path / name) == "no such file"


@pytest.mark.parametrize("suffix", [".onnx", ".tflite", ".txt", ""])
def test_a_file_of_another_kind_is_refused(suffix, tmp_path, sound):
    file = tmp_path / f"m{suffix}"
    file.write_bytes(sound[".keras"])
    assert "are not read; save the model as .keras or .h5" in refusal(file)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_lambda_in_a_file_is_refused_with_the_advice_to_load_it_oneself(suffix, tmp_path):
    keras.Sequential([keras.Input((4,)), L.Lambda(lambda x: x + 1)]).save(tmp_path / f"m{suffix}")
    text = refusal(tmp_path / f"m{suffix}")
    assert text.startswith("it holds a Lambda layer")
    assert "load it yourself with safe_mode=False and pass the model" in text


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (lambda: custom.Scale(2.0), "Scale"),
        (lambda: L.Dense(2, activation=custom.squash), "squash"),
        (lambda: L.Dense(2, bias_regularizer=custom.Halved()), "Halved"),
    ],
)
def test_an_unknown_custom_object_is_refused_by_its_name(suffix, layer, name, tmp_path, monkeypatch):
    keras.Sequential([keras.Input((4,)), layer()]).save(tmp_path / f"m{suffix}")
    monkeypatch.delattr(custom, name)
    text = refusal(tmp_path / f"m{suffix}")
    assert text.startswith(f"it needs the custom object {name}; register it with @keras.saving.register_keras_serializable()")


def test_custom_objects_can_be_given(tmp_path):
    keras.Sequential([keras.Input((4,)), custom.Scale(2.0)]).save(tmp_path / "m.keras")
    assert isinstance(load_model(tmp_path / "m.keras", {"Scale": custom.Scale}).layers[0], custom.Scale)


def test_an_h5_file_of_weights_only_is_refused_with_the_advice_to_save_the_model(tmp_path):
    build("sequential_built_later").save_weights(tmp_path / "m.weights.h5")
    assert (
        refusal(tmp_path / "m.weights.h5")
        == "it holds weights without a model; load them into the model and save that, with model.save(..)"
    )


def test_an_h5_file_of_data_is_refused(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["numbers"] = [1, 2, 3]
    assert refusal(tmp_path / "m.h5") == "it holds weights without a model; load them into the model and save that, with model.save(..)"


def test_an_unreadable_file_is_refused(tmp_path, monkeypatch, sound):
    file = tmp_path / "m.keras"
    file.write_bytes(sound[".keras"])

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(keras.saving, "load_model", denied)
    assert "Permission denied" in refusal(file)
