"""GraphDefs and SavedModels on the command line: in and out of the same kind, seen, compared, converted."""

from __future__ import annotations

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from keras import layers as L

import tfpasses
from fold_cases import bite
from graph_defs import compute, frozen, ops_of
from tfpasses.cli import main
from tfpasses.frontends.graph_def import load_graph_def, save_graph_def

FOLD = ("-p", "fold-batch-norms")
SHAPE = (9, 9, 4)


def network():
    x = keras.Input(SHAPE, name="image")
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3)(x)))
    y = L.BatchNormalization()(L.Conv2D(8, 3, groups=2)(y))
    return bite(keras.Model(x, L.Dense(3, name="scores")(L.GlobalMaxPooling2D()(y)), name="network"))


class TwoSignatures(tf.Module):
    """Two functions that share a kernel and a batch norm's statistics."""

    def __init__(self):
        generator = np.random.default_rng(0)
        self.kernel = tf.Variable(generator.normal(size=(3, 3, 4, 5)).astype("float32"), name="kernel")
        self.norm = [
            tf.Variable(generator.uniform(0.5, 2, 5).astype("float32"), name=name) for name in ("gamma", "beta", "mean", "variance")
        ]

    def layer(self, x):
        gamma, beta, mean, variance = self.norm
        return tf.nn.batch_normalization(tf.nn.conv2d(x, self.kernel, 1, "SAME"), mean, variance, beta, gamma, 1e-3)

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE), tf.float32, name="x")])
    def scores(self, x):
        return {"scores": tf.reduce_mean(self.layer(x), [1, 2])}

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE), tf.float32, name="x")])
    def maps(self, x):
        return {"maps": tf.nn.relu(self.layer(x))}


@pytest.fixture(scope="session")
def kinds(tmp_path_factory):
    """The same network as every kind of file."""
    folder = tmp_path_factory.mktemp("kinds")
    model = network()
    model.save(folder / "network.keras")
    model.export(folder / "exported", verbose=False)
    definition = frozen(model)
    save_graph_def(definition, folder / "network.pb")
    save_graph_def(definition, folder / "network.pbtxt")
    module = TwoSignatures()
    tf.saved_model.save(module, folder / "two", signatures={"scores": module.scores, "maps": module.maps})
    return folder


@pytest.fixture
def x():
    return np.random.default_rng(2).normal(size=(3, *SHAPE)).astype("float32")


def norms(path, *options):
    return ops_of(tfpasses.run(tfpasses.load(path, *options), "canonicalize").graph).count("BatchNorm")


@pytest.mark.parametrize("name", ["network.pb", "network.pbtxt", "exported"])
def test_what_goes_in_comes_out_folded_and_of_its_kind(cli, kinds, tmp_path, name):
    out = tmp_path / name.replace("network", "folded")
    text = cli("run", kinds / name, *FOLD, "-o", out, "--verify", "numeric").stdout
    assert [line.split()[0] for line in text.splitlines()[2:4]] == ["canonicalize", "fold-batch-norms"]
    assert (norms(kinds / name), norms(out)) == (2, 0)
    assert out.is_dir() == (kinds / name).is_dir()
    assert cli("verify", kinds / "network.keras", out).stdout.split()[-1] == "ok"


def test_tensorflow_computes_what_was_written(cli, kinds, tmp_path, x):
    cli("run", kinds / "network.pb", *FOLD, "-o", tmp_path / "out.pb")
    (old,), (new,) = (compute(load_graph_def(path), {"in_0": x}, ["Identity"]) for path in (kinds / "network.pb", tmp_path / "out.pb"))
    assert 0 < np.abs(old - new).max() <= 1e-5 * np.abs(old).max()


def test_a_saved_model_of_two_signatures_folds_where_both_agree(cli, kinds, tmp_path, x):
    text = cli("run", kinds / "two", *FOLD, "-o", tmp_path / "out", "--verify", "numeric").stdout
    assert "only the signatures" in text
    old, new = (tf.saved_model.load(str(folder)) for folder in (kinds / "two", tmp_path / "out"))
    assert set(new.signatures) == {"scores", "maps"}
    assert len(new.variables) == 2  # the kernel and its new bias, in both signatures the same
    for name in ("scores", "maps"):
        a, b = (model.signatures[name](tf.constant(x))[name] for model in (old, new))
        assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()


def test_a_signature_may_be_chosen(cli, kinds, tmp_path):
    cli("run", kinds / "two", *FOLD, "-o", tmp_path / "out", "--signature", "maps")
    assert set(tf.saved_model.load(str(tmp_path / "out")).signatures) == {"maps"}


def test_a_signature_that_is_not_there(refusal, kinds, tmp_path):
    said = refusal("run", kinds / "two", *FOLD, "-o", tmp_path / "out", "--signature", "map")
    assert "map" in said and "maps, scores" in said.replace("scores, maps", "maps, scores")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["network.pb", "exported"])
def test_where_nothing_is_rewritten_the_file_is_copied(cli, kinds, tmp_path, name):
    cli("run", kinds / name, "-p", "canonicalize", "-o", tmp_path / name)
    pairs = [(kinds / name, tmp_path / name)]
    if (kinds / name).is_dir():
        pairs = [(file, tmp_path / name / file.relative_to(kinds / name)) for file in (kinds / name).rglob("*") if file.is_file()]
    assert pairs and all(a.read_bytes() == b.read_bytes() for a, b in pairs)


def test_a_graph_is_shown_as_it_is_and_raised(cli, kinds):
    raw = cli("show", kinds / "network.pb").stdout
    raised = cli("show", kinds / "network.pb", "-p", "canonicalize").stdout
    assert " = tf.Rsqrt(" in raw and "BatchNorm" not in raw
    assert raised.count(" = BatchNorm(") == 2 and " = Conv(" in raised and "tf.Rsqrt" not in raised


@pytest.mark.parametrize("form", ["dot", "svg", "json"])
def test_a_graph_is_drawn(cli, kinds, form):
    assert "BatchNorm" in cli("show", kinds / "network.pb", "-p", "canonicalize", "--format", form).stdout


def test_two_graphs_are_compared(cli, kinds, tmp_path):
    cli("diff", kinds / "network.pb", kinds / "network.pbtxt")
    cli("run", kinds / "network.pb", *FOLD, "-o", tmp_path / "out.pb")
    assert "tf.Rsqrt" in cli("diff", kinds / "network.pb", tmp_path / "out.pb", code=1).stdout


CONVERSIONS = [
    ("network.keras", "out.pb"),
    ("network.keras", "out.pbtxt"),
    ("network.keras", "out"),
    ("network.pb", "out"),
    ("exported", "out.pb"),
    ("exported", "out"),
]


@pytest.mark.parametrize(("source", "target"), CONVERSIONS)
def test_conversions_compute_the_same(cli, kinds, tmp_path, source, target):
    out = tmp_path / target
    assert cli("convert", kinds / source, out).stdout == f"{kinds / source} -> {out}\n"
    assert cli("verify", kinds / source, out).stdout.split()[-1] == "ok"
    assert norms(out) == 2


def test_a_keras_model_may_be_rewritten_into_a_graph(cli, kinds, tmp_path):
    cli("run", kinds / "network.keras", *FOLD, "-o", tmp_path / "out.pb")
    assert norms(tmp_path / "out.pb") == 0


def test_outputs_that_must_be_named(refusal, cli, tmp_path):
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder("float32", (None, 3), name="x")
        tf.nn.relu(x, name="a"), tf.tanh(x, name="b")
    save_graph_def(graph.as_graph_def(), tmp_path / "two.pb")
    assert refusal("show", tmp_path / "two.pb") == "several nodes could be the outputs; name them: a, b"
    assert "outputs [b]" in cli("show", tmp_path / "two.pb", "--outputs", "b").stdout
    assert "outputs [b,a]" in cli("show", tmp_path / "two.pb", "--outputs", "b, a").stdout
    assert refusal("show", tmp_path / "two.pb", "--outputs", "c") == "output c: there is no such value"
    assert refusal("show", tmp_path / "two.pb", "--outputs", "a", "--inputs", "y") == "input y: there is no such node"


REFUSED = {
    "a Keras file for a graph": ("network.pb", "out.keras", "operations of TensorFlow are no Keras layers"),
    "a GraphDef of two signatures": ("two", "out.pb", "a GraphDef has no signatures; choose one of maps, scores"),
    "a checkpoint of a GraphDef": ("network.pb", "out.meta", "only sessions are written as a checkpoint"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_what_a_file_cannot_hold(refusal, kinds, tmp_path, which):
    source, target, said = REFUSED[which]
    assert said in refusal("convert", kinds / source, tmp_path / target)
    assert not (tmp_path / target).exists()


def test_a_folder_of_other_things_is_not_replaced(refusal, kinds, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert "is a folder of other things" in refusal("convert", kinds / "network.pb", tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize("target", ["model/saved_model.pb", "model/inner", "saved_model.pb"])
@pytest.mark.parametrize("command", ["run", "convert"])
def test_nothing_is_written_into_a_saved_model(refusal, kinds, tmp_path, command, target):
    shutil.copytree(kinds / "exported", tmp_path / "model")
    before = {file: file.read_bytes() for file in (tmp_path / "model").rglob("*") if file.is_file()}
    words = (tmp_path / "model", *FOLD, "-o", tmp_path / target) if command == "run" else (tmp_path / "model", tmp_path / target)
    assert "lies in a SavedModel's folder; name that folder" in refusal(command, *words)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_options_of_another_kind(refusal, kinds):
    assert "signature= is not for" in refusal("show", kinds / "network.pb", "--signature", "serve")
    assert "inputs= is not for" in refusal("show", kinds / "network.keras", "--inputs", "image")


@pytest.mark.parametrize("resource", [True, False], ids=["by handle", "by reference"])
def test_a_checkpoint_with_its_graph(cli, refusal, tmp_path, x, resource):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        image = tf.compat.v1.placeholder("float32", (None, *SHAPE), name="image")
        kernel = tf.compat.v1.get_variable("kernel", (3, 3, 4, 5), use_resource=resource)
        vectors = [tf.constant(np.linspace(0.5, 2, 5, dtype="float32"))] * 4
        y = tf.compat.v1.nn.fused_batch_norm(tf.nn.conv2d(image, kernel, 1, "SAME"), *vectors, is_training=False)[0]
        tf.identity(y, name="y")
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
        before = session.run("y:0", {"image:0": x})
    assert "name them (--inputs, --outputs)" in refusal("show", tmp_path / "model.ckpt.meta")
    names = ("--inputs", "image", "--outputs", "y")
    for target in ("converted", "converted.pb"):
        cli("convert", tmp_path / "model.ckpt.meta", tmp_path / target, *names)
        assert cli("verify", tmp_path / "model.ckpt.meta", tmp_path / target, *names[:2], "--outputs", "y").stdout.split()[-1] == "ok"
    cli("run", tmp_path / "model.ckpt.meta", *FOLD, "-o", tmp_path / "out.meta", *names)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.train.import_meta_graph(str(tmp_path / "out.meta")).restore(session, str(tmp_path / "out"))
        after = session.run("y:0", {"image:0": x})
        assert "FusedBatchNormV3" not in {op.type for op in session.graph.get_operations()}
    assert 0 < np.abs(after - before).max() <= 1e-5 * np.abs(before).max()


def damaged(data, seed):
    """A file of which some bits are turned, or the end is lost."""
    generator = np.random.default_rng(seed)
    changed = np.frombuffer(data, np.uint8).copy()
    if seed % 2:
        return changed[: generator.integers(1, len(changed))].tobytes()
    places = generator.integers(0, len(changed), 5)
    changed[places] ^= np.uint8(1) << generator.integers(0, 8, 5).astype(np.uint8)
    return changed.tobytes()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", ["network.pb", "network.pbtxt"])
def test_a_damaged_file_is_rewritten_or_refused_in_one_line(kinds, tmp_path, name, seed):
    file = tmp_path / name
    file.write_bytes(damaged((kinds / name).read_bytes(), seed))
    done = CliRunner().invoke(main, ["run", str(file), *FOLD, "-o", str(tmp_path / f"out{file.suffix}")])
    assert done.exit_code in (0, 2), done.stderr
    if done.exit_code:
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and "internal error" not in done.stderr, done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == [name]


@pytest.mark.parametrize("part", ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"])
def test_a_damaged_saved_model_is_refused_in_one_line(refusal, kinds, tmp_path, part):
    shutil.copytree(kinds / "exported", tmp_path / "model")
    data = (tmp_path / "model" / part).read_bytes()
    (tmp_path / "model" / part).write_bytes(data[: len(data) // 2])
    assert str(tmp_path / "model") in refusal("run", tmp_path / "model", *FOLD, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# from Python


def test_every_kind_gives_back_its_kind(kinds, x):
    model = network()
    definition = frozen(model)
    function = tf.function(lambda image: model(image, training=False)).get_concrete_function(tf.TensorSpec((None, *SHAPE), tf.float32))
    polymorphic = tf.function(lambda image: model(image, training=False), input_signature=[tf.TensorSpec((None, *SHAPE), tf.float32)])
    loaded = tf.saved_model.load(str(kinds / "exported"))
    expected = np.asarray(model(x))
    for source, call in (
        (definition, lambda done: compute(done, {"in_0": x}, ["Identity"])[0]),
        (function, lambda done: done(tf.constant(x))),
        (polymorphic, lambda done: done(tf.constant(x))),
        (loaded, lambda done: next(iter(done.signatures["serve"](tf.constant(x)).values()))),
        (kinds / "exported", lambda done: next(iter(done.signatures["serve"](tf.constant(x)).values()))),
    ):
        result = tfpasses.run(source, "fold-batch-norms", verify="numeric")
        assert [record.pass_.name for record in result.journal] == ["canonicalize", "fold-batch-norms"]
        assert ops_of(result.graph).count("BatchNorm") == 0
        value = np.asarray(call(result.model))
        assert 0 < np.abs(value - expected).max() <= 1e-5 * np.abs(expected).max(), type(source)


def test_the_readers_by_name(kinds):
    definition = load_graph_def(kinds / "network.pb")
    function = tf.function(lambda x: x + 1.0).get_concrete_function(tf.TensorSpec((2,), tf.float32))
    assert tfpasses.from_graph_def(definition, ["in_0"], ["Identity"]).inputs == ("in_0",)
    assert len(tfpasses.from_concrete_function(function).inputs) == 1
    assert len(tfpasses.from_saved_model(kinds / "two", "maps").outputs) == 1
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.identity(tf.compat.v1.placeholder("float32", (2,), name="x"), name="y")
        assert tfpasses.from_session(session, ["x"], ["y"]).output_names == ("y",)


def test_facts_are_saved_beside_a_graph_and_read_back(cli, kinds, tmp_path):
    cli("run", kinds / "network.pb", *FOLD, "-o", tmp_path / "out.pb", "--facts", tmp_path / "facts.npz")
    read = tfpasses.load(tmp_path / "out.pb", tmp_path / "facts.npz")
    assert len(read.facts) == 2
    after = tfpasses.run(read, "canonicalize").graph
    assert {after.nodes[ref.node].op for ref, _ in after.facts} == {"Conv"}


def test_data_for_verification_goes_by_the_placeholders_name(cli, refusal, kinds, tmp_path, x):
    np.savez(tmp_path / "right.npz", in_0=x)
    np.savez(tmp_path / "wrong.npz", image=x)
    options = (*FOLD, "-o", tmp_path / "out.pb", "--verify", "numeric", "--data")
    cli("run", kinds / "network.pb", *options, tmp_path / "right.npz")
    assert "the model's inputs are in_0" in refusal("run", kinds / "network.pb", *options, tmp_path / "wrong.npz")
