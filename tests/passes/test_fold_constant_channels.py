"""fold-constant-channels: what is the same for every input goes into the next bias, and its weights are cleared."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from keras import ops

import tfpasses
from cle_by_hand import float64, kind, response, rows
from fold_cases import CASES, FIRST, UNRUNNABLE, batch
from graph_defs import built, compute, draw, frozen
from graphs import graph, node
from in_float64 import outputs
from random_models import POLICIES
from scaling_check import FLOAT32, assert_kept, line, model, scaled
from tfpasses.graph import ChannelStats, Ref, Spec
from tfpasses.manager import Effect, Pipeline, PipelineError

PASS = "fold-constant-channels"
ALL = {name: case for name, case in (CASES | UNRUNNABLE).items() if case.shape[-1] > 1}


def folded(m, options="", verify="numeric", **keywords):
    result = tfpasses.run(m, PASS + (f"{{{options}}}" if options else ""), verify=verify, **keywords)
    assert all(verdict.ok for verdict in result.verdicts)
    return result


def remarks(result, wanted="note"):
    return {remark.node: remark.reason for remark in result.remarks if remark.kind == wanted}


def put(layer, channels, biases):
    """Let output channels of a layer be constant: their kernels are zero."""
    kernel = np.asarray(layer.kernel).copy()
    kernel[..., channels] = 0
    layer.kernel.assign(kernel)
    bias = np.asarray(layer.bias).copy()
    bias[channels] = biases
    layer.bias.assign(bias)


def reader_after(layer, constant):
    """The kernel that reads and the bias of a layer whose input channels are constant where `constant` is a number, in float64."""
    known = ~np.isnan(constant)
    kernel = float64(layer.depthwise_kernel if kind(layer) == "Separable" else layer.kernel).copy()
    for channel, part in rows(layer):
        if known[channel]:
            kernel[part] = 0
    bias = response(layer, np.where(known, constant, 0.0)) + (0.0 if layer.bias is None else float64(layer.bias))
    return kernel, bias


def assert_folded(result, name, kernel, bias):
    layer = result.model.get_layer(name)
    np.testing.assert_array_equal(layer.depthwise_kernel if kind(layer) == "Separable" else layer.kernel, kernel.astype("float32"))
    np.testing.assert_allclose(np.asarray(layer.bias), bias, rtol=4 * FLOAT32, atol=4 * FLOAT32)


# what is found, by what lies between

NAN = np.nan
WAYS = {
    "nothing": (lambda x: x, [1.5, -2.0]),
    "relu": (L.ReLU(), [1.5, 0.0]),
    "relu operation": (ops.relu, [1.5, 0.0]),
    "leaky relu": (L.LeakyReLU(0.25), [1.5, -0.5]),
    "relu6 that acts": (L.ReLU(1.25), [1.25, 0.0]),
    "relu with a threshold": (L.ReLU(threshold=1.0), [1.5, 0.0]),
    "minimum": (lambda x: ops.minimum(ops.relu(x), np.float32([9, 1, 1.25, 9])), [1.25, 0.0]),
    "maximum": (lambda x: ops.maximum(x, -1.0), [1.5, -1.0]),
    "clip": (lambda x: ops.minimum(ops.maximum(x, -1.0), 1.0), [1.0, -1.0]),
    "average pool": (L.AveragePooling2D(2), [1.5, -2.0]),
    "max pool": (L.MaxPooling2D(2, padding="same"), [1.5, -2.0]),
    "upsampling": (L.UpSampling2D(), [1.5, -2.0]),
    "cropping": (L.Cropping2D(1), [1.5, -2.0]),
    "dropout": (L.Dropout(0.5), [1.5, -2.0]),
    "a sum with a constant": (lambda x: ops.add(x, np.float32([1, 2, 3, 4])), [4.5, 2.0]),
    "a difference": (lambda x: ops.subtract(1.0, x), [-0.5, 3.0]),
    "a product with a constant": (lambda x: ops.multiply(x, np.float32([1, 2, 3, 4])), [4.5, -8.0]),
    "padding behind a relu": (lambda x: L.ZeroPadding2D()(L.ReLU()(x)), [NAN, 0.0]),
    "padding": (L.ZeroPadding2D(), [NAN, NAN]),
    "several": (lambda x: L.MaxPooling2D()(L.ReLU(1.25)(L.AveragePooling2D(2, strides=1)(x))), [1.25, 0.0]),
    "sigmoid": (L.Activation("sigmoid"), [NAN, NAN]),
    "batch norm": (L.BatchNormalization(), [NAN, NAN]),
    "dropout in training": (lambda x: L.Dropout(0.5)(x, training=True), [NAN, NAN]),
    "layer norm": (L.LayerNormalization(), [NAN, NAN]),
}


def two(between, **options):
    m = model(lambda x: L.Conv2D(3, 2, name="b")(between(L.Conv2D(4, 3, name="a", **options)(x))))
    put(m.get_layer("a"), [2, 3], [1.5, -2.0])
    return m


@pytest.mark.parametrize("way", WAYS)
def test_a_constant_is_followed_through(way):
    between, found = WAYS[way]
    m = two(between)
    constant = np.array([NAN, NAN, *found])
    training = way == "dropout in training"
    result = folded(m, verify="shapes" if training else "numeric")
    if np.isnan(constant).all():
        assert not result.rewrites
        return
    assert_folded(result, "b", *reader_after(m.get_layer("b"), constant))
    assert_kept(m, result)
    np.testing.assert_array_equal(result.model.get_layer("a").kernel, m.get_layer("a").kernel)


@pytest.mark.parametrize("slopes", [[0.5, 0.5, 0.5, 0.25], [0.5, 0.5, 0.5, -0.25]], ids=["rising", "falling"])
def test_a_prelu_is_followed_where_it_never_falls(slopes):
    m = two(L.PReLU(shared_axes=[1, 2], name="p"))
    m.get_layer("p").alpha.assign(np.float32(slopes).reshape(1, 1, 4))
    result = folded(m)
    if min(slopes) < 0:
        assert not result.rewrites
        return
    assert_folded(result, "b", *reader_after(m.get_layer("b"), np.array([NAN, NAN, 1.5, -0.5])))


# every kind of reader


def before(case, channels):
    if "dense" in case:
        return L.Dense(channels, name="a")
    return getattr(L, f"Conv{len(ALL[case].shape) - 1}D")(channels, 1, name="a", data_format="channels_first" if "first" in case else None)


def reading(case, use_bias, biases):
    shape, axis = list(ALL[case].shape), 0 if ALL[case].axis == 1 else -1
    channels, shape[axis] = shape[axis], 3
    m = line(before(case, channels), L.ReLU(), ALL[case].make(use_bias), shape=tuple(shape))
    constant = np.full(channels, NAN)
    constant[:2] = np.maximum(biases, 0)
    put(m.get_layer("a"), [0, 1], biases)
    return m, constant


@pytest.mark.parametrize("use_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("case", ALL)
def test_what_is_always_zero_is_cleared_from_every_kind_of_layer(case, use_bias):
    m, constant = reading(case, use_bias, [-1.0, 0.0])
    result = folded(m)
    kernel, _ = reader_after(m.get_layer("linear"), constant)
    new = result.model.get_layer("linear")
    np.testing.assert_array_equal(new.depthwise_kernel if "separable" in case else new.kernel, kernel.astype("float32"))
    assert (new.bias is None) == (not use_bias)
    if use_bias:
        np.testing.assert_array_equal(new.bias, m.get_layer("linear").bias)


UNPADDED = [
    name for name in ALL if not any(word in name for word in ("same", "causal", "transpose", "strided", "dilated")) and "first" not in name
]
UNPADDED = [name for name in UNPADDED if getattr(ALL[name].make(True), "padding", "valid") == "valid"]


@pytest.mark.parametrize("use_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("case", UNPADDED)
def test_a_constant_goes_into_the_bias_of_every_kind_of_layer(case, use_bias):
    m, constant = reading(case, use_bias, [1.5, -2.0])
    result = folded(m)
    assert_folded(result, "linear", *reader_after(m.get_layer("linear"), constant))
    assert_kept(m, result)


def test_behind_a_flatten_all_places_of_a_channel_are_cleared():
    m = line(L.Conv2D(4, 3, name="a"), L.ReLU(), L.Flatten(), L.Dense(3, name="b"), shape=(6, 5, 3))
    put(m.get_layer("a"), [1], [1.5])
    result = folded(m)
    constant = np.full((4, 3, 4), NAN)
    constant[..., 1] = 1.5
    assert_folded(result, "b", *reader_after(m.get_layer("b"), constant.ravel()))
    assert_kept(m, result)


def test_of_a_depthwise_layer_the_whole_channel_becomes_constant_in_turn():
    m = line(L.Conv2D(4, 3, name="a"), L.ReLU(), L.DepthwiseConv2D(2, depth_multiplier=2, name="b"), L.ReLU(), L.Conv2D(3, 1, name="c"))
    put(m.get_layer("a"), [1, 2], [1.5, -2.0])
    result = folded(m)
    kernel, bias = reader_after(m.get_layer("b"), np.array([NAN, 1.5, 0.0, NAN]))
    assert_folded(result, "b", kernel, bias)
    inner = np.full(8, NAN)
    inner[2:6] = np.maximum(bias[2:6], 0)
    assert_folded(result, "c", *reader_after(m.get_layer("c"), inner))
    assert result.rewrites[0].payload["layers"] == ("b", "c")
    assert_kept(m, result)


def test_rows_of_a_pointwise_kernel_that_read_cleared_channels_are_cleared_too():
    m = line(L.Conv2D(4, 3, name="a"), L.ReLU(), L.SeparableConv2D(3, 2, depth_multiplier=2, name="b"))
    put(m.get_layer("a"), [1], [1.5])
    result = folded(m)
    new, old = result.model.get_layer("b"), m.get_layer("b")
    wanted = float64(old.pointwise_kernel).copy()
    wanted[:, :, 2:4] = 0
    np.testing.assert_array_equal(new.pointwise_kernel, wanted.astype("float32"))
    assert_folded(result, "b", *reader_after(old, np.array([NAN, 1.5, NAN, NAN])))
    assert_kept(m, result)


# where values meet


def test_of_a_concatenation_each_part_keeps_its_constants():
    m = model(lambda x: L.Conv2D(3, 1, name="c")(L.Concatenate()([L.Conv2D(2, 1, name="a")(x), L.ReLU()(L.Conv2D(3, 1, name="b")(x)), x])))
    put(m.get_layer("a"), [1], [-2.0])
    put(m.get_layer("b"), [0], [1.5])
    result = folded(m)
    assert_folded(result, "c", *reader_after(m.get_layer("c"), np.array([NAN, -2.0, 1.5, *[NAN] * 6])))
    assert_kept(m, result)


def test_a_sum_is_constant_where_all_its_terms_are():
    m = model(lambda x: L.Conv2D(3, 1, name="c")(L.Add()([L.Conv2D(4, 1, name="a")(x), L.Conv2D(4, 1, name="b")(x)])))
    put(m.get_layer("a"), [0, 1], [1.0, 2.0])
    put(m.get_layer("b"), [1, 2], [0.5, 3.0])
    result = folded(m)
    assert_folded(result, "c", *reader_after(m.get_layer("c"), np.array([NAN, 2.5, NAN, NAN])))
    assert_kept(m, result)


def test_a_product_with_what_is_zero_is_zero():
    m = model(lambda x: L.Conv2D(3, 1, name="b")(L.Multiply()([L.ReLU()(L.Conv2D(4, 1, name="a")(x)), x])))
    put(m.get_layer("a"), [1, 2], [-1.0, 1.0])
    result = folded(m)
    assert_folded(result, "b", *reader_after(m.get_layer("b"), np.array([NAN, 0.0, NAN, NAN])))


def test_every_reader_is_cleared():
    def build(x):
        y = L.ReLU()(L.Conv2D(4, 3, name="a")(x))
        return [L.Conv2D(3, 1, name="b")(y), L.Dense(2, name="c")(L.GlobalAveragePooling2D()(y)), y]

    m = model(build)
    put(m.get_layer("a"), [1], [1.5])
    result = folded(m)
    for name in "bc":
        assert_folded(result, name, *reader_after(m.get_layer(name), np.array([NAN, 1.5, NAN, NAN])))
    assert_kept(m, result)


@pytest.mark.parametrize("same", [True, False])
def test_a_shared_layer_is_cleared_where_all_its_uses_read_the_same_constant(same):
    def build(x):
        shared = L.Conv2D(3, 1, name="shared")
        return [shared(L.ReLU()(L.Conv2D(4, 1, name=name)(x))) for name in "ab"]

    m = model(build)
    put(m.get_layer("a"), [1, 2], [1.5, -1.0])
    put(m.get_layer("b"), [1, 2], [1.5 if same else 1.25, -2.0])
    result = folded(m)
    assert_folded(result, "shared", *reader_after(m.get_layer("shared"), np.array([NAN, 1.5 if same else NAN, 0.0, NAN])))
    assert_kept(m, result)


# where zeros meet the kernel

PADDED = [name for name in ALL if getattr(ALL[name].make(True), "padding", "valid") != "valid" and "transpose" not in name]


@pytest.mark.parametrize("case", [*PADDED, "transpose2d", "transpose1d"])
def test_where_zeros_meet_the_kernel_other_constants_stay_and_zero_goes(case):
    m, _ = reading(case, True, [1.5, -2.0])
    if tuple(ALL[case].make(True).kernel_size) == (1, 1):
        return
    result = folded(m)
    kernel, _ = reader_after(m.get_layer("linear"), np.array([NAN, 0.0, *[NAN] * (ALL[case].shape[-1] - 2)]))
    new = result.model.get_layer("linear")
    np.testing.assert_array_equal(new.depthwise_kernel if "separable" in case else new.kernel, kernel.astype("float32"))
    np.testing.assert_array_equal(new.bias, m.get_layer("linear").bias)
    (missed,) = [remark for remark in result.remarks if remark.kind == "missed"]
    assert missed.reason == "1 constant channels stay: linear pads with zeros, which they are not"
    assert missed.remedy == "padding=border-map corrects the border"


@pytest.mark.parametrize("use_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("case", PADDED)
def test_a_border_map_is_right_at_every_place(case, use_bias):
    m, constant = reading(case, use_bias, [1.5, -2.0])
    result = folded(m, "padding=border-map")
    kernel, _ = reader_after(m.get_layer("linear"), constant)
    new = result.model.get_layer("linear")
    np.testing.assert_array_equal(new.depthwise_kernel if "separable" in case else new.kernel, kernel.astype("float32"))
    if use_bias:
        np.testing.assert_array_equal(new.bias, m.get_layer("linear").bias)
    assert not remarks(result, "missed")
    assert_kept(m, result)


def test_a_border_map_of_a_shared_layer_is_added_at_each_use_for_its_own_size():
    def build(x):
        shared = L.Conv2D(3, 3, padding="same", name="shared")
        y = L.ReLU()(L.Conv2D(4, 1, name="a")(x))
        return [shared(y), shared(L.MaxPooling2D()(y))]

    m = model(build)
    put(m.get_layer("a"), [1], [1.5])
    result = folded(m, "padding=border-map")
    sizes = [node.specs[0].shape[1] for node in result.graph.nodes.values() if node.op == "Const"]
    assert sorted(sizes) == [4, 8]
    assert_kept(m, result)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (lambda: L.Conv2D(3, 3, padding="same", name="b"), "the size of the image is not known"),
        (lambda: L.Conv2DTranspose(3, 3, name="b"), "what zeros do at the border of a ConvTranspose is not known"),
    ],
)
def test_a_border_that_is_not_known_leaves_the_channel(layer, why):
    m = line(L.Conv2D(4, 1, name="a"), layer(), shape=(None, None, 4))
    put(m.get_layer("a"), [1], [1.5])
    result = folded(m, "padding=border-map")
    assert not result.rewrites
    assert remarks(result, "missed") == {"b": f"1 constant channels stay: {why}"}


def test_an_approximate_border_is_said_to_be_one_and_right_inside():
    m = line(L.Conv2D(4, 1, name="a"), L.Conv2D(3, 3, padding="same", name="b"))
    put(m.get_layer("a"), [1], [1.5])
    result = folded(m, "padding=approximate")
    assert_folded(result, "b", *reader_after(m.get_layer("b"), np.array([NAN, 1.5, NAN, NAN])))
    (one,) = Pipeline.parse(f"{PASS}{{padding=approximate}}").passes
    assert one.effect is Effect.APPROXIMATES
    (other,) = Pipeline.parse(f"{PASS}{{padding=border-map}}").passes
    assert other.effect is Effect.REASSOCIATES
    x = batch(m)
    off = np.abs(outputs(result.model, x)[0] - outputs(m, x)[0])
    assert off[:, 1:-1, 1:-1].max() < 1e-4
    assert off[:, 0].max() > 0.1


def test_what_was_known_of_a_value_is_known_of_its_sum_with_the_map():
    m = line(
        L.Conv2D(4, 1, name="a"),
        L.ReLU(),
        L.Conv2D(3, 3, padding="same", name="b"),
        L.BatchNormalization(name="bn"),
        L.ReLU(),
        L.Conv2D(2, 1, name="c"),
    )
    put(m.get_layer("a"), [1], [1.5])
    bn = m.get_layer("bn")
    result = tfpasses.run(m, f"fold-batch-norms,{PASS}{{padding=border-map}}", verify="numeric")
    (added,) = [name for name, node in result.graph.nodes.items() if node.op == "Add"]
    stats = result.graph.facts[Ref(added), ChannelStats.kind]
    np.testing.assert_allclose(stats.mean, float64(bn.beta), rtol=1e-6)
    np.testing.assert_allclose(stats.std, np.abs(float64(bn.gamma)), rtol=1e-6)
    ((const,),) = [[ref.node for ref in result.graph.nodes[added].inputs if result.graph.nodes[ref.node].op == "Const"]]
    border = float64(result.graph.weights[result.graph.nodes[const].params["value"]])
    own = result.graph.facts[Ref("b"), ChannelStats.kind]
    np.testing.assert_allclose(own.mean, float64(bn.beta) - border.mean(axis=(0, 1, 2)), rtol=1e-6)


# bounds of the inputs


def small(weight, bias=1.0):
    m = line(L.Conv2D(4, 1, name="a"), L.Conv2D(3, 1, name="b"))
    kernel = np.asarray(m.get_layer("a").kernel).copy()
    kernel[..., 1] = weight
    m.get_layer("a").kernel.assign(kernel)
    m.get_layer("a").bias.assign([0.5, bias, 0.5, 0.5])
    return m


@pytest.mark.parametrize(("weight", "found"), [(2.0**-26, True), (2.0**-24, False)])
def test_a_kernel_too_small_to_change_its_bias_by_a_rounding_is_none(weight, found):
    m = small(weight)
    data = {"x": np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 4)).astype("float32")}
    result = folded(m, "input-range=-1:1", data=data)
    assert bool(result.rewrites) == found
    if found:
        assert_folded(result, "b", *reader_after(m.get_layer("b"), np.array([NAN, 1.0, NAN, NAN])))
        assert remarks(result)["a"] == f"1 channels are their bias but for {4 * weight:.2g} at most, which is rounded away"
        x = data["x"]
        assert_kept(m, result, x=x)
    assert not folded(m).rewrites


def test_what_the_inputs_cannot_lift_above_zero_is_always_zero():
    m = line(L.Conv2D(4, 1, name="a"), L.ReLU(), L.Conv2D(3, 3, padding="same", name="b"))
    bias = -np.abs(float64(m.get_layer("a").kernel)).sum(axis=(0, 1, 2)) - 0.01
    bias[:3] += 0.02
    m.get_layer("a").bias.assign(bias)
    result = tfpasses.run(m, f"{PASS}{{input-range=-1:1}}")
    kernel, _ = reader_after(m.get_layer("b"), np.array([NAN, NAN, NAN, 0.0]))
    np.testing.assert_array_equal(result.model.get_layer("b").kernel, kernel.astype("float32"))
    assert not folded(m).rewrites


@pytest.mark.parametrize("text", ["1", "a:b", "1:-1", ":", "nan:1", "0:1:2"])
def test_an_input_range_that_is_none_is_refused(text):
    with pytest.raises(PipelineError, match=f"input-range='{text}': write the least and the largest number that the inputs hold"):
        tfpasses.run("no such file", f'{PASS}{{input-range="{text}"}}')


# what is told, and what is left alone


def test_how_much_was_cleared_and_how_large_it_was_is_told():
    m = line(L.Conv2D(4, 3, name="a"), L.ReLU(), L.Conv2D(3, 2, name="b"))
    put(m.get_layer("a"), [1, 2], [-1.0, 1.5])
    kernel = np.asarray(m.get_layer("b").kernel).copy()
    kernel[0, 0, 1, 0] = 56.4
    m.get_layer("b").kernel.assign(kernel)
    rest = np.abs(kernel[:, :, [0, 3]]).max()
    result = folded(m)
    assert remarks(result)["b"] == (
        "of the channels it reads 1 are always 0 and 1 always 1.5: weights of up to 56.4 cleared for them; "
        f"the largest that stays is {rest:.3g}"
    )
    (rewrite,) = result.rewrites
    assert dict(rewrite.payload) == {"layers": ("b",), "channels": 2, "cleared": pytest.approx(56.4)}
    assert np.abs(result.model.get_layer("b").kernel).max() == pytest.approx(rest)


def test_a_second_time_there_is_nothing_left_to_do():
    m = two(L.ReLU())
    once = folded(m).model
    again = folded(once)
    assert not again.rewrites
    assert not again.remarks


def test_a_network_without_constant_channels_is_left_alone():
    m = line(L.Conv2D(4, 3), L.ReLU(), L.Conv2D(3, 2))
    result = folded(m)
    assert not result.rewrites
    assert not result.remarks


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_kernel_that_is_no_number_is_left_alone(value):
    m = two(L.ReLU())
    kernel = np.asarray(m.get_layer("b").kernel).copy()
    kernel[0, 0, 0, 0] = value
    m.get_layer("b").kernel.assign(kernel)
    result = folded(m, verify="shapes")
    assert not result.rewrites
    assert remarks(result, "missed") == {"b": "2 constant channels stay: its kernel is not finite (NaN or infinity)"}


def test_a_constant_that_is_no_number_is_none():
    m = two(L.ReLU())
    m.get_layer("a").bias.assign([1, 1, np.inf, np.nan])
    assert not folded(m, verify="shapes").rewrites


def test_a_kernel_that_is_used_in_another_way_too_is_left_alone():
    spec = Spec((None, 4), "float32")
    nodes = [
        node("x", "Input", spec=spec),
        node("a", "Dense", "x", spec=spec, params={"kernel": "k", "bias": "c"}),
        node("b", "Dense", "a", spec=spec, params={"kernel": "m"}),
        node("d", "keras.Tied", "b", spec=spec, params={"w0": "m"}),
    ]
    weights = {"k": np.diag([1, 1, 1, 0]), "c": np.ones(4), "m": np.ones((4, 4))}
    result = tfpasses.run(graph(*nodes, outputs=["d"], weights=weights), PASS)
    assert not result.rewrites
    assert remarks(result, "missed") == {"b": "1 constant channels stay: b shares a weight with d, which uses it in another way"}


def test_a_layer_to_which_keras_would_add_a_bias_along_the_wrong_axis_gains_none():
    where = {"data_format": "channels_first", "use_bias": False}
    m = line(L.Conv2D(4, 1, data_format="channels_first", name="a"), L.DepthwiseConv2D((1, 2), name="b", **where), shape=(3, 5, 5))
    put(m.get_layer("a"), [1, 2], [1.5, 0.0])
    result = folded(m, verify="shapes")
    assert "there Keras adds a channels-first layer's bias to the wrong axis" in remarks(result, "missed")["b"]
    kernel, _ = reader_after(m.get_layer("b"), np.array([NAN, NAN, 0.0, NAN]))
    np.testing.assert_array_equal(result.model.get_layer("b").kernel, kernel.astype("float32"))
    assert result.model.get_layer("b").bias is None


def test_channels_first_constants_are_those_of_the_first_axis():
    m = line(L.DepthwiseConv2D(1, name="a", **FIRST), L.ReLU(), L.DepthwiseConv2D(2, name="b", **FIRST), shape=(3, 6, 7))
    kernel = np.asarray(m.get_layer("a").kernel).copy()
    kernel[:, :, 1] = 0
    m.get_layer("a").kernel.assign(kernel)
    m.get_layer("a").bias.assign([1.0, 1.5, 1.0])
    result = folded(m)
    assert_folded(result, "b", *reader_after(m.get_layer("b"), np.array([NAN, 1.5, NAN])))
    assert_kept(m, result)


# other kinds, and other passes


@pytest.mark.parametrize("policy", POLICIES)
def test_in_any_precision_the_function_is_kept(policy):
    as_it_is = {"dtype": policy}
    m = line(
        L.Conv2D(4, 3, name="a", **as_it_is),
        L.ReLU(6.0, **as_it_is),
        L.Conv2D(3, 3, padding="same", name="b", **as_it_is),
        dtype="float64" if policy == "float64" else "float32",
    )
    put(m.get_layer("a"), [1, 2], [1.3, 7.0])
    result = folded(m, "padding=border-map")
    assert result.rewrites
    assert result.model.outputs[0].dtype == m.outputs[0].dtype
    assert_kept(m, result, POLICIES[policy])


def network(x):
    y = L.Conv2D(4, 3, padding="same", activation="relu6", name="a")(x)
    y = L.DepthwiseConv2D(3, padding="same", activation="relu", name="b")(y)
    return L.Dense(3, name="c")(L.GlobalAveragePooling2D()(y))


@pytest.mark.parametrize("padding", ["refuse", "border-map"])
def test_a_frozen_graph_is_folded_as_the_model_is(padding):
    m = model(network)
    put(m.get_layer("a"), [1, 2], [1.5, -2.0])
    definition = frozen(m)
    in_keras, result = (folded(one, f"padding={padding}") for one in (m, definition))
    assert len([r for r in result.rewrites if r.rule == "clear"]) == len(in_keras.rewrites)
    x = batch(m)
    own, new = (compute(one, {"in_0": x}, ["Identity"])[0] for one in (definition, result.model))
    np.testing.assert_allclose(new, own, atol=1e-5)
    kernels = [sorted(int((w == 0).sum()) for w in one.graph.weights.values() if w.shape[:2] == (3, 3)) for one in (result, in_keras)]
    assert kernels[0] == kernels[1]


def test_a_saved_model_is_folded_and_its_variables_stay_variables(tmp_path):
    m = model(network)
    put(m.get_layer("a"), [1, 2], [1.5, -2.0])
    m.export(tmp_path / "before", verbose=False)
    tfpasses.save(folded(str(tmp_path / "before"), "padding=border-map"), str(tmp_path / "after"))
    loaded = [tf.saved_model.load(str(tmp_path / name)) for name in ("before", "after")]
    before, after = (one.signatures["serving_default"] for one in loaded)
    x = tf.constant(batch(m))
    own, new = (next(iter(one(x).values())) for one in (before, after))
    np.testing.assert_allclose(new, own, atol=1e-5)
    assert sorted(v.shape.as_list() for v in after.variables) == sorted(v.shape.as_list() for v in before.variables)


def test_a_constant_that_is_rounded_at_every_step_proves_itself():
    m = line(
        L.Conv2D(4, 1, name="a"), L.ReLU(), L.DepthwiseConv2D(3, name="b"), L.DepthwiseConv2D(3, name="c"), L.GlobalAveragePooling2D(),
        L.Dense(3, use_bias=False, name="d"), shape=(32, 32, 4),
    )  # fmt: skip
    put(m.get_layer("a"), slice(None), [1.3, 0.7, 0.1, 2.3])
    for name in "bc":  # what is left of large terms is small, and its rounding is theirs
        kernel, bias = float64(m.get_layer(name).kernel), np.float64([1.3, 0.7, 0.1, 2.3])
        m.get_layer(name).bias.assign(1e-3 - kernel.sum(axis=(0, 1))[:, 0] * (bias if name == "b" else 1e-3))
    result = folded(m)
    assert result.rewrites[0].root == "a"
    assert result.rewrites[0].payload["layers"] == ("b", "c", "d")
    assert_kept(m, result)


def test_a_graph_of_unknown_rank_is_left_alone():
    definition = built(lambda x: tf.linalg.matmul(tf.nn.relu(tf.reshape(x, tf.shape(x))), tf.constant(draw(4, 2))), x=None)
    assert not [r for r in tfpasses.run(definition, PASS, outputs=["out"]).rewrites if r.rule == "clear"]


def test_cleared_channels_no_longer_hold_back_scaling():
    m = line(L.Conv2D(4, 1, name="a"), L.ReLU(), L.DepthwiseConv2D(3, name="b"), L.ReLU(), L.Conv2D(3, 1, name="c"))
    put(m.get_layer("a"), [1], [-1.0])
    kernel = np.asarray(m.get_layer("b").kernel).copy()
    kernel[:, :, 1] = 56.4
    m.get_layer("b").kernel.assign(kernel)
    result = tfpasses.run(m, f"{PASS},cross-layer-scaling", verify="numeric")
    assert np.abs(result.model.get_layer("b").kernel).max() < 10
    assert np.abs(np.asarray(result.model.get_layer("b").kernel)[:, :, 1]).max() == 0
    assert scaled(result.model).model is not None
    assert_kept(m, result)


def test_a_nested_model_is_folded_within():
    inner = keras.Sequential([keras.Input((8, 8, 4)), L.Conv2D(4, 3, name="a"), L.ReLU(), L.Conv2D(3, 2, name="b")], name="inner")
    m = model(lambda x: L.Softmax()(inner(x)))
    put(inner.get_layer("a"), [1], [1.5])
    result = folded(m)
    layer = result.model.get_layer("inner").get_layer("b")
    kernel, _ = reader_after(inner.get_layer("b"), np.array([NAN, 1.5, NAN, NAN]))
    np.testing.assert_array_equal(layer.kernel, kernel.astype("float32"))
    assert_kept(m, result)
