"""The named pipeline `cle`: what it stands for, what it does to a network, and that it can be cut in two anywhere."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

import tfpasses
from cle_by_hand import given_range, read_range
from fold_cases import batch
from graph_defs import compute, frozen
from in_float64 import outputs
from scaling_check import model
from tfpasses.graph import ChannelStats
from tfpasses.manager import Pipeline, PipelineError

FOLD, CONSTANT = "fold-batch-norms", "fold-constant-channels"
TEXTS = {
    "cle": f"{FOLD},{CONSTANT}{{padding=border-map}},cross-layer-scaling,high-bias-fold",
    "cle{relu6=clip}": f"{FOLD},{CONSTANT}{{padding=border-map}},cross-layer-scaling,high-bias-fold",
    "cle{relu6=skip}": f"{FOLD},{CONSTANT}{{padding=border-map}},cross-layer-scaling{{relu6=skip}},high-bias-fold",
    "cle{relu6=bound}": f"{FOLD},{CONSTANT}{{padding=border-map}},cross-layer-scaling{{relu6=bound}},high-bias-fold",
    "cle{relu6=replace}": f"{FOLD},{CONSTANT}{{padding=border-map}},relu6-to-relu,cross-layer-scaling,high-bias-fold",
    "cle{padding=refuse}": f"{FOLD},{CONSTANT},cross-layer-scaling,high-bias-fold",
    "cle{padding=approximate}": f"{FOLD},{CONSTANT}{{padding=approximate}},cross-layer-scaling,high-bias-fold",
    "cle,quantize-weights": f"{FOLD},{CONSTANT}{{padding=border-map}},cross-layer-scaling,high-bias-fold,quantize-weights",
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_name_stands_for_these_passes(name):
    pipeline = Pipeline.parse(name)
    assert str(pipeline) == TEXTS[name]
    assert Pipeline.parse(str(pipeline)) == pipeline


@pytest.mark.parametrize("name", ["cle{relu6=keep}", "cle{padding=none}", "cle{sweeps=3}", "cle2"])
def test_what_it_does_not_have_is_refused(name):
    with pytest.raises((PipelineError, tfpasses.TfpassesError)):
        Pipeline.parse(name)


def network():
    """Two inverted residuals, with a dead channel, a constant one, and high biases."""

    def norm(x, name, mean=0.0):
        return L.BatchNormalization(name=name, beta_initializer=keras.initializers.Constant(mean))(x)

    def build(x):
        y = L.ReLU(6.0)(norm(L.Conv2D(6, 3, padding="same", use_bias=False, name="stem")(x), "n1"))
        for block in range(2):
            z = L.ReLU(6.0)(norm(L.Conv2D(8, 1, use_bias=False, name=f"expand{block}")(y), f"n2{block}"))
            z = L.ReLU(6.0)(norm(L.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"deep{block}")(z), f"n3{block}"))
            y = L.Add()([y, norm(L.Conv2D(6, 1, use_bias=False, name=f"project{block}")(z), f"n4{block}")])
        z = L.ReLU()(norm(L.Conv2D(5, 3, padding="same", name="head")(y), "n5"))
        z = L.ReLU()(norm(L.Conv2D(5, 3, padding="same", name="neck")(z), "n6"))
        return L.Dense(3, name="top")(L.GlobalAveragePooling2D()(z))

    m = model(build, (8, 8, 3))
    for name, beta in (("n5", 3.0), ("n6", 4.0)):
        m.get_layer(name).beta.assign(np.full(5, beta))
        m.get_layer(name).gamma.assign(np.full(5, 0.5))
    kernel = np.asarray(m.get_layer("expand0").kernel).copy()
    kernel[..., [2, 5]] = 0
    m.get_layer("expand0").kernel.assign(kernel)
    m.get_layer("n20").moving_mean.assign(np.zeros(8))
    beta = np.asarray(m.get_layer("n20").beta).copy()
    beta[[2, 5]] = -1.0, 2.0
    m.get_layer("n20").beta.assign(beta)
    return m


def test_a_network_is_equalized():
    m = network()
    result = tfpasses.run(m, "cle", verify="numeric")
    assert all(verdict.ok for verdict in result.verdicts)
    new = result.model
    assert not [layer for layer in new.layers if isinstance(layer, L.BatchNormalization)]
    deep = np.asarray(new.get_layer("deep0").kernel)
    assert np.abs(deep[:, :, [2, 5]]).max() == 0
    for block in range(2):
        expand, depthwise, project = (new.get_layer(f"{name}{block}") for name in ("expand", "deep", "project"))
        live = given_range(expand) > 0
        np.testing.assert_allclose(given_range(expand)[live], read_range(depthwise)[live], rtol=0.1)  # as far as 20 sweeps go
        np.testing.assert_allclose(given_range(depthwise)[live], read_range(project)[live], rtol=0.1)
    said = " / ".join(str(remark) for remark in result.remarks)
    assert "of the channels it reads 1 are always 0 and 1 always " in said
    assert "high-bias-fold: head: neck pads with zeros, which are not shifted" in said
    assert "high-bias-fold: neck: 5 of its channels gave up to" in said


def test_all_but_the_high_bias_fold_keeps_the_function():
    m = network()
    x = batch(m)
    folded, whole = (tfpasses.run(m, pipeline).model for pipeline in (TEXTS["cle"].rpartition(",")[0], "cle"))
    own = outputs(m, x)[0]
    off, moved = (np.abs(outputs(one, x)[0] - own).max() for one in (folded, whole))
    assert off <= 1e-5 * np.abs(own).max()
    assert moved > 10 * off


PARTS = [FOLD, f"{CONSTANT}{{padding=border-map}}", "cross-layer-scaling", "high-bias-fold{padding=border-map sigmas=1}"]


def same_arrays(a, b):
    arrays = [sorted((array.shape, array.tobytes()) for array in one.weights.values()) for one in (a, b)]
    return arrays[0] == arrays[1]


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("kind", ["keras", "frozen"])
def test_in_two_halves_with_maps_at_borders_it_gives_the_same(kind, cut, tmp_path):
    m = network()
    source = m if kind == "keras" else frozen(m)
    file, facts = tmp_path / f"half.{'keras' if kind == 'keras' else 'pb'}", tmp_path / "facts.npz"
    tfpasses.save(tfpasses.run(source, ",".join(PARTS[:cut])), file, facts=facts)
    half = tfpasses.run(file, ",".join(PARTS[cut:]), facts=facts)
    whole = tfpasses.run(source, ",".join(PARTS))
    x = batch(m)
    if kind == "keras":
        values = [outputs(one.model, x)[0] for one in (half, whole)]
    else:
        values = [compute(one.model, {"in_0": x}, [one.graph.outputs[0].node])[0] for one in (half, whole)]
    np.testing.assert_array_equal(*values)
    stats = [
        sorted(np.concatenate([fact.mean, fact.std]).tolist() for _, fact in one.graph.facts_of(ChannelStats)) for one in (half, whole)
    ]
    assert stats[0] == stats[1]
    assert len([node for node in whole.graph.nodes.values() if node.name.endswith(".border")]) >= 2
    assert same_arrays(half.graph, whole.graph) or kind == "frozen"


@pytest.mark.parametrize("relu6", ["clip", "replace", "skip", "bound"])
def test_limits_are_treated_as_asked(relu6):
    graph = tfpasses.run(network(), f"cle{{relu6={relu6}}}").graph
    limits = [node.config["max_value"] for node in graph.nodes.values() if node.op == "Relu" and node.config["max_value"] is not None]
    minima = [node for node in graph.nodes.values() if node.op == "Minimum"]
    assert len(minima) == (5 if relu6 == "clip" else 0)
    assert limits == ([6.0] * 5 if relu6 in ("skip", "bound") else [])


def test_a_network_without_batch_norms_has_no_statistics_and_keeps_its_biases():
    m = model(lambda x: L.Conv2D(3, 1, name="b")(L.ReLU()(L.Conv2D(4, 3, name="a")(x))))
    result = tfpasses.run(m, "cle", verify="numeric")
    assert [rewrite.pass_name for rewrite in result.rewrites] == ["cross-layer-scaling"]
