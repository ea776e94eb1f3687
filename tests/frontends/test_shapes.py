"""The shape rules of the canonical operations against Keras's own, over many configurations."""

from __future__ import annotations

import keras
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from keras import Input, Model
from keras import layers as L

from keras_layers import CANONICAL
from tfpasses.frontends.keras import from_keras
from tfpasses.frontends.keras.layers import kind_of
from tfpasses.graph import Node
from tfpasses.graph.shapes import infer_shape

sizes = st.one_of(st.none(), st.integers(5, 12))
many = settings(max_examples=40, deadline=None)


def assert_shapes_agree(model: keras.Model) -> None:
    graph = from_keras(model)
    for node in graph.nodes.values():
        shapes = [graph.spec(ref).shape for ref in node.inputs]
        inferred = infer_shape(node, shapes, {slot: array.shape for slot, array in graph.params(node).items()})
        assert inferred is None or inferred == node.specs[0].shape, node


def of(layer: keras.Layer, *shapes: tuple[int | None, ...]) -> keras.Model:
    inputs = [Input(shape) for shape in shapes]
    return Model(inputs, layer(inputs if len(inputs) > 1 else inputs[0]))


@pytest.mark.parametrize("case", CANONICAL)
def test_a_layer_has_the_shape_that_keras_says(case):
    assert_shapes_agree(CANONICAL[case].model())


@pytest.mark.parametrize(
    "case", [case for case, entry in CANONICAL.items() if len(entry.shape) > 1 and "flatten" not in case and case != "prelu"]
)
def test_a_layer_on_unknown_sizes_has_the_shape_that_keras_says(case):
    entry = CANONICAL[case]
    axis = 0 if "channels first" in case or case == "batch norm axis 1" else -1
    shape = tuple(size if position == axis % len(entry.shape) else None for position, size in enumerate(entry.shape))
    if case == "reshape":
        shape = (None, 4, 3)
    assert_shapes_agree(of(entry.make(), *[shape] * entry.inputs))


@st.composite
def images(draw: st.DrawFn, first: bool) -> tuple[int | None, ...]:
    spatial, channels = (draw(sizes), draw(sizes)), draw(st.sampled_from([2, 4]))
    return (channels, *spatial) if first else (*spatial, channels)


@many
@given(
    st.data(),
    st.booleans(),
    st.sampled_from(["same", "valid"]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_convolutions(data, first, padding, stride, rate, kernel):
    assume(stride == 1 or rate == 1)
    shape = data.draw(images(first))
    span = [(size - 1) * rate + 1 for size in kernel]
    assume(padding == "same" or all(n is None or n >= s for n, s in zip(shape[1:] if first else shape[:-1], span, strict=True)))
    options = {"strides": stride, "padding": padding, "dilation_rate": rate, "data_format": "channels_first" if first else "channels_last"}
    for layer in (
        L.Conv2D(6, kernel, groups=data.draw(st.sampled_from([1, 2])), **options),
        L.DepthwiseConv2D(kernel, depth_multiplier=2, **options),
        L.SeparableConv2D(3, kernel, **options),
    ):
        layer.build((None, *shape))
        assert_same_as_compute_output_shape(layer, shape)


@many
@given(
    st.data(),
    st.booleans(),
    st.sampled_from(["same", "valid"]),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 4),
    st.sampled_from([None, 0, 1]),
)
def test_transposed_convolutions(data, first, padding, stride, rate, kernel, extra):
    assume(stride == 1 or rate == 1)
    assume(extra is None or extra < stride)
    shape = data.draw(images(first))
    options = {"strides": stride, "padding": padding, "dilation_rate": rate, "output_padding": extra}
    layer = L.Conv2DTranspose(5, kernel, data_format="channels_first" if first else "channels_last", **options)
    layer.build((None, *shape))
    assert_same_as_compute_output_shape(layer, shape)


@many
@given(st.data(), st.booleans(), st.sampled_from(["same", "valid"]), st.integers(1, 3), st.integers(1, 4))
def test_pools(data, first, padding, stride, size):
    shape = data.draw(images(first))
    for kind in (L.MaxPooling2D, L.AveragePooling2D):
        layer = kind(size, stride, padding, data_format="channels_first" if first else "channels_last")
        assert_same_as_compute_output_shape(layer, shape)


@many
@given(st.lists(st.tuples(sizes, sizes), min_size=2, max_size=3), st.integers(1, 2))
def test_concatenations(pairs, axis):
    other = 2 - axis
    shapes = [tuple(pairs[0][other] if position == other else size for position, size in enumerate(pair)) for pair in pairs]
    layer = L.Concatenate(axis=axis)
    assert_same_as_compute_output_shape(layer, *shapes)


@many
@given(st.lists(st.sampled_from([1, 5, None]), min_size=1, max_size=3), st.lists(st.sampled_from([1, 5, None]), min_size=1, max_size=3))
def test_broadcast_joins(a, b):
    """Where an unknown size meets 5, Keras says unknown; but it can only be 5 or 1, so the sum's is 5."""
    assume(len(a) == len(b))
    node, shapes = Node("n", "Add"), [(None, *a), (None, *b)]
    for x, y, mine, keras_says in zip(*shapes, infer_shape(node, shapes, {}), L.Add().compute_output_shape(shapes), strict=True):
        assert mine == keras_says or (keras_says is None and mine == 5 and {x, y} == {None, 5})


@many
@given(st.sampled_from([(12,), (3, -1), (-1,), (2, 6), (-1, 4), (2, 2, 3)]), st.sampled_from([(3, 4), (12,), (2, 3, 2), (None, 4)]))
def test_reshapes(target, shape):
    assume(None not in shape or -1 in target)
    assert_same_as_compute_output_shape(L.Reshape(target), shape)


def assert_same_as_compute_output_shape(layer: keras.Layer, *shapes: tuple[int | None, ...]) -> None:
    """The rule on a node of the layer, whose call is recorded on known sizes, against `compute_output_shape` on the sizes asked for."""
    kind = kind_of(layer)
    assert kind is not None
    params = {
        slot: tuple(getattr(layer, attribute).shape)
        for slot, attribute in kind.weights.items()
        if getattr(layer, attribute, None) is not None
    }
    full = [(None, *shape) for shape in shapes]
    expected = layer.compute_output_shape(full if len(full) > 1 else full[0])
    assert infer_shape(Node("n", kind.op, config=kind.read(layer)), full, params) == tuple(expected)
