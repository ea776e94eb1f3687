"""cross-layer-scaling where channels meet: sums, concatenations, products, constants, several readers, layers that are used again."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import tfpasses
from cle_by_hand import float64, given_range, read_range, scaled_given, scaled_read
from graphs import graph, node
from scaling_check import assert_close, assert_kept, line, model, scaled, together
from tfpasses.graph import Spec

CONVERGED = "tolerance=0.001 sweeps=1000"
WITHIN = 1e-3


def conv(name, filters=4, kernel=3, **options):
    return L.Conv2D(filters, kernel, padding="same", name=name, **options)


def assert_equal_ranges(new, givers, readers):
    give, read = together(new, givers, readers)
    np.testing.assert_allclose(give, read, rtol=WITHIN)


def missed(result):
    return {remark.node: remark.reason for remark in result.remarks if remark.kind == "missed"}


# several readers


def test_of_several_readers_the_largest_range_counts():
    def build(x):
        y = L.ReLU()(conv("a")(x))
        return [conv("b", 3)(y), L.Dense(2, name="c")(L.GlobalAveragePooling2D()(y))]

    m = model(build)
    first, second, third = (m.get_layer(name) for name in "abc")
    s = np.sqrt(given_range(first) / np.maximum(read_range(second), read_range(third)))
    result = scaled(m, "sweeps=1")
    assert_close(result.model.get_layer("a").kernel, scaled_given(first, s))
    assert_close(result.model.get_layer("b").kernel, scaled_read(second, s))
    assert_close(result.model.get_layer("c").kernel, scaled_read(third, s))
    assert_kept(m, result)


def test_one_reader_that_takes_no_scale_keeps_it_for_all():
    def build(x):
        y = L.ReLU()(conv("a")(x))
        return conv("c")(L.Concatenate()([conv("b")(y), L.Activation("tanh", name="stop")(y)]))

    m = model(build)
    result = scaled(m)
    assert missed(result)["a"] == "its channels keep their scale: stop: it is Tanh, which no scale passes through"
    assert_close(result.model.get_layer("a").kernel, float64(m.get_layer("a").kernel))
    assert_equal_ranges_of_some(result.model, "b", "c", slice(0, 4))
    assert_kept(m, result)


def assert_equal_ranges_of_some(new, giver, reader, where):
    np.testing.assert_allclose(given_range(new.get_layer(giver)), read_range(new.get_layer(reader))[where], rtol=0.02)


# sums


def test_what_an_addition_ties_has_one_scale_a_channel_from_the_largest_ranges():
    m = model(lambda x: conv("d", 3)(L.ReLU()(L.Add()([conv("a")(x), conv("b", 4, 1)(x), conv("c")(x)]))))
    layers = [m.get_layer(name) for name in "abc"]
    last = m.get_layer("d")
    s = np.sqrt(np.max([given_range(layer) for layer in layers], axis=0) / read_range(last))
    result = scaled(m, "sweeps=1")
    for layer in layers:
        assert_close(result.model.get_layer(layer.name).kernel, scaled_given(layer, s))
        assert_close(result.model.get_layer(layer.name).bias, float64(layer.bias) / s)
    assert_close(result.model.get_layer("d").kernel, scaled_read(last, s))
    assert_kept(m, result)


def residual(x):
    """Three blocks on one stream, as in a ResNet; within each, a pair of its own."""
    y = L.ReLU()(conv("stem")(x))
    for number in range(3):
        z = conv(f"up{number}", 6, activation="relu")(y)
        y = L.ReLU()(L.Add()([y, conv(f"down{number}")(z)]))
    return L.Dense(3, name="top")(L.GlobalAveragePooling2D()(y))


def test_a_residual_stream_is_equal_from_one_end_to_the_other():
    m = model(residual)
    result = scaled(m, CONVERGED)
    assert_equal_ranges(result.model, ["stem", "down0", "down1", "down2"], ["up0", "up1", "up2", "top"])
    for number in range(3):
        assert_equal_ranges(result.model, [f"up{number}"], [f"down{number}"])
    assert_kept(m, result)


def inverted(x):
    """Two blocks of a MobileNetV2."""
    y = conv("stem")(x)
    for number in range(2):
        z = conv(f"expand{number}", 8, 1, activation="relu")(y)
        z = L.DepthwiseConv2D(3, padding="same", activation="relu", name=f"depthwise{number}")(z)
        y = L.Add()([y, conv(f"project{number}", 4, 1)(z)])
    return conv("top", 3, 1)(y)


def test_inverted_residuals_are_equal_in_blocks_and_along_the_stream():
    m = model(inverted)
    result = scaled(m, CONVERGED)
    assert_equal_ranges(result.model, ["stem", "project0", "project1"], ["expand0", "expand1", "top"])
    for number in range(2):
        assert_equal_ranges(result.model, [f"expand{number}"], [f"depthwise{number}"])
        assert_equal_ranges(result.model, [f"depthwise{number}"], [f"project{number}"])
    assert_kept(m, result)


@pytest.mark.parametrize("join", [L.Add, L.Subtract, L.Maximum, L.Minimum])
def test_a_scale_passes_through_a_join(join):
    m = model(lambda x: conv("c", 3)(join()([conv("a")(x), L.LeakyReLU()(conv("b")(x))])))
    result = scaled(m, CONVERGED)
    assert_equal_ranges(result.model, ["a", "b"], ["c"])
    assert_kept(m, result)


def test_an_average_is_another_join_which_no_scale_is_known_to_pass():
    m = model(lambda x: conv("c")(L.Average(name="mean")([conv("a")(x), conv("b")(x)])))
    result = scaled(m)
    if not result.rewrites:
        assert set(missed(result)) == {"a", "b"}
    assert_kept(m, result)


def test_a_sum_with_what_takes_no_scale_takes_none():
    m = model(lambda x: conv("b")(L.Add(name="sum")([x, conv("a")(x)])))
    result = scaled(m)
    assert not result.rewrites
    assert missed(result) == {"a": "its channels keep their scale: x: it is Input, which no scale passes through"}


def test_a_value_added_to_every_place_of_an_image_has_its_scale():
    def build(x):
        y = conv("a")(x)
        return conv("c", 3)(ops.add(y, conv("b", 4, 1)(L.GlobalAveragePooling2D(keepdims=True)(x))))

    m = model(build)
    result = scaled(m, CONVERGED)
    assert_equal_ranges(result.model, ["a", "b"], ["c"])
    assert_kept(m, result)


def test_one_channel_that_is_added_to_all_ties_them():
    m = model(lambda x: conv("c", 3)(ops.add(conv("a")(x), conv("b", 1)(x))))
    first, other, last = (m.get_layer(name) for name in "abc")
    s = np.sqrt(max(given_range(first).max(), given_range(other).max()) / read_range(last).max())
    result = scaled(m, "sweeps=1")
    assert_close(result.model.get_layer("a").kernel, float64(first.kernel) / s)
    assert_close(result.model.get_layer("b").kernel, float64(other.kernel) / s)
    assert_close(result.model.get_layer("c").kernel, float64(last.kernel) * s)
    assert_kept(m, result)


def test_a_value_of_lower_rank_is_not_added_to():
    m = model(lambda x: conv("c")(ops.add(conv("a")(x), L.Dense(4, name="b")(L.GlobalAveragePooling2D()(x))[0])), batch_size=None)
    assert "a" in missed(scaled(m))


# concatenations


def test_of_a_concatenation_each_part_has_its_own_scales():
    m = model(lambda x: conv("c", 3)(L.Concatenate()([conv("a", 2)(x), L.ReLU()(conv("b", 3)(x)), x])))
    first, second, last = (m.get_layer(name) for name in "abc")
    read = read_range(last)
    s, t = np.sqrt(given_range(first) / read[:2]), np.sqrt(given_range(second) / read[2:5])
    result = scaled(m, "sweeps=1")
    assert_close(result.model.get_layer("a").kernel, scaled_given(first, s))
    assert_close(result.model.get_layer("b").kernel, scaled_given(second, t))
    assert_close(result.model.get_layer("c").kernel, scaled_read(last, np.concatenate([s, t, np.ones(4)])))
    assert not missed(result)
    assert_kept(m, result)


def test_a_dense_block_is_equal_for_every_layer_that_adds_to_it():
    def build(x):
        y = conv("a0")(x)
        for number in range(1, 4):
            y = L.Concatenate()([y, conv(f"a{number}", 2)(L.ReLU()(y))])
        return conv("top", 3)(y)

    m = model(build)
    new = scaled(m, CONVERGED).model
    start = 0
    for number, width in enumerate((4, 2, 2, 2)):
        readers = [f"a{later}" for later in range(number + 1, 4)] + ["top"]
        read = np.max([read_range(new.get_layer(name))[start : start + width] for name in readers], axis=0)
        np.testing.assert_allclose(given_range(new.get_layer(f"a{number}")), read, rtol=WITHIN)
        start += width
    assert_kept(m, scaled(m, CONVERGED))


def test_images_side_by_side_have_one_scale_a_channel():
    m = model(lambda x: conv("c", 3)(L.Concatenate(axis=1)([conv("a")(x), conv("b")(x)])))
    result = scaled(m, CONVERGED)
    assert_equal_ranges(result.model, ["a", "b"], ["c"])
    assert_kept(m, result)


def test_a_value_beside_itself_has_one_scale_a_channel():
    def build(x):
        y = conv("a")(x)
        return conv("b")(L.Concatenate()([y, L.ReLU()(y)]))

    m = model(build)
    first, second = m.get_layer("a"), m.get_layer("b")
    read = read_range(second)
    s = np.sqrt(given_range(first) / np.maximum(read[:4], read[4:]))
    result = scaled(m, "sweeps=1")
    assert_close(result.model.get_layer("b").kernel, scaled_read(second, np.tile(s, 2)))
    assert_kept(m, result)


# products and constants


def excited(x):
    """A squeeze-and-excite block."""
    y = conv("a")(x)
    gate = L.Dense(3, activation="relu", name="squeeze")(L.GlobalAveragePooling2D(keepdims=True)(y))
    return conv("c", 3)(L.Multiply()([y, L.Dense(4, activation="sigmoid", name="excite")(gate)]))


def test_a_product_with_a_gate_has_the_scale_of_what_is_gated():
    m = model(excited)
    result = scaled(m, CONVERGED)
    assert_equal_ranges(result.model, ["a"], ["squeeze", "c"])
    assert_equal_ranges(result.model, ["squeeze"], ["excite"])
    assert missed(result) == {"excite": "its channels keep their scale: excite.activation: it is Sigmoid, which no scale passes through"}
    assert_kept(m, result)


@pytest.mark.parametrize("square", [False, True], ids=["two values", "a square"])
def test_a_product_of_two_values_that_take_scales_takes_none(square):
    def build(x):
        y = conv("a")(x)
        return conv("c")(ops.multiply(y, y if square else conv("b")(x)))

    result = scaled(model(build))
    assert not result.rewrites
    assert "it multiplies two values with scales of their own" in missed(result)["a"]


@pytest.mark.parametrize("constant", [0.5, -2, np.float32(0.5), np.float32([0.5, -1, 2, 3]), np.full((8, 8, 1), 0.5, "float32")])
@pytest.mark.parametrize("operation", [ops.add, ops.subtract, ops.maximum, ops.minimum, lambda x, c: ops.subtract(c, x)])
def test_a_constant_is_divided_by_the_scale_of_what_it_meets(operation, constant):
    m = model(lambda x: conv("b", 3)(operation(conv("a")(x), constant)))
    result = scaled(m, CONVERGED)
    assert_equal_ranges(result.model, ["a"], ["b"])
    assert not missed(result)
    assert_kept(m, result)


def test_a_constant_that_comes_to_differ_by_channels_first_is_added_along_them():
    where = {"data_format": "channels_first", "padding": "same"}
    m = line(
        L.DepthwiseConv2D(3, use_bias=False, name="a", **where), lambda x: x + 1.0, L.DepthwiseConv2D(3, name="b", **where), shape=(4, 5, 4)
    )
    m.get_layer("b").bias.assign(np.zeros(4))
    result = scaled(m, verify="shapes")
    assert result.rewrites
    assert_kept(m, result)


def test_a_layer_whose_bias_keras_adds_along_the_wrong_axis_keeps_its_scale():
    where = {"data_format": "channels_first", "padding": "same"}
    m = line(L.DepthwiseConv2D(3, name="a", **where), L.ReLU(), L.DepthwiseConv2D(3, use_bias=False, name="b", **where), shape=(4, 5, 4))
    result = scaled(m, verify="shapes")
    assert not result.rewrites
    assert "there Keras adds a channels-first layer's bias to the wrong axis" in missed(result)["a"]
    assert scaled(
        line(L.DepthwiseConv2D(3, use_bias=False, **where), L.DepthwiseConv2D(3, use_bias=False, **where), shape=(4, 5, 4))
    ).rewrites


def test_a_constant_of_another_dtype_makes_the_sum_of_that_dtype_and_stops_the_scale():
    m = model(lambda x: conv("b")(ops.add(conv("a")(x), np.float64([1, 2, 3, 4]))))
    assert missed(scaled(m)) == {"a": "its channels keep their scale: add: it computes in float32 and float64"}


def test_a_constant_that_is_no_number_stops_the_scale():
    m = model(lambda x: conv("b")(ops.maximum(conv("a")(x), np.float32([1, -np.inf, 0, 0]))))
    assert "a constant that is not finite" in missed(scaled(m))["a"]


def test_a_product_with_a_constant_hands_the_scale_on():
    m = model(lambda x: conv("b")(ops.multiply(conv("a")(x), np.float32([0.5, -1, 2, 3]))))
    result = scaled(m, CONVERGED)
    assert_equal_ranges(result.model, ["a"], ["b"])
    assert_kept(m, result)


# layers that are used again


def test_a_layer_called_twice_has_the_largest_ranges_of_both():
    def build(x):
        shared = conv("shared")
        return [conv("b", 3)(L.ReLU()(shared(x))), conv("c", 3)(shared(L.ReLU()(x)))]

    m = model(build)
    shared, b, c = (m.get_layer(name) for name in ("shared", "b", "c"))
    s = np.sqrt(given_range(shared) / np.maximum(read_range(b), read_range(c)))
    result = scaled(m, "sweeps=1")
    assert_close(result.model.get_layer("shared").kernel, scaled_given(shared, s))
    assert_close(result.model.get_layer("shared").bias, float64(shared.bias) / s)
    assert_close(result.model.get_layer("c").kernel, scaled_read(c, s))
    assert_kept(m, result)


def test_a_layer_called_on_its_own_value_settles_too():
    def build(x):
        shared = L.Dense(4, name="shared")
        y = L.ReLU()(L.Dense(4, name="a")(x))
        return L.Dense(3, name="b")(L.ReLU()(shared(L.ReLU()(shared(y)))))

    m = model(build, (5,))
    result = scaled(m, CONVERGED)
    assert_equal_ranges(result.model, ["a", "shared"], ["shared", "b"])
    assert_kept(m, result)


def test_a_model_used_twice_is_scaled_alike():
    inner = keras.Sequential([keras.Input((8, 8, 4)), conv("p", 5), L.ReLU(6.0), conv("q")], name="inner")
    m = model(lambda x: conv("b")(L.Add()([inner(x), inner(L.ReLU()(x))])))
    result = scaled(m, CONVERGED)
    assert_equal_ranges(result.model, ["inner.p"], ["inner.q"])
    assert_equal_ranges(result.model, ["inner.q"], ["b"])
    assert_kept(m, result)


def test_a_kernel_shared_by_layers_of_different_biases_keeps_its_scale():
    spec = Spec((None, 4), "float32")
    nodes = [
        node("x", "Input", spec=spec),
        node("a", "Dense", "x", spec=spec, params={"kernel": "k"}),
        node("b", "Dense", "a", spec=spec, params={"kernel": "k", "bias": "c"}),
        node("d", "Dense", "b", spec=spec, params={"kernel": "m"}),
    ]
    weights = {"k": np.eye(4) * 3, "c": np.ones(4), "m": np.eye(4)}
    result = tfpasses.run(graph(*nodes, outputs=["d"], weights=weights), "cross-layer-scaling")
    assert not result.rewrites
    reasons = {remark.node: remark.reason for remark in result.remarks}
    assert reasons["a"] == "its channels keep their scale: a: it shares a weight with b, which uses it in another way"
    assert set(reasons) == {"a", "b"}


# odd sizes


def test_layers_without_channels_are_left_alone():
    wide, empty = Spec((None, 4), "float32"), Spec((None, 0), "float32")
    nodes = [
        node("x", "Input", spec=wide),
        node("a", "Dense", "x", spec=empty, params={"kernel": "k", "bias": "c"}),
        node("r", "Relu", "a", spec=empty, config={"max_value": 6.0, "negative_slope": 0.0, "threshold": 0.0}),
        node("b", "Dense", "r", spec=wide, params={"kernel": "m"}),
    ]
    weights = {"k": np.zeros((4, 0)), "c": np.zeros(0), "m": np.zeros((0, 4))}
    for relu6 in ("clip", "skip", "bound"):
        result = tfpasses.run(graph(*nodes, outputs=["b"], weights=weights), f"cross-layer-scaling{{relu6={relu6}}}")
        assert not result.rewrites
    assert not tfpasses.run(graph(*nodes, outputs=["b"], weights=weights), "fold-constant-channels").rewrites


def test_images_of_unknown_size_are_scaled():
    m = line(conv("a"), L.ReLU(), L.MaxPooling2D(), conv("b"), shape=(None, None, 4))
    result = scaled(m, CONVERGED)
    assert_equal_ranges(result.model, ["a"], ["b"])


def test_a_network_without_linear_layers_is_left_alone():
    result = scaled(line(L.ReLU()))
    assert not result.rewrites
    assert not result.remarks
