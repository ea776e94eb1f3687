"""Arrays, generators and other iterables as samples of a model's inputs: structure, batches, and what is refused. No TensorFlow."""

import itertools
import re
import tracemalloc

import numpy as np
import pytest

from graphs import graph, node
from tfpasses.data import ArraySamples, samples_of
from tfpasses.graph import Slot, Spec
from tfpasses.manager import DataError, all_batches


def taking(**specs):
    """A graph with inputs of these specs, each a shape and a dtype."""
    inputs = [node(name, "Input", spec=Spec(*spec)) for name, spec in specs.items()]
    return graph(*inputs, outputs=[inputs[0].name])


ONE = taking(x=((None, 4), "float32"))
TWO = taking(a=((None, 4), "float32"), b=((None, 2), "int32"))
X = np.arange(28, dtype="float64").reshape(7, 4)
B = np.arange(14).reshape(7, 2)


def parts(samples, size=3):
    return [{name: array.tolist() for name, array in batch.items()} for batch in samples.batches(size)]


def in_threes(**arrays):
    return [{name: array[start : start + 3].tolist() for name, array in arrays.items()} for start in (0, 3, 6)]


def rows():
    return iter(X)


def in_pieces(*cuts):
    return [X[start:stop] for start, stop in itertools.pairwise((0, *cuts, 7))]


FORMS_OF_ONE = {
    "an array": X,
    "an array in float32": X.astype("float32"),
    "an array by name": {"x": X},
    "an array and labels by name": {"x": X, "label": np.arange(7)},
    "an array with its labels": (X, np.arange(7)),
    "a list of samples": list(X),
    "nested lists": X.tolist(),
    "samples with labels": [(row, 1) for row in X],
    "samples with labels and weights": [(row, 1, 0.5) for row in X],
    "tuples of one": [(row,) for row in X],
    "tuples in tuples": [((row,), 1) for row in X],
    "dicts": [{"x": row, "label": 1} for row in X],
    "dicts with labels": [({"x": row}, 1) for row in X],
    "a generator": (row for row in X),
    "a generator function": rows,
    "a callable that makes a list": lambda: list(X),
    "batches": in_pieces(2, 4),
    "batches larger than what is asked for": in_pieces(5),
    "one batch": [X],
    "batches one of which is empty": in_pieces(2, 2, 5),
    "batches with labels": [(part, np.zeros(len(part))) for part in in_pieces(4)],
    "integers": X.astype("int64"),
}


@pytest.mark.parametrize("form", FORMS_OF_ONE)
def test_a_model_of_one_input_takes(form):
    data = FORMS_OF_ONE[form]
    if form == "a generator":
        data = (row for row in X)
    assert parts(samples_of(ONE, data)) == in_threes(x=X)


FORMS_OF_TWO = {
    "arrays by name": {"a": X, "b": B},
    "a list of arrays": [X, B],
    "a tuple of arrays": (X, B),
    "arrays with labels": ((X, B), np.zeros(7)),
    "dicts": [{"a": a, "b": b, "label": 0} for a, b in zip(X, B, strict=True)],
    "tuples": list(zip(X, B, strict=True)),
    "lists": [[a, b] for a, b in zip(X, B, strict=True)],
    "tuples with labels": [((a, b), 0) for a, b in zip(X, B, strict=True)],
    "lists with labels": [([a, b], 0) for a, b in zip(X, B, strict=True)],
    "dicts with labels": [({"b": b, "a": a}, 0) for a, b in zip(X, B, strict=True)],
    "batches": [(X[:2], B[:2]), (X[2:], B[2:])],
}


@pytest.mark.parametrize("form", FORMS_OF_TWO)
def test_a_model_of_two_inputs_takes(form):
    assert parts(samples_of(TWO, FORMS_OF_TWO[form])) == in_threes(a=X, b=B)


def test_a_model_that_takes_a_dict_is_given_its_keys_or_its_inputs_names():
    model = graph(*TWO.nodes.values(), outputs=["a"], input_structure={"left": Slot(0), "right": Slot(1)})
    for keys in (("left", "right"), ("a", "b")):
        assert parts(samples_of(model, dict(zip(keys, (X, B), strict=True)))) == in_threes(a=X, b=B)


@pytest.mark.parametrize("data", [X, list(X), in_pieces(5)], ids=["array", "samples", "batches"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_batches_are_of_the_size_that_is_asked_for(data, size):
    found = [batch["x"] for batch in samples_of(ONE, data).batches(size)]
    assert [len(one) for one in found] == [size] * (7 // size) + [7 % size] * (7 % size > 0)
    np.testing.assert_array_equal(np.concatenate(found), X)
    assert {one.dtype.name for one in found} == {"float32"}


def test_arrays_and_iterables_are_read_as_often_as_one_likes():
    for data in (X, list(X), rows, lambda: (row for row in X)):
        samples = samples_of(ONE, data)
        assert parts(samples) == parts(samples) == in_threes(x=X)


def test_an_iterator_is_looked_at_and_then_read_once():
    samples = samples_of(ONE, iter(X))
    for size in (2, 5, 1):
        np.testing.assert_array_equal(samples.first(size)["x"], X[:size])
    assert parts(samples) == in_threes(x=X)
    with pytest.raises(DataError, match="can be read only once, and the data are read again; give a callable that makes one, or a dataset"):
        parts(samples)


def test_an_iterator_that_was_left_in_the_middle_is_not_read_again():
    samples = samples_of(ONE, iter(X))
    next(samples.batches(2))
    with pytest.raises(DataError, match="can be read only once"):
        parts(samples)


def test_looking_at_the_first_samples_reads_no_more_than_those():
    read = []
    samples = samples_of(ONE, (read.append(row) or row for row in X))
    samples.first(3)
    assert len(read) == 3


def test_a_generator_may_write_into_the_array_it_gave_before():
    def same_array():
        array = np.empty(4)
        for row in X:
            array[:] = row
            yield array

    samples = samples_of(ONE, same_array)
    np.testing.assert_array_equal(samples.first(4)["x"], X[:4])
    assert parts(samples) == parts(samples) == in_threes(x=X)
    held = [batch["x"] for batch in samples.batches(1)]
    np.testing.assert_array_equal(np.concatenate(held), X)


@pytest.mark.parametrize(
    ("data", "count"), [(X, 7), ({"x": X}, 7), (list(X), 7), (rows, None), (iter(X), None), (in_pieces(5), None)], ids=range(6)
)
def test_how_many_samples_there_are_is_known_where_it_can_be(data, count):
    samples = samples_of(ONE, data)
    assert (samples.count, samples.infinite) == (count, False)


def test_samples_of_several_shapes_are_not_in_one_batch():
    model = taking(x=((None, None), "float32"))
    data = [np.ones((2, 3)), np.ones((1, 3)), np.ones((2, 5)), np.ones((4, 3))]
    assert [batch["x"].shape for batch in samples_of(model, data).batches(4)] == [(3, 3), (2, 5), (4, 3)]


def test_a_model_of_a_fixed_number_of_samples_gets_as_many():
    model = taking(x=((3, 4), "float32"))
    for data in (X[:6], list(X[:6]), [X[:5], X[5:6]]):
        samples = samples_of(model, data)
        assert parts(samples, 32) == [{"x": X[:3].tolist()}, {"x": X[3:6].tolist()}]
        assert samples.first(1)["x"].shape == (3, 4)


@pytest.mark.parametrize("data", [X, list(X), in_pieces(2, 5)], ids=["array", "samples", "batches"])
def test_a_rest_that_such_a_model_cannot_take_is_an_error(data):
    with pytest.raises(DataError, match="the model takes 3 samples at a time; of the data 1 is left over; give 3, or a multiple of it"):
        parts(samples_of(taking(x=((3, 4), "float32")), data))


def test_a_model_one_input_of_which_has_no_samples_gets_what_is_given_as_a_whole():
    model = taking(x=((None, 4), "float32"), rate=((), "float32"))
    samples = samples_of(model, {"x": X, "rate": 0.5})
    assert (samples.count, parts(samples)) == (None, [{"x": X.tolist(), "rate": 0.5}])
    assert parts(samples_of(model, [(X[:2], 0.5), (X[2:], 1)])) == [{"x": X[:2].tolist(), "rate": 0.5}, {"x": X[2:].tolist(), "rate": 1.0}]


@pytest.mark.parametrize("given", ["float16", "float64", "int8", "uint8", "int64", "bool"])
@pytest.mark.parametrize("taken", ["float16", "bfloat16", "float32", "float64"])
def test_numbers_are_cast_to_an_input_of_fractions(given, taken):
    (batch,) = samples_of(taking(x=((None, 4), taken)), (X % 2).astype(given)).batches(7)
    assert batch["x"].dtype.name == taken
    np.testing.assert_array_equal(batch["x"].astype("float64"), X % 2)


@pytest.mark.parametrize(
    ("given", "taken"), [("int64", "int32"), ("uint8", "int64"), ("bool", "int32"), ("int32", "uint8"), ("int64", "bool")]
)
def test_whole_numbers_are_cast_to_an_input_of_such(given, taken):
    (batch,) = samples_of(taking(x=((None, 4), taken)), (X % 2).astype(given)).batches(7)
    assert batch["x"].dtype.name == taken
    np.testing.assert_array_equal(batch["x"].astype("int64"), X % 2)


def test_words_are_taken_by_an_input_of_strings():
    model = taking(x=((None,), "string"))
    for data in (np.array(["a", "bc"]), np.array([b"a", b"bc"], object)):
        assert [batch["x"].tolist() for batch in samples_of(model, data).batches(1)] == [[data[0]], [data[1]]]


def with_value(value, place=(5, 2)):
    array = X.copy()
    array[place] = value
    return array


NOT_DATA = (
    "give arrays by input name (x), a tf.data.Dataset, an iterable of samples or batches, a callable that makes one, or the name of a file"
)
REFUSED = {
    "a number": (3, f"data is of type int; {NOT_DATA}"),
    "nothing": (None, f"data is of type NoneType; {NOT_DATA}"),
    "a set": ({1.0}, f"data is of type set; {NOT_DATA}"),
    "a callable that makes nothing": (
        lambda: None,
        "data is a callable that gives NoneType; it must give an iterator of samples or batches",
    ),
    "a callable that wants something": (lambda size: X, "what the callable makes failed at element 0 (counted from 0): TypeError: "),
    "no samples": ([], "the list holds no samples"),
    "a generator of nothing": (iter(()), "the tuple_iterator holds no samples"),
    "empty batches": ([X[:0], X[:0]], "the list holds no samples"),
    "an empty array": (X[:0], "data for input x has shape (0, 4); float32[?,4] with at least one sample is expected"),
    "another width": (X[:, :3], "data for input x has shape (7, 3); float32[?,4] with at least one sample is expected"),
    "one sample for all": (X[0], "data for input x has shape (4,); float32[?,4] with at least one sample is expected"),
    "a sample of another width": (
        [X[0], X[1], X[2, :3]],
        "data for input x has shape (3,) in element 2 (counted from 0); float32[?,4], or one sample of it, is expected",
    ),
    "a batch of another width": ([X, X[:, :3]], "data for input x has shape (7, 3) in element 1 (counted from 0)"),
    "another rank": ([X[np.newaxis]], "data for input x has shape (1, 7, 4) in element 0 (counted from 0)"),
    "words": (X.astype(str), "data for input x has dtype <U32; float32[?,4] is expected"),
    "words in a generator": (
        [["a", "b", "c", "d"]],
        "data for input x has dtype <U1 in element 0 (counted from 0); float32[?,4] is expected",
    ),
    "complex numbers": (X.astype(complex), "data for input x has dtype complex128; float32[?,4] is expected"),
    "objects": ([[{}, {}, {}, {}]], "data for input x has dtype object in element 0 (counted from 0)"),
    "rows of different lengths": ([[[1.0], [1.0, 2.0]]], "data for input x is no array in element 0 (counted from 0): "),
    "another name": ({"y": X}, "data is given for y; the model's inputs are x"),
    "another name in a sample": ([{"y": X[0]}], "data in element 0 (counted from 0) are given for y; the model's inputs are x"),
    "too many parts": (
        [(X[0], 1, 2, 3)],
        "data in element 0 (counted from 0) are a tuple of 4 parts; (x, label, weight) is the most that is taken",
    ),
    "NaN": (with_value(np.nan), "data for input x has NaN in sample 5 (counted from 0); mend or leave out such samples"),
    "NaN in a sample": (list(with_value(np.nan)), "data for input x has NaN in sample 5 (counted from 0)"),
    "NaN in a batch": ([X[:4], with_value(np.nan, (1, 0))[:3]], "data for input x has NaN in sample 5 (counted from 0)"),
    "infinity": (with_value(-np.inf), "data for input x has an infinite value in sample 5 (counted from 0)"),
    "what float32 cannot hold": (
        with_value(1e39),
        "data for input x has the value 1e+39 in sample 5 (counted from 0), which float32 cannot hold",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_refused_for_a_model_of_one_input(fault):
    data, message = REFUSED[fault]
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        parts(samples_of(ONE, data))
    assert "\n" not in str(caught.value)


REFUSED_FOR_TWO = {
    "one array": (X, "data are one array; the model's inputs are a, b"),
    "one input by name": ({"a": X}, "data is given for a; the model's inputs are a, b"),
    "a sample with a label": ([(X[0], 1)], "data for input a has shape (4,) in element 0"),
    "three values": ([(X[0], B[0], 1)], "data in element 0 (counted from 0) have 3 parts; the model's inputs are a, b"),
    "different numbers": ({"a": X, "b": B[:5]}, "data have different numbers of samples: a 7, b 5"),
    "different numbers in a batch": ([(X, B[:5])], "data in element 0 (counted from 0) have different numbers of samples: a 7, b 5"),
    "a sample beside a batch": ([(X[0], B)], "data for input a has shape (4,) in element 0"),
    "fractions for whole numbers": ({"a": X, "b": B * 0.5}, "data for input b has dtype float64; int32[?,2] is expected"),
    "numbers that are too large": (
        {"a": X, "b": B + (1 << 40)},
        "data for input b has the value 1099511627776 in sample 0 (counted from 0), which int32 cannot hold",
    ),
}


@pytest.mark.parametrize("fault", REFUSED_FOR_TWO)
def test_refused_for_a_model_of_two_inputs(fault):
    data, message = REFUSED_FOR_TWO[fault]
    with pytest.raises(DataError, match=re.escape(message)):
        parts(samples_of(TWO, data))


def test_an_exception_in_a_generator_is_named_with_where_it_happened():
    def broken():
        yield X[0]
        yield X[1]
        raise KeyError("label\nand more")

    samples = samples_of(ONE, broken)
    with pytest.raises(DataError, match=r"^what the callable makes failed at element 2 \(counted from 0\): KeyError: 'label\\nand more'$"):
        parts(samples)
    with pytest.raises(DataError, match="the generator failed at element 2"):
        samples_of(ONE, broken()).first(5)


def test_what_only_compares_models_may_be_given_nan():
    for data in (with_value(np.nan), list(with_value(np.nan))):
        assert np.isnan(samples_of(ONE, data).first(7)["x"][5, 2])
        (batch,) = samples_of(ONE, data, finite=False).batches(7)
        assert np.isnan(batch["x"][5, 2])
    with pytest.raises(DataError, match="cannot hold"):
        parts(samples_of(ONE, with_value(1e39), finite=False))


def test_a_pass_that_wants_all_refuses_what_has_no_end():
    class Endless:
        count, infinite = None, True

    with pytest.raises(DataError, match=re.escape("the data have no end; give so many of them as are meant: dataset.take(n)")):
        all_batches(Endless(), 32)
    assert len(list(all_batches(samples_of(ONE, X), 4))) == 2


MEGABYTE = 1 << 20


@pytest.mark.parametrize("form", ["samples", "small batches", "large batches", "bytes"])
def test_memory_holds_two_batches_beside_the_source(form):
    """A batch of 32 samples of 64 KiB is 2 MiB."""
    model = taking(x=((None, 16384), "float32"))
    row = np.ones(16384, "uint8" if form == "bytes" else "float32")

    def rows():
        size = {"samples": 0, "bytes": 0, "small batches": 5, "large batches": 70}[form]
        yield from (np.broadcast_to(row, (size, 16384)) if size else row for _ in range(512 // max(size, 1)))

    samples = samples_of(model, rows)
    tracemalloc.start()
    read = sum(len(batch["x"]) for batch in samples.batches(32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read > 480
    assert peak < 2 * 2 * MEGABYTE + MEGABYTE


def test_memory_holds_no_second_array_beside_one_that_is_cast():
    model = taking(x=((None, 16384), "float32"))
    data = np.ones((512, 16384), "float64")
    tracemalloc.start()
    for _ in samples_of(model, data).batches(32):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 2 * MEGABYTE + MEGABYTE


def test_arrays_are_not_copied_where_they_are_as_the_model_takes_them():
    array = X.astype("float32")
    samples = samples_of(ONE, array)
    assert isinstance(samples, ArraySamples)
    assert all(np.shares_memory(batch["x"], array) for batch in samples.batches(2))
