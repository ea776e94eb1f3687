"""The architectures of keras.applications: what goes through unchanged is equal bit by bit, and folding keeps the function."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

import attrs
import keras
import numpy as np
import pytest
from keras import layers as L

import tfpasses
import zoo
from keras_same import arrays_of, assert_same_arrays

NAMES = [
    pytest.param(name, marks=[pytest.mark.xdist_group(name), *([pytest.mark.slow] if row.slow else [])])
    for name, row in zoo.APPLICATIONS.items()
]


@attrs.define(slots=False)
class Case:
    """One architecture, and what its tests share."""

    name: str

    @cached_property
    def model(self):
        return zoo.build(self.name)

    def look(self):
        """The caller's model: weights, configuration, outputs."""
        x = zoo.inputs(self.name, 1, seed=7)
        return arrays_of(self.model), keras.tree.flatten(self.model.get_config()), np.asarray(self.model(x, training=False))

    @cached_property
    def folded(self):
        """The result, and the caller's model before and after."""
        before = self.look()
        result = tfpasses.run(self.model, "fold-batch-norms")
        return result, before, self.look()


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    """Of the module's scope, so that all tests of one architecture follow each other, and it goes before the next one comes."""
    return Case(request.param)


def batch_norms(model):
    return [layer.name for layer in model._flatten_layers() if isinstance(layer, L.BatchNormalization)]


def test_without_passes_the_model_leaves_as_it_came(case):
    model, x = case.model, zoo.inputs(case.name, 2, seed=3)
    again = tfpasses.from_keras(model).to_keras()
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    np.testing.assert_array_equal(again(x, training=False), model(x, training=False))


def test_folding_keeps_the_function(case, record_property):
    model, x = case.model, zoo.typical(case.name, 4)
    truth = zoo.float64_outputs(model, x)
    own = zoo.relative_error(model(x, training=False), truth)
    new = zoo.relative_error(case.folded[0].model(x, training=False), truth)
    record_property("own error", own)
    record_property("ratio", new / own)
    assert new <= 4 * own


def test_every_batch_norm_that_can_fold_folds(case):
    result, row = case.folded[0], zoo.APPLICATIONS[case.name]
    rules = Counter(rewrite.rule for rewrite in result.rewrites)
    assert rules == Counter(fold.kind for fold in zoo.fold_scan(case.model))
    assert rules["backward"] + rules["concat"] == row.foldable
    assert (rules["forward"], rules["scale"]) == (row.forward, row.scale_only)
    assert len(batch_norms(case.model)) == row.batch_norms
    assert len(batch_norms(result.model)) == row.batch_norms - row.foldable - row.forward - row.scale_only


def test_every_batch_norm_that_stays_has_a_remark_with_a_reason(case):
    result = case.folded[0]
    missed = [remark for remark in result.remarks if remark.kind == "missed"]
    assert sorted(remark.node for remark in missed) == sorted(batch_norms(result.model))
    assert all(remark.reason for remark in missed)


def test_folding_leaves_the_callers_model_as_it_was(case):
    _, (weights, config, outputs), after = case.folded
    assert_same_arrays(after[0], weights)
    assert after[1] == config
    np.testing.assert_array_equal(after[2], outputs)


@pytest.mark.parametrize("name", [pytest.param("MobileNetV2", marks=pytest.mark.xdist_group("MobileNetV2"))])
def test_every_fold_proves_itself(name):
    result = tfpasses.run(zoo.build(name), "fold-batch-norms", verify="numeric")
    assert len(result.verdicts) == zoo.APPLICATIONS[name].foldable + 1
    assert all(verdict.ok for verdict in result.verdicts)
