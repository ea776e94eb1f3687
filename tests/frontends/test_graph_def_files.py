"""GraphDef files: both forms, and what is no GraphDef."""

import numpy as np
import pytest
import tensorflow as tf

from tfpasses.frontends.graph_def import from_graph_def, load_graph_def, save_graph_def, to_graph_def
from tfpasses.graph import UnsupportedModelError, WriteError


@pytest.fixture(scope="module")
def definition():
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), "x")
        tf.nn.relu(x @ tf.constant(np.arange(12, dtype="float32").reshape(4, 3)), "y")
    return graph.as_graph_def()


@pytest.mark.parametrize("suffix", [".pb", ".pbtxt"])
def test_a_file_holds_what_was_written(definition, suffix, tmp_path):
    file = tmp_path / f"graph{suffix}"
    save_graph_def(to_graph_def(from_graph_def(definition)), file)
    assert load_graph_def(file) == definition


def test_the_text_form_is_text_that_tensorflow_reads(definition, tmp_path):
    save_graph_def(definition, tmp_path / "graph.pbtxt")
    assert 'op: "MatMul"' in (tmp_path / "graph.pbtxt").read_text()
    with tf.Graph().as_default():
        tf.import_graph_def(load_graph_def(tmp_path / "graph.pbtxt"))


def refused(path):
    with pytest.raises(UnsupportedModelError) as error:
        load_graph_def(path)
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text
    return text.removeprefix(f"{path}: ")


def test_files_that_are_none(definition, tmp_path):
    assert refused(tmp_path) == "is a directory; name a .pb or .pbtxt file"
    assert refused(tmp_path / "none.pb") == "no such file"
    (tmp_path / "empty.pb").touch()
    assert refused(tmp_path / "empty.pb") == "the file is empty"
    (tmp_path / "model.onnx").write_bytes(b"x")
    assert refused(tmp_path / "model.onnx").startswith("files of kind .onnx are no GraphDefs")


@pytest.mark.parametrize("suffix", [".pb", ".pbtxt"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files(definition, suffix, share, tmp_path):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    save_graph_def(definition, whole)
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * share)])
    assert refused(cut).startswith("not a GraphDef, or truncated (")


@pytest.mark.parametrize("data", [b"\xff" * 100, b"PK\x03\x04" * 9, "größer".encode("latin-1"), b"node { " * 5000])
@pytest.mark.parametrize("suffix", [".pb", ".pbtxt"])
def test_files_of_another_kind(data, suffix, tmp_path):
    file = tmp_path / f"file{suffix}"
    file.write_bytes(data)
    assert refused(file).startswith("not a GraphDef, or truncated (")


def test_a_graph_without_nodes(tmp_path):
    save_graph_def(tf.compat.v1.GraphDef(versions={"producer": 1}), tmp_path / "graph.pb")
    assert refused(tmp_path / "graph.pb") == "a GraphDef without nodes"


def test_the_file_inside_a_saved_model_is_none(tmp_path):
    tf.saved_model.save(tf.Module(), tmp_path / "saved")
    refused(tmp_path / "saved" / "saved_model.pb")


def test_what_cannot_be_written_is_said_and_the_old_file_stays(definition, tmp_path):
    (tmp_path / "graph.pb").write_bytes(b"old")
    with pytest.raises(UnsupportedModelError, match=r"graph\.onnx: GraphDefs are written as \.pb or \.pbtxt"):
        save_graph_def(definition, tmp_path / "graph.onnx")
    with pytest.raises(WriteError, match="cannot be written"):
        save_graph_def(definition, tmp_path / "none" / "graph.pb")
    assert (tmp_path / "graph.pb").read_bytes() == b"old"
