"""Layers over images whose sizes only the graph that runs knows: TensorFlow computes shapes and paddings, and raising reads how."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from fold_cases import bite
from graph_defs import built, canonical, compute, draw, frozen, ops_of, passed
from tfpasses.frontends.graph_def import from_graph_def, to_graph_def
from tfpasses.graph import Edit, Ref, check_shapes
from tfpasses.passes.raising.sums import elements_of

C = 4
LAYERS = {
    "dense of rank 3": (L.Dense(3), 1),
    "dense of rank 4": (L.Dense(3), 2),
    "conv1d dilated": (L.Conv1D(3, 3, dilation_rate=2), 1),
    "conv1d dilated same": (L.Conv1D(3, 4, dilation_rate=3, padding="same"), 1),
    "conv2d dilated": (L.Conv2D(3, 3, dilation_rate=(2, 1)), 2),
    "conv2d dilated same": (L.Conv2D(3, (3, 2), dilation_rate=2, padding="same"), 2),
    "conv3d dilated": (L.Conv3D(3, 2, dilation_rate=2), 3),
    "depthwise dilated same": (L.DepthwiseConv2D(3, dilation_rate=2, padding="same"), 2),
    "transposed 1d": (L.Conv1DTranspose(3, 3, strides=2), 1),
    "transposed 2d same": (L.Conv2DTranspose(3, 3, strides=2, padding="same"), 2),
    "transposed 2d valid": (L.Conv2DTranspose(3, 2, strides=(3, 1)), 2),
    "transposed 2d output padding": (L.Conv2DTranspose(3, 3, strides=2, padding="same", output_padding=1), 2),
    "transposed 3d": (L.Conv3DTranspose(3, 2, strides=2), 3),
}
"""Layers, and over how many axes they go."""
KINDS = {"dense": "Dense", "conv": "Conv", "depthwise": "DepthwiseConv", "transposed": "ConvTranspose"}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_raised_to_what_it_is_and_folds(name):
    layer, rank = LAYERS[name]
    kind = next(op for start, op in KINDS.items() if name.startswith(start))
    x = keras.Input((*[None] * rank, C), name="x")
    model = bite(keras.Model(x, L.ReLU()(L.BatchNormalization()(layer(x)))))
    definition = frozen(model)
    graph = canonical(definition)
    check_shapes(graph)
    assert ops_of(graph) == [kind, "BatchNorm", "Relu"]
    assert sorted(map(str, to_graph_def(graph).node)) == sorted(map(str, definition.node))
    folded = passed(from_graph_def(definition), "canonicalize,fold-batch-norms")
    assert ops_of(folded) == [kind, "Relu"]
    for sizes in [(9, 11, 8)[:rank], (12, 9, 7)[:rank]]:
        values = draw(2, *sizes, C)
        (old,), (new,) = (compute(one, {"in_0": values}, ["Identity"]) for one in (definition, to_graph_def(folded)))
        assert np.abs(old).max() > 0.1
        assert np.abs(old - new).max() <= 1e-5 * np.abs(old).max()


# what must not be raised, because ..


def kernel(*shape):
    return tf.constant(draw(*shape))


def test_a_transposed_convolution_to_the_size_of_another_value_has_no_stride_of_its_own():
    def build(x, y):
        sizes = tf.concat([tf.shape(y)[:3], [3]], 0)
        return tf.nn.conv2d_transpose(x, kernel(3, 3, 3, C), sizes, 2)

    assert ops_of(canonical(built(build, x=(None, None, None, C), y=(None, None, None, C))))[-1] == "tf.Conv2DBackpropInput"


def test_a_transposed_convolution_to_a_size_that_goes_with_the_wrong_axis():
    def build(x):
        batch, height, width = (tf.shape(x)[place] for place in range(3))
        return tf.nn.conv2d_transpose(x, kernel(2, 2, 3, C), tf.stack([batch, width * 2, height * 2, 3]), 2)

    assert ops_of(canonical(built(build, x=(None, None, None, C))))[-1] == "tf.Conv2DBackpropInput"


def test_rows_that_are_put_back_to_other_axes_are_no_dense_layer():
    def build(x):
        rows = tf.matmul(tf.reshape(x, [-1, C]), kernel(C, 3))
        batch, height, width = (tf.shape(x)[place] for place in range(3))
        return tf.reshape(rows, tf.stack([batch, width, height, 3]))

    assert ops_of(canonical(built(build, x=(None, None, None, C))))[-1] == "tf.Reshape"


@pytest.mark.parametrize("crops", [[[0, 1]], [[1, 0]]], ids=["crops what was read", "crops in front"])
def test_space_to_batch_that_pads_and_crops_unlike_is_no_dilation(crops):
    def build(x):
        more = tf.math.floormod(-tf.shape(x)[1], 2)
        y = tf.space_to_batch_nd(x, [2], tf.reshape(tf.stack([0, more]), [1, 2]))
        return tf.batch_to_space(tf.nn.conv1d(y, kernel(2, C, 3), 1, "VALID"), [2], crops)

    assert ops_of(canonical(built(build, x=(None, None, C))))[-1] == "tf.BatchToSpaceND"


# sums


def elements(build, **inputs):
    """The elements of what `build` gives, as texts: constants, and unknown numbers as often as they are counted."""
    edit = Edit(from_graph_def(built(build, **inputs), outputs=["out"]))
    found = elements_of(Ref("out"), edit)
    return None if found is None else np.vectorize(lambda one: (one.constant, *one.terms.values()), otypes=[object])(found).tolist()


def test_known_sizes_are_constants_and_others_count_themselves():
    assert elements(tf.shape, input=(None, 7, None)) == [(0, 1), (7,), (0, 1)]


def test_the_same_number_added_and_taken_away_is_gone():
    assert elements(lambda x: tf.shape(x)[1:2] * 3 + 5 - tf.shape(x)[1:2] * 3, x=(None, None)) == [(5,)]


def test_a_product_of_two_unknown_numbers_is_a_number_of_its_own():
    assert elements(lambda x: tf.shape(x)[0] * tf.shape(x)[1] + 2, x=(None, None)) == (2, 1)


def test_what_is_put_together_and_taken_apart_stays_what_it_was():
    def build(x):
        sizes = tf.concat([tf.stack([[4, tf.shape(x)[1]]]), [[1, 2]]], 0)
        return tf.gather(sizes[::-1], [1, 1], axis=1)

    assert elements(build, x=(None, None)) == [[(2,), (2,)], [(0, 1), (0, 1)]]


def test_a_value_of_unknown_rank_has_no_elements_that_could_be_told():
    assert elements(tf.shape, input=None) is None


def test_doubling_a_number_again_and_again_is_looked_along_for_some_steps_only():
    def build(x):
        number = tf.shape(x)[:1]
        for _ in range(200):
            number = number + number
        return number

    ((constant, count),) = elements(build, x=(None,))
    assert constant == 0
    assert count < 2**64
