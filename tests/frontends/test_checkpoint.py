"""Checkpoints with their meta graphs in and out."""

import attrs
import numpy as np
import pytest
import tensorflow as tf

import v1_graphs
from tfpasses.frontends.graph_def.containers.checkpoint import from_checkpoint, save_checkpoint
from tfpasses.frontends.graph_def.writing.writer import write
from tfpasses.graph import UnsupportedModelError, WriteError, check_structure
from v1_graphs import KINDS, names, run

v1 = tf.compat.v1
BY_KIND = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(kind) -> the checkpoint's prefix, the outputs."""
    made = {}

    def checkpoint(kind):
        if kind not in made:
            prefix = tmp_path_factory.mktemp("checkpoint") / "model.ckpt-7"
            with v1_graphs.network(KINDS[kind]) as session, session.graph.as_default():
                v1.train.Saver().save(session, str(prefix))
                made[kind] = prefix, run(session)
        return made[kind]

    return checkpoint


def rebuilt(graph):
    return graph.source.container.rebuilt(write(graph))


def restored(prefix):
    graph = tf.Graph()
    session = v1.Session(graph=graph)
    with graph.as_default():
        v1.train.import_meta_graph(f"{prefix}.meta").restore(session, str(prefix))
    return session


@BY_KIND
@pytest.mark.parametrize("suffix", ["", ".meta"])
def test_a_checkpoint_is_a_session_again(kind, suffix, saved):
    prefix, value = saved(kind)
    graph = from_checkpoint(f"{prefix}{suffix}", ["x"], ["y"])
    check_structure(graph)
    assert np.array_equal(run(rebuilt(graph)), value)


@BY_KIND
def test_tensorflow_restores_what_was_written(kind, saved, tmp_path):
    prefix, value = saved(kind)
    save_checkpoint(rebuilt(from_checkpoint(prefix, ["x"], ["y"])), tmp_path / "new.ckpt")
    with restored(tmp_path / "new.ckpt") as session, restored(prefix) as old:
        assert np.array_equal(run(session), value)
        assert names(session.graph.as_graph_def()).keys() == names(old.graph.as_graph_def()).keys()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "checkpoint", "new.ckpt.data-00000-of-00001", "new.ckpt.index", "new.ckpt.meta",
    ]  # fmt: skip
    assert tf.train.latest_checkpoint(tmp_path) == str(tmp_path / "new.ckpt")


@BY_KIND
def test_a_changed_variable_is_written(kind, saved, tmp_path):
    graph = from_checkpoint(saved(kind)[0], ["x"], ["y"])
    weights = {**graph.weights, "head/weights": np.zeros((4, 2), "float32")}
    save_checkpoint(rebuilt(attrs.evolve(graph, weights=weights)), tmp_path / "new.ckpt")
    with restored(tmp_path / "new.ckpt") as session:
        assert run(session).tolist() == [[1, 1], [1, 1]]


def test_other_checkpoints_of_a_folder_stay_known(saved, tmp_path):
    session = rebuilt(from_checkpoint(saved("by handle")[0], ["x"], ["y"]))
    for name in ("a", "b", "a"):
        save_checkpoint(session, tmp_path / name)
    state = tf.train.get_checkpoint_state(tmp_path)
    assert list(state.all_model_checkpoint_paths) == [str(tmp_path / "b"), str(tmp_path / "a")]


def refused(path):
    with pytest.raises(UnsupportedModelError) as error:
        from_checkpoint(path, ["x"], ["y"])
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{path}")


def copied(prefix, folder):
    for file in prefix.parent.glob(f"{prefix.name}*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder / prefix.name


@pytest.mark.parametrize(("suffix", "what"), [(".meta", "the graph"), (".index", "the variables")])
def test_missing_files(suffix, what, saved, tmp_path):
    prefix = copied(saved("by handle")[0], tmp_path)
    (tmp_path / f"{prefix.name}{suffix}").unlink()
    assert refused(prefix) == f": no checkpoint with its graph, {what} ({prefix.name}{suffix}) is missing"


@pytest.mark.parametrize("suffix", [".meta", ".index", ".data-00000-of-00001"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_truncated_files(suffix, share, saved, tmp_path):
    prefix = copied(saved("by handle")[0], tmp_path)
    file = tmp_path / f"{prefix.name}{suffix}"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    assert "it may be truncated" in refused(prefix)


def test_what_cannot_be_written_is_said(saved, tmp_path):
    session = rebuilt(from_checkpoint(saved("by handle")[0], ["x"], ["y"]))
    with pytest.raises(WriteError, match=r"none/model: cannot be written: .*No such file"):
        save_checkpoint(session, tmp_path / "none" / "model")


def test_a_variable_without_a_value_cannot_be_written(tmp_path):
    with v1_graphs.network(True, initialize=False) as session, pytest.raises(UnsupportedModelError, match="a variable is not initialized"):
        save_checkpoint(session, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
