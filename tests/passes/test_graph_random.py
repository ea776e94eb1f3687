"""Random functional models as TensorFlow's operations: what folds in Keras folds there, and the function is kept."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, seed, settings
from hypothesis import strategies as st

import tfpasses
from eager_groups import eager_groups
from fold_check import assert_explained, assert_near
from graph_defs import compute, concrete, frozen
from in_float64 import truth
from random_models import POLICIES, REPEATABLE, build, input_shape, inputs_for, plans

SHARES = 4
"""Into how many tests the models of `make test-all` are divided."""
FOLD = "fold-batch-norms"

options = st.sampled_from(["", "", "", "{direction=backward}", "{direction=forward}", "{standalone=affine}"])
levels = st.sampled_from(["shapes", "shapes", "shapes", "numeric"])
forms = st.sampled_from(["frozen", "frozen", "function"])


def differs_by_nature(plan):
    """Whether a graph does not say what decides in Keras: a layer called with training=True is as any other in a graph for inference; a
    causal convolution is a padding and a convolution, between which and a Reshape nothing folds.
    """
    text = repr(plan)
    return "training=True" in text or ("padding='causal'" in text and "Shape(" in text)


def casts(plan, result):
    """Whether a batch norm has a dtype of its own, or stays in Keras because it, or a layer beside it, changes the dtype. In a graph casts
    are nodes of their own, and what lies between them folds.
    """
    reasons = ("a cast that", "it computes in", "in another dtype")
    return "dtype='" in repr(plan) or any(reason in remark.reason for remark in result.remarks for reason in reasons)


def folds(result):
    """How many rewrites of folding there were, by rule; raising has its own."""
    return Counter(rewrite.rule for record in result.journal if record.pass_.name == FOLD for rewrite in record.journal)


def called(form, model, x, count):
    """The outputs of a GraphDef, or of a function of arrays."""
    if form == "function":
        with plainly():
            return [np.asarray(value) for value in model(*map(tf.constant, x))]
    names = ["Identity", *(f"Identity_{number}" for number in range(1, count))]
    return compute(model, {f"in_{number}": value for number, value in enumerate(x)}, names)


@contextmanager
def plainly():
    """Within the block TensorFlow runs functions operation by operation, as `compute` does."""
    before = tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})


def assert_same_through_both(plan, options, verify, form):
    assume(not differs_by_nature(plan))
    model = build(plan)
    unit, x = POLICIES[plan.policy], inputs_for(model, input_shape(plan))
    pipeline = f"{FOLD}{options}"
    in_keras = tfpasses.run(model, pipeline, verify="off")
    source = concrete(model) if form == "function" else frozen(model)
    result = tfpasses.run(source, pipeline, verify=verify)
    assert all(verdict.ok for verdict in result.verdicts)
    assert_explained(result)
    found, expected = folds(result), folds(in_keras)
    if casts(plan, in_keras):
        assert found.total() >= expected.total()
    elif "merge" in expected:  # of two batch norms in a row, below a linear layer, which one goes first is a matter of the nodes' order
        assert found.total() == expected.total()
    else:
        assert found == expected
    own, new = (called(form, one, x, len(result.graph.outputs)) for one in (source, result.model))
    with eager_groups():
        assert_near(new, own, truth(model, x), model, x, unit)


@settings(REPEATABLE, max_examples=150)
@given(plans(), options, levels, forms)
def test_random_models(plan, options, verify, form):
    assert_same_through_both(plan, options, verify, form)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_thousands_of_random_models(share):
    @seed(share)
    @settings(REPEATABLE, derandomize=False, max_examples=4_000 // SHARES)
    @given(plans(6), options, levels, forms)
    def all_are_the_same(plan, options, verify, form):
        assert_same_through_both(plan, options, verify, form)

    all_are_the_same()
