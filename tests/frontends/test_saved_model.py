"""SavedModels in and out: signatures, variables, tables and assets survive, in another process too, and what is broken is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import keras
import numpy as np
import pytest
import tensorflow as tf

from tfpasses.frontends.graph_def.containers.saved_model import NOT_KEPT, from_saved_model, save_saved_model
from tfpasses.frontends.graph_def.writing.writer import write
from tfpasses.graph import Slot, UnsupportedModelError, WriteError, check_structure
from tfpasses.manager import Pipeline, run_passes

X = tf.constant(np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32"))
VECTORS = tf.TensorSpec((None, 3), tf.float32, "x")
V = tf.constant([[1.0, 2.0, 3.0]])


def network():
    keras.utils.set_random_seed(1)
    x = keras.Input((8, 8, 3), name="image")
    y = keras.layers.Conv2D(4, 3, name="conv")(x)
    y = keras.layers.BatchNormalization(name="norm")(y)
    y = keras.layers.Conv2D(4, 3, groups=2, activation="silu", name="grouped")(keras.layers.ReLU()(y))
    y = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(y))
    return keras.Model(x, keras.layers.Dense(2, name="head")(y))


class Affine(tf.Module):
    """Three functions on two variables, one of which two of them read."""

    def __init__(self):
        super().__init__()
        self.scale = tf.Variable([1.0, 10.0, 100.0], name="scale")
        self.shift = tf.Variable(0.5, name="shift", trainable=False)
        self.unread = tf.Variable(7.0, name="unread")

    @tf.function(input_signature=[VECTORS])
    def scaled(self, x):
        return {"y": x * self.scale}

    @tf.function(input_signature=[VECTORS])
    def shifted(self, x):
        return {"y": tf.nn.relu(x * self.scale + self.shift), "x": x}

    @tf.function(input_signature=[VECTORS])
    def plain(self, x):
        return x + 1.0


class Words(tf.Module):
    """Looks words up in tables: one filled from an asset, one from constants, one by hand; and draws random numbers."""

    def __init__(self, vocabulary):
        super().__init__()
        as_lines = (tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER)
        self.from_file = tf.lookup.StaticHashTable(tf.lookup.TextFileInitializer(vocabulary, *as_lines), -1)
        self.fixed = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], tf.constant([5], tf.int64)), -1)
        self.by_hand = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 0)
        self.by_hand.insert(tf.constant(["z"]), tf.constant([9], tf.int64))
        self.embedding = tf.Variable(np.arange(6, dtype="float32").reshape(3, 2), name="embedding")
        self.generator = tf.random.Generator.from_seed(3)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "words")])
    def __call__(self, words):
        ids = self.from_file.lookup(words)
        found = {"fixed": self.fixed.lookup(words), "by_hand": self.by_hand.lookup(words)}
        return {"row": tf.gather(self.embedding, tf.maximum(ids, 0)), "ids": ids, "noise": self.generator.normal((2,)), **found}


def vocabulary(folder):
    (folder / "vocabulary.txt").write_text("a\nb\nc\n")
    return str(folder / "vocabulary.txt")


def one_function():
    module = tf.Module()
    module.v = tf.Variable([1.0, 2.0, 3.0], name="v")
    module.f = tf.function(lambda x: tf.reduce_sum(x * module.v, axis=1), input_signature=[VECTORS])
    return module


def without_variables():
    module = tf.Module()
    module.f = tf.function(lambda x: x * [1.0, 2.0, 3.0], input_signature=[VECTORS])
    return module


def save_affine(path):
    module = Affine()
    tf.saved_model.save(module, path, signatures={"scaled": module.scaled, "shifted": module.shifted, "plain": module.plain})


MODELS = {
    "keras, exported": lambda path: network().export(path, verbose=False),
    "keras, saved": lambda path: tf.saved_model.save(network(), path),
    "keras, sequential": lambda path: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).export(path, verbose=False),
    "a plain function": lambda path: tf.saved_model.save(one_function(), path),
    "three signatures": save_affine,
    "tables and assets": lambda path: tf.saved_model.save(Words(vocabulary(Path(path).parent)), path),
    "no variables": lambda path: tf.saved_model.save(without_variables(), path),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")

    def path(name):
        target = folder / name.replace(" ", "_") / "model"
        if not target.exists():
            target.parent.mkdir()
            MODELS[name](str(target))
        return target

    return path


def rebuilt(graph):
    return graph.source.container.rebuilt(write(graph))


def there_and_back(source, target, **which):
    graph = from_saved_model(source, **which)
    check_structure(graph)
    save_saved_model(rebuilt(graph), target)
    return target


def feeds(function):
    generator = np.random.default_rng(0)

    def value(spec):
        if spec.dtype == tf.string:
            return tf.constant(["b", "z", "nothing"])
        return tf.constant(generator.normal(size=[2 if size is None else size for size in spec.shape]), spec.dtype)

    return {name: value(spec) for name, spec in function.structured_input_signature[1].items()}


# there and back


@pytest.mark.parametrize("name", MODELS)
def test_every_signature_computes_the_same_bit_for_bit(name, saved, tmp_path):
    old, new = tf.saved_model.load(saved(name)), tf.saved_model.load(there_and_back(saved(name), tmp_path / "new"))
    assert old.signatures.keys() == new.signatures.keys()
    for key, function in old.signatures.items():
        ours = new.signatures[key]
        assert ours.structured_input_signature == function.structured_input_signature
        told = function.structured_outputs
        assert {one: spec.dtype for one, spec in ours.structured_outputs.items()} == {one: spec.dtype for one, spec in told.items()}
        assert all(spec.is_subtype_of(told[one]) for one, spec in ours.structured_outputs.items())
        given = feeds(function)
        wanted, got = function(**given), ours(**given)
        assert wanted.keys() == got.keys()
        assert all(np.array_equal(wanted[one], got[one]) for one in wanted)


@pytest.mark.parametrize("name", ["keras, exported", "keras, saved", "three signatures"])
def test_variables_stay_variables_that_train(name, saved, tmp_path):
    old, new = tf.saved_model.load(saved(name)), tf.saved_model.load(there_and_back(saved(name), tmp_path / "new"))
    for key, function in old.signatures.items():
        ours, theirs = step(new.signatures[key]), step(function)
        assert ours.keys() == theirs.keys()
        for variable, gradient in theirs.items():
            np.testing.assert_array_equal(ours[variable], gradient)
    names = {variable.name: variable.trainable for function in old.signatures.values() for variable in function.variables}
    assert {variable.name: variable.trainable for variable in new.variables} == names
    assert all(variable.trainable for variable in new.trainable_variables)
    assert not any(variable.trainable for variable in new.non_trainable_variables)


def step(function):
    given = feeds(function)
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_sum(value**2) for value in function(**given).values())
    variables = [variable for variable in function.variables if variable.trainable]
    gradients = tape.gradient(loss, variables)
    return {variable.name: gradient for variable, gradient in zip(variables, gradients, strict=True) if gradient is not None}


@pytest.mark.slow
def test_another_process_loads_calls_and_trains_them(saved, tmp_path):
    names = [name for name in MODELS if name != "tables and assets"]
    pairs = [(str(saved(name)), str(there_and_back(saved(name), tmp_path / f"model{number}"))) for number, name in enumerate(names)]
    source = shutil.copytree(saved("tables and assets"), tmp_path / "source")
    assets = there_and_back(source, tmp_path / "assets")
    shutil.rmtree(source)
    program = """
import json, sys
import numpy as np, tensorflow as tf
pairs, assets = json.loads(sys.argv[1])
def stepped(path):
    results = []
    model = tf.saved_model.load(path)
    for name, function in sorted(model.signatures.items()):
        spec = next(iter(function.structured_input_signature[1].items()))
        x = tf.constant(np.random.default_rng(0).normal(size=[2 if n is None else n for n in spec[1].shape]).astype("float32"))
        variables = sorted((v for v in function.variables if v.trainable), key=lambda v: v.name)
        with tf.GradientTape() as tape:
            outputs = function(**{spec[0]: x})
            loss = sum(tf.reduce_sum(value ** 2) for value in outputs.values())
        for variable, gradient in zip(variables, tape.gradient(loss, variables)):
            if gradient is not None:
                variable.assign_sub(0.1 * gradient)
        results += [outputs, function(**{spec[0]: x}), [v.numpy() for v in variables]]
    return tf.nest.flatten(results)
for old, new in pairs:
    ours, theirs = stepped(new), stepped(old)
    assert len(ours) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(ours, theirs)), new
found = tf.saved_model.load(assets).signatures["serving_default"](words=tf.constant(["c", "z"]))
print(found["ids"].numpy().tolist(), found["by_hand"].numpy().tolist(), found["row"].numpy().tolist())
"""
    arguments = [sys.executable, "-c", program, json.dumps([pairs, str(assets)])]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[2, -1] [0, 9] [[4.0, 5.0], [0.0, 1.0]]"


def test_a_rewritten_model_is_read_and_rewritten_again(saved, tmp_path):
    once = there_and_back(saved("three signatures"), tmp_path / "once")
    twice = there_and_back(once, tmp_path / "twice")
    assert from_saved_model(twice).weights.keys() == from_saved_model(saved("three signatures")).weights.keys()
    assert tf.saved_model.load(twice).signatures["shifted"](x=V)["y"].numpy().tolist() == [[1.5, 20.5, 300.5]]


def test_what_was_rebuilt_is_called_without_being_saved(saved):
    model = rebuilt(from_saved_model(saved("three signatures")))
    assert model.signatures["scaled"](x=V)["y"].numpy().tolist() == [[1, 20, 300]]
    again = rebuilt(from_saved_model(model))
    assert again.signatures["scaled"](x=V)["y"].numpy().tolist() == [[1, 20, 300]]


def test_files_of_other_programs_are_kept(saved, tmp_path):
    source = shutil.copytree(saved("a plain function"), tmp_path / "source")
    (source / "assets.extra").mkdir()
    (source / "assets.extra" / "warmup").write_text("requests")
    there_and_back(source, tmp_path / "new")
    assert (tmp_path / "new" / "assets.extra" / "warmup").read_text() == "requests"


def test_a_model_is_written_over_the_one_it_was_read_from(saved, tmp_path):
    folder = shutil.copytree(saved("tables and assets"), tmp_path / "model")
    there_and_back(there_and_back(folder, folder), folder)
    assert tf.saved_model.load(folder).signatures["serving_default"](words=tf.constant(["c"]))["ids"].numpy().tolist() == [2]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_what_is_not_kept_is_said():
    assert "other attributes are not" in NOT_KEPT


# what is read


def test_two_names_of_one_function_are_read_once(saved):
    graph = from_saved_model(saved("keras, exported"))
    assert tf.saved_model.load(saved("keras, exported")).signatures.keys() == {"serve", "serving_default"}
    assert (graph.inputs, graph.input_structure) == (("image",), {"image": Slot(0)})


def test_a_variable_of_two_signatures_is_one_weight(saved):
    graph = from_saved_model(saved("three signatures"))
    assert graph.weights["scale"].tolist() == [1, 10, 100]
    assert [node.name for node in graph.nodes.values() if node.op == "Variable"] == ["scale", "shift"]
    assert {user.partition("/")[0] for user, _ in graph.users["scale"]} == {"scaled", "shifted"}
    assert graph.input_structure == {"plain": {"x": Slot(0)}, "scaled": {"x": Slot(1)}, "shifted": {"x": Slot(2)}}


def test_a_change_of_a_shared_variable_is_one_in_every_signature(saved, tmp_path):
    graph = from_saved_model(saved("three signatures"))
    graph = attrs.evolve(graph, weights={**graph.weights, "scale": np.float32([2, 2, 2])})
    save_saved_model(rebuilt(graph), tmp_path / "new")
    new = tf.saved_model.load(tmp_path / "new").signatures
    assert new["scaled"](x=V)["y"].numpy().tolist() == [[2, 4, 6]]
    assert new["shifted"](x=V)["y"].numpy().tolist() == [[2.5, 4.5, 6.5]]
    assert tf.saved_model.load(saved("three signatures")).signatures["scaled"](x=V)["y"].numpy().tolist() == [[1, 20, 300]]


def test_one_signature_is_read_by_its_name_and_only_that_is_written(saved, tmp_path):
    graph = from_saved_model(saved("three signatures"), signature="scaled")
    assert (graph.inputs, set(graph.weights)) == (("x",), {"scale"})
    save_saved_model(rebuilt(graph), tmp_path / "new")
    new = tf.saved_model.load(tmp_path / "new")
    assert list(new.signatures) == ["scaled"]
    assert new.signatures["scaled"](x=V)["y"].numpy().tolist() == [[1, 20, 300]]


@pytest.mark.parametrize("tags", ["serve", ["serve"], None])
def test_tags_choose_the_graph(saved, tags):
    assert from_saved_model(saved("a plain function"), tags=tags).inputs == ("x",)


def test_a_loaded_model_is_read_and_not_changed(saved):
    loaded = tf.saved_model.load(saved("three signatures"))
    model = rebuilt(from_saved_model(loaded))
    model.variables[0].assign([0, 0, 0])
    assert loaded.signatures["scaled"](x=V)["y"].numpy().tolist() == [[1, 20, 300]]
    assert model.signatures["scaled"](x=V)["y"].numpy().tolist() == [[0, 0, 0]]


def test_signatures_of_odd_names(tmp_path):
    module = Affine()
    signatures = {"a/b": module.scaled, "a_b": module.shifted, "two words": module.plain}
    tf.saved_model.save(module, tmp_path / "old", signatures=signatures)
    new = tf.saved_model.load(there_and_back(tmp_path / "old", tmp_path / "new")).signatures
    assert new["a/b"](x=V)["y"].numpy().tolist() == [[1, 20, 300]]
    assert new["a_b"](x=V)["y"].numpy().tolist() == [[1.5, 20.5, 300.5]]
    assert new["two words"](x=V)["output_0"].numpy().tolist() == [[2, 3, 4]]


def test_a_signature_with_several_inputs(tmp_path):
    module = tf.Module()
    module.f = tf.function(lambda b, a: {"z": a - b, "y": a}, input_signature=[tf.TensorSpec((), name="b"), tf.TensorSpec((), name="a")])
    tf.saved_model.save(module, tmp_path / "old")
    new = tf.saved_model.load(there_and_back(tmp_path / "old", tmp_path / "new")).signatures["serving_default"]
    assert {key: float(value) for key, value in new(a=tf.constant(5.0), b=tf.constant(2.0)).items()} == {"z": 3, "y": 5}


# what is refused


def refused(source, **which):
    with pytest.raises(UnsupportedModelError) as error:
        from_saved_model(source, **which)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_folders_that_are_none(tmp_path):
    assert refused(tmp_path / "none") == f"{tmp_path}/none: no such folder"
    assert refused(tmp_path) == f"{tmp_path}: no SavedModel, it holds no saved_model.pb"
    (tmp_path / "saved_model.pb").touch()
    assert refused(tmp_path) == f"{tmp_path}: saved_model.pb holds no graph, it may be truncated"
    assert refused(str(tmp_path / "saved_model.pb")) == f"{tmp_path}/saved_model.pb: is a file; name the folder of a SavedModel"


def test_objects_that_are_none():
    assert refused(tf.Module()).startswith("a Module is no SavedModel; give a folder, or what tf.saved_model.load gives")
    assert refused(3).startswith("a int is no SavedModel")


FILES = ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files(saved, file, share, tmp_path):
    folder = shutil.copytree(saved("keras, exported"), tmp_path / "cut")
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: int(len(data) * share)])
    assert refused(folder).startswith(f"{folder}: ")
    assert "it may be truncated (" in refused(folder)


@pytest.mark.parametrize("file", FILES[1:])
def test_missing_variables(saved, file, tmp_path):
    folder = shutil.copytree(saved("keras, exported"), tmp_path / "cut")
    (folder / file).unlink()
    assert refused(folder).startswith(f"{folder}: its variables are missing (variables/variables.")


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_byte_gives_a_model_or_one_line(saved, file, tmp_path):
    folder = shutil.copytree(saved("a plain function"), tmp_path / "bad")
    data = (folder / file).read_bytes()
    for place in np.random.default_rng(0).integers(0, len(data), 12):
        changed = bytearray(data)
        changed[place] ^= 0xFF
        (folder / file).write_bytes(changed)
        try:
            from_saved_model(folder)
        except (UnsupportedModelError, ValueError) as error:
            assert "\n" not in str(error)


def test_names_that_are_not_there(saved):
    folder = saved("three signatures")
    assert refused(folder, signature="serve") == f"{folder}: there is no signature serve; it has plain, scaled, shifted"
    assert refused(folder, tags="train") == f"{folder}: no graph has the tags train; there are serve"
    assert refused(folder, tags=["serve", "gpu"]) == f"{folder}: no graph has the tags gpu, serve; there are serve"
    loaded = tf.saved_model.load(folder)
    assert refused(loaded, signature="serve") == "saved_model: there is no signature serve; it has plain, scaled, shifted"


def test_a_model_without_signatures(tmp_path):
    module = tf.Module()
    module.f = tf.function(lambda x: x)
    tf.saved_model.save(module, tmp_path / "old")
    assert refused(tmp_path / "old").startswith(f"{tmp_path}/old: it has no signatures; load it and give one of its functions to ")


def test_a_folder_of_other_things_is_not_written_over(saved, tmp_path):
    (tmp_path / "thesis.tex").touch()
    model = rebuilt(from_saved_model(saved("a plain function")))
    with pytest.raises(WriteError, match=r"is a folder of other things, with no saved_model\.pb; name another$"):
        save_saved_model(model, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_cannot_be_saved_leaves_the_old_model(saved, tmp_path):
    target = there_and_back(saved("a plain function"), tmp_path / "model")
    model = rebuilt(from_saved_model(target))
    model.signatures = {"f": lambda x: x}
    with pytest.raises(UnsupportedModelError, match=r"model: TensorFlow cannot save this model \(Expected a TensorFlow function"):
        save_saved_model(model, target)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    assert tf.saved_model.load(target).signatures["serving_default"](x=V)["output_0"].numpy().tolist() == [14]


@pytest.mark.parametrize("name", MODELS)
def test_two_readings_of_one_folder_have_one_digest(name, saved):
    read = [from_saved_model(saved(name)) for _ in range(2)]
    raised = [run_passes(graph, Pipeline.of("canonicalize")) for graph in read]
    for first, second in (read, raised):
        assert first.digest == second.digest
