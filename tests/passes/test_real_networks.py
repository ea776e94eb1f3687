"""Two trained networks on real pictures, where they are at hand: see ../shared/real/README.md."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from keras import layers as L

import tfpasses
import zoo

REAL = Path(__file__).parents[3] / "shared" / "real" / "networks.py"
EVERY = 14
"""Every so manieth of 500 pictures is taken: three dozen."""

pytestmark = pytest.mark.skipif(not REAL.exists(), reason="the trained networks (../shared/real) are not at hand")


@cache
def networks():
    spec = importlib.util.spec_from_file_location("real_networks", REAL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def network(name):
    """The model, its folded self, and pictures."""
    model, preprocess = getattr(networks(), name)()
    x, _ = networks().images(preprocess, every=EVERY)
    return model, tfpasses.run(model, "fold-batch-norms"), x


NAMES = {"mobilenet_v2": 52, "mobilenet_v1_050": 27}
CASES = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in NAMES]


@pytest.mark.parametrize("name", CASES)
def test_all_batch_norms_fold(name):
    _, result, _ = network(name)
    assert len(result.rewrites) == NAMES[name]
    assert not any(isinstance(layer, L.BatchNormalization) for layer in result.model.layers)


@pytest.mark.parametrize("name", CASES)
def test_every_picture_keeps_its_class(name):
    model, result, x = network(name)
    before, after = (m.predict(x, batch_size=36, verbose=0) for m in (model, result.model))
    np.testing.assert_array_equal(before.argmax(-1), after.argmax(-1))


@pytest.mark.parametrize("name", CASES)
def test_the_logits_are_as_near_to_the_truth_as_before(name, record_property):
    model, result, x = network(name)
    truth = zoo.float64_outputs(model, x[:8])
    own = zoo.relative_error(model(x[:8], training=False), truth)
    new = zoo.relative_error(result.model(x[:8], training=False), truth)
    record_property("ratio", new / own)
    assert new <= 4 * own
