"""SavedModels of TensorFlow 1 in and out: signatures, tags, tensors' names, assets and their initializer survive."""

import shutil

import attrs
import numpy as np
import pytest
import tensorflow as tf

import v1_graphs
from tfpasses.frontends.graph_def.containers.saved_model import from_saved_model, save_saved_model
from tfpasses.frontends.graph_def.writing.writer import write
from tfpasses.graph import Slot, UnsupportedModelError, check_structure
from v1_graphs import KINDS, X, names, run

v1 = tf.compat.v1
BY_KIND = pytest.mark.parametrize("kind", KINDS)
TAGS = ["serve", "cpu"]


def build(session, folder):
    graph = session.graph
    tensor = graph.get_tensor_by_name
    with graph.as_default():
        signatures = {
            "serving_default": v1.saved_model.predict_signature_def({"image": tensor("x:0")}, {"scores": tensor("y:0")}),
            "features": v1.saved_model.predict_signature_def({"image": tensor("x:0")}, {"map": tensor("relu:0")}),
            "lookup": v1.saved_model.predict_signature_def({"words": tensor("words:0")}, {"ids": tensor("ids:0")}),
        }
        builder = v1.saved_model.Builder(str(folder))
        assets = graph.get_collection(v1.GraphKeys.ASSET_FILEPATHS)
        main = v1.tables_initializer()
        builder.add_meta_graph_and_variables(session, TAGS, signatures, assets_collection=assets, main_op=main)
        builder.save()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(kind) -> the folder, the outputs."""
    made = {}

    def model(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp("model")
            (folder / "vocabulary.txt").write_text("a\nb\nc\n")
            with v1_graphs.network(KINDS[kind], folder / "vocabulary.txt") as session:
                build(session, folder / "saved")
                made[kind] = folder / "saved", run(session, ["y:0", "relu:0"])
            (folder / "vocabulary.txt").unlink()
        return made[kind]

    return model


def rebuilt(graph):
    return graph.source.container.rebuilt(write(graph))


def there_and_back(source, target, **which):
    graph = from_saved_model(source, **which)
    check_structure(graph)
    save_saved_model(rebuilt(graph), target)
    return target


def in_session(folder):
    session = v1.Session(graph=tf.Graph())
    v1.saved_model.load(session, TAGS, str(folder))
    return session


@BY_KIND
def test_a_session_loads_it_under_the_same_names(kind, saved, tmp_path):
    folder, wanted = saved(kind)
    with in_session(there_and_back(folder, tmp_path / "new")) as new, in_session(folder) as old:
        got = run(new, ["y:0", "relu:0"])
        assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))
        assert new.run("ids:0", {"words:0": ["c", "d"]}).tolist() == [2, -1]
        assert names(new.graph.as_graph_def()) == names(old.graph.as_graph_def())
        run(new, "train")
        run(old, "train")
        assert np.array_equal(run(new), run(old))
    assert (tmp_path / "new" / "assets" / "vocabulary.txt").read_text() == "a\nb\nc\n"


@BY_KIND
def test_tensorflow_2_loads_it(kind, saved, tmp_path):
    folder, (scores, features) = saved(kind)
    new = tf.saved_model.load(there_and_back(folder, tmp_path / "new"), tags=TAGS)
    assert np.array_equal(new.signatures["serving_default"](image=tf.constant(X))["scores"], scores)
    assert np.array_equal(new.signatures["features"](image=tf.constant(X))["map"], features)
    assert new.signatures["lookup"](words=tf.constant(["b"]))["ids"].numpy().tolist() == [1]


def test_every_signature_is_read(saved):
    graph = from_saved_model(saved("by handle")[0])
    assert graph.input_structure == {"features": {"image": Slot(0)}, "lookup": {"words": Slot(1)}, "serving_default": {"image": Slot(0)}}
    assert graph.output_structure == {"features": {"map": Slot(0)}, "lookup": {"ids": Slot(1)}, "serving_default": {"scores": Slot(2)}}


def test_one_signature_is_read_by_its_name_and_only_that_is_written(saved, tmp_path):
    folder, wanted = saved("by handle")
    graph = from_saved_model(folder, signature="serving_default")
    assert (graph.inputs, graph.output_structure) == (("x",), {"scores": Slot(0)})
    save_saved_model(rebuilt(graph), tmp_path / "new")
    assert list(tf.saved_model.load(tmp_path / "new", tags=TAGS).signatures) == ["serving_default"]
    with in_session(tmp_path / "new") as session:
        assert np.array_equal(run(session), wanted[0])


@BY_KIND
def test_a_changed_variable_is_written(kind, saved, tmp_path):
    graph = from_saved_model(saved(kind)[0])
    weights = {**graph.weights, "head/weights": np.zeros((4, 2), "float32")}
    save_saved_model(rebuilt(attrs.evolve(graph, weights=weights)), tmp_path / "new")
    with in_session(tmp_path / "new") as session:
        assert run(session).tolist() == [[1, 1], [1, 1]]


def test_what_was_rebuilt_is_read_again(saved):
    folder, wanted = saved("by handle")
    again = rebuilt(from_saved_model(rebuilt(from_saved_model(folder)), signature="serving_default"))
    assert np.array_equal(run(again.session), wanted[0])
    assert list(again.signatures) == ["serving_default"]


def test_a_model_is_written_over_the_one_it_was_read_from(saved, tmp_path):
    source, wanted = saved("by handle")
    folder = shutil.copytree(source, tmp_path / "model")
    with in_session(there_and_back(there_and_back(folder, folder), folder)) as session:
        assert np.array_equal(run(session), wanted[0])
        assert session.run("ids:0", {"words:0": ["c"]}).tolist() == [2]


def test_simple_save(tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None,), "x")
        y = x * v1.get_variable("v", initializer=3.0)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "old"), {"x": x}, {"y": y})
    new = tf.saved_model.load(there_and_back(tmp_path / "old", tmp_path / "new"))
    assert new.signatures["serving_default"](x=tf.constant([2.0]))["y"].numpy().tolist() == [6]


def test_without_variables(tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None,), "x")
        v1.saved_model.simple_save(session, str(tmp_path / "old"), {"x": x}, {"y": x * 3.0})
    new = tf.saved_model.load(there_and_back(tmp_path / "old", tmp_path / "new"))
    assert new.signatures["serving_default"](x=tf.constant([2.0]))["y"].numpy().tolist() == [6]


# what is refused


def refused(source, **which):
    with pytest.raises(UnsupportedModelError) as error:
        from_saved_model(source, **which)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_names_that_are_not_there(saved):
    folder, _ = saved("by handle")
    assert refused(folder, signature="serve") == f"{folder}: there is no signature serve; it has features, lookup, serving_default"
    assert refused(folder, tags="serve") == f"{folder}: no graph has the tags serve; there are cpu, serve"


FILES = ["saved_model.pb", "variables/variables.index", "variables/variables.data-*"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files(saved, file, share, tmp_path):
    folder = shutil.copytree(saved("by handle")[0], tmp_path / "cut")
    (*_, path) = sorted(folder.glob(file), key=lambda one: one.stat().st_size)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "it may be truncated (" in refused(folder)


@pytest.mark.parametrize("file", [*FILES[1:], "assets/vocabulary.txt"])
def test_missing_files(saved, file, tmp_path):
    folder = shutil.copytree(saved("by handle")[0], tmp_path / "cut")
    for path in folder.glob(file):
        path.unlink()
    assert refused(folder).startswith(f"{folder}: {'its variables are missing' if file in FILES else 'cannot be loaded'}")


def test_one_that_tensorflow_2_loaded_is_read_without_its_tables(saved):
    folder, wanted = saved("by handle")
    loaded = tf.saved_model.load(folder, tags=TAGS)
    model = rebuilt(from_saved_model(loaded, signature="serving_default"))
    assert np.array_equal(model.signatures["serving_default"](image=tf.constant(X))["scores"], wanted[0])
    assert "signature lookup holds a table of TensorFlow 1 (node hash_table); give the folder" in refused(loaded)
