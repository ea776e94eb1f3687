"""tf.data datasets as samples of a model's inputs, and as data of a run."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpasses
from graphs import graph, node
from tfpasses.data import samples_of
from tfpasses.graph import Spec
from tfpasses.manager import DataError, VerificationError

X = np.arange(28, dtype="float32").reshape(7, 4)
B = np.arange(14, dtype="int32").reshape(7, 2)
ONE = graph(node("x", "Input", spec=Spec((None, 4), "float32")), outputs=["x"])
TWO = graph(node("a", "Input", spec=Spec((None, 4), "float32")), node("b", "Input", spec=Spec((None, 2), "int32")), outputs=["a"])


def slices(*parts):
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0])


def read(samples, size=3):
    return [{name: array.tolist() for name, array in batch.items()} for batch in samples.batches(size)]


def in_threes(**arrays):
    return [{name: array[start : start + 3].tolist() for name, array in arrays.items()} for start in (0, 3, 6)]


OF_ONE = {
    "samples": lambda: slices(X),
    "batches": lambda: slices(X).batch(2),
    "larger batches": lambda: slices(X).batch(5),
    "samples with labels": lambda: slices(X, np.arange(7)),
    "batches with labels": lambda: slices(X, np.arange(7)).batch(4),
    "batches with labels and weights": lambda: slices(X, np.arange(7), np.ones(7)).batch(4),
    "dicts": lambda: slices({"x": X, "label": np.arange(7)}),
    "batches of dicts with labels": lambda: slices({"x": X}, np.arange(7)).batch(2),
    "labels that are ragged": lambda: slices(X, tf.ragged.constant([[1]] * 6 + [[1, 2]])).batch(2),
    "float64": lambda: slices(X.astype("float64")).batch(2),
    "bytes": lambda: slices(X.astype("uint8")).batch(2),
    "half precision": lambda: slices(tf.cast(X, "bfloat16")).batch(2),
    "a pipeline": lambda: tf.data.Dataset.range(7).map(lambda i: tf.gather(X, i), num_parallel_calls=2).batch(2).prefetch(1),
}


@pytest.mark.parametrize("form", OF_ONE)
def test_a_model_of_one_input_takes_datasets_of(form):
    samples = samples_of(ONE, OF_ONE[form]())
    assert read(samples) == read(samples) == in_threes(x=X)
    assert samples.first(2)["x"].dtype == "float32"


OF_TWO = {
    "pairs": lambda: slices(X, B).batch(2),
    "dicts": lambda: slices({"a": X, "b": B, "c": B}).batch(5),
    "dicts with labels": lambda: slices({"a": X, "b": B}, np.arange(7)),
    "pairs with labels": lambda: slices((X, B), np.arange(7)).batch(2),
}


@pytest.mark.parametrize("form", OF_TWO)
def test_a_model_of_two_inputs_takes_datasets_of(form):
    assert read(samples_of(TWO, OF_TWO[form]())) == in_threes(a=X, b=B)


@pytest.mark.parametrize(
    ("dataset", "count"),
    [
        (lambda: slices(X), 7),
        (lambda: slices(X).batch(3, drop_remainder=True), 6),
        (lambda: slices(X).batch(3), None),
        (lambda: slices(X).filter(lambda row: row[0] > 5), None),
        (lambda: slices(X).repeat(2), 14),
    ],
    ids=["samples", "full batches", "batches", "filtered", "repeated"],
)
def test_how_many_samples_there_are_is_known_where_it_can_be(dataset, count):
    samples = samples_of(ONE, dataset())
    assert (samples.count, samples.infinite) == (count, False)


def test_a_dataset_without_end_is_read_as_far_as_one_likes():
    samples = samples_of(ONE, slices(X).repeat())
    assert (samples.count, samples.infinite) == (None, True)
    batches = samples.batches(10)
    np.testing.assert_array_equal(np.concatenate([next(batches)["x"] for _ in range(2)]), np.concatenate([X, X, X])[:20])


def test_padded_batches_of_several_lengths_stay_apart():
    model = graph(node("x", "Input", spec=Spec((None, None), "int32")), outputs=["x"])
    rows = tf.data.Dataset.range(1, 6).map(lambda size: tf.range(tf.cast(size, tf.int32))).padded_batch(2)
    assert [batch["x"].shape for batch in samples_of(model, rows).batches(32)] == [(2, 2), (2, 4), (1, 5)]


def test_an_iterator_of_a_dataset_is_read_once():
    samples = samples_of(ONE, iter(slices(X).batch(2)))
    samples.first(3)
    assert read(samples) == in_threes(x=X)
    with pytest.raises(DataError, match="can be read only once"):
        read(samples)


def test_a_callable_may_make_a_dataset():
    samples = samples_of(ONE, lambda: slices(X).batch(2))
    assert read(samples) == read(samples) == in_threes(x=X)


def test_a_keras_sequence_is_read_batch_by_batch():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, number):
            return X[2 * number : 2 * number + 2], np.zeros(2)

    samples = samples_of(ONE, Batches())
    assert read(samples) == read(samples) == in_threes(x=X)


@pytest.mark.parametrize("inside", [False, True], ids=["outside of it", "inside of it"])
def test_a_dataset_that_belongs_to_a_graph_of_tensorflow_1(inside):
    with tf.Graph().as_default() as owner:
        dataset = tf.data.Dataset.from_tensor_slices((X, np.arange(7))).batch(2)
        endless = dataset.repeat()
        if inside:
            samples = samples_of(ONE, dataset)
            assert read(samples) == in_threes(x=X)
    samples = samples_of(ONE, dataset)
    assert read(samples) == read(samples) == in_threes(x=X)
    assert samples_of(ONE, endless).infinite
    assert not owner.finalized


def test_a_dataset_made_eagerly_is_read_where_a_graph_is_the_default_one():
    dataset = slices(X).batch(2)
    with tf.Graph().as_default():
        assert read(samples_of(ONE, dataset)) == in_threes(x=X)


def of_python(raised):
    def rows():
        yield X[0]
        yield X[1]
        raise raised

    return tf.data.Dataset.from_generator(rows, output_signature=tf.TensorSpec((4,), tf.float32))


REFUSED = {
    "nothing": (lambda: slices(X).take(0), "the dataset holds no samples"),
    "another width": (
        lambda: slices(X[:, :3]).batch(2),
        "data for input x has shape (2, 3) in element 0 (counted from 0); float32[?,4], or",
    ),
    "another width at the end": (lambda: slices(X).concatenate(slices(X[:, :3])), "data for input x has shape (3,) in element 7"),
    "words": (lambda: slices(X.astype(str)), "data for input x has dtype object in element 0 (counted from 0); float32[?,4] is expected"),
    "NaN": (lambda: slices(np.where(X == 22, np.nan, X)).batch(2), "data for input x has NaN in sample 5 (counted from 0)"),
    "ragged": (
        lambda: slices(tf.ragged.constant([[[1.0]], [[1.0], [2.0, 3.0]]])),
        "is a RaggedTensor in element 0 (counted from 0); make it dense with to_tensor()",
    ),
    "sparse": (
        lambda: slices(tf.sparse.from_dense(X)),
        "data for input x is a SparseTensor in element 0 (counted from 0); make it dense with",
    ),
    "by another name": (lambda: slices({"y": X}), "data in element 0 (counted from 0) are given for y; the model's inputs are x"),
    "datasets": (lambda: slices(X).window(2), "data for input x is a Dataset in element 0 (counted from 0); flatten it with flat_map"),
    "an error in Python": (
        lambda: of_python(ValueError("no third row")),
        "the dataset failed at element 2 (counted from 0): InvalidArgumentError: ValueError: no third row",
    ),
    "an error in a map": (
        lambda: tf.data.Dataset.range(3).map(lambda i: tf.debugging.check_numerics(X[0] / tf.cast(1 - i, tf.float32), "row")),
        "the dataset failed at element 1 (counted from 0): InvalidArgumentError: ",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_refused(fault):
    dataset, message = REFUSED[fault]
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read(samples_of(ONE, dataset()))
    assert "\n" not in str(caught.value) and "{{" not in str(caught.value) and "[Op:" not in str(caught.value)


def limited():
    x = keras.Input((4,), name="x")
    return keras.Model(x, keras.layers.ReLU(6.0, name="relu6")(x))


def touched(result):
    (remark,) = result.remarks
    return remark.reason


IN_A_RUN = {
    "array": lambda: X,
    "arrays by name": lambda: {"x": X},
    "dataset": lambda: slices(X, np.arange(7)).batch(2),
    "generator": lambda: iter(X),
    "callable": lambda: lambda: iter(X),
}


@pytest.mark.parametrize("form", IN_A_RUN)
@pytest.mark.parametrize("verify", ["shapes", "numeric"])
def test_a_pass_that_looks_at_data_takes(form, verify):
    result = tfpasses.run(limited(), "relu6-to-relu", data=IN_A_RUN[form](), verify=verify)
    assert touched(result) == "the limit is gone; it touched 75 % of its values on the given data"  # 21 of 28 are above 6


def test_two_passes_that_look_at_a_generator_are_told_to_give_a_callable():
    twice = 'relu6-to-relu{only="a"},relu6-to-relu{only="b"}'
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.ReLU(6.0, name="b")(keras.layers.ReLU(6.0, name="a")(x)))
    assert len(tfpasses.run(model, twice, data=lambda: iter(X)).rewrites) == 2
    with pytest.raises(DataError, match=r"^the list_iterator can be read only once, and the data are read again; give a callable"):
        tfpasses.run(model, twice, data=iter(list(X)))


def test_a_pass_that_reads_all_refuses_a_dataset_without_end():
    with pytest.raises(DataError, match=r"^the data have no end; give so many of them as are meant"):
        tfpasses.run(limited(), "relu6-to-relu", data=slices(X).repeat())


def test_bad_data_end_a_run_as_an_error_of_the_data_and_not_of_the_pass():
    with pytest.raises(DataError, match=r"^data for input x has NaN in sample 5"):
        tfpasses.run(limited(), "relu6-to-relu", data=slices(np.where(X == 22, np.nan, X)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_verification_on_data_in_the_precision_of_the_model(dtype):
    keras.utils.set_random_seed(0)
    x = keras.Input((4,), name="x", dtype=dtype)
    y = keras.layers.BatchNormalization(dtype=dtype)(keras.layers.Dense(3, dtype=dtype)(x))
    result = tfpasses.run(keras.Model(x, y), "fold-batch-norms", data=slices(X / 28), verify="numeric")
    assert result.verdicts and all(verdict.ok for verdict in result.verdicts)


def test_models_are_compared_on_all_data():
    """They differ where x is above 6 by more than 60: only in the last of three batches that are compared."""
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.ReLU(name="relu")(x))
    limited = keras.Model(x, keras.layers.ReLU(66.0, name="relu")(x))
    data = np.zeros((70, 4), "float32")
    for value, same in ((66, True), (67, False)):
        data[69, 3] = value
        for form in (data, slices(data), iter(data)):
            (found,) = tfpasses.compare_models(model, limited, form)
            assert found.ok == same and found.maximum == value - 66
    with pytest.raises(DataError, match="the data have no end"):
        tfpasses.compare_models(model, limited, slices(data).repeat())
    assert not issubclass(DataError, VerificationError)
