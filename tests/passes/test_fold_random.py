"""Folding over random small chains: whatever the layers, the function is kept and exactly those fold that an independent reader says."""

from __future__ import annotations

from itertools import pairwise

import keras
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers as L

import tfpasses
import zoo
from fold_cases import batch, bite

LAYERS = {
    "conv": lambda bias: L.Conv2D(5, 3, padding="same", use_bias=bias),
    "grouped": lambda bias: L.Conv2D(4, 1, use_bias=bias),
    "depthwise": lambda bias: L.DepthwiseConv2D(3, padding="same", use_bias=bias),
    "transpose": lambda bias: L.Conv2DTranspose(3, 2, use_bias=bias),
    "separable": lambda bias: L.SeparableConv2D(4, 3, padding="same", use_bias=bias),
    "dense": lambda bias: L.Dense(6, use_bias=bias),
    "norm": lambda bias: L.BatchNormalization(scale=bias),
    "other norm": lambda bias: L.BatchNormalization(center=bias),
    "relu": lambda bias: L.ReLU(),
    "tanh": lambda bias: L.Activation("tanh"),
    "dropout": lambda bias: L.Dropout(0.3),
    "noise": lambda bias: L.GaussianNoise(0.3),
    "identity": lambda bias: L.Identity(),
    "pool": lambda bias: L.AveragePooling2D(2, strides=1, padding="same"),
}

steps = st.lists(st.tuples(st.sampled_from([*LAYERS, "norm", "norm"]), st.booleans(), st.integers(0, 5)), min_size=2, max_size=7)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(steps, st.integers(0, 2**16))
def test_random_chains(chosen, seed):
    x = y = keras.Input((5, 5, 4), name="x")
    taps = []
    for name, bias, tap in chosen:
        y = LAYERS[name](bias)(y)
        if tap == 0:
            taps.append(y)
    model = bite(keras.Model(x, [y, *taps]), seed)
    result = tfpasses.run(model, "fold-batch-norms", verify="numeric")
    assert all(verdict.ok for verdict in result.verdicts)
    left = [layer for layer in result.model._flatten_layers() if isinstance(layer, L.BatchNormalization)]
    assert len(left) == sum("norm" in name for name, *_ in chosen) - len(result.rewrites)
    assert len([remark for remark in result.remarks if remark.kind == "missed"]) == len(left)
    assert zoo.fold_count(model) <= len(result.rewrites) <= zoo.fold_count(model) + chained(chosen)
    values = batch(model, size=3)
    ours, theirs, truth = (
        keras.tree.flatten(f)
        for f in (result.model(values, training=False), model(values, training=False), zoo.float64_outputs(model, values))
    )
    for new, old, exact in zip(ours, theirs, truth, strict=True):
        own = zoo.relative_error(np.asarray(old), exact)
        assert zoo.relative_error(np.asarray(new), exact) <= 4 * max(own, 2.0**-24)


def chained(chosen):
    """Norms behind a norm with no-ops between them: those fold too, once the first has."""
    quiet = {"dropout", "noise", "identity"}
    names = [name for name, *_ in chosen if name not in quiet]
    return sum("norm" in a and "norm" in b for a, b in pairwise(names))
