"""All architectures of keras.applications bite; what tests/test_zoo.py asks of eight is asked of the others here."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

import zoo
from zoo.lost_betas import effects_of_lost_betas


def _parameter(name: str):
    slow = [pytest.mark.slow] if zoo.APPLICATIONS[name].slow else []
    return pytest.param(name, marks=[pytest.mark.xdist_group(name), *slow])


@pytest.fixture(scope="module", params=[_parameter(name) for name in zoo.APPLICATIONS])
def name(request) -> str:
    """Of the module's scope, so that all tests of one architecture follow each other and it is built once."""
    return request.param


def test_the_table_has_every_architecture_that_keras_has() -> None:
    functions = {name for name, value in vars(keras.applications).items() if inspect.isfunction(value)}
    assert set(zoo.APPLICATIONS) == functions
    assert len(functions) == 40


def test_two_images_give_different_outputs(name: str) -> None:
    first, second = np.asarray(zoo.build(name)(zoo.typical(name, 2), training=False))
    assert zoo.relative_error(first, second) > 0.05


NOT_ASKED_YET = [name for name, row in zoo.APPLICATIONS.items() if row.batch_norms and name not in zoo.ARCHITECTURES]
"""Those with batch norms that tests/test_zoo.py does not ask this of."""


@pytest.mark.parametrize("name", [_parameter(name) for name in NOT_ASKED_YET], indirect=True, scope="module")
def test_every_lost_beta_moves_the_output_by_a_hundred_tolerances(name: str) -> None:
    model, x = zoo.build(name), zoo.typical(name, 2)
    effects = effects_of_lost_betas(model, x)
    assert len(effects) == zoo.APPLICATIONS[name].batch_norms
    least = 100 * zoo.tolerance(model, x)
    assert {path: effect for path, effect in effects.items() if not effect >= least} == {}


def test_the_scan_counts_what_the_architectures_source_says(name: str) -> None:
    row, model = zoo.APPLICATIONS[name], zoo.build(name)
    kinds = [fold.kind for fold in zoo.fold_scan(model)]
    assert sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers) == row.batch_norms
    assert (zoo.fold_count(model), kinds.count("forward"), kinds.count("scale")) == (row.foldable, row.forward, row.scale_only)
