"""Folding in random functional models: the function and the caller's model are kept, and every batch norm that stays is explained."""

from __future__ import annotations

import keras
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

import zoo
from fold_check import assert_fold
from in_float64 import truth
from random_models import POLICIES, REPEATABLE, build, inputs_for, plans

SHARES = 4
"""Into how many tests the ten thousand models of `make test-all` are divided."""

options = st.sampled_from(
    ["", "", "", "{direction=backward}", "{direction=forward}", "{standalone=affine}", "{direction=backward standalone=affine}"]
)
levels = st.sampled_from(["shapes", "shapes", "shapes", "shapes", "numeric"])


def assert_random_model_folds(plan, options, verify):
    model = build(plan)
    unit = POLICIES[plan.policy]
    assert_fold(model, inputs_for(model, plan.rank, plan.first), unit, f"fold-batch-norms{options}", verify)


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
    x = inputs_for(model, plan.rank, plan.first)
    for ours, theirs in zip(truth(model, x), keras.tree.flatten(zoo.float64_outputs(model, x)), strict=True):
        assert zoo.relative_error(ours, theirs) <= 2.0**-44
