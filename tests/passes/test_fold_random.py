"""Folding in random functional models: the function and the caller's model are kept, and every batch norm that stays is explained."""

from __future__ import annotations

import itertools

import keras
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

import tfpasses
import zoo
from fold_check import assert_fold
from in_float64 import truth
from random_models import POLICIES, REPEATABLE, build, input_shape, inputs_for, plans
from tfpasses.graph import has_trait

SHARES = 4
"""Into how many tests the ten thousand models of `make test-all` are divided."""

options = st.sampled_from(
    ["", "", "", "{direction=backward}", "{direction=forward}", "{standalone=affine}", "{direction=backward standalone=affine}", "only"]
)
levels = st.sampled_from(["shapes", "shapes", "shapes", "shapes", "numeric"])


def assert_random_model_folds(plan, options, verify):
    model = build(plan)
    unit, x = POLICIES[plan.policy], inputs_for(model, input_shape(plan))
    if options != "only":
        assert_fold(model, x, unit, f"fold-batch-norms{options}", verify)
        return
    for rewrite in tfpasses.run(model, "fold-batch-norms", verify="off").rewrites[:1]:
        if rewrite.rule != "merge":
            result = assert_fold(model, x, unit, f'fold-batch-norms{{only="{pairs_of(rewrite, tfpasses.from_keras(model))}"}}', verify)
            assert (rewrite.rule, rewrite.removed) in [(one.rule, one.removed) for one in result.rewrites]


def pairs_of(rewrite, graph):
    """The layers of one fold, as `only=` takes them."""
    linears, norms = ([graph.nodes[name] for name in names] for names in (rewrite.changed, rewrite.removed))
    pairs = itertools.product([linear for linear in linears if has_trait(linear, "linear")], norms)
    return " ".join(f"{linear.owner.layer}:{norm.owner.layer}" for linear, norm in pairs)


@settings(REPEATABLE, max_examples=100)
@given(plans(), options, levels)
def test_random_models(plan, options, verify):
    assert_random_model_folds(plan, options, verify)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_ten_thousand_random_models(share):
    @seed(share)
    @settings(REPEATABLE, derandomize=False, max_examples=10_000 // SHARES)
    @given(plans(6), options, levels)
    def all_fold(plan, options, verify):
        assert_random_model_folds(plan, options, verify)

    all_fold()


@settings(REPEATABLE, max_examples=10)
@given(plans())
def test_the_truth_is_that_of_the_zoo(plan):
    model = build(plan)
    x = inputs_for(model, input_shape(plan))
    for ours, theirs in zip(truth(model, x), keras.tree.flatten(zoo.float64_outputs(model, x)), strict=True):
        assert zoo.relative_error(ours, theirs) <= 2.0**-44
