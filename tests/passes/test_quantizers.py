"""The weight quantizer by itself: grids against a search in exact fractions, rounding, and the file of encodings."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from brute_grids import all_candidates, cost, spanning
from tfpasses.graph import WriteError
from tfpasses.passes.quantization.encodings import Encoding, save_encodings
from tfpasses.passes.quantization.quantizer import Quantizer

RNG = np.random.default_rng(0)
BFLOAT16 = ml_dtypes.bfloat16
VALUES = {
    "normal": RNG.standard_normal(60).astype("float32"),
    "far from zero": (RNG.standard_normal(40) + 9).astype("float32"),
    "an outlier": np.append(RNG.standard_normal(50), 40).astype("float32"),
    "all negative": -RNG.uniform(0.5, 2, 40).astype("float32"),
    "all zero": np.zeros(12, "float32"),
    "all the same": np.full(9, 3.7, "float32"),
    "one element": np.array([-2.5], "float32"),
    "minus and plus one": np.array([-1.0, 1.0, 0.25], "float32"),
    "narrow": RNG.standard_normal(30) * 1e-5,
    "denormal": (RNG.standard_normal(20) * 1e-40).astype("float32"),
    "denormal in float64": RNG.standard_normal(20) * 1e-310,
    "huge": (RNG.uniform(-1, 1, 30) * 3.4e38).astype("float32"),
    "the widest that there is": np.array([np.finfo("float64").max, -np.finfo("float64").max, 1e300, 0.0]),
    "half precision": RNG.standard_normal(40).astype("float16"),
    "the largest of half precision": np.array([65504, -65504, 3, 20000], "float16"),
    "bfloat16": RNG.standard_normal(40).astype(BFLOAT16),
    "double precision": RNG.laplace(size=50),
}
each_kind = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
each_width = pytest.mark.parametrize("bits", [2, 3, 8, 16])
either_symmetry = pytest.mark.parametrize("symmetric", [False, True], ids=["asymmetric", "symmetric"])
either_scheme = pytest.mark.parametrize("scheme", ["tf", "tf_enhanced"])


def numbers(values):
    return np.asarray(values, np.float64).reshape(-1).tolist()


def same(encoding, candidate):
    return encoding.offset == candidate.offset and math.isclose(Fraction(encoding.delta) / candidate.delta, 1, rel_tol=1e-14)


def assert_cheapest(encoding, values, bits, symmetric):
    """That an encoding is the cheapest candidate, to rounding; that of the whole range where none is cheaper."""
    found, unit = all_candidates(values, bits, symmetric), spanning(values, bits, symmetric).delta
    costs = [cost(values, one, bits, unit) for one in found]
    chosen = [price for one, price in zip(found, costs, strict=True) if same(encoding, one)]
    assert chosen, "it is none of the candidates"
    assert chosen[0] <= min(costs) * (1 + 2e-9) + 1e-20
    if costs[0] <= min(costs) * (1 + 1e-12):
        assert same(encoding, found[0])


# ranges


@each_kind
@each_width
@either_symmetry
def test_tf_spans_the_range_of_the_values_and_zero(values, bits, symmetric):
    (encoding,) = Quantizer(bits=bits, symmetric=symmetric).encoding(values)
    assert same(encoding, spanning(numbers(values), bits, symmetric))


@each_kind
@each_width
@either_symmetry
def test_tf_enhanced_takes_the_cheapest_candidate(values, bits, symmetric):
    (encoding,) = Quantizer(bits=bits, scheme="tf_enhanced", symmetric=symmetric).encoding(values)
    assert_cheapest(encoding, numbers(values), bits, symmetric)


@each_width
@either_symmetry
def test_tf_enhanced_takes_the_cheapest_candidate_for_more_values_than_it_tries_one_by_one(bits, symmetric):
    values = np.random.default_rng(bits).laplace(size=1500).astype("float32")
    (encoding,) = Quantizer(bits=bits, scheme="tf_enhanced", symmetric=symmetric).encoding(values)
    assert_cheapest(encoding, numbers(values), bits, symmetric)


@pytest.mark.parametrize("draw", ["standard_normal", "laplace", "uniform"])
@pytest.mark.parametrize("bits", [4, 8, 10, 16])
@either_symmetry
def test_tf_enhanced_takes_the_cheapest_candidate_for_many_values(draw, bits, symmetric):
    values = getattr(np.random.default_rng(bits), draw)(size=100_000)
    (encoding,) = Quantizer(bits=bits, scheme="tf_enhanced", symmetric=symmetric).encoding(values)

    def price(delta, offset):
        place = values / delta
        within = np.clip(place, offset, offset + 2**bits - 1)
        return float(((within - np.rint(within)) ** 2 + 3 * (place - within) ** 2).sum()) * delta**2

    found = all_candidates([values.min(), values.max()], bits, symmetric)
    assert price(encoding.delta, encoding.offset) <= min(price(float(one.delta), one.offset) for one in found) * (1 + 2e-9)


@each_width
@either_scheme
def test_a_symmetric_grid_has_as_many_steps_below_zero_as_a_signed_integer(bits, scheme):
    (encoding,) = Quantizer(bits=bits, scheme=scheme, symmetric=True).encoding(VALUES["normal"])
    assert encoding.offset == -(2 ** (bits - 1))
    assert encoding.symmetric


@each_kind
@either_scheme
@either_symmetry
def test_the_ends_of_a_grid_are_whole_steps_from_zero(values, scheme, symmetric):
    (encoding,) = Quantizer(bits=4, scheme=scheme, symmetric=symmetric).encoding(values)
    most = float(np.finfo("float64").max)
    assert encoding.min == max(encoding.delta * encoding.offset, -most)
    assert encoding.max == min(encoding.delta * (encoding.offset + 15), most)
    assert encoding.min <= 0 <= encoding.max
    assert encoding.delta > 0


def test_values_all_alike_are_not_cut_off():
    for value in (3.7, -3.7):
        (encoding,) = Quantizer(scheme="tf_enhanced").encoding(np.full(50, value))
        assert min(abs(encoding.min - value), abs(encoding.max - value)) < 1e-14


def test_tf_enhanced_cuts_an_outlier_off_where_it_costs_less():
    values = np.append(np.random.default_rng(0).standard_normal(100_000), 60.0)
    (plain,), (enhanced,) = (Quantizer(bits=4, scheme=scheme).encoding(values) for scheme in ("tf", "tf_enhanced"))
    assert plain.max > 59
    assert enhanced.max < 30


# per channel


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((3, 3, 4, 5), (-1,)), ((3, 2, 5, 4), (-2,)), ((3, 3, 4, 2), (-2, -1)), ((6, 5), (-1,)), ((2, 1, 1), (-1,)), ((1, 1, 3, 1), (-2, -1))],
)
@either_scheme
@either_symmetry
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_channel_is_quantized_as_a_kernel_of_its_own_would_be(shape, axes, scheme, symmetric, rounding):
    kernel = np.random.default_rng(3).standard_normal(shape).astype("float32")
    whole, each = (Quantizer(bits=5, scheme=scheme, symmetric=symmetric, per_channel=kind, rounding=rounding) for kind in (False, True))
    channels = np.moveaxis(kernel, axes, range(len(axes))).reshape(math.prod(kernel.shape[axis] for axis in axes), -1)
    encodings = each.encoding(kernel, axes)
    assert encodings == [whole.encoding(channel)[0] for channel in channels]
    got = each.quantized(kernel, axes)
    assert got.shape == shape
    if rounding == "nearest":
        rows = np.moveaxis(got, axes, range(len(axes))).reshape(channels.shape)
        assert all(np.array_equal(row, whole.quantized(channel)) for row, channel in zip(rows, channels, strict=True))


def test_more_channels_and_values_than_are_looked_at_at_a_time():
    kernel = np.random.default_rng(4).standard_normal((1100, 300)).astype("float32")
    kernel[:, 7] *= 100
    each = Quantizer(scheme="tf_enhanced", per_channel=True)
    encodings = each.encoding(kernel)
    assert len(encodings) == 300
    for channel in (0, 7, 63, 64, 299):
        assert encodings[channel] == Quantizer(scheme="tf_enhanced").encoding(kernel[:, channel])[0]
    got = each.quantized(kernel)
    assert np.array_equal(got[:, 7], Quantizer(scheme="tf_enhanced").quantized(kernel[:, 7]))


@either_scheme
def test_a_kernel_without_channels_has_no_encodings(scheme):
    kernel = np.zeros((3, 3, 4, 0), "float32")
    quantizer = Quantizer(scheme=scheme, per_channel=True)
    assert quantizer.encoding(kernel) == []
    assert quantizer.quantized(kernel).shape == kernel.shape


@either_scheme
def test_channels_without_values_have_the_narrowest_grid(scheme):
    encodings = Quantizer(scheme=scheme, per_channel=True).encoding(np.zeros((0, 3), "float32"))
    assert [(one.min, one.max) for one in encodings] == [(0.0, 255 * (0.01 / 255))] * 3


# rounding


@each_kind
@each_width
@either_scheme
@either_symmetry
def test_what_was_quantized_lies_on_the_grid_and_half_a_step_away_at_most(values, bits, scheme, symmetric):
    quantizer = Quantizer(bits=bits, scheme=scheme, symmetric=symmetric)
    (encoding,) = quantizer.encoding(values)
    got = quantizer.quantized(values)
    assert got.dtype == values.dtype
    assert np.isfinite(got).all()
    half = Fraction(float(ml_dtypes.finfo(values.dtype).eps)) / 2  # of a number, how far its rounding moves it
    least = Fraction(float(ml_dtypes.finfo(values.dtype).smallest_subnormal))
    delta, most = Fraction(encoding.delta), Fraction(float(ml_dtypes.finfo(values.dtype).max))
    for old, new in zip(map(Fraction, numbers(values)), map(Fraction, numbers(got)), strict=True):
        level = round(new / delta)
        moved = abs(new) * half * (1 + half) + least
        assert encoding.offset <= level <= encoding.offset + 2**bits - 1
        assert abs(new - level * delta) <= moved
        first, last = encoding.offset * delta, (encoding.offset + 2**bits - 1) * delta
        if first <= old <= last:
            step = delta / 2 if abs(old) + delta / 2 <= most else delta  # the next number may be none of the dtype's
            assert abs(new - old) <= step * (1 + 4 * Fraction(2) ** -52) + moved
        else:
            assert abs(new - (first if old < first else last)) <= moved


def test_halves_go_to_the_even_number():
    kernel = np.array([-128, 127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.49, 3.51], "float32")  # a grid of steps of 1
    assert Quantizer().quantized(kernel).tolist() == [-128, 127, 0, 2, 2, 0, -2, -2, 3, 4]


def test_a_symmetric_grid_treats_a_kernel_and_its_negative_alike():
    kernel = np.append(np.random.default_rng(0).integers(-40, 40, 200) / 8, 127 / 8).astype("float32")
    quantizer = Quantizer(bits=5, symmetric=True)
    assert np.array_equal(quantizer.quantized(-kernel), -quantizer.quantized(kernel))


@either_scheme
@either_symmetry
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize(
    ("dtype", "bits"), [("float32", 2), ("float32", 8), ("float32", 16), ("float64", 16), ("float16", 8), (BFLOAT16, 5)]
)
def test_what_is_on_a_grid_stays(scheme, symmetric, rounding, dtype, bits):
    kernel = np.random.default_rng(5).standard_normal((40, 7)).astype(dtype)
    quantizer = Quantizer(bits=bits, scheme=scheme, symmetric=symmetric, rounding=rounding, per_channel=True)
    grid = quantizer.grid(kernel)
    once = grid.quantized(kernel)
    assert np.array_equal(quantizer.quantized(once, grid=grid), once)


def test_a_kernel_quantized_symmetrically_quantizes_to_itself():
    kernel = np.random.default_rng(6).standard_normal((40, 7)).astype("float32")
    quantizer = Quantizer(symmetric=True, per_channel=True)
    once = quantizer.quantized(kernel)
    assert quantizer.encoding(once) == quantizer.encoding(kernel)
    assert np.array_equal(quantizer.quantized(once), once)


def test_a_kernel_quantized_asymmetrically_quantizes_to_itself_but_for_the_last_digit():
    kernel = np.random.default_rng(6).standard_normal((40, 7)).astype("float32")
    quantizer = Quantizer(per_channel=True)
    once = quantizer.quantized(kernel)
    np.testing.assert_array_max_ulp(quantizer.quantized(once), once, maxulp=2)


def test_the_kernel_that_is_given_stays_as_it_was():
    kernel = VALUES["normal"].copy()
    kernel.setflags(write=False)
    Quantizer(rounding="stochastic", scheme="tf_enhanced").quantized(kernel)
    assert np.array_equal(kernel, VALUES["normal"])


# stochastic rounding


def stochastic(**options):
    return Quantizer(rounding="stochastic", **options)


@either_symmetry
def test_stochastic_rounding_has_no_bias(symmetric):
    quantizer = stochastic(bits=4, symmetric=symmetric)
    kernel = np.tile(np.linspace(-1, 1, 41), (10_000, 1))
    (encoding,) = quantizer.encoding(kernel)
    got = quantizer.quantized(kernel)
    place = np.clip(kernel[0], encoding.min, encoding.max) / encoding.delta
    share = place - np.floor(place)
    error = got.mean(axis=0) - place * encoding.delta
    assert (np.abs(error) <= 4 * encoding.delta * np.sqrt(share * (1 - share) / len(kernel)) + 1e-12).all()


def test_stochastic_rounding_goes_to_one_of_the_two_neighbours():
    kernel = np.random.default_rng(1).standard_normal(5000).astype("float32")
    (encoding,) = stochastic(bits=6).encoding(kernel)
    got = stochastic(bits=6).quantized(kernel)
    place, level = kernel / encoding.delta, np.rint(got / encoding.delta)
    assert set((level - np.floor(place)).tolist()) <= {0.0, 1.0}
    assert 0.3 < (level > place).mean() < 0.7


def test_stochastic_rounding_is_drawn_from_the_seed_and_the_key():
    kernel = np.random.default_rng(1).standard_normal(500).astype("float32")
    first = stochastic(seed=3).quantized(kernel, key="conv1/kernel")
    stochastic(seed=3).quantized(kernel, key="conv2/kernel")
    assert np.array_equal(stochastic(seed=3).quantized(kernel, key="conv1/kernel"), first)
    assert not np.array_equal(stochastic(seed=4).quantized(kernel, key="conv1/kernel"), first)
    assert not np.array_equal(stochastic(seed=3).quantized(kernel, key="conv2/kernel"), first)


# what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "bits=1: a kernel is quantized to 2 to 16 bits"),
        ({"bits": 17}, "bits=17: a kernel is quantized to 2 to 16 bits"),
        ({"scheme": "percentile"}, "scheme=percentile: write tf or tf_enhanced"),
        ({"rounding": "up"}, "rounding=up: write nearest or stochastic"),
        ({"seed": -1}, "seed=-1: a seed is not negative"),
    ],
)
def test_a_choice_that_is_none_is_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Quantizer(**options)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@either_scheme
def test_a_kernel_that_is_not_finite_is_refused(bad, scheme):
    with pytest.raises(ValueError, match="its kernel is not finite"):
        Quantizer(scheme=scheme).encoding(np.array([1.0, bad]))


def test_a_kernel_of_integers_is_refused():
    with pytest.raises(ValueError, match="its kernel is int8, no floating-point numbers"):
        Quantizer().encoding(np.zeros((2, 2), "int8"))


# the file


def test_encodings_are_written_in_the_form_of_aimet(tmp_path):
    path = tmp_path / "model.encodings"
    one, two = Encoding(-1.0, 0.9921875, 0.0078125, -128, 8, True), Encoding(0.0, 3.75, 0.25, 0, 4, False)
    save_encodings(path, {"conv1/kernel": [one], "conv2/kernel": [two, two]})
    second = {"bitwidth": 4, "dtype": "int", "is_symmetric": "False", "max": 3.75, "min": 0.0, "offset": 0, "scale": 0.25}
    assert json.loads(path.read_text()) == {
        "version": "0.6.1",
        "activation_encodings": {},
        "param_encodings": {
            "conv1/kernel": [
                {"bitwidth": 8, "dtype": "int", "is_symmetric": "True", "max": 0.9921875, "min": -1.0, "offset": -128, "scale": 0.0078125}
            ],
            "conv2/kernel": [second, second],
        },
    }


@each_kind
@either_scheme
def test_any_encoding_can_be_written_and_read_back(tmp_path, values, scheme):
    found = Quantizer(scheme=scheme).encoding(values)
    save_encodings(str(tmp_path / "e.json"), {"kernel": found})
    (read,) = json.loads((tmp_path / "e.json").read_text())["param_encodings"]["kernel"]
    assert (read["min"], read["max"], read["scale"], read["offset"]) == (found[0].min, found[0].max, found[0].delta, found[0].offset)
    assert type(read["offset"]) is int


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path):
    with pytest.raises(WriteError, match="cannot be written"):
        save_encodings(tmp_path / "missing" / "e.json", {})
    assert not list(tmp_path.iterdir())
