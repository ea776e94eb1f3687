"""high-bias-fold: what moves from one bias into the next, what that changes, and where it is not done."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import tfpasses
from cle_by_hand import float64, pair_scale, response
from eager_groups import eager_groups
from fold_cases import CASES, UNRUNNABLE, batch, bite
from graph_defs import compute, frozen
from in_float64 import outputs
from scaling_check import FLOAT32, assert_kept
from tfpasses.graph import ChannelStats, Ref
from tfpasses.manager import PipelineError
from tfpasses.passes.equalization.arithmetic import absorbable, expected_shortfall, share_above
from tfpasses.passes.equalization.borders import border_map

FOLD = "fold-batch-norms"
ALL = CASES | UNRUNNABLE
MEAN, STD = np.float32([3.0, 0.5, -1.0, 2.0]), np.float32([0.5, 1.0, -0.3, 0.6])
"""Of the pre-activations: a negative gamma is a deviation all the same. 1.5 and 0.2 of the first and last channel may move."""
MOVES = np.array([1.5, 0.0, 0.0, 0.2])


def first(**options):
    """A layer of four channels with a batch norm behind it, whose statistics are `MEAN` and `STD`."""
    conv, bn = L.Conv2D(4, 1, name="a", **options), L.BatchNormalization(name="bn")
    return lambda x: bn(conv(x))


def network(build, shape=(8, 8, 3), **options):
    x = keras.Input(shape, name="x", **options)
    m = bite(keras.Model(x, build(x), name="m"))
    for layer in m.layers:
        if isinstance(layer, L.BatchNormalization) and layer.gamma.shape == (4,):
            layer.beta.assign(MEAN)
            layer.gamma.assign(STD)
    return m


def moved(m, options="", before=FOLD, **keywords):
    """What folding leaves, and the result of the high-bias fold after it."""
    folded = tfpasses.run(m, before).model
    return folded, tfpasses.run(m, f"{before},high-bias-fold" + (f"{{{options}}}" if options else ""), **keywords)


def stays(m, options="", node="a", **keywords):
    """Why a layer's bias stays."""
    _, result = moved(m, options, **keywords)
    assert not [rewrite for rewrite in result.rewrites if rewrite.pass_name == "high-bias-fold" and rewrite.root == node]
    return next((remark.reason, remark.remedy) for remark in result.remarks if (remark.kind, remark.node) == ("missed", node))


def assert_bias(layer, wanted):
    np.testing.assert_allclose(np.asarray(layer.bias), wanted, rtol=8 * FLOAT32, atol=8 * FLOAT32)


def read(name="b", filters=3, kernel=1, **options):
    return L.Conv2D(filters, kernel, name=name, **options)


# behind a ReLU


def test_behind_a_relu_all_but_three_deviations_of_the_mean_move():
    m = network(lambda x: read(kernel=2)(L.ReLU()(first()(x))))
    folded, result = moved(m)
    a, b = folded.get_layer("a"), folded.get_layer("b")
    new = result.model
    assert_bias(new.get_layer("a"), float64(a.bias) - MOVES)
    assert_bias(new.get_layer("b"), float64(b.bias) + float64(b.kernel).sum(axis=(0, 1)).T @ MOVES)
    for name in "ab":
        np.testing.assert_array_equal(new.get_layer(name).kernel, folded.get_layer(name).kernel)
    stats = result.graph.facts[Ref("a"), ChannelStats.kind]
    np.testing.assert_allclose(stats.mean, MEAN - MOVES, rtol=1e-6)
    np.testing.assert_allclose(stats.std, np.abs(STD), rtol=1e-6)


@pytest.mark.parametrize("sigmas", [0.0, 1.0, 2.5])
def test_how_many_deviations_stay_is_an_option(sigmas):
    m = network(lambda x: read()(L.ReLU()(first()(x))))
    folded, result = moved(m, f"sigmas={sigmas}")
    assert_bias(result.model.get_layer("a"), float64(folded.get_layer("a").bias) - np.maximum(0, MEAN - sigmas * np.abs(STD)))


def test_what_it_changes_is_what_lies_below_what_moved():
    m = network(lambda x: read()(L.ReLU()(first()(x))))
    folded, result = moved(m, "sigmas=1")
    x, c = batch(m), np.maximum(0, MEAN - np.abs(STD)).astype(float)
    z = float64(outputs(keras.Model(folded.inputs[0], folded.get_layer("a").output), x)[0])
    more = np.einsum("nhwc,co->nhwo", np.maximum(z, c) - np.maximum(z, 0), float64(folded.get_layer("b").kernel)[0, 0])
    assert np.abs(more).max() > 0.01
    np.testing.assert_allclose(float64(outputs(result.model, x)[0]) - outputs(folded, x)[0], more, atol=1e-4)


READERS = [name for name in ALL if "transpose" not in name and "first" not in name and ALL[name].shape[-1] == 4]


@pytest.mark.parametrize("use_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("case", READERS)
def test_every_kind_of_layer_takes_what_moved(case, use_bias):
    case = ALL[case]
    rank = len(case.shape) - 1

    def build(x):
        y = getattr(L, f"Conv{rank}D")(4, 1, name="a")(x)
        return case.make(use_bias)(L.ReLU()(L.BatchNormalization(name="bn")(y)))

    m = network(build, case.shape)
    folded, result = moved(m, "padding=approximate")
    layer, new = folded.get_layer("linear"), result.model.get_layer("linear")
    bias = float64(layer.bias) if use_bias else 0.0
    assert_bias(new, bias + response(layer, MOVES))


def test_a_convolution_of_one_input_channel_is_no_depthwise_one():
    def build(x):
        y = L.BatchNormalization(name="bn")(L.Conv2D(1, 1, name="a")(x))
        return read(filters=4, kernel=2)(L.ReLU()(y))

    m = network(build)
    m.get_layer("bn").beta.assign([3.0])
    m.get_layer("bn").gamma.assign([0.5])
    folded, result = moved(m)
    b = folded.get_layer("b")
    assert_bias(result.model.get_layer("b"), float64(b.bias) + 1.5 * float64(b.kernel).sum(axis=(0, 1, 2)))


def test_after_scaling_the_scaled_statistics_count():
    m = network(lambda x: read()(L.ReLU()(first()(x))))
    folded = tfpasses.run(m, FOLD).model
    s = pair_scale(folded.get_layer("a"), folded.get_layer("b"))
    scaled, result = moved(m, before=f"{FOLD},cross-layer-scaling{{sweeps=1}}")
    assert_bias(result.model.get_layer("a"), float64(scaled.get_layer("a").bias) - MOVES / s)
    b = scaled.get_layer("b")
    assert_bias(result.model.get_layer("b"), float64(b.bias) + float64(b.kernel).sum(axis=(0, 1)).T @ (MOVES / s))


WAYS = {
    "max pool": L.MaxPooling2D(),
    "average pool": L.AveragePooling2D(2, padding="same"),
    "cropping": L.Cropping2D(1),
    "upsampling": L.UpSampling2D(),
    "dropout": L.Dropout(0.5),
    "identity": L.Identity(),
    "leaky relu": L.LeakyReLU(0.25),
    "a constant": lambda x: ops.add(np.float32([1, 2, 3, 4]), x),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_moves_passes_through(way):
    m = network(lambda x: read()(WAYS[way](L.ReLU()(first()(x)))))
    folded, result = moved(m)
    b = folded.get_layer("b")
    assert_bias(result.model.get_layer("a"), float64(folded.get_layer("a").bias) - MOVES)
    assert_bias(result.model.get_layer("b"), float64(b.bias) + response(b, MOVES))


@pytest.mark.parametrize("flatten", [L.Flatten(), L.Reshape((-1,))])
def test_behind_a_flatten_every_place_of_a_channel_moves(flatten):
    m = network(lambda x: L.Dense(3, name="b")(flatten(L.ReLU()(first()(x)))), (3, 2, 3))
    folded, result = moved(m)
    b = folded.get_layer("b")
    assert_bias(result.model.get_layer("b"), float64(b.bias) + np.tile(MOVES, 6) @ float64(b.kernel))


def test_behind_a_global_pool_a_dense_layer_takes_it():
    m = network(lambda x: L.Dense(3, name="b")(L.GlobalAveragePooling2D()(L.ReLU()(first()(x)))))
    folded, result = moved(m)
    b = folded.get_layer("b")
    assert_bias(result.model.get_layer("b"), float64(b.bias) + MOVES @ float64(b.kernel))


def test_all_that_read_a_layer_take_it():
    def build(x):
        y = L.ReLU()(first()(x))
        return [read("b")(y), L.Dense(2, name="c")(L.GlobalMaxPooling2D()(y))]

    m = network(build)
    folded, result = moved(m)
    for name in "bc":
        layer = folded.get_layer(name)
        assert_bias(result.model.get_layer(name), float64(layer.bias) + response(layer, MOVES))


# where nothing lies between


@pytest.mark.parametrize("way", ["nothing", "max pool", "average pool", "cropping", "a constant", "dropout"])
def test_where_nothing_bends_the_whole_mean_moves_and_the_function_is_kept(way):
    m = network(lambda x: read(kernel=2)(WAYS.get(way, lambda y: y)(first()(x))))
    folded, result = moved(m)
    a, b = folded.get_layer("a"), folded.get_layer("b")
    assert_bias(result.model.get_layer("a"), float64(a.bias) - MEAN)
    assert_bias(result.model.get_layer("b"), float64(b.bias) + response(b, MEAN.astype(float)))
    np.testing.assert_allclose(result.graph.facts[Ref("a"), ChannelStats.kind].mean, 0, atol=1e-6)
    assert "nothing lies between, so that it is exact" in result.remarks[-1].reason
    assert_kept(m, result)


# what is said of the error

SAMPLES = 1_000_000


def normal(mean, std):
    return np.random.default_rng(7).normal(mean, std, SAMPLES)


def assert_mean(stated, samples):
    """A mean of samples, within four of its standard errors; what happens to none of them may happen to four."""
    assert abs(samples.mean() - stated) <= 4 * samples.std() / np.sqrt(SAMPLES) + 4 / SAMPLES


@pytest.mark.parametrize(("mean", "std"), [(3.0, 0.5), (1.0, 2.0), (-1.0, 1.0), (0.0, 0.3), (4.0, 1.5)])
@pytest.mark.parametrize("sigmas", [0.0, 1.0, 3.0])
def test_the_expected_error_behind_a_relu_is_that_of_a_million_samples(mean, std, sigmas):
    z, c = normal(mean, std), max(0.0, mean - sigmas * std)
    assert float(absorbable(np.array(mean), np.array(std), True, sigmas)) == c
    stated = float(expected_shortfall(np.array(c), np.array(mean), np.array(std)))
    assert_mean(stated, np.maximum(z - c, 0) + c - np.maximum(z, 0))


@pytest.mark.parametrize(("mean", "std", "limit"), [(3.0, 2.0, 6.0), (0.0, 1.0, 6.0), (7.0, 0.5, 6.0), (1.0, 4.0, 1.5)])
def test_the_share_above_a_limit_is_that_of_a_million_samples(mean, std, limit):
    assert_mean(float(share_above(np.array(limit), np.array(mean), np.array(std))), (normal(mean, std) > limit).astype(float))


def test_of_a_deviation_of_zero_nothing_is_spread():
    zero = np.zeros(3)
    assert share_above(np.array([1.0, 1.0, 1.0]), np.array([0.5, 1.0, 2.0]), zero).tolist() == [0, 0, 1]
    assert expected_shortfall(np.array([1.0, 1.0, 0.0]), np.array([0.5, 2.0, -1.0]), zero).tolist() == [0.5, 0, 0]


def stated_in(result):
    return float(re.search(r"behind the ReLU they are (\S+) too high on average at most", result.remarks[-1].reason)[1])


@pytest.mark.parametrize("slope", [0.0, 0.25])
@pytest.mark.parametrize("sigmas", [0.0, 1.0])
def test_the_error_that_is_stated_is_the_largest_of_the_channels(slope, sigmas):
    activation = L.ReLU(negative_slope=slope)
    m = network(lambda x: read()(activation(first()(x))))
    _, result = moved(m, f"sigmas={sigmas}")
    c = np.maximum(0, MEAN - sigmas * np.abs(STD))
    z = np.random.default_rng(7).normal(MEAN, np.abs(STD), (SAMPLES, 4))

    def bent(y):
        return np.where(y > 0, y, slope * y)

    off = bent(z - c) + c - bent(z)
    worst = np.argmax(off.mean(axis=0))
    room = 4 * off[:, worst].std() / np.sqrt(SAMPLES)
    stated = stated_in(result)
    assert abs(off[:, worst].mean() - stated) <= room + 0.05 * stated  # of which two digits are told
    assert f"{int((c > 0).sum())} of its channels gave up to {c.max():.3g} to b" in result.remarks[-1].reason


# upper limits

SPELLED = {
    "layer": L.ReLU(4.0, name="act"),
    "activation": L.Activation("relu6", name="act"),
    "operation": ops.relu6,
    "minimum": lambda x: ops.minimum(ops.relu(x), 4.0),
    "minimum of an array": lambda x: ops.minimum(L.ReLU()(x), np.float32([4, 5, 6, 4])),
    "minimum before a maximum": lambda x: ops.maximum(ops.minimum(x, 4.0), 0.0),
}


def limits_in(graph):
    (consts,) = [
        [graph.weights[graph.nodes[ref.node].params["value"]] for ref in node.inputs if graph.nodes[ref.node].op == "Const"]
        for node in graph.nodes.values()
        if node.op == "Minimum"
    ]
    return np.ravel(consts[0])


@pytest.mark.parametrize("spelled", SPELLED)
def test_a_limit_moves_with_what_it_limits_where_the_values_stay_below(spelled):
    m = network(lambda x: read()(SPELLED[spelled](first()(x))))
    limit = {"activation": 6.0, "operation": 6.0, "minimum of an array": np.array([4, 5, 6, 4])}.get(spelled, 4.0)
    wanted = np.where(MEAN + 3 * np.abs(STD) < limit, MOVES, 0)  # 4.5, 3.5, -0.1, 3.8
    assert wanted.tolist() == ([1.5, 0, 0, 0.2] if spelled in ("activation", "operation") else [0, 0, 0, 0.2])
    folded, result = moved(m)
    assert_bias(result.model.get_layer("a"), float64(folded.get_layer("a").bias) - wanted)
    np.testing.assert_allclose(limits_in(result.graph), limit - wanted, rtol=1e-6)
    b = folded.get_layer("b")
    assert_bias(result.model.get_layer("b"), float64(b.bias) + response(b, wanted))


def test_where_the_values_lie_between_the_limits_the_function_is_kept():
    m = network(lambda x: read()(L.ReLU(6.0)(first()(x))))
    folded, result = moved(m)
    x = batch(m)
    z = outputs(keras.Model(folded.inputs[0], folded.get_layer("a").output), x)[0]
    off = np.abs(outputs(folded, x)[0] - outputs(result.model, x)[0]).max(axis=-1)
    kept = ((z >= MOVES) | (MOVES == 0)).all(axis=-1)
    assert kept.any()
    assert off[kept].max() < 1e-4


# where zeros meet the next kernel

BORDERS = [name for name in ALL if "transpose" not in name and "dense" not in name and (name in CASES or "conv" not in name)]


@pytest.mark.parametrize("case", BORDERS)
def test_a_border_map_is_what_keras_computes_of_a_constant_image(case):
    case = ALL[case]
    x = keras.Input(case.shape, name="x")
    m = bite(keras.Model(x, case.make(True)(x)))
    layer = m.get_layer("linear")
    channels = case.shape[0 if case.axis == 1 else -1]
    vector = np.random.default_rng(0).normal(size=channels)
    image = np.broadcast_to(vector.reshape(-1, *[1] * (len(case.shape) - 1)) if case.axis == 1 else vector, case.shape)
    source = tfpasses.from_keras(m)
    found = border_map(source.nodes["linear"], vector, source)
    bias = float64(layer.bias).reshape(-1, *[1] * (len(case.shape) - 1)) if case.axis == 1 else float64(layer.bias)
    with eager_groups():
        wanted = float64(layer(image[None].astype("float32")))[0] - bias
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("use_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("case", [name for name in READERS if getattr(ALL[name].make(True), "padding", "valid") != "valid"])
def test_a_border_map_keeps_the_function_where_nothing_bends(case, use_bias):
    case = ALL[case]
    rank = len(case.shape) - 1

    def build(x):
        return case.make(use_bias)(L.BatchNormalization(name="bn")(getattr(L, f"Conv{rank}D")(4, 1, name="a")(x)))

    m = network(build, case.shape)
    folded, result = moved(m, "padding=border-map")
    assert_bias(result.model.get_layer("a"), float64(folded.get_layer("a").bias) - MEAN)
    assert any(node.op == "Add" for node in result.graph.nodes.values())
    assert_kept(m, result)


def padded(x):
    return read(kernel=3, padding="same")(L.ReLU()(first()(x)))


def test_where_zeros_meet_the_next_kernel_the_bias_stays():
    assert stays(network(padded)) == ("b pads with zeros, which are not shifted", "padding=border-map corrects the border")


def test_an_approximate_border_is_wrong_there_and_right_inside():
    m = network(lambda x: read(kernel=3, padding="same")(first()(x)))
    folded, result = moved(m, "padding=approximate")
    x = batch(m)
    off = np.abs(outputs(result.model, x)[0] - outputs(folded, x)[0])
    assert off[:, 1:-1, 1:-1].max() < 1e-4
    assert off[:, 0].max() > 0.1


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (lambda: read(kernel=3, padding="same"), "the size of the image is not known"),
        (lambda: L.Conv2DTranspose(3, 3, name="b"), "what zeros do at the border of a ConvTranspose is not known"),
    ],
)
def test_a_border_that_is_not_known_leaves_the_bias(layer, why):
    m = network(lambda x: layer()(L.ReLU()(first()(x))), (None, None, 3))
    assert stays(m, "padding=border-map") == (why, "padding=approximate errs at the border")


def row(x):
    y = L.ReLU()(first()(x))
    y = L.BatchNormalization(name="bn2")(L.Conv2D(4, 3, padding="same", name="b")(y))
    return read("c")(L.ReLU()(y))


def test_a_layer_that_got_a_map_gives_its_own_bias_on_by_what_is_known_of_the_sum():
    m = network(row)
    folded, result = moved(m, "padding=border-map")
    (added,) = [name for name, node in result.graph.nodes.items() if node.op == "Add"]
    a, b, c = (folded.get_layer(name) for name in "abc")
    assert_bias(result.model.get_layer("a"), float64(a.bias) - MOVES)
    assert_bias(result.model.get_layer("b"), float64(b.bias) - MOVES)
    assert_bias(result.model.get_layer("c"), float64(c.bias) + response(c, MOVES))
    np.testing.assert_allclose(result.graph.facts[Ref(added), ChannelStats.kind].mean, MEAN - MOVES, rtol=1e-6)
    border = border_map(tfpasses.from_keras(folded).nodes["b"], MOVES, tfpasses.from_keras(folded))
    np.testing.assert_allclose(result.graph.facts[Ref("b"), ChannelStats.kind].mean, MEAN - MOVES - border.mean(axis=(0, 1)), rtol=1e-5)
    assert not [remark for remark in result.remarks if remark.kind == "missed"]


# where it is not done

STAYS = {
    "sigmoid": (lambda y: read()(L.Activation("sigmoid", name="s")(y)), "s reads it: it is Sigmoid, which no shift passes through"),
    "softmax": (lambda y: read()(L.Softmax(name="s")(y)), "s reads it: it is Softmax, which no shift passes through"),
    "threshold": (lambda y: read()(L.ReLU(threshold=1.0, name="s")(y)), "s reads it: it is Relu, which no shift passes through"),
    "zero padding": (lambda y: read()(L.ZeroPadding2D(name="s")(L.ReLU()(y))), "s reads it: it is Pad, which no shift passes through"),
    "sum": (lambda y: read()(L.Add(name="s")([L.ReLU()(y), y])), "s reads it: it is Add, which no shift passes through"),
    "concatenation": (lambda y: read()(L.Concatenate(name="s")([y, L.ReLU()(y)])), "s reads it: it is Concat, which no shift passes"),
    "product": (lambda y: read()(ops.multiply(L.ReLU()(y), np.float32(2))), "it is Multiply, which no shift passes through"),
    "dropout in training": (lambda y: read()(L.Dropout(0.5, name="s")(y, training=True)), "s reads it: it is Dropout, which no shift"),
    "output": (lambda y: [z := L.ReLU(name="r")(y), read()(z)], "r is an output"),
    "some behind an activation": (lambda y: [read()(L.ReLU()(y)), read("c")(y)], "some of what reads it lies behind an activation"),
    "another dtype": (lambda y: read()(L.ReLU(dtype="float64", name="s")(y)), "s computes in another dtype"),
    "constant before the relu": (lambda y: read()(L.ReLU(name="r")(ops.add(np.float32([5, 5, 5, -5]), y))), "adds a constant to it"),
    "minimum of what is not bent": (lambda y: read()(ops.minimum(y, 4.0)), "it is Minimum, which no shift passes through"),
    "shared reader": (lambda y: [(b := read())(L.ReLU()(y)), b(L.ReLU()(y))], "b#1 reads it and shares a weight with b"),
}


@pytest.mark.parametrize("case", STAYS)
def test_the_bias_stays(case):
    build, why = STAYS[case]
    training = case == "dropout in training"
    reason, _ = stays(network(lambda x: build(first()(x))), verify="off" if training else "shapes")
    assert why in reason


def test_a_constant_of_zero_before_the_relu_changes_nothing():
    m = network(lambda x: read()(L.ReLU()(ops.add(np.zeros(4, "float32"), first()(x)))))
    folded, result = moved(m)
    assert_bias(result.model.get_layer("a"), float64(folded.get_layer("a").bias) - MOVES)


def test_where_no_mean_is_far_enough_above_zero_the_bias_stays():
    m = network(lambda x: read()(L.ReLU()(first()(x))))
    assert stays(m, "sigmas=10")[0] == "no channel is so far above zero that a part of its bias could move"
    m.get_layer("bn").beta.assign(-np.abs(MEAN))
    assert stays(m)[0] == "no channel is so far above zero that a part of its bias could move"


def test_a_layer_called_twice_keeps_its_bias():
    conv, bn = L.Conv2D(4, 1, name="a"), L.BatchNormalization(name="bn")
    m = network(lambda x: read()(L.Add()([L.ReLU()(bn(conv(x))), L.ReLU()(bn(conv(L.ReLU()(x))))])))
    assert stays(m)[0] == "it shares a weight with a#1"


def test_statistics_that_are_no_numbers_move_nothing():
    m = network(lambda x: read()(L.ReLU()(first()(x))))
    graph = tfpasses.run(m, FOLD).graph
    facts = {(Ref("a"), ChannelStats.kind): ChannelStats([3.0, np.nan, np.inf, np.nan], [0.5, 1, 1, np.nan])}
    result = tfpasses.run(graph, "high-bias-fold", facts=facts)
    old, new = (graph_.weights["a/bias"] for graph_ in (graph, result.graph))
    np.testing.assert_allclose(new, old - np.float32([1.5, 0, 0, 0]), rtol=1e-6)


def test_channels_that_a_reshape_mixes_keep_their_bias():
    m = network(lambda x: L.Dense(3, name="b")(L.Reshape((-1, 8))(L.ReLU()(first()(x)))))
    folded, result = moved(m)
    b = folded.get_layer("b")
    assert_bias(result.model.get_layer("b"), float64(b.bias) + np.tile(MOVES, 2) @ float64(b.kernel))
    mixed = network(lambda x: L.Dense(3, name="b")(L.Reshape((-1, 3))(L.ReLU()(first()(x)))), (6, 4, 3))
    assert stays(mixed)[0] == "an input channel of b holds several of its channels"


def test_without_statistics_it_is_refused_before_anything_runs():
    m = network(lambda x: read()(L.ReLU()(L.Conv2D(4, 1, name="a")(x))))
    with pytest.raises(PipelineError, match=r"high-bias-fold requires ChannelStats, .*put fold-batch-norms before it, or load facts"):
        tfpasses.run(m, "high-bias-fold")


@pytest.mark.parametrize("options", ["sigmas=-1", "padding=none"])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(PipelineError, match="high-bias-fold"):
        tfpasses.run("no such file", f"high-bias-fold{{{options}}}")


# other kinds


def test_a_frozen_graph_is_folded_as_the_model_is():
    m = network(row)
    definition = frozen(m)
    results = [tfpasses.run(one, f"{FOLD},high-bias-fold{{padding=border-map}}") for one in (m, definition)]
    assert [r.rule for r in results[0].rewrites if r.pass_name == "high-bias-fold"] == [
        r.rule for r in results[1].rewrites if r.pass_name == "high-bias-fold"
    ]
    x = batch(m)
    np.testing.assert_allclose(compute(results[1].model, {"in_0": x}, ["Identity"])[0], outputs(results[0].model, x)[0], atol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_in_half_precision_nothing_changes_its_dtype(policy):
    as_it_is = {"dtype": policy}

    def build(x):
        y = L.BatchNormalization(name="bn", **as_it_is)(L.Conv2D(4, 1, name="a", **as_it_is)(x))
        return L.Conv2D(3, 3, padding="same", name="b", **as_it_is)(L.ReLU(6.0, **as_it_is)(y))

    m = network(build)
    _, result = moved(m, "padding=border-map")
    assert [x.dtype for x in result.model.outputs] == [x.dtype for x in m.outputs]
    named = policy.removeprefix("mixed_")
    assert {node.specs[0].dtype for node in result.graph.nodes.values() if node.op in ("Const", "Add", "Minimum")} == {named}
