"""bias-correction (hybrid) and the named pipeline dfq."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

import tfpasses
from normal_networks import branch, on_grid, settle
from tfpasses.manager import Pipeline, PipelineError

BITS = 4
SAMPLES = 40


def network(folded=False):
    """`b` reads what a batch norm left statistics of; `c`, `d` and `e` what nobody knows."""
    x, z = keras.Input((6, 6, 3), name="x"), keras.Input((6, 6, 2), name="z")
    known = L.ReLU()(L.Conv2D(7, 1, name="a")(x) if folded else branch(x, "a"))
    b = L.Conv2D(4, 3, padding="same", name="b")(known)
    c = L.ReLU()(L.Conv2D(4, 3, padding="same", name="c")(z))
    d = L.Conv2D(3, 1, name="d")(L.Add()([L.ReLU()(b), c]))
    return keras.Model([x, z], L.Dense(2, name="e")(L.GlobalAveragePooling2D()(L.ReLU()(d))))


@pytest.fixture(scope="module")
def model():
    return tfpasses.run(settle(network()), "fold-batch-norms")


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(4)
    return {
        "x": generator.normal(size=(SAMPLES, 6, 6, 3)).astype("float32"),
        "z": generator.normal(0.5, 1, (SAMPLES, 6, 6, 2)).astype("float32"),
    }


def bias(model, name):
    return np.asarray(model.get_layer(name).bias, np.float64)


def run(result, pipeline, **keywords):
    """On a model with the facts that a run left."""
    return tfpasses.run(result.graph, pipeline, **keywords)


def taken(result, after):
    model, done = result.model, after.graph.to_keras()
    return {name: bias(model, name) - bias(done, name) for name in "abcde"}


def outputs(model, name, x):
    return np.asarray(keras.Model(model.inputs, model.get_layer(name).output)(x), np.float64)


def test_hybrid_is_analytical_where_statistics_are_known_and_published_elsewhere(model, data):
    got = taken(model, run(model, f"bias-correction{{bits={BITS} method=hybrid}}", data=data))
    told = taken(model, run(model, f"analytical-bias-correction{{bits={BITS}}}"))
    assert np.abs(told["b"]).max() > 0.01
    np.testing.assert_array_equal(got["b"], told["b"])
    twin = network(folded=True)
    for layer in model.model.layers:
        arrays = layer.get_weights()
        if arrays:
            twin.get_layer(layer.name).set_weights([on_grid(array, BITS) if array.ndim > 1 else array for array in arrays])
    twin.get_layer("b").bias.assign_sub(told["b"])
    fed = [data["x"], data["z"]]
    for name in "acde":
        shift = np.mean(outputs(twin, name, fed) - outputs(model.model, name, fed), axis=tuple(range(outputs(twin, name, fed).ndim - 1)))
        np.testing.assert_allclose(got[name], shift, rtol=1e-3, atol=1e-5, err_msg=name)
        twin.get_layer(name).bias.assign_sub(shift)


def test_hybrid_says_how_many_are_which(model, data):
    result = run(model, "bias-correction", data=data)
    assert "1 of 5 layers by statistics, the others on data" in [remark.reason for remark in result.remarks]


def test_hybrid_without_statistics_is_empirical(model, data):
    bare = tfpasses.from_keras(model.model)
    names = ("bias-correction", "empirical-bias-correction")
    hybrid, empirical = (tfpasses.run(bare, f"{name}{{bits={BITS}}}", data=data).graph.weights for name in names)
    assert {key: array.tobytes() for key, array in hybrid.items()} == {key: array.tobytes() for key, array in empirical.items()}


def test_hybrid_needs_data(model):
    with pytest.raises(PipelineError, match="pass bias-correction needs data"):
        run(model, "bias-correction")


# dfq

CLE = "fold-batch-norms,fold-constant-channels{padding=border-map},cross-layer-scaling,high-bias-fold"


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("dfq", "analytical-bias-correction"),
        ("dfq{correction=sequential}", "empirical-bias-correction"),
        ("dfq{correction=fast bits=6 scheme=tf_enhanced}", "empirical-bias-correction{bits=6 scheme=tf_enhanced method=fast}"),
        ("dfq{correction=hybrid symmetric=true per-channel=true}", "bias-correction{symmetric=true per-channel=true}"),
    ],
)
def test_dfq_is_cle_and_a_bias_correction(text, last):
    assert Pipeline.parse(text) == Pipeline.parse(f"{CLE},{last}")


def test_the_options_of_cle_are_handed_on():
    assert Pipeline.parse("dfq{relu6=replace padding=refuse}") == Pipeline.parse(
        "cle{relu6=replace padding=refuse},analytical-bias-correction"
    )


@pytest.mark.parametrize("correction", ["analytical", "sequential", "fast", "hybrid"])
def test_dfq_brings_quantized_outputs_nearer_on_average(data, correction):
    model = settle(network())
    fed = [data["x"], data["z"]]
    wanted = np.asarray(model(fed, training=False)).mean(axis=0)
    given = {} if correction == "analytical" else {"data": data}
    found = []
    for text, more in (("cle", {}), (f"dfq{{correction={correction} bits={BITS}}}", given)):
        quantized = tfpasses.run(tfpasses.run(model, text, **more).model, f"quantize-weights{{bits={BITS}}}").model
        found.append(np.asarray(quantized(fed)).mean(axis=0) - wanted)
    far, near = found
    assert np.linalg.norm(near) < np.linalg.norm(far)
    if correction in ("sequential", "hybrid"):
        np.testing.assert_allclose(near, 0, atol=0.02 if correction == "sequential" else 0.2)
