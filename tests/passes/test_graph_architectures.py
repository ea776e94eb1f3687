"""The architectures of keras.applications as operations of TensorFlow, frozen and in SavedModels: what folds in Keras folds there."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

import attrs
import numpy as np
import pytest
import tensorflow as tf

import tfpasses
import zoo
from graph_defs import compute, frozen

QUICK = ("MobileNetV2", "MobileNetV3Small")
"""Those that take a few seconds each."""
SAVED = ("MobileNetV3Small",)
"""Those of them whose SavedModels do so as well."""
FOLD = "fold-batch-norms"
FACTOR = 4


def export(model, folder):
    """As `model.export` does, which traces the model for inference."""
    model.export(folder, verbose=False)


def save(model, folder):
    """As TensorFlow does, which keeps the model's attributes and functions for training beside its signature."""
    tf.saved_model.save(model, folder)


WAYS = {"model.export": export, "tf.saved_model.save": save}


@attrs.define(slots=False)
class Case:
    """One architecture, and what its tests share."""

    name: str

    @cached_property
    def model(self):
        return zoo.build(self.name)

    @cached_property
    def images(self):
        return zoo.typical(self.name, 4)

    @cached_property
    def truth(self):
        return zoo.float64_outputs(self.model, self.images)

    @cached_property
    def folds(self):
        """How many batch norms fold by each rule, through the Keras frontend."""
        return folds(tfpasses.run(self.model, FOLD))


def names(quick):
    return [
        pytest.param(name, marks=[pytest.mark.xdist_group(name), *([] if name in quick else [pytest.mark.slow])])
        for name in zoo.APPLICATIONS
    ]


@pytest.fixture(scope="module")
def case(request):
    """Of the module's scope, so that all tests of one architecture follow each other, and it goes before the next one comes."""
    return Case(request.param)


def folds(result):
    """How many rewrites of folding there were, by rule; raising has its own."""
    return Counter(rewrite.rule for record in result.journal if record.pass_.name == FOLD for rewrite in record.journal)


def assert_all_fold(case, result):
    """As many as in Keras, by each rule, and each that stays is one that stays there, with a reason."""
    row = zoo.APPLICATIONS[case.name]
    left = [node.name for node in result.graph.nodes.values() if node.op == "BatchNorm"]
    missed = [remark for remark in result.remarks if remark.kind == "missed"]
    assert folds(result) == case.folds
    assert case.folds.total() == row.foldable + row.forward + row.scale_only
    assert len(left) == row.batch_norms - row.foldable - row.forward - row.scale_only
    assert sorted(remark.node for remark in missed) == sorted(left)
    assert all(remark.reason for remark in missed)


def assert_function_kept(case, old, new, record_property):
    """What the rewritten one computes is at most `FACTOR` times as far from the truth as what the original computes."""
    own, rewritten = (zoo.relative_error(values, case.truth) for values in (old, new))
    record_property("own error", own)
    record_property("ratio", rewritten / own)
    assert rewritten <= FACTOR * own


@pytest.mark.parametrize("case", names(QUICK), indirect=True)
def test_a_frozen_graph_folds_as_the_model_does(case, record_property):
    definition = frozen(case.model)
    result = tfpasses.run(definition, FOLD)
    assert_all_fold(case, result)
    old, new = (compute(one, {"in_0": case.images}, ["Identity"])[0] for one in (definition, result.model))
    assert_function_kept(case, old, new, record_property)


def called(folder, images):
    """What the one signature of a SavedModel's folder gives."""
    loaded = tf.saved_model.load(folder)
    signature = loaded.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    (value,) = signature(**{name: tf.constant(images)}).values()
    return np.asarray(value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", names(SAVED), indirect=True)
def test_a_saved_model_folds_as_the_model_does(case, way, tmp_path, record_property):
    before, after = str(tmp_path / "before"), str(tmp_path / "after")
    WAYS[way](case.model, before)
    result = tfpasses.run(before, FOLD)
    assert_all_fold(case, result)
    tfpasses.save(result, after)
    assert_function_kept(case, called(before, case.images), called(after, case.images), record_property)
