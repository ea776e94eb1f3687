"""Folding where a batch norm casts, where something on the way computes in another dtype, and where a mask passes."""

import keras
import numpy as np
import pytest
from keras import layers as L

import tfpasses
from fold_cases import bite

IMAGE = (8, 8, 3)


def bn(**options):
    return L.BatchNormalization(name="bn", **options)


def model(*layers, shape=IMAGE, dtype="float32"):
    y = x = keras.Input(shape, dtype=dtype, name="x")
    for layer in layers:
        y = layer(y)
    return bite(keras.Model(x, y))


def reasons(m, options=""):
    """Why each batch norm stays, where none goes."""
    result = tfpasses.run(m, "fold-batch-norms" + options)
    assert not result.rewrites
    assert [x.dtype for x in result.model.outputs] == [x.dtype for x in m.outputs]
    return [remark.reason for remark in result.remarks]


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
@pytest.mark.parametrize(
    "above",
    [
        lambda: [L.Conv2D(4, 3)],
        lambda: [L.Conv2D(4, 3, padding="same")],
        lambda: [L.ZeroPadding2D(1), L.Dense(4)],
        lambda: [L.AveragePooling2D(2), L.Dense(4)],
    ],
)
def test_a_batch_norm_that_makes_numbers_of_integers_stays(dtype, above):
    (reason,) = reasons(model(bn(), *above(), dtype=dtype))
    assert reason.endswith(f"it reads {dtype} and gives float32, a cast that nothing else would do")


@pytest.mark.parametrize(("dtype", "policy"), [("float32", "float16"), ("float16", "float32"), ("float64", "float32")])
def test_a_linear_layer_casts_as_the_batch_norm_before_it_did(dtype, policy):
    m = model(bn(dtype=policy), L.Conv2D(4, 3, dtype=policy), dtype=dtype)
    result = tfpasses.run(m, "fold-batch-norms", verify="numeric")
    assert [rewrite.rule for rewrite in result.rewrites] == ["forward"]
    assert result.model.output.dtype == policy


def test_a_pool_does_not_cast_as_the_batch_norm_before_it_did():
    (reason,) = reasons(model(bn(), L.MaxPooling2D(2, dtype="float32"), L.Conv2D(4, 3), dtype="float16"))
    assert reason.endswith("it reads float16 and gives float32, a cast that nothing else would do")


@pytest.mark.parametrize("kind", [lambda **options: L.MaxPooling2D(2, **options), L.Identity])
def test_what_lies_between_must_compute_in_the_same_dtype(kind):
    between = kind(dtype="float16", name="other")
    (backward,) = reasons(model(L.Conv2D(4, 3), between, bn()))
    assert backward.startswith("not backward: it computes in float32, other in float16; ")
    (forward,) = reasons(model(bn(), kind(dtype="float16", name="other"), L.Conv2D(4, 3)))
    assert forward.endswith("; not forward: it computes in float32, other in float16")


def test_a_concatenation_must_compute_in_the_same_dtype():
    x = keras.Input(IMAGE, name="x")
    y = L.Concatenate(dtype="float16", name="join")([L.Conv2D(4, 3)(x), L.Conv2D(4, 3)(x)])
    (reason,) = reasons(bite(keras.Model(x, bn()(y))))
    assert reason.startswith("not backward: it computes in float32, join in float16; ")


@pytest.mark.parametrize("first", [[], [lambda: L.ReLU(dtype="float16")]])
def test_no_shift_stays_apart_in_half_precision_whatever_the_batch_norm_computes_in(first):
    layers = [*(make() for make in first), bn(dtype="float32"), L.Conv2D(4, 3, padding="same", name="linear")]
    (reason,) = reasons(model(*layers, dtype="float32" if first else "float16"))
    assert reason.endswith("its shift cannot go into linear; in float16 and float32 a shift apart would lose")


@pytest.mark.parametrize(("gamma", "folds"), [(1e-20, True), (1e-36, False), (1e-38, False)])
def test_a_kernel_that_would_lose_its_digits_takes_no_scale_alone(gamma, folds):
    m = model(bn(), L.Conv2D(4, 3, padding="same", name="linear"))
    m.get_layer("bn").gamma.assign([gamma, 1.0, 1.0])
    result = tfpasses.run(m, "fold-batch-norms", verify="numeric")
    assert [rewrite.rule for rewrite in result.rewrites] == ["scale"] * folds
    if not folds:
        assert "the folded weights of linear would be too small for float32: the smallest scale is" in result.remarks[0].reason


def masked(build):
    x = keras.Input((6, 4), name="x")
    return bite(keras.Model(x, build(L.Masking()(x))))


def inner(*layers):
    z = y = keras.Input((6, 4))
    for layer in layers:
        y = layer(y)
    return keras.Model(z, y)


def attention(y):
    y = bn()(y)
    return L.Attention()([y, y])


MASKED = {
    "attention": lambda: masked(attention),
    "rnn": lambda: masked(lambda y: L.LSTM(3)(bn()(y))),
    "nested, the mask from inside": lambda: bite(keras.Sequential([keras.Input((6, 4)), inner(L.Masking(), bn()), L.LSTM(3)])),
    "output": lambda: masked(bn()),
}


@pytest.mark.parametrize("case", MASKED)
def test_a_batch_norm_that_hands_a_mask_on_is_no_multiply_add(case):
    m = MASKED[case]()
    x = np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float32")
    x[:, 3:] = 0
    result = tfpasses.run(m, "fold-batch-norms{standalone=affine}")
    assert not result.rewrites and len(result.remarks) == 1
    np.testing.assert_array_equal(result.model(x), m(x))
    kept = tfpasses.run(m, "fold-batch-norms").remarks
    assert [remark.remedy for remark in kept] == [""]


def test_a_batch_norm_without_a_mask_in_a_model_that_has_one_elsewhere_is_a_multiply_add():
    x, z = keras.Input((6, 4)), keras.Input((6, 4))
    m = bite(keras.Model([x, z], [L.LSTM(3)(L.Masking()(x)), L.ReLU()(bn()(z))]))
    assert [rewrite.rule for rewrite in tfpasses.run(m, "fold-batch-norms{standalone=affine}", verify="numeric").rewrites] == ["standalone"]
