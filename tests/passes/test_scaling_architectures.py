"""The architectures of keras.applications whose activations a scale passes through: their function is kept, and the ranges become equal."""

from __future__ import annotations

import numpy as np
import pytest

import tfpasses
import zoo
from graph_defs import compute, frozen
from tfpasses.passes.equalization.channels import Channels

NAMES = (
    *("MobileNet", "MobileNetV2", "VGG16", "VGG19", "Xception", "InceptionV3", "InceptionResNetV2", "NASNetMobile", "NASNetLarge"),
    *(f"DenseNet{depth}" for depth in (121, 169, 201)),
    *(f"ResNet{depth}{kind}" for depth in (50, 101, 152) for kind in ("", "V2")),
)
QUICK = ("MobileNet",)
"""Those that take a few seconds."""
PIPELINE = "fold-batch-norms,fold-constant-channels,cross-layer-scaling{tolerance=0.0009 sweeps=3000}"
FACTOR = 4
CLOSE = 1e-3


def names():
    return [pytest.param(name, marks=[pytest.mark.xdist_group(name), *([] if name in QUICK else [pytest.mark.slow])]) for name in NAMES]


def ranges(graph, channels):
    """The largest magnitude that the kernels have which give a class of channels, and of those which read it, in float64."""
    gives, reads = np.zeros(channels.count), np.zeros(channels.count)
    for kernel in channels.kernels:
        array = np.abs(np.asarray(graph.weights[graph.nodes[kernel.nodes[0]].params[kernel.view.slot]], np.float64))
        taps = array.max(axis=tuple(range(array.ndim - 2)))  # [in, out], [in, multiplier], [in/groups, out] or, transposed, [out, in]
        if kernel.view.depthwise:
            found = taps.max(axis=1), taps.reshape(-1)
        elif kernel.view.transposed:
            found = taps.max(axis=0), taps.max(axis=1)
        else:
            parts = np.split(taps, kernel.view.groups, axis=1)
            found = np.concatenate([part.max(axis=1) for part in parts]), taps.max(axis=0)
        np.maximum.at(reads, kernel.ins, found[0])
        np.maximum.at(gives, kernel.outs, found[1])
    return gives, reads


def assert_equalized(result):
    """Where a class has two ranges, and its scale is free, they are equal."""
    channels = Channels.of(result.graph, True)
    gives, reads = ranges(result.graph, channels)
    (summary,) = [remark for remark in result.remarks if "sweeps" in remark.reason]
    assert not summary.remedy, summary  # it did not run out of sweeps
    both = (channels.fixed < 0) & (gives > 0) & (reads > 0)
    in_depth = np.zeros(channels.count, bool)  # of a row of layers in which one has nothing of a channel nothing is asked
    for kernel in channels.kernels:
        if kernel.view.depthwise and kernel.view.shape[2] == 1:
            idle = (gives[kernel.ins] == 0) | (reads[kernel.ins] == 0) | (gives[kernel.outs] == 0) | (reads[kernel.outs] == 0)
            in_depth[kernel.ins[idle]] = in_depth[kernel.outs[idle]] = True
    asked = both & ~in_depth
    assert asked.sum() > channels.count / 4
    assert np.abs(gives[asked] / reads[asked] - 1).max() <= CLOSE


@pytest.mark.parametrize("name", names())
def test_both_frontends_keep_the_function_and_make_the_ranges_equal(name, record_property):
    model, images = zoo.build(name), zoo.typical(name, 4)
    truth = zoo.float64_outputs(model, images)
    in_keras = tfpasses.run(model, PIPELINE)
    assert_equalized(in_keras)
    own, new = (zoo.relative_error(np.asarray(one(images, training=False)), truth) for one in (model, in_keras.model))
    record_property("in Keras", new / own)
    assert new <= FACTOR * own
    definition = frozen(model)
    in_graph = tfpasses.run(definition, PIPELINE)
    assert_equalized(in_graph)
    own, new = (zoo.relative_error(compute(one, {"in_0": images}, ["Identity"])[0], truth) for one in (definition, in_graph.model))
    record_property("in a graph", new / own)
    assert new <= FACTOR * own
