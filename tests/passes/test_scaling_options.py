"""cross-layer-scaling: bounds, powers of two, channels of range 0, named sets, facts, remarks, half precision, and every kind of model."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from keras import ops

import tfpasses
from cle_by_hand import float64, given_range, pair_scale, read_range, scaled_given, scaled_read, triplet_scales
from fold_cases import batch
from graph_defs import built, canonical, compute, draw, frozen
from in_float64 import outputs, truth
from random_models import POLICIES
from scaling_check import FLOAT32, assert_close, assert_kept, line, model, scaled
from tfpasses.graph import ChannelStats, Ref, UnsupportedModelError, load_facts
from tfpasses.manager import PassError, PipelineError


def pair(*between, channels=4, **options):
    return line(L.Conv2D(channels, 3, name="a"), *between, L.Conv2D(3, 1, name="b"), **options)


def reasons(result):
    return {remark.node: remark.reason for remark in result.remarks if remark.kind == "missed"}


def notes(result):
    return " / ".join(f"{remark.node}: {remark.reason} {remark.remedy}" for remark in result.remarks if remark.kind == "note")


def put(m, name, change, weight="kernel"):
    """Change a layer's weight in place."""
    variable = getattr(m.get_layer(name), weight)
    array = np.asarray(variable).copy()
    change(array)
    variable.assign(array)


# sweeps, tolerance, max-scale


def test_sweeps_are_counted_and_what_they_leave_is_told():
    m = line(
        L.Dense(8, name="a"), L.ReLU(), L.Dense(8, name="b"), L.ReLU(), L.Dense(8, name="c"), L.ReLU(), L.Dense(8, name="d"), shape=(8,)
    )
    one, all_ = scaled(m, "sweeps=1 tolerance=0.001"), scaled(m, "sweeps=1000 tolerance=0.001")
    assert "in 1 sweeps" in notes(one)
    assert "% still; more sweeps make them equal" in notes(one)
    assert "still" not in notes(all_)
    for a, b in ("ab", "bc", "cd"):
        given, read = given_range(all_.model.get_layer(a)), read_range(all_.model.get_layer(b))
        np.testing.assert_allclose(given, read, rtol=1e-3)
    np.testing.assert_allclose(
        given_range(one.model.get_layer("c")), read_range(one.model.get_layer("d")), rtol=1e-6
    )  # the last pair solved


def test_max_scale_bounds_every_scale_and_its_inverse():
    m = pair()
    put(m, "a", lambda k: k.__imul__(np.float32([100, 0.01, 1, 1])))
    wanted = np.clip(pair_scale(m.get_layer("a"), m.get_layer("b")), 1 / 1.5, 1.5)
    result = scaled(m, "max-scale=1.5")
    assert_close(result.model.get_layer("a").kernel, scaled_given(m.get_layer("a"), wanted))
    assert_close(result.model.get_layer("b").kernel, scaled_read(m.get_layer("b"), wanted))
    bounded = int(((wanted == 1.5) | (wanted == 1 / 1.5)).sum())
    assert bounded >= 2
    assert f"a: the scales of {bounded} channels behind it are bounded by max-scale=1.5" in notes(result)
    assert "still" not in notes(result)
    assert_kept(m, result)


@pytest.mark.parametrize("options", ["sweeps=0", "tolerance=-1", "max-scale=0.5", "scales=real2", "relu6=keep", "sweeps=1.5"])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(PipelineError, match="cross-layer-scaling"):
        scaled(pair(), options)


# powers of two

EXACT = {
    "nothing": [],
    "relu": [L.ReLU()],
    "leaky relu": [L.LeakyReLU(0.3)],
    "relu6": [L.ReLU(6.0)],
    "max pool": [L.ReLU(), L.MaxPooling2D()],
    "average pool": [L.AveragePooling2D(3, strides=1, padding="same")],
    "padding": [L.ZeroPadding2D()],
}


@pytest.mark.parametrize("way", EXACT)
def test_by_powers_of_two_every_output_is_bit_equal(way):
    m = pair(*EXACT[way])
    s = np.exp2(np.round(np.log2(pair_scale(m.get_layer("a"), m.get_layer("b")))))
    result = scaled(m, "scales=pow2")
    assert result.rewrites
    np.testing.assert_array_equal(result.model.get_layer("a").kernel, scaled_given(m.get_layer("a"), s).astype("float32"))
    np.testing.assert_array_equal(result.model.get_layer("a").bias, np.float32(float64(m.get_layer("a").bias) / s))
    x = batch(m)
    np.testing.assert_array_equal(outputs(result.model, x)[0], outputs(m, x)[0])


def residual(x):
    y = L.ReLU(6.0)(L.Conv2D(4, 1, name="stem")(x))
    z = L.DepthwiseConv2D(3, padding="same", activation="relu6")(L.Conv2D(4, 1, activation="relu6")(y))
    return L.Dense(3)(L.GlobalAveragePooling2D()(L.Add()([y, L.Conv2D(4, 1)(z)])))


def test_a_network_scaled_by_powers_of_two_is_bit_equal():
    m = model(residual)
    result = scaled(m, "scales=pow2")
    x = batch(m)
    np.testing.assert_array_equal(outputs(result.model, x)[0], outputs(m, x)[0])


def test_powers_of_two_stay_within_max_scale():
    m = pair()
    put(m, "a", lambda k: k.__imul__(np.float32([100, 0.01, 1, 1])))
    new = scaled(m, "scales=pow2 max-scale=3").model
    s = given_range(m.get_layer("a")) / given_range(new.get_layer("a"))
    assert set(s) <= {0.5, 1.0, 2.0}
    assert {0.5, 2.0} <= set(s)


# upper limits

CLIPS = {
    "layer": lambda x: L.ReLU(6.0, name="act")(L.Conv2D(4, 3, name="a")(x)),
    "layer of another limit": lambda x: L.ReLU(1.5, name="act")(L.Conv2D(4, 3, name="a")(x)),
    "layer with a slope": lambda x: L.ReLU(6.0, negative_slope=0.1, name="act")(L.Conv2D(4, 3, name="a")(x)),
    "activation layer": lambda x: L.Activation("relu6", name="act")(L.Conv2D(4, 3, name="a")(x)),
    "activation of the layer": lambda x: L.Identity()(L.Conv2D(4, 3, activation="relu6", name="a")(x)),
    "operation": lambda x: ops.relu6(L.Conv2D(4, 3, name="a")(x)),
    "minimum": lambda x: ops.minimum(ops.relu(L.Conv2D(4, 3, name="a")(x)), 6.0),
    "minimum first": lambda x: ops.minimum(6, L.Conv2D(4, 3, activation="relu", name="a")(x)),
    "minimum of an array": lambda x: ops.minimum(ops.relu(L.Conv2D(4, 3, name="a")(x)), np.full((1, 1, 4), 6, "float32")),
    "minimum before a maximum": lambda x: ops.maximum(0, ops.minimum(L.Conv2D(4, 3, name="a")(x), 6)),
    "minimum before a relu": lambda x: ops.relu(ops.minimum(np.full((4,), 6, "float32"), L.Conv2D(4, 3, name="a")(x))),
    "clip": lambda x: ops.clip(L.Conv2D(4, 3, name="a")(x), 0, 6),
    "minimum of a prelu": lambda x: ops.minimum(L.PReLU()(L.Conv2D(4, 3, name="a")(x)), np.float32(6)),
}


def clipped(way):
    return model(lambda x: L.Conv2D(3, 1, name="b")(CLIPS[way](x)))


def limits_in(graph):
    """The limits of the one activation that has some."""
    for node in graph.nodes.values():
        if node.op == "Minimum":
            consts = [ref.node for ref in node.inputs if graph.nodes[ref.node].op == "Const"]
            return np.ravel(graph.weights[graph.nodes[consts[0]].params["value"]])
    return np.ravel([node.config["max_value"] for node in graph.nodes.values() if node.op == "Relu"])


@pytest.mark.parametrize("way", CLIPS)
def test_a_limit_is_divided_by_the_scales_channel_by_channel(way):
    m = clipped(way)
    limit = 1.5 if "another" in way else 6.0
    s = pair_scale(m.get_layer("a"), m.get_layer("b"))
    result = scaled(m, "relu6=clip")
    assert_close(result.model.get_layer("a").kernel, scaled_given(m.get_layer("a"), s))
    assert_close(limits_in(result.graph), limit / s)
    x = 4 * batch(m)
    assert (outputs(m, x)[0] != outputs(tfpasses.run(m, "relu6-to-relu").model, x)[0]).any()  # the limit is reached
    assert_kept(m, result, x=x)


def test_a_limit_that_is_scaled_alike_stays_one_number():
    m = clipped("layer")
    for name, r in (("a", 2.0), ("b", 0.5)):
        put(
            m,
            name,
            lambda k, r=r: k.__imul__((r / np.abs(k).max(axis=(0, 1, 2) if r == 2 else (0, 1, 3), keepdims=True)).astype("float32")),
        )
    result = scaled(m)
    np.testing.assert_allclose(limits_in(result.graph), [3.0], rtol=1e-6)
    assert not [node for node in result.graph.nodes.values() if node.op == "Minimum"]
    assert result.model.get_layer("act").max_value == pytest.approx(3.0, rel=1e-6)
    assert_kept(m, result)


def test_limits_are_scaled_a_second_time():
    m = clipped("layer")
    once = tfpasses.run(m, "cross-layer-scaling{max-scale=1.1}").model
    twice = scaled(once)
    assert_close(limits_in(twice.graph), 6.0 / pair_scale(m.get_layer("a"), m.get_layer("b")))
    assert_kept(m, twice)
    assert len([node for node in twice.graph.nodes.values() if node.op == "Minimum"]) == 1


@pytest.mark.parametrize("way", CLIPS)
def test_what_has_a_limit_is_left_alone_if_so_asked(way):
    result = scaled(clipped(way), "relu6=skip")
    assert not result.rewrites
    assert f"it clips at {1.5 if 'another' in way else 6:g}, which no scale passes through" in reasons(result)["a"]


def within(limit=6.0, spelled=None):
    """Values between 0 and 1, a kernel of one tap, a limit: the bounds of what the limit is put on are known."""

    def build(x):
        y = L.Conv2D(4, 1, name="a")(L.Activation("sigmoid")(x))
        return L.Conv2D(3, 1, name="b")(L.ReLU(limit, name="act")(y) if spelled is None else spelled(y))

    m = model(build)
    put(m, "a", lambda k: np.multiply(np.abs(k), np.float32([0.3, 1, 1, 40]), out=k))
    return m


def highest(layer):
    """The most that a layer gives of inputs between 0 and 1."""
    return np.maximum(float64(layer.kernel), 0).sum(axis=(0, 1, 2)) + float64(layer.bias)


@pytest.mark.parametrize("scales", ["real", "pow2"])
@pytest.mark.parametrize(
    "spelled",
    [None, lambda y: ops.minimum(ops.relu(y), 6.0), lambda y: ops.maximum(ops.minimum(y, 6.0), 0.0)],
    ids=["relu6", "minimum", "minimum first"],
)
@pytest.mark.parametrize("few", [1.0, 0.2])
def test_a_limit_that_is_never_reached_bounds_the_scale(scales, spelled, few):
    m = within(spelled=spelled)
    put(m, "b", lambda k: k.__imul__(np.float32(1 / few)))
    first, second, high = m.get_layer("a"), m.get_layer("b"), highest(m.get_layer("a"))
    free = high <= 6
    assert free.tolist() == [True, True, True, False]
    least = np.where(free, high / 6, 1.0)
    wanted = np.where(free, np.maximum(pair_scale(first, second), least), 1.0)
    if scales == "pow2":
        power = np.exp2(np.round(np.log2(wanted)))
        wanted = np.where(power < least, np.exp2(np.ceil(np.log2(least))), power)
    result = scaled(m, f"relu6=bound scales={scales}")
    assert_close(result.model.get_layer("a").kernel, scaled_given(first, wanted))
    assert (highest(result.model.get_layer("a")) <= 6 + 1e-5)[free].all()
    np.testing.assert_array_equal(limits_in(result.graph), [6.0])
    assert "1 of its 4 channels keep their scale" in reasons(result)["a"]
    assert "it clips at 6, which its values may exceed" in reasons(result)["a"]
    assert_kept(m, result, x=100 * batch(m))


def test_a_limit_on_what_is_not_known_stops_the_scale():
    result = scaled(clipped("layer"), "relu6=bound")
    assert not result.rewrites
    assert "which its values may exceed" in reasons(result)["a"]


def test_a_limit_of_zero_is_scaled_like_any_other():
    m = line(L.Conv2D(4, 3, name="a"), L.ReLU(0.0), L.Conv2D(3, 1, name="b"))
    for relu6 in ("clip", "bound", "skip"):
        assert_kept(m, scaled(m, f"relu6={relu6}"))


def test_a_limit_behind_a_product_with_an_array_is_bounded():
    m = model(lambda x: L.Conv2D(3, 1, name="b")(L.ReLU(6.0)(ops.multiply(np.float32([1, 2, 3, 4]), L.Activation("tanh")(x)))))
    assert not scaled(m, "relu6=bound").rewrites


# channels of range 0

TINY = np.float32(1e-30)


def geometric(*ranges):
    """The largest geometric mean of the channels that have all ranges."""
    whole = np.all(ranges, axis=0)
    return np.exp(np.mean(np.log([r[whole] for r in ranges]), axis=0)).max()


@pytest.mark.parametrize("loud", [1.0, 1000.0], ids=["quiet", "loud"])
@pytest.mark.parametrize("side", ["a", "b"])
def test_of_a_pair_of_which_one_range_is_zero_the_other_comes_to_exceed_no_other_channel(side, loud):
    m = pair(L.ReLU())
    put(m, "a", lambda k: k.__setitem__((..., 1), 0 if side == "a" else k[..., 1] * loud))
    put(m, "b", lambda k: k.__setitem__((..., 1, slice(None)), 0 if side == "b" else k[..., 1, :] * loud))
    r1, r2 = given_range(m.get_layer("a")), read_range(m.get_layer("b"))
    s, most = pair_scale(m.get_layer("a"), m.get_layer("b")), geometric(r1, r2)
    assert s[1] == 1
    assert max(r1[1], r2[1]) > most or loud == 1
    s[1] = min(most / r2[1], 1) if side == "a" else max(r1[1] / most, 1)
    result = scaled(m, "sweeps=1")
    assert_close(result.model.get_layer("a").kernel, scaled_given(m.get_layer("a"), s))
    assert_close(result.model.get_layer("a").bias, float64(m.get_layer("a").bias) / s)
    assert_close(result.model.get_layer("b").kernel, scaled_read(m.get_layer("b"), s))
    assert "a: 1 channels behind it have a range of 0" in notes(result)
    assert_kept(m, result)


@pytest.mark.parametrize("zero", [("a",), ("b",), ("a", "b")])
def test_where_no_channel_has_two_ranges_nothing_is_scaled(zero):
    m = pair(L.ReLU())
    for name in zero:
        put(m, name, lambda k: k.fill(0))
    result = scaled(m)
    assert not result.rewrites
    assert "a: 4 channels behind it have a range of 0" in notes(result)


@pytest.mark.parametrize("zero", ["a", "b", "c", "ab", "ac", "bc", "abc"])
def test_of_a_triplet_of_which_a_range_is_zero_all_stays_finite_and_the_function_too(zero):
    m = line(L.Conv2D(4, 1, name="a"), L.ReLU(), L.DepthwiseConv2D(3, name="b"), L.ReLU(), L.Conv2D(3, 1, name="c"))
    places = {"a": (..., 2), "b": (..., 2, slice(None)), "c": (..., 2, slice(None))}
    for name in "abc":
        put(m, name, lambda k, name=name: k.__setitem__(places[name], 0 if name in zero else 50 * k[places[name]]))
    result = scaled(m, "sweeps=1")
    old, new = (
        [given_range(one.get_layer("a")), given_range(one.get_layer("b")), read_range(one.get_layer("c"))] for one in (m, result.model)
    )
    most = geometric(*old)
    for before, after in zip(old, new, strict=True):
        assert after[2] == pytest.approx(min(before[2], most), rel=1e-6)
        np.testing.assert_allclose(after[[0, 1, 3]], np.cbrt(np.prod(old, axis=0))[[0, 1, 3]], rtol=1e-6)
    assert_kept(m, result)


@pytest.mark.parametrize("side", ["a", "b"])
def test_ranges_of_1e_30_are_scaled_no_further_than_the_bound(side):
    m = pair(L.ReLU())
    put(m, side, lambda k: k.__setitem__((..., 1) if side == "a" else (..., 1, slice(None)), TINY))
    result = scaled(m)
    s = given_range(m.get_layer("a")) / given_range(result.model.get_layer("a"))
    assert s[1] == pytest.approx(2.0 ** (-16 if side == "a" else 16), rel=1e-6)
    assert "bounded by max-scale=65536" in notes(result)
    assert np.isfinite(outputs(result.model, batch(m))[0]).all()
    assert_kept(m, result)


def test_a_bias_that_would_overflow_keeps_the_scale_of_its_channel():
    m = pair(L.ReLU())
    put(m, "a", lambda k: k.__setitem__((..., 1), TINY))
    put(m, "a", lambda b: b.__setitem__(1, 3e38), "bias")
    result = scaled(m)
    s = given_range(m.get_layer("a")) / given_range(result.model.get_layer("a"))
    assert s[1] == 1
    assert (s[[0, 2, 3]] != 1).all()
    assert np.isfinite(result.model.get_layer("a").bias).all()


def test_a_constant_that_would_overflow_keeps_the_scale_of_its_channel():
    m = model(lambda x: L.Conv2D(3, 1, name="b")(ops.add(np.float32([1, 3e38, 1, 1]), L.Conv2D(4, 3, use_bias=False, name="a")(x))))
    put(m, "a", lambda k: k.__setitem__((..., 1), TINY))
    result = scaled(m, verify="shapes")
    s = given_range(m.get_layer("a")) / given_range(result.model.get_layer("a"))
    assert s[1] == 1
    assert all(np.isfinite(array).all() for array in result.graph.weights.values())


# sets that are named


def three(**options):
    return line(L.Conv2D(4, 1, name="a"), L.ReLU(), L.DepthwiseConv2D(3, name="b"), L.ReLU(), L.Conv2D(3, 1, name="c"), **options)


def test_a_named_pair_is_scaled_and_nothing_else():
    m = three()
    result = scaled(m, 'only="a,b"')
    s = pair_scale(m.get_layer("a"), m.get_layer("b"))
    assert_close(result.model.get_layer("a").kernel, scaled_given(m.get_layer("a"), s))
    assert_close(result.model.get_layer("b").kernel, scaled_read(m.get_layer("b"), s))
    np.testing.assert_array_equal(result.model.get_layer("c").kernel, m.get_layer("c").kernel)
    assert_kept(m, result)


def test_a_named_triplet_is_scaled_by_the_cube_root():
    m = three()
    result = scaled(m, 'only="a,b,c"')
    s, t = triplet_scales(*(m.get_layer(name) for name in "abc"))
    assert_close(result.model.get_layer("a").kernel, scaled_given(m.get_layer("a"), s))
    assert_close(result.model.get_layer("b").kernel, scaled_given(m.get_layer("b"), t / s))
    assert_close(result.model.get_layer("c").kernel, scaled_read(m.get_layer("c"), t))
    assert result.rewrites[0].payload["sets"][0].startswith("a,b,c: 8 channels, ")
    assert_kept(m, result)


@pytest.mark.parametrize("order", ["ab bc", "bc ab"])
def test_named_pairs_are_scaled_in_the_order_of_writing(order):
    m = three()
    first, middle, last = (m.get_layer(name) for name in "abc")
    sets = " ".join(",".join(one) for one in order.split())
    new = scaled(m, f'only="{sets}" sweeps=1').model
    depthwise = np.abs(float64(middle.kernel)).max(axis=(0, 1))[:, 0]
    if order == "ab bc":
        s = pair_scale(first, middle)
        t = np.sqrt(depthwise * s / read_range(last))
    else:
        t = pair_scale(middle, last)
        s = np.sqrt(given_range(first) / (depthwise / t))
    assert_close(new.get_layer("a").kernel, scaled_given(first, s))
    assert_close(new.get_layer("b").kernel, scaled_given(middle, t / s))
    assert_close(new.get_layer("c").kernel, scaled_read(last, t))


def test_only_some_channels_of_a_named_pair_may_be_free():
    m = within()
    assert scaled(m, 'relu6=bound only="a,b"').rewrites


def fork(x):
    y = L.ReLU(name="relu")(L.Conv2D(4, 3, name="a")(x))
    z = L.Activation("tanh", name="tanh")(L.Conv2D(4, 1, name="d")(y))
    return L.Add()([L.Conv2D(4, 1, name="b")(y), L.Conv2D(4, 1, name="c")(z)])


REFUSED = {
    "a,nobody": "there is no layer 'nobody'",
    "a,relu": "relu is no linear layer",
    "b,a": "a does not read what b gives",
    "a,c": "c does not read what a gives",
    "a,b": "to scale it would change the function: d reads what a gives, too",
    "d,c": "to scale it would change the function: tanh: it is Tanh, which no scale passes through",
    "a,b,c": "to scale it would change the function: d reads what a gives, too",
}


@pytest.mark.parametrize("names", REFUSED)
def test_a_set_that_would_change_the_function_is_refused_with_why(names):
    with pytest.raises(PassError) as caught:
        scaled(model(fork), f'only="{names}"')
    assert str(caught.value).endswith(f"only={names}: {REFUSED[names]}")


def test_other_sets_that_are_refused():
    joined = model(lambda x: L.Conv2D(3, 1, name="c")(L.Add()([L.Conv2D(4, 1, name="a")(x), L.Conv2D(4, 1, name="b")(x)])))
    with pytest.raises(PassError, match=r"only=a,c: to scale it would change the function: b gives to the same channels as a$"):
        scaled(joined, 'only="a,c"')
    output = model(lambda x: [y := L.Conv2D(4, 1, name="a")(x), L.Conv2D(3, 1, name="b")(y)])
    with pytest.raises(PassError, match=r"only=a,b: to scale it would change the function: a: it is an output$"):
        scaled(output, 'only="a,b"')
    with pytest.raises(PassError, match=r"only=a,b: to scale it would change the function: act: it clips at 6, which no scale"):
        scaled(clipped("layer"), 'only="a,b" relu6=skip')
    row = line(L.Conv2D(4, 1, name="a"), L.Conv2D(4, 1, name="b"), L.Conv2D(4, 1, name="c"))
    with pytest.raises(PassError, match=r"only=a,b,c: b is no depthwise layer that gives as many channels as it reads$"):
        scaled(row, 'only="a,b,c"')
    double = line(L.Conv2D(4, 1, name="a"), L.DepthwiseConv2D(1, depth_multiplier=2, name="b"), L.Conv2D(4, 1, name="c"))
    with pytest.raises(PassError, match="b is no depthwise layer"):
        scaled(double, 'only="a,b,c"')


@pytest.mark.parametrize("text", ["a", "a,b,c,d", "a,", ",a", "a,b c"])
def test_sets_that_are_none_are_refused_before_anything_runs(text):
    with pytest.raises(PipelineError, match="write sets as layer,layer or layer,depthwise,layer, with spaces between the sets"):
        tfpasses.run("no such file", f'cross-layer-scaling{{only="{text}"}}')


def test_a_set_in_a_nested_model_is_named_by_its_path():
    inner = line(L.Conv2D(4, 3, name="a"), L.ReLU(), L.Conv2D(4, 1, name="b"))
    m = model(lambda x: L.Softmax()(inner(x)))
    name = inner.name
    result = scaled(m, f'only="{name}/a,{name}/b"')
    s = pair_scale(inner.get_layer("a"), inner.get_layer("b"))
    assert_close(result.model.get_layer(name).get_layer("a").kernel, scaled_given(inner.get_layer("a"), s))


# facts and remarks


def test_statistics_are_divided_by_the_scale():
    m = line(L.Conv2D(4, 3, name="a"), L.BatchNormalization(name="bn"), L.ReLU(), L.Conv2D(3, 1, name="b"))
    folded = tfpasses.run(m, "fold-batch-norms")
    s = pair_scale(folded.model.get_layer("a"), m.get_layer("b"))
    result = tfpasses.run(m, "fold-batch-norms,cross-layer-scaling{sweeps=1}")
    stats = result.graph.facts[Ref("a"), ChannelStats.kind]
    np.testing.assert_allclose(stats.mean, float64(m.get_layer("bn").beta) / s, rtol=1e-6)
    np.testing.assert_allclose(stats.std, np.abs(float64(m.get_layer("bn").gamma)) / s, rtol=1e-6)


def test_what_was_scaled_is_told():
    m = pair(L.ReLU())
    s = pair_scale(m.get_layer("a"), m.get_layer("b"))
    result = scaled(m, "sweeps=1")
    (rewrite,) = result.rewrites
    assert dict(rewrite.payload) == {"sets": (f"a,b: 4 channels, {s.min():.3g} to {s.max():.3g}",), "sweeps": 1}
    assert rewrite.root == "a"
    assert f"m: 1 sets of layers scaled in 1 sweeps, 4 channels, by {s.min():.3g} to {s.max():.3g}" in notes(result)


def test_what_is_equal_already_is_left_alone():
    m = pair(L.ReLU())
    once = scaled(m, "scales=pow2").model
    assert not scaled(once, "scales=pow2").rewrites


# half precision


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("scales", ["real", "pow2"])
def test_in_any_precision_the_function_is_kept(policy, scales):
    as_it_is = {"dtype": policy}
    dtype = "float64" if policy == "float64" else "float32"
    m = line(
        L.Conv2D(4, 3, name="a", **as_it_is),
        L.ReLU(6.0, **as_it_is),
        L.DepthwiseConv2D(3, name="b", **as_it_is),
        L.LeakyReLU(**as_it_is),
        L.Conv2D(3, 1, name="c", **as_it_is),
        dtype=dtype,
    )
    result = scaled(m, f"scales={scales}")
    assert result.rewrites
    for old, new in zip(m.weights, result.model.weights, strict=True):
        assert old.dtype == new.dtype
    assert [x.dtype for x in result.model.outputs] == [x.dtype for x in m.outputs]
    assert_kept(m, result, POLICIES[policy])


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_limits_and_constants_have_the_dtype_of_what_they_meet(policy, tmp_path):
    as_it_is = {"dtype": policy}
    m = line(L.Conv2D(4, 3, name="a", **as_it_is), lambda x: x + 1.0, L.ReLU(6.0, **as_it_is), L.Conv2D(3, 1, name="b", **as_it_is))
    result = scaled(m)
    named = policy.removeprefix("mixed_")
    consts = [node for node in result.graph.nodes.values() if node.op == "Const"]
    assert [node.specs[0].dtype for node in consts] == [named, named]
    assert {x.dtype for layer in result.model.operations for x in (layer.output,)} == {named, "float32"}
    tfpasses.save(result, tmp_path / "m.keras")
    again = tfpasses.load(tmp_path / "m.keras").to_keras()
    np.testing.assert_array_equal(outputs(again, batch(m))[0], outputs(result.model, batch(m))[0])
    assert_kept(m, result, POLICIES.get(policy, 2.0**-8))


# other kinds of models, and files


def test_a_scaled_relu6_network_goes_through_a_keras_file_and_not_through_h5(tmp_path):
    m = model(residual)
    result = scaled(m)
    tfpasses.save(result, tmp_path / "m.keras", facts=tmp_path / "facts.npz")
    again = tfpasses.load(tmp_path / "m.keras")
    np.testing.assert_array_equal(outputs(again.to_keras(), batch(m))[0], outputs(result.model, batch(m))[0])
    load_facts(tmp_path / "facts.npz", again)
    with pytest.raises(UnsupportedModelError, match=r"m\.h5: Keras cannot load keras\.ops operations .* write a \.keras file"):
        tfpasses.save(result, tmp_path / "m.h5")


def test_an_h5_file_holds_what_has_no_limits(tmp_path):
    m = pair(L.ReLU())
    tfpasses.save(scaled(m), tmp_path / "m.h5")
    assert_close(
        tfpasses.load(tmp_path / "m.h5").to_keras().get_layer("a").kernel,
        scaled_given(m.get_layer("a"), pair_scale(m.get_layer("a"), m.get_layer("b"))),
    )


def test_a_frozen_graph_is_scaled_as_the_model_is():
    m = model(residual)
    definition = frozen(m)
    in_keras, result = scaled(m), scaled(definition)
    assert dict(result.rewrites[-1].payload)["sweeps"] == dict(in_keras.rewrites[-1].payload)["sweeps"]
    kernels = sorted((array.shape, float(np.abs(array).max())) for array in result.graph.weights.values() if array.ndim > 1)
    wanted = sorted((array.shape, float(np.abs(array).max())) for array in in_keras.graph.weights.values() if array.ndim > 1)
    assert [shape for shape, _ in kernels] == [shape for shape, _ in wanted]
    np.testing.assert_allclose([r for _, r in kernels], [r for _, r in wanted], rtol=1e-5)
    x = batch(m)
    exact = truth(m, x)[0]
    own, new = (np.abs(compute(one, {"in_0": x}, ["Identity"])[0] - exact).max() for one in (definition, result.model))
    assert new <= 4 * max(own, FLOAT32 * np.abs(exact).max())


def test_a_saved_model_is_scaled_and_its_variables_stay_variables(tmp_path):
    m = model(residual)
    m.export(tmp_path / "before", verbose=False)
    result = scaled(str(tmp_path / "before"))
    tfpasses.save(result, str(tmp_path / "after"))
    x = tf.constant(batch(m))
    before, after = (tf.saved_model.load(str(tmp_path / name)) for name in ("before", "after"))
    called = [next(iter(one.signatures["serving_default"](x).values())).numpy() for one in (before, after)]
    exact = truth(m, x)[0]
    assert np.abs(called[1] - exact).max() <= 4 * max(np.abs(called[0] - exact).max(), FLOAT32 * np.abs(exact).max())
    kernels = [v.numpy() for v in after.signatures["serving_default"].variables if v.shape.rank == 4]
    old = [np.asarray(w) for w in m.weights if w.ndim == 4]
    assert sorted(k.shape for k in kernels) == sorted(k.shape for k in old)
    assert not any(np.array_equal(k, other) for k in kernels for other in old if k.shape == other.shape)


def test_constants_of_a_graph_are_scaled_whatever_their_shape():
    w, v, c = draw(1, 1, 4, 4), 5 * draw(1, 1, 4, 3), draw(4, seed=3)

    def build(x):
        y = tf.nn.conv2d(x, w, 1, "SAME")
        y = tf.add(tf.reshape(tf.constant(c), [1, 1, 1, 4]), tf.nn.relu(y))
        y = tf.maximum(tf.constant(0.25), y)
        return tf.nn.conv2d(tf.minimum(tf.nn.relu(y), tf.constant(1.5)), v, 1, "SAME")

    definition = built(build, x=(2, 5, 5, 4))
    result = scaled(definition, outputs=["out"])
    scale = np.sqrt(np.abs(w).max(axis=(0, 1, 2)) / np.abs(v).max(axis=(0, 1, 3)))
    new = canonical(result.model)
    limits = [new.weights[node.params["value"]] for node in new.nodes.values() if node.op == "Const" and node.specs[0].shape == (1, 1, 4)]
    assert any(np.allclose(np.ravel(one), 1.5 / scale, rtol=1e-6) for one in limits)
    assert any(np.allclose(np.ravel(one), 0.25 / scale, rtol=1e-6) for one in limits)
    x = draw(2, 5, 5, 4)
    before, after = (compute(one, {"x": x}, ["out"])[0] for one in (definition, result.model))
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_a_bias_that_is_added_along_another_axis_than_the_scales_becomes_a_sum():
    where = {"data_format": "channels_first", "use_bias": False}
    m = line(
        L.DepthwiseConv2D(1, name="a", **where),
        lambda x: ops.add(x, np.float32([1, -2, 3, 4])),  # which Keras adds along the last axis, by BiasAdd
        L.ReLU(),
        L.DepthwiseConv2D(1, name="b", **where),
        shape=(4, 5, 4),
    )
    definition = frozen(m)
    assert "BiasAdd" in {node.op for node in definition.node}
    result = scaled(definition)
    assert "scale" in {rewrite.rule for rewrite in result.rewrites}
    x = batch(m)
    before, after = (compute(one, {"in_0": x}, ["Identity"])[0] for one in (definition, result.model))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    assert_kept(m, scaled(m))


def test_a_matrix_that_two_layers_use_differently_keeps_its_scale():
    k = draw(4, 4)

    def build(x):
        w = tf.constant(k)
        y = tf.nn.relu(tf.linalg.matmul(x, w))
        return tf.linalg.matmul(tf.nn.relu(tf.nn.bias_add(tf.linalg.matmul(y, w), tf.constant(draw(4, seed=1)))), tf.constant(draw(4, 2)))

    result = scaled(built(build, x=(None, 4)), outputs=["out"])
    assert not [rewrite for rewrite in result.rewrites if rewrite.rule == "scale"]
    assert all("uses it in another way" in reason for reason in reasons(result).values())


def test_a_value_of_unknown_rank_takes_no_scale():
    definition = built(lambda x: tf.linalg.matmul(tf.nn.relu(tf.reshape(x, tf.shape(x))), tf.constant(draw(4, 2))), x=None)
    result = tfpasses.run(definition, "cross-layer-scaling", outputs=["out"])
    assert not [rewrite for rewrite in result.rewrites if rewrite.rule == "scale"]
