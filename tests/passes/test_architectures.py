"""Eight well-known architectures: what goes through unchanged is equal bit by bit, and folding keeps the function."""

from __future__ import annotations

from functools import cache

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
SLOW = {"DenseNet121", "NASNetMobile", "ResNet50"}
NAMES = [pytest.param(name, marks=[pytest.mark.xdist_group(name), *([pytest.mark.slow] if name in SLOW else [])]) for name in FOLDED]


@cache
def folded(name):
    """The result, and the caller's model before and after: weights, configuration, outputs."""
    model, x = zoo.build(name), zoo.inputs(name, 1, seed=7)

    def look():
        return arrays_of(model), keras.tree.flatten(model.get_config()), np.asarray(model(x, training=False))

    before = look()
    result = tfpasses.run(model, "fold-batch-norms")
    return result, before, look()


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
    new = zoo.relative_error(folded(name)[0].model(x, training=False), truth)
    record_property("own error", own)
    record_property("ratio", new / own)
    assert new <= 4 * own


@pytest.mark.parametrize("name", NAMES)
def test_every_batch_norm_that_can_fold_folds(name):
    result, _, _ = folded(name)
    assert len(result.rewrites) == FOLDED[name] == zoo.fold_count(zoo.build(name))
    assert len(batch_norms(result.model)) == len(batch_norms(zoo.build(name))) - FOLDED[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_batch_norm_that_stays_has_a_remark_with_a_reason(name):
    result, _, _ = folded(name)
    missed = [remark for remark in result.remarks if remark.kind == "missed"]
    assert sorted(remark.node for remark in missed) == sorted(batch_norms(result.model))
    assert all(remark.reason for remark in missed)


@pytest.mark.parametrize("name", NAMES)
def test_folding_leaves_the_callers_model_as_it_was(name):
    _, (weights, config, outputs), after = folded(name)
    assert_same_arrays(after[0], weights)
    assert after[1] == config
    np.testing.assert_array_equal(after[2], outputs)


@pytest.mark.parametrize("name", [pytest.param("MobileNetV2", marks=pytest.mark.xdist_group("MobileNetV2"))])
def test_every_fold_proves_itself(name):
    result = tfpasses.run(zoo.build(name), "fold-batch-norms", verify="numeric")
    assert len(result.verdicts) == FOLDED[name] + 1
    assert all(verdict.ok for verdict in result.verdicts)
