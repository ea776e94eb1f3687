"""Folding forward, into branches, through what lies between, of two batch norms into one, and what is done with those that stay."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

import tfpasses
from fold_cases import CASES, UNRUNNABLE, batch, bite, own_error_ratio, scale_and_shift
from tfpasses.manager import PassError, PipelineError

IMAGE = (8, 8, 4)


def model(build, shape=IMAGE, **options):
    x = keras.Input(shape, name="x", **options)
    return bite(keras.Model(x, build(x)))


def bn(name="bn", **options):
    return L.BatchNormalization(name=name, **options)


def conv(name="linear", filters=4, kernel=3, **options):
    return L.Conv2D(filters, kernel, name=name, **options)


def folded(m, options="", **keywords):
    return tfpasses.run(m, "fold-batch-norms" + options, verify="numeric", **keywords)


def rules(result):
    return [rewrite.rule for rewrite in result.rewrites]


def assert_kept(m, result):
    assert all(verdict.ok for verdict in result.verdicts)
    assert own_error_ratio(result.model, m, batch(m)) <= 4


def assert_folds(m, *expected, options=""):
    result = folded(m, options)
    assert rules(result) == list(expected)
    assert_kept(m, result)
    return result


def missed(m, options=""):
    result = folded(m, options)
    assert not result.rewrites
    return {remark.node: remark.reason for remark in result.remarks if remark.kind == "missed"}


# every kind


def forward_weights(layer, norm, *, shift_too):
    """What a layer's weights become, tap by tap and channel by channel."""
    a, c = scale_and_shift(norm)
    arrays = [np.asarray(w, np.float64) for w in layer.weights]
    bias = arrays.pop() if layer.bias is not None else None
    kernel, name = arrays[0].copy(), type(layer).__name__
    pointwise = arrays[1] if name.startswith("Separable") else None
    taps = kernel.reshape(-1, *kernel.shape[-2:])
    extra = np.zeros(kernel.shape[-2] if name.endswith("Transpose") else kernel.shape[-1])
    if "Depthwise" in name or pointwise is not None:
        extra = np.zeros(kernel.shape[-2:])
        for channel in range(kernel.shape[-2]):
            extra[channel] = taps[:, channel].sum(axis=0) * c[channel]
            kernel[..., channel, :] *= a[channel]
        extra = extra.reshape(-1)
        if pointwise is not None:
            extra = extra @ pointwise.reshape(extra.size, -1)
    elif name.endswith("Transpose"):
        for channel in range(kernel.shape[-1]):
            extra += taps[:, :, channel].sum(axis=0) * c[channel]
            kernel[..., channel] *= a[channel]
    else:
        groups = getattr(layer, "groups", 1)
        inside, outside = kernel.shape[-2], kernel.shape[-1] // groups
        for out in range(kernel.shape[-1]):
            for channel in range(inside):
                source = (out // outside) * inside + channel
                extra[out] += taps[:, channel, out].sum() * c[source]
                kernel[..., channel, out] *= a[source]
    new = [kernel, *([] if pointwise is None else [pointwise])]
    if shift_too:
        new.append(extra if bias is None else bias + extra)
    elif bias is not None:
        new.append(bias)
    return [array.astype(np.float32) for array in new]


def in_front(case, use_bias):
    x = keras.Input(case.shape, name="x")
    layer = case.make(use_bias)
    return bite(keras.Model(x, L.Identity(name="y")(layer(bn(axis=case.axis)(x)))))


WHOLE = {name for name in CASES if "same" not in name and "causal" not in name and "transpose" not in name}
PADDED = {
    "conv2d strided",
    "conv2d dilated",
    "conv3d",
    "depthwise2d dilated",
    "separable2d",
    *(f"depthwise2d times {m}" for m in (1, 2, 3)),
}


@pytest.mark.parametrize("use_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("name", CASES | UNRUNNABLE)
def test_the_weights_are_those_of_the_arithmetic(name, use_bias):
    case = (CASES | UNRUNNABLE)[name]
    m = in_front(case, use_bias)
    result = tfpasses.run(m, "fold-batch-norms")
    whole = name not in PADDED and (name in WHOLE or "first" in name) and "transpose" not in name
    assert rules(result) == ["forward" if whole else "scale"]
    expected = forward_weights(m.get_layer("linear"), m.get_layer("bn"), shift_too=whole)
    for got, wanted in zip(result.model.get_layer("linear").weights, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=3e-7, atol=1e-7)


@pytest.mark.parametrize("use_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("name", CASES)
def test_the_function_is_kept(name, use_bias):
    m = in_front(CASES[name], use_bias)
    assert_kept(m, folded(m))


def test_where_zeros_meet_the_kernel_the_shift_stays_as_an_addition():
    m = model(lambda x: conv(padding="same")(bn()(L.ReLU(name="relu")(x))))
    result = assert_folds(m, "scale")
    assert [layer.name for layer in result.model.layers] == ["x", "relu", "linear"]
    (addition,) = [operation for operation in result.model.operations if operation.name == "bn.shift"]
    assert type(addition).__name__ == "Add"


def test_same_padding_that_pads_nothing_is_none():
    assert_folds(model(lambda x: conv(kernel=2, strides=2, padding="same")(bn()(L.ReLU()(x)))), "forward")


def test_without_a_shift_padding_does_no_harm():
    m = model(lambda x: conv(padding="same")(L.ZeroPadding2D()(bn(center=False)(L.ReLU()(x)))))
    m.get_layer("bn").moving_mean.assign(np.zeros(4))
    assert "linear" in [layer.name for layer in assert_folds(m, "forward").model.layers]


def test_a_model_with_the_shift_apart_comes_back_from_its_file(tmp_path):
    m = model(lambda x: conv(padding="same")(bn()(L.ReLU()(x))))
    result = folded(m)
    result.model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again(batch(m)), result.model(batch(m)))


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "mixed_bfloat16"])
def test_in_half_precision_no_shift_stays_apart(policy):
    m = model(lambda x: conv(padding="same", dtype=policy)(bn(dtype=policy)(L.ReLU(dtype=policy)(x))))
    assert "a shift apart would lose" in missed(m)["bn"]


def test_a_channel_of_scale_zero_cannot_keep_its_shift_apart():
    m = model(lambda x: conv(padding="same")(bn()(L.ReLU(name="relu")(x))))
    m.get_layer("bn").gamma.assign([1, 0, 1, 0])
    assert "2 of its channels have scale 0, and their shift cannot go into linear" in missed(m)["bn"]


def test_a_channel_of_scale_zero_folds_where_nothing_pads():
    m = model(lambda x: conv()(bn()(L.ReLU()(x))))
    m.get_layer("bn").gamma.assign([1, 0, 1, 0])
    assert_folds(m, "forward")


# what lies between

BETWEEN = {
    "dropout": (lambda x: conv()(L.Dropout(0.3)(bn()(x))), "forward"),
    "average pool": (lambda x: conv()(L.AveragePooling2D(2, padding="same")(bn()(x))), "forward"),
    "crop": (lambda x: conv()(L.Cropping2D(1)(bn()(x))), "forward"),
    "zero padding": (lambda x: conv()(L.ZeroPadding2D(1)(bn()(x))), "scale"),
    "global average pool": (lambda x: L.Dense(3)(L.GlobalAveragePooling2D()(bn()(x))), "forward"),
    "flatten": (lambda x: L.Dense(3)(L.Flatten()(bn()(x))), "forward"),
    "flatten of another axis": (lambda x: L.Dense(3)(L.Flatten()(bn(axis=1)(x))), "forward"),
    "average pool and flatten": (lambda x: L.Dense(3)(L.Flatten()(L.AveragePooling2D(2)(bn()(x)))), "forward"),
    "reshape that keeps channels apart": (lambda x: L.Dense(3)(L.Reshape((8, 32))(bn()(x))), "forward"),
    "reshape before a convolution": (lambda x: L.Conv1D(3, 2)(L.Reshape((64, 4))(bn()(x))), "forward"),
    "two reshapes": (lambda x: L.Dense(3)(L.Flatten()(L.Reshape((64, 4))(bn()(x)))), "forward"),
    "crop, backward": (lambda x: bn()(L.Cropping2D(1)(conv()(x))), "backward"),
    "average pool, backward": (lambda x: bn()(L.AveragePooling2D(2, padding="same")(conv(padding="same")(x))), "backward"),
    "global average pool, backward": (lambda x: bn()(L.GlobalAveragePooling2D()(conv(strides=2)(x))), "backward"),
    "activation in the configuration": (lambda x: conv(activation="relu")(bn()(x)), "forward"),
}


@pytest.mark.parametrize("which", BETWEEN)
def test_what_a_batch_norm_passes_through(which):
    build, expected = BETWEEN[which]
    assert_folds(model(lambda x: L.Identity(name="y")(build(L.ReLU()(x) if "backward" not in which else x))), expected)


@pytest.mark.parametrize("pool", [L.MaxPooling2D, L.GlobalMaxPooling2D])
@pytest.mark.parametrize("position", ["before", "behind"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_max_pool_lets_positive_scales_through(pool, position, sign):
    def build(x):
        y = bn()(pool(name="pool")(conv()(x))) if position == "behind" else pool(name="pool")(bn()(L.ReLU()(x)))
        return L.Dense(3, name="dense", activation="relu")(L.ReLU()(y) if position == "behind" else y)

    m = model(build)
    m.get_layer("bn").gamma.assign([0.5, 1, 2, sign * 3])
    if sign > 0:
        assert_folds(m, "backward" if position == "behind" else "forward")
    else:
        assert "pool takes the largest value, and 1 of the channels have a negative scale" in missed(m)["bn"]


def test_zero_padding_lets_a_scale_without_shift_through_backward():
    m = model(lambda x: bn(center=False)(L.ZeroPadding2D()(conv()(x))))
    m.get_layer("bn").moving_mean.assign(np.zeros(4))
    assert_folds(m, "backward")


MUST_NOT = {
    "reshape that mixes channels": (
        lambda x: L.Dense(3, name="d")(L.Reshape((128, 2), name="r")(x)),
        "an input channel of d holds several",
    ),
    "an activation": (lambda x: conv()(L.ReLU(name="r")(x)), "r: it is Relu, not a linear op"),
    "two linear layers": (lambda x: [conv("a")(x), conv("b")(x)], "bn goes to b, a"),
    "a graph output": (lambda x: [x, conv()(x)], "bn goes to linear, a graph output"),
    "another axis": (lambda x: L.Dense(3, name="d")(L.Permute((1, 3, 2), name="p")(x)), "p: it is keras.Permute, not a linear op"),
}


@pytest.mark.parametrize("which", MUST_NOT)
def test_must_not_fold_forward(which):
    build, reason = MUST_NOT[which]
    assert reason in missed(model(lambda x: build(bn()(x))))["bn"]


def test_the_normalised_axis_has_to_be_the_input_channels():
    assert "it normalises axis 1; the input channels of linear are on axis 3" in missed(model(lambda x: conv()(bn(axis=1)(x))))["bn"]


@pytest.mark.parametrize("shape", [(4, 5, 5), (4, None, None)])
@pytest.mark.parametrize("before", [True, False])
def test_keras_adds_the_bias_of_a_channels_first_layer_to_the_wrong_axis_where_that_is_as_long(shape, before):
    """`keras.ops.add` takes a bias (1, C, 1, 1) for one over the last axis if that has C elements. No fold may give such a bias."""
    depthwise = L.DepthwiseConv2D(2, use_bias=False, data_format="channels_first", name="linear")
    m = model(lambda x: L.ReLU()(depthwise(bn(axis=1)(x)) if before else bn(axis=1)(depthwise(x))), shape)
    if before:
        assert rules(folded(m)) == ["scale"]
    else:
        assert "the last axis of linear" in missed(m)["bn"]


def test_not_finite_weights_do_not_spread_forward():
    m = model(lambda x: conv()(bn()(x)))
    m.get_layer("linear").bias.assign([np.nan, 0, 0, 0])
    assert "not finite" in missed(m)["bn"]


# shared layers, nested models


def test_a_shared_layer_behind_one_batch_norm_folds_once_for_all_uses():
    def build(x):
        norm, dense = bn(), L.Dense(5, name="d")
        return [dense(norm(L.ReLU()(x))), dense(norm(L.Activation("tanh")(x)))]

    assert len(assert_folds_many(model(build), "forward").model.get_layer("d").weights) == 2


def assert_folds_many(m, *expected):
    result = folded(m)
    assert rules(result) == list(expected)
    for ours, theirs in zip(result.model(batch(m)), m(batch(m)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    return result


def test_a_shared_layer_behind_different_batch_norms_stays():
    def build(x):
        dense = L.Dense(5, name="d")
        return [dense(bn("b1")(L.ReLU()(x))), dense(bn("b2")(L.Activation("tanh")(x)))]

    assert all("shares a weight" in reason for reason in missed(model(build)).values())


def test_a_shared_layer_with_a_use_without_batch_norm_stays():
    def build(x):
        dense = L.Dense(5, name="d")
        return [dense(bn()(L.ReLU()(x))), dense(x)]

    assert "no batch norm feeds that one" in missed(model(build))["bn"]


@pytest.mark.parametrize("inside", ["batch norm", "linear"])
def test_a_fold_across_the_border_of_a_nested_model(inside):
    if inside == "batch norm":
        inner = keras.Sequential([keras.Input(IMAGE), L.ReLU(), bn()], name="inner")
        build = lambda x: conv()(inner(x))  # noqa: E731
    else:
        inner = keras.Sequential([keras.Input(IMAGE), conv(), L.ReLU()], name="inner")
        build = lambda x: inner(bn()(x))  # noqa: E731
    assert_folds(model(build), "forward")


def test_a_fold_inside_a_nested_model_leaves_the_model():
    inner = keras.Sequential([keras.Input(IMAGE), bn(), conv(), L.ReLU()], name="inner")
    assert "inner" in [layer.name for layer in assert_folds(model(lambda x: L.ReLU()(inner(x))), "forward").model.layers]


# branches


def joined(*branches, axis=-1, pool=None):
    def build(x):
        y = L.Concatenate(axis=axis, name="cat")([branch(x) for branch in branches])
        return L.ReLU()(bn(axis=axis)(pool(y) if pool else y))

    return model(build)


BRANCHES = {
    "convolutions": (conv("a"), conv("b", 5)),
    "different kinds": (conv("a", padding="same"), L.DepthwiseConv2D(3, padding="same"), L.SeparableConv2D(5, 3, padding="same")),
    "no-ops and pools between": (
        lambda x: L.Dropout(0.2)(conv("a", padding="same")(x)),
        lambda x: L.AveragePooling2D(2, strides=1, padding="same")(conv("b", padding="same")(x)),
    ),
}


@pytest.mark.parametrize("which", BRANCHES)
def test_a_batch_norm_splits_into_the_branches_of_a_concatenation(which):
    result = assert_folds(joined(*BRANCHES[which]), "concat")
    assert not any(isinstance(layer, L.BatchNormalization) for layer in result.model.layers)


def test_each_branch_leaves_the_statistics_of_its_channels():
    m = joined(conv("a"), conv("b", 5))
    facts = {ref.node: fact for (ref, _), fact in folded(m).graph.facts.items()}
    norm = m.get_layer("bn")
    np.testing.assert_array_equal(facts["b"].mean, np.asarray(norm.beta, np.float64)[4:])
    np.testing.assert_array_equal(facts["a"].std, np.abs(np.asarray(norm.gamma, np.float64))[:4])


@pytest.mark.parametrize("pool", [L.AveragePooling2D(2), L.GlobalAveragePooling2D()])
def test_a_pool_may_lie_behind_the_concatenation(pool):
    assert_folds(joined(conv("a", strides=2), conv("b", strides=2), pool=pool), "concat")


@pytest.mark.parametrize(
    ("branches", "reason"),
    [
        ((conv("a", padding="same"), lambda x: x), "x: it is Input, not a linear op"),
        ((conv("a"), lambda x: L.ReLU(name="r")(conv("b")(x))), "r: it is Relu, not a linear op"),
    ],
)
def test_all_branches_fold_or_none(branches, reason):
    assert reason in missed(joined(*branches))["bn"]


def test_a_branch_used_elsewhere_keeps_all():
    def build(x):
        a = conv("a")(x)
        return [L.ReLU()(bn()(L.Concatenate()([a, conv("b")(x)]))), L.ReLU(name="r")(a)]

    assert "a: it has 2 uses" in missed(model(build))["bn"]


def test_a_concatenation_along_another_axis_is_left():
    assert "joins along axis 1" in missed(joined_along(1, -1))["bn"]


def joined_along(concat_axis, norm_axis):
    return model(lambda x: L.ReLU()(bn(axis=norm_axis)(L.Concatenate(axis=concat_axis, name="cat")([conv("a")(x), conv("b")(x)]))))


def test_a_layer_shared_by_two_branches_folds_only_where_both_parts_are_alike():
    def build(x):
        shared = conv("a")
        return L.ReLU()(bn()(L.Concatenate()([shared(x), shared(L.ReLU()(x))])))

    m = model(build)
    assert "scales it in another way" in missed(m)["bn"]
    for variable in m.get_layer("bn").weights:
        variable.assign(np.tile(np.asarray(variable)[:4], 2))
    assert_folds(m, "concat")


# batch norms in a row


@pytest.mark.parametrize("options", [{}, {"center": False}, {"scale": False}, {"epsilon": 0.1}])
def test_two_batch_norms_become_one(options):
    m = model(lambda x: L.ReLU()(bn("outer")(bn("inner", **options)(L.ReLU()(x)))))
    result = assert_folds(m, "merge")
    assert [layer.name for layer in result.model.layers if isinstance(layer, L.BatchNormalization)] == ["outer"]


def test_a_batch_norm_without_gamma_and_beta_gets_them_when_it_takes_another():
    m = model(lambda x: L.ReLU()(bn("outer", center=False, scale=False)(bn("inner")(L.ReLU()(x)))))
    assert len(assert_folds(m, "merge").model.get_layer("outer").weights) == 4


def test_two_batch_norms_in_front_of_a_linear_layer_both_go():
    assert not missed_after(model(lambda x: conv()(bn("b")(bn("a")(L.ReLU()(x))))))


def missed_after(m):
    result = folded(m)
    assert_kept(m, result)
    return [remark for remark in result.remarks if remark.kind == "missed"]


def test_batch_norms_of_different_axes_do_not_merge():
    assert set(missed(model(lambda x: L.ReLU()(bn("b", axis=1)(bn("a")(L.ReLU()(x))))))) == {"a", "b"}


def test_batch_norms_that_store_their_weights_in_different_dtypes_do_not_merge():
    x = keras.Input((4,), dtype="float16")
    m = keras.Model(x, L.ReLU(dtype="float16")(bn("outer", dtype="float16")(bn("inner", dtype="mixed_float16")(x))))
    assert "inner stores its weights in another dtype than outer" in missed(m)["inner"]


# options


def both_ways():
    return model(lambda x: L.ReLU()(conv("c2")(bn("b2")(L.ReLU()(bn("b1")(conv("c1")(x)))))))


@pytest.mark.parametrize(
    ("direction", "expected"), [("both", ["backward", "forward"]), ("backward", ["backward"]), ("forward", ["forward"])]
)
def test_direction(direction, expected):
    m = both_ways()
    result = folded(m, f"{{direction={direction}}}")
    assert rules(result) == expected
    assert_kept(m, result)


@pytest.mark.parametrize("shape", [IMAGE, (8, 8, 8)])
@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_standalone_batch_norms_become_multiply_adds(axis, shape, tmp_path):
    m = model(lambda x: L.ReLU()(bn(axis=axis)(L.ReLU()(x))), shape)
    result = assert_folds(m, "standalone", options="{standalone=affine}")
    assert {type(operation).__name__ for operation in result.model.operations} == {"InputLayer", "ReLU", "Multiply", "Add"}
    result.model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "m.keras")(batch(m)), result.model(batch(m)))


def test_a_standalone_batch_norm_in_training_or_half_precision_stays():
    m = model(lambda x: L.ReLU()(bn("half", dtype="float16")(bn("trained")(L.ReLU()(x), training=True))))
    result = tfpasses.run(m, "fold-batch-norms{standalone=affine}")
    assert {remark.node for remark in result.remarks if remark.kind == "missed"} == {"half", "trained"}


def test_what_could_stand_alone_says_so():
    result = folded(model(lambda x: L.ReLU()(bn()(L.ReLU()(x)))))
    assert [remark.remedy for remark in result.remarks if remark.kind == "missed"] == ["standalone=affine makes it a multiply-add"]


@pytest.mark.parametrize(("pairs", "expected"), [("c1:b1", ["b1"]), ("b1:c1", ["b1"]), ("b2:c2", ["b2"]), ("c1:b1 b2:c2", ["b1", "b2"])])
def test_only_the_given_pairs_fold(pairs, expected):
    m = both_ways()
    result = folded(m, f'{{only="{pairs}"}}')
    assert sorted({"b1", "b2"} - {layer.name for layer in result.model.layers}) == expected
    assert_kept(m, result)


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ("c1:b2", "c1:b2 cannot fold: not backward: .*: it is Relu, not a linear op; not forward: only= does not name c2:b2"),
        ("c9:b1", "there is no layer 'c9'"),
        ("c1:c2", "c1 is a linear layer, c2 is a linear layer"),
        ("x:b1", "x is neither, b1 is a batch norm"),
    ],
)
def test_a_given_pair_that_cannot_fold_is_an_error(pairs, reason):
    with pytest.raises(PassError, match=reason):
        folded(both_ways(), f'{{only="{pairs}"}}')


@pytest.mark.parametrize("options", ['{only="c1"}', '{only="c1:b1:x"}', '{only="c1:"}', '{only="c1:b1" standalone=affine}'])
def test_pairs_that_are_none_are_refused_before_anything_runs(options):
    with pytest.raises(PipelineError, match="only="):
        folded(both_ways(), options)


def test_a_pair_folds_whose_batch_norm_has_another_use_elsewhere():
    x = keras.Input(IMAGE, name="x")
    shared = bn("b")
    m = bite(keras.Model(x, [shared(conv("c1")(x)), shared(L.ReLU(name="r")(x))]))
    assert rules(folded(m, '{only="c1:b"}')) == ["backward"]


def test_a_pair_whose_batch_norm_folds_nowhere_is_told_of_its_own_place():
    x = keras.Input(IMAGE, name="x")
    shared = bn("b")
    m = bite(keras.Model(x, [shared(L.ReLU(name="r")(x)), shared(L.ReLU(name="s")(conv("c1")(x)))]))
    with pytest.raises(PassError, match=r"c1:b cannot fold: not backward: [rs]: it is Relu"):
        folded(m, '{only="c1:b"}')


# what is said


def test_zero_padding_of_no_width_pads_nothing():
    assert_folds(model(lambda x: bn()(L.ZeroPadding2D(0)(conv()(x)))), "backward")
    assert_folds(model(lambda x: conv()(L.ZeroPadding2D(0)(bn()(x)))), "forward")


@pytest.mark.parametrize(
    "between",
    [
        [lambda: L.GlobalAveragePooling1D(data_format="channels_first")],
        [lambda: L.AveragePooling1D(2, data_format="channels_first"), L.Flatten],
    ],
)
def test_the_channels_are_followed_through_a_pool_that_has_them_on_another_axis_than_the_dense_layer(between):
    def build(x):
        y = bn(axis=1)(x)
        for layer in between:
            y = layer()(y)
        return L.Dense(3)(y)

    m = model(build, (4, 6))
    result = tfpasses.run(m, "fold-batch-norms")
    assert rules(result) == ["forward"]


def test_a_batch_norm_below_another_says_why_the_two_do_not_merge():
    remarks = missed(model(lambda x: L.ReLU()(bn("upper")(bn("lower", axis=1)(x)))))
    assert remarks["lower"].endswith("not forward: lower normalises another axis than upper, or computes in another dtype")


def test_a_value_given_out_twice_keeps_its_name_both_times():
    x = keras.Input(IMAGE, name="x")
    y = bn("bn")(conv("c")(x))
    result = folded(bite(keras.Model(x, [y, y])))
    assert result.model.output_names == ["bn", "bn"] and not result.remarks
