import gc
import re
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
from keras import layers as L

import model_files
import tfpasses
from tfpasses import TfpassesError
from tfpasses.api import DataError, read_data
from tfpasses.graph import FactsError, Ref, UnsupportedModelError, WriteError
from tfpasses.manager import Observer, PipelineError


@pytest.fixture(scope="module")
def model():
    return model_files.small()


@pytest.fixture(scope="module")
def graph(model):
    return tfpasses.from_keras(model)


def weights(model):
    return [array.tobytes() for array in model.get_weights()]


def test_a_model_gives_a_model(model):
    assert isinstance(tfpasses.run(model, "fold-batch-norms").model, keras.Model)


def test_a_graph_gives_a_graph(graph):
    result = tfpasses.run(graph, "fold-batch-norms")
    assert isinstance(result.model, tfpasses.Graph) and result.model is result.graph


def test_the_model_that_went_in_is_as_it_was(model):
    before = weights(model), model.to_json()
    tfpasses.run(model, "fold-batch-norms", verify="numeric")
    assert (weights(model), model.to_json()) == before


def test_the_graph_that_went_in_is_as_it_was(graph):
    before = graph.digest
    tfpasses.run(graph, "fold-batch-norms")
    assert graph.digest == before


def test_the_model_and_the_graph_of_a_result_are_the_same(model):
    result = tfpasses.run(model, "fold-batch-norms")
    assert tfpasses.from_keras(result.model).digest == result.graph.digest


@pytest.mark.parametrize("verify", ["shapes", "numeric"])
def test_a_detached_result_lets_go_of_the_model_that_went_in(verify):
    source = model_files.small()
    layers = [weakref.ref(layer) for layer in source.layers]
    variables = [weakref.ref(variable) for variable in source.weights]
    result = tfpasses.run(source, "fold-batch-norms", verify=verify).detached()
    del source
    gc.collect()
    assert [ref() for ref in (*layers, *variables)] == [None] * len([*layers, *variables])
    assert result.model.count_params() > 0


def test_a_detached_result_is_saved_as_the_result_itself(model, tmp_path):
    result = tfpasses.run(model, "fold-batch-norms")
    assert result.graph.facts
    for name, one in (("whole", result), ("detached", result.detached())):
        tfpasses.save(one, tmp_path / f"{name}.keras", facts=tmp_path / f"{name}.npz")
    whole, detached = (tfpasses.load(tmp_path / f"{name}.keras", tmp_path / f"{name}.npz") for name in ("whole", "detached"))
    assert (whole.digest, whole.facts.keys()) == (detached.digest, detached.facts.keys())
    assert all(same(fact, detached.facts[key]) for key, fact in whole.facts.items())


def test_a_detached_result_of_a_graph_has_its_graph(graph):
    result = tfpasses.run(graph, "fold-batch-norms")
    assert result.detached().graph is result.graph and not result.detached().journal


@pytest.mark.parametrize("kind", ["text", "pass", "passes", "texts", "pipeline"])
def test_every_form_of_a_pipeline_is_taken(graph, kind):
    from tfpasses.passes.fold_batch_norms import FoldBatchNorms

    form = {
        "text": "fold-batch-norms",
        "pass": FoldBatchNorms(),
        "passes": [FoldBatchNorms()],
        "texts": ["fold-batch-norms"],
        "pipeline": tfpasses.Pipeline.parse("fold-batch-norms"),
    }[kind]
    assert [rewrite.root for rewrite in tfpasses.run(graph, form).rewrites] == ["bn"]


def test_a_result_tells_what_was_done(graph):
    result = tfpasses.run(graph, "fold-batch-norms", verify="numeric")
    (rewrite,) = result.rewrites
    assert (rewrite.pass_name, rewrite.changed, rewrite.removed) == ("fold-batch-norms", ("conv",), ("bn",))
    assert [name for name, _ in result.timings] == ["fold-batch-norms"]
    assert [verdict.where for verdict in result.verdicts] == ["bn", "outputs"]
    assert result.journal[0].before is graph and result.journal[0].after.digest == result.graph.digest


@pytest.mark.parametrize("level", ["off", "structure", "shapes"])
def test_only_numeric_verification_runs_the_graph(graph, level):
    assert tfpasses.run(graph, "fold-batch-norms", verify=level).verdicts == ()


def test_a_remark_says_what_the_frontend_could_not_keep():
    i = keras.Input((8, 8, 3), name="i")
    inner = keras.Model(i, L.Conv2D(4, 3, name="conv")(i), name="inner")
    x = keras.Input((8, 8, 3), name="x")
    model = keras.Model(x, L.BatchNormalization(name="bn")(inner(x)), name="outer")
    assert [(remark.kind, "inner" in remark.reason) for remark in tfpasses.run(model, "fold-batch-norms").remarks] == [("note", True)]


def test_an_observer_of_ones_own_watches(graph):
    class Names(Observer):
        def __init__(self):
            self.names = []

        def pass_started(self, pass_, graph):
            self.names.append(pass_.name)

    watcher = Names()
    tfpasses.run(graph, "fold-batch-norms", observers=[watcher])
    assert watcher.names == ["fold-batch-norms"]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("what", ["model", "graph", "result"])
def test_what_is_saved_is_loaded_again(graph, model, tmp_path, suffix, what):
    result = tfpasses.run(graph if what == "graph" else model, "fold-batch-norms")
    tfpasses.save(result if what == "result" else result.model, tmp_path / f"out{suffix}")
    assert tfpasses.load(tmp_path / f"out{suffix}").digest == result.graph.digest


def same(fact, other):
    return np.array_equal(fact.mean, other.mean) and np.array_equal(fact.std, other.std)


@pytest.mark.parametrize("kind", ["model", "graph"])
def test_facts_are_found_again_beside_the_saved_model(graph, model, tmp_path, kind):
    result = tfpasses.run(model if kind == "model" else graph, "fold-batch-norms")
    tfpasses.save(result, tmp_path / "out.keras", facts=tmp_path / "out.npz")
    loaded = tfpasses.load(tmp_path / "out.keras", tmp_path / "out.npz")
    assert set(loaded.facts) == {(Ref("conv"), "ChannelStats")}
    assert same(loaded.facts[Ref("conv"), "ChannelStats"], result.graph.facts[Ref("conv"), "ChannelStats"])


def test_facts_follow_a_node_that_was_renamed_by_flattening(tmp_path):
    i = keras.Input((8, 8, 3), name="i")
    inner = keras.Model(i, L.Conv2D(4, 3, name="conv")(i), name="inner")
    x = keras.Input((8, 8, 3), name="x")
    model = model_files.weighted(keras.Model(x, L.BatchNormalization(name="bn")(inner(x)), name="outer"))
    result = tfpasses.run(model, "fold-batch-norms")
    tfpasses.save(result, tmp_path / "out.keras", facts=tmp_path / "out.npz")
    loaded = tfpasses.load(tmp_path / "out.keras", tmp_path / "out.npz")
    (((ref, _), fact),) = loaded.facts.items()
    assert set(result.graph.facts) == {(Ref("inner/conv"), "ChannelStats")}
    assert ref.node == "inner.conv" and loaded.nodes["inner.conv"].op == "Conv"
    assert same(fact, result.graph.facts[Ref("inner/conv"), "ChannelStats"])


def test_facts_may_be_handed_on_in_memory(graph):
    first = tfpasses.run(graph, "fold-batch-norms")
    assert set(tfpasses.run(first.model, "fold-batch-norms").graph.facts) == set(first.graph.facts)
    assert set(tfpasses.run(graph, "fold-batch-norms", facts=first.graph.facts).graph.facts) == set(first.graph.facts)


def test_facts_of_another_model_are_refused(graph, tmp_path):
    tfpasses.save(tfpasses.run(graph, "fold-batch-norms"), tmp_path / "out.keras", facts=tmp_path / "out.npz")
    with pytest.raises(FactsError, match="belong to another model"):
        tfpasses.run(graph, "fold-batch-norms", facts=tmp_path / "out.npz")


def test_a_model_compares_equal_to_itself(model):
    (difference,) = tfpasses.compare_models(model, model)
    assert difference.ok and difference.maximum == 0.0


def test_a_comparison_names_every_output():
    model = model_files.nested()
    differences = tfpasses.compare_models(model, tfpasses.run(model, "fold-batch-norms").model)
    assert len(differences) == 2 and all(difference.ok for difference in differences)


BAD_RUNS = {
    "verify": (dict(verify="some"), TfpassesError, "verify='some' is none of off, structure, shapes, numeric"),
    "pipeline": (dict(pipeline="unknown-pass"), TfpassesError, "unknown pass 'unknown-pass'"),
    "grammar": (dict(pipeline="fold-batch-norms{{"), PipelineError, "at column 18"),
    "model": (dict(model=3), UnsupportedModelError, "int is not a Keras model"),
    "unbuilt": (dict(model=keras.Sequential([L.Dense(2)])), UnsupportedModelError, "is not built"),
    "a file that is not there": (dict(model="x.keras"), UnsupportedModelError, "x.keras: no such file"),
    "inputs of a Keras model": (dict(inputs=["x"]), UnsupportedModelError, "inputs= is not for Keras models"),
    "a class for a pass": (dict(pipeline=tfpasses.Pass), PipelineError, "call it: Pass()"),
    "facts that are none": (dict(facts={"d": 1}), FactsError, "facts hold 'd': 1"),
    "facts by no name": (dict(facts=3), FactsError, "facts are of type int"),
    "data that are none": (dict(verify="numeric", data=3), DataError, "data is of type int"),
    "data under a number": (dict(verify="numeric", data={1: np.ones((1, 8, 8, 3))}), DataError, "data is given for 1"),
    "ragged data": (dict(verify="numeric", data={"image": [[1.0], [1.0, 2.0]]}), DataError, "data for input image is no array"),
    "data that nobody reads": (dict(data={"image": np.ones((1, 8, 8, 3))}), DataError, 'data is only used with verify="numeric"'),
    "facts": (dict(facts="none.npz"), FactsError, "none.npz: no such file"),
    "data": (dict(verify="numeric", data={"y": np.ones((1, 8, 8, 3))}), DataError, "the model's inputs are image"),
}


@pytest.mark.parametrize("fault", BAD_RUNS)
def test_a_bad_argument_of_run(model, fault):
    arguments, error, message = BAD_RUNS[fault]
    arguments = {"model": model, "pipeline": "fold-batch-norms"} | arguments
    with pytest.raises(error, match=re.escape(message)):
        tfpasses.run(arguments.pop("model"), arguments.pop("pipeline"), **arguments)


@pytest.mark.parametrize("what", [3, None, "model.keras"], ids=str)
def test_what_is_no_model_is_not_saved(what, tmp_path):
    with pytest.raises(UnsupportedModelError, match="is not a Keras model"):
        tfpasses.save(what, tmp_path / "out.keras")
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_not_saved_into_nowhere(model, tmp_path):
    with pytest.raises(WriteError, match="cannot be written"):
        tfpasses.save(model, tmp_path / "none" / "out.keras")


def test_data_of_another_float_type_is_taken(graph, tmp_path):
    np.savez(tmp_path / "data.npz", image=np.ones((2, 8, 8, 3), np.float64))
    assert tfpasses.run(graph, "fold-batch-norms", verify="numeric", data=read_data(tmp_path / "data.npz")).verdicts


def test_importing_the_package_loads_no_tensorflow():
    program = "import sys, tfpasses; tfpasses.Graph, tfpasses.run, tfpasses.Pass; print({'tensorflow', 'keras'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize("name", tfpasses.__all__)
def test_every_exported_name_is_there(name):
    assert getattr(tfpasses, name).__name__ == name and name in dir(tfpasses)


def test_a_name_that_is_not_exported_is_an_attribute_error():
    with pytest.raises(AttributeError, match="tfpasses has no attribute 'optimise'"):
        tfpasses.optimise  # noqa: B018


def test_a_notebook_shows_a_picture_where_dot_is_installed(graph):
    shown = graph._repr_mimebundle_()
    assert shown["text/plain"] == graph.to_text() and "<svg" in shown["image/svg+xml"]


def test_a_notebook_shows_text_where_dot_is_missing(graph, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert graph._repr_mimebundle_() == {"text/plain": graph.to_text()}
