"""Random functional models, batch norms folded in place: both models compute what the one did, and no layer is anybody else's."""

from __future__ import annotations

import pytest
from hypothesis import given, seed, settings

from eager_groups import eager_groups
from fold_check import assert_near, looks
from in_float64 import outputs, truth
from random_models import POLICIES, REPEATABLE, build, input_shape, inputs_for, plans
from tfpasses.passes.aimet.keras.batch_norm_fold import fold_all_batch_norms


def assert_random_model_folds(plan):
    original, model = build(plan), build(plan)
    unit, x = POLICIES[plan.policy], inputs_for(original, input_shape(plan))
    with eager_groups():
        own, exact = outputs(original, x), truth(original, x)
        pairs, new = fold_all_batch_norms(model)
        for one in (model, new):
            assert looks(one) == looks(original)
            assert one.output_names == original.output_names
            assert_near(outputs(one, x), own, exact, original, x, unit)
    known = {id(layer) for layer in model._flatten_layers()}
    folded = {id(bn) for _, bn in pairs}
    inside = {id(layer) for layer in new._flatten_layers()}
    assert not folded & inside
    assert {id(layer) for pair in pairs for layer in pair} <= known
    assert all(id(layer) in known for layer in new._flatten_layers() if layer.weights and not hasattr(layer, "layers"))


@settings(REPEATABLE, max_examples=40)
@given(plans())
def test_random_models(plan):
    assert_random_model_folds(plan)


@pytest.mark.slow
def test_two_thousand_random_models():
    @seed(5)
    @settings(REPEATABLE, derandomize=False, max_examples=2000)
    @given(plans(6))
    def all_fold(plan):
        assert_random_model_folds(plan)

    all_fold()
