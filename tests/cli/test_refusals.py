"""Bad use and bad input: exit code 2, one line on standard error, nothing written."""

import os
import sys

import keras
import numpy as np
import pytest

FOLD = ("-p", "fold-batch-norms")
READERS = {"show": [], "diff": ["{small}"], "verify": ["{small}"], "run": [*FOLD, "-o", "{out}"]}


@pytest.fixture
def reads(refusal, files, tmp_path):
    """The line that a command says of a model file that it cannot read."""

    def run(path, command="show"):
        rest = [part.format(small=files / "small.keras", out=tmp_path / "out.keras") for part in READERS[command]]
        said = refusal(command, path, *rest)
        assert not (tmp_path / "out.keras").exists()
        return said.removeprefix(f"{path}: ")

    return run


@pytest.mark.parametrize("command", READERS)
def test_a_missing_model(reads, tmp_path, command):
    assert reads(tmp_path / "none.keras", command) == "no such file"


@pytest.mark.parametrize("command", READERS)
def test_a_name_that_is_too_long(reads, tmp_path, command):
    assert reads(tmp_path / f"{'x' * 300}.keras", command) == "no such file"


@pytest.mark.parametrize("command", READERS)
def test_a_folder_for_a_model(reads, tmp_path, command):
    assert reads(tmp_path, command) == "is a directory, and no SavedModel (it holds no saved_model.pb); name a model"


@pytest.mark.parametrize("command", READERS)
def test_an_empty_file(reads, tmp_path, command):
    (tmp_path / "empty.keras").touch()
    assert reads(tmp_path / "empty.keras", command) == "the file is empty"


def test_a_file_of_another_kind(reads, tmp_path):
    (tmp_path / "model.onnx").write_text("x")
    assert reads(tmp_path / "model.onnx") == "files of kind .onnx are not read; save the model as .keras or .h5"


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_a_truncated_model(reads, files, tmp_path, suffix, kept):
    whole = (files / f"small.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(whole[: int(len(whole) * kept)])
    assert "truncated" in reads(tmp_path / f"cut.{suffix}")


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_corrupted_model(reads, files, tmp_path, suffix):
    content = np.frombuffer((files / f"small.{suffix}").read_bytes(), np.uint8).copy()
    content[len(content) // 2 : len(content) // 2 + 300] ^= 0xFF
    content.tofile(tmp_path / f"rotten.{suffix}")
    assert reads(tmp_path / f"rotten.{suffix}").startswith("cannot be loaded, it may be corrupted: ")


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_text_by_a_models_name(reads, tmp_path, suffix):
    (tmp_path / f"text.{suffix}").write_text("no model\n" * 1000)
    assert "not a" in reads(tmp_path / f"text.{suffix}")


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_lambda_in_a_file(reads, tmp_path, suffix):
    keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x + 1)]).save(tmp_path / f"lambda.{suffix}")
    assert "Lambda layer, whose Python code is not run from a file" in reads(tmp_path / f"lambda.{suffix}")


class Unheard(keras.layers.Layer):
    def call(self, x):
        return x


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_custom_layer_that_nobody_registered(reads, tmp_path, suffix):
    keras.Sequential([keras.Input((4,)), Unheard()]).save(tmp_path / f"custom.{suffix}")
    said = reads(tmp_path / f"custom.{suffix}")
    assert said.startswith("it needs the custom object Unheard; register it with @keras.saving.register_keras_serializable()")


def run(files, *rest):
    return ["run", files / "small.keras", *rest]


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        ("fold-batch-norm", "unknown pass 'fold-batch-norm'; did you mean fold-batch-norms?"),
        ("", "a pass name is expected at column 1"),
        ("fold-batch-norms,", "a pass name is expected at column 18"),
        ("fold-batch-norms{speed=1}", "pass fold-batch-norms has no option 'speed'"),
        ("fold-batch-norms{", "is expected at column 18"),
    ],
)
def test_a_bad_pipeline(refusal, files, tmp_path, pipeline, said):
    assert said in refusal(*run(files, "-p", pipeline, "-o", tmp_path / "out.keras"))


def test_a_missing_pipeline_file(refusal, files, tmp_path):
    assert "none.toml" in refusal(*run(files, "-p", tmp_path / "none.toml", "-o", tmp_path / "out.keras"))


def test_an_unknown_option_of_the_command(refusal, files):
    assert refusal("show", files / "small.keras", "--speed").startswith("No such option '--speed'. See ")


def test_an_unknown_command(refusal):
    assert refusal("optimise").startswith("No such command 'optimise'.")


def test_an_unknown_verification(refusal, files, tmp_path):
    assert "'off', 'structure', 'shapes', 'numeric'" in refusal(*run(files, *FOLD, "-o", tmp_path / "out.keras", "--verify", "some"))


def test_a_negative_tolerance(refusal, files):
    assert "--tolerance" in refusal("verify", files / "small.keras", files / "small.keras", "--tolerance", "-1")


def test_an_output_of_another_kind(refusal, files, tmp_path):
    assert "models are written as .keras, .h5, .hdf5, .pb, .pbtxt, .meta, or as a SavedModel's folder" in refusal(
        *run(files, *FOLD, "-o", tmp_path / "out.onnx")
    )


@pytest.mark.parametrize("command", ["run", "show"])
def test_an_output_that_is_a_folder(refusal, files, tmp_path, command):
    (tmp_path / "out.keras").mkdir()
    rest = FOLD if command == "run" else ()
    said = refusal(command, files / "small.keras", *rest, "-o", tmp_path / "out.keras")
    assert said == f"{tmp_path / 'out.keras'}: is a directory; name a file"


@pytest.mark.parametrize("command", ["run", "show"])
def test_an_output_whose_name_is_too_long(refusal, files, tmp_path, command):
    rest = FOLD if command == "run" else ()
    assert "cannot be written: File name too long" in refusal(command, files / "small.keras", *rest, "-o", tmp_path / f"{'x' * 300}.keras")


@pytest.mark.parametrize("command", ["run", "show"])
def test_an_output_in_no_folder(refusal, files, tmp_path, command):
    rest = FOLD if command == "run" else ()
    said = refusal(command, files / "small.keras", *rest, "-o", tmp_path / "none" / "out.keras")
    assert said.endswith(f"cannot be written: there is no folder {tmp_path / 'none'}")


def test_an_output_below_a_file(refusal, files):
    assert "cannot be written" in refusal(*run(files, *FOLD, "-o", files / "small.keras" / "out.keras"))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc takes no files, not even from root")
@pytest.mark.parametrize("command", ["run", "show"])
def test_an_output_where_nobody_may_write(refusal, files, command):
    rest = FOLD if command == "run" else ()
    assert refusal(command, files / "small.keras", *rest, "-o", "/proc/out.keras").startswith("/proc/out.keras: cannot be written: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_in_a_read_only_folder(refusal, files, tmp_path):
    tmp_path.chmod(0o500)
    assert "no permission to write" in refusal(*run(files, *FOLD, "-o", tmp_path / "out.keras"))


def test_facts_where_the_output_goes(refusal, files, tmp_path):
    out = tmp_path / "out.keras"
    assert "is also the name of a model" in refusal(*run(files, *FOLD, "-o", out, "--facts", out))


def test_keras_operations_in_h5(refusal, files, tmp_path):
    said = refusal("run", files / "arithmetic.keras", *FOLD, "-o", tmp_path / "out.h5")
    assert "keras.ops" in said and said.endswith("write a .keras file")
    assert list(tmp_path.iterdir()) == []


def test_facts_of_another_model(refusal, cli, files, tmp_path):
    cli("run", files / "other.keras", *FOLD, "-o", tmp_path / "other.keras", "--facts", tmp_path / "facts.npz")
    said = refusal(*run(files, *FOLD, "-o", tmp_path / "out.keras", "--load-facts", tmp_path / "facts.npz"))
    assert "these facts belong to another model" in said
    assert not (tmp_path / "out.keras").exists()


def test_facts_that_are_none(refusal, files, tmp_path):
    np.savez(tmp_path / "facts.npz", x=np.ones(3))
    assert "not a facts file" in refusal(*run(files, *FOLD, "-o", tmp_path / "out.keras", "--load-facts", tmp_path / "facts.npz"))


DATA = {
    "shape": (dict(image=np.ones((2, 8, 8, 4))), "data for input image has shape (2, 8, 8, 4); float32[?,8,8,3] with at least one sample"),
    "rank": (dict(image=np.ones((8, 8, 3))), "has shape (8, 8, 3)"),
    "samples": (dict(image=np.ones((0, 8, 8, 3))), "has shape (0, 8, 8, 3)"),
    "name": (dict(picture=np.ones((2, 8, 8, 3))), "data is given for picture; the model's inputs are image"),
    "nothing": ({}, "data is given for nothing; the model's inputs are image"),
    "dtype": (dict(image=np.full((2, 8, 8, 3), "x")), "has dtype <U1; float32[?,8,8,3] is expected"),
}


@pytest.fixture(params=["run", "verify"])
def with_data(request, refusal, files, tmp_path):
    def run(path):
        small = files / "small.keras"
        rest = [*FOLD, "-o", tmp_path / "out.keras", "--verify", "numeric"] if request.param == "run" else [small]
        return refusal(request.param, small, *rest, "--data", path)

    return run


@pytest.mark.parametrize("fault", DATA)
def test_data_that_does_not_fit(with_data, tmp_path, fault):
    arrays, expected = DATA[fault]
    np.savez(tmp_path / "data.npz", **arrays)
    assert expected in with_data(tmp_path / "data.npz")


def test_missing_data(with_data, tmp_path):
    assert with_data(tmp_path / "none.npz") == f"{tmp_path / 'none.npz'}: no such file"


@pytest.mark.parametrize("content", ["text", "npy", "half", "objects"])
def test_data_that_is_no_npz(with_data, tmp_path, content):
    path = tmp_path / "data.npz"
    if content == "text":
        path.write_text("no data")
    elif content == "npy":
        with path.open("wb") as stream:
            np.save(stream, np.ones(3))
    elif content == "objects":
        np.savez(path, image=np.array([{}]))
    else:
        np.savez(path, image=np.ones((2, 8, 8, 3)))
        path.write_bytes(path.read_bytes()[:1000])
    assert with_data(path) == f"{path}: not an .npz file of arrays; write one with numpy.savez(path, input_name=array)"


def test_data_that_nobody_reads(refusal, files, tmp_path):
    np.savez(tmp_path / "data.npz", image=np.ones((2, 8, 8, 3)))
    said = refusal(*run(files, *FOLD, "-o", tmp_path / "out.keras", "--data", tmp_path / "data.npz"))
    assert "is only used with --verify numeric" in said
