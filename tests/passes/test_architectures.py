"""Eight well-known architectures: what goes through unchanged is equal bit by bit, and folding keeps the function."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

import tfpasses
import zoo
from keras_same import arrays_of, assert_same_arrays

FOLDED = {
    "MobileNetV2": 52,
    "ResNet50": 53,
    "DenseNet121": 59,
    "EfficientNetB0": 49,
    "Xception": 40,
    "InceptionV3": 94,
    "MobileNetV3Small": 34,
    "NASNetMobile": 188,
}
NAMES = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in FOLDED]

results: dict[str, tfpasses.Result] = {}


def folded(name):
    """The folded model; folded once a process, with a check that the caller's model is as it was."""
    if name not in results:
        model = zoo.build(name)
        before = arrays_of(model)
        results[name] = tfpasses.run(model, "fold-batch-norms")
        assert_same_arrays(arrays_of(model), before)
    return results[name]


def batch_norms(model):
    return [layer.name for layer in model._flatten_layers() if isinstance(layer, L.BatchNormalization)]


@pytest.mark.parametrize("name", NAMES)
def test_without_passes_the_model_leaves_as_it_came(name):
    model, x = zoo.build(name), zoo.inputs(name, 2, seed=3)
    again = tfpasses.from_keras(model).to_keras()
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    np.testing.assert_array_equal(again(x, training=False), model(x, training=False))


@pytest.mark.parametrize("name", NAMES)
def test_folding_keeps_the_function(name, record_property):
    model, x = zoo.build(name), zoo.inputs(name, 4, seed=5)
    truth = zoo.float64_outputs(model, x)
    own = zoo.relative_error(model(x, training=False), truth)
    new = zoo.relative_error(folded(name).model(x, training=False), truth)
    record_property("own error", own)
    record_property("ratio", new / own)
    assert new <= 4 * own


@pytest.mark.parametrize("name", NAMES)
def test_every_batch_norm_that_can_fold_folds(name):
    result = folded(name)
    assert len(result.rewrites) == FOLDED[name] == zoo.fold_count(zoo.build(name))
    assert len(batch_norms(result.model)) == len(batch_norms(zoo.build(name))) - FOLDED[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_batch_norm_that_stays_has_a_remark_with_a_reason(name):
    result = folded(name)
    missed = [remark for remark in result.remarks if remark.kind == "missed"]
    assert sorted(remark.node for remark in missed) == sorted(batch_norms(result.model))
    assert all(remark.reason for remark in missed)


@pytest.mark.parametrize("name", NAMES)
def test_folding_leaves_the_callers_model_as_it_was(name):
    model, x = zoo.build(name), zoo.inputs(name, 1, seed=7)
    before = arrays_of(model), np.asarray(model(x, training=False)), keras.tree.flatten(model.get_config())
    tfpasses.run(model, "fold-batch-norms")
    assert_same_arrays(arrays_of(model), before[0])
    np.testing.assert_array_equal(model(x, training=False), before[1])
    assert keras.tree.flatten(model.get_config()) == before[2]


@pytest.mark.parametrize("name", [pytest.param("MobileNetV2", marks=pytest.mark.xdist_group("MobileNetV2"))])
def test_every_fold_proves_itself(name):
    result = tfpasses.run(zoo.build(name), "fold-batch-norms", verify="numeric")
    assert len(result.verdicts) == FOLDED[name] + 1
    assert all(verdict.ok for verdict in result.verdicts)
