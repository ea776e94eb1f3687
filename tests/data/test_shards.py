"""Each worker's part of the data: together all of them, each once."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfpasses.data import Images, samples_of, shared_out
from tfpasses.frontends.keras import from_keras

COUNT = 23


def graph(batch=None, size=2):
    x = keras.Input((size,), batch_size=batch, name="x")
    return from_keras(keras.Model(x, keras.layers.Dense(2)(x)))


def values(count=COUNT):
    return np.arange(count * 2, dtype="float32").reshape(count, 2)


def stream(parts):
    return lambda: iter(np.split(values(), parts))


def dataset(policy=None, batch=None):
    data = tf.data.Dataset.from_tensor_slices(values())
    data = data if batch is None else data.batch(batch)
    if policy is None:
        return data
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = policy
    return data.with_options(options)


SOURCES = {
    "arrays": values,
    "batches of several sizes": lambda: stream([1, 6, 13]),
    "samples": lambda: lambda: iter(values()),
    "a dataset of samples": dataset,
    "a dataset of batches": lambda: dataset(batch=4),
    "a dataset dealt out by elements": lambda: dataset(tf.data.experimental.AutoShardPolicy.DATA),
}


def parts(samples, workers, size):
    return [list(shared_out(samples, rank, workers).batches(size)) for rank in range(workers)]


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("size", [2, 5, 100])
def test_together_the_parts_are_all_samples(name, workers, size):
    found = parts(samples_of(graph(), SOURCES[name]()), workers, size)
    rows = np.concatenate([batch["x"] for part in found for batch in part])
    np.testing.assert_array_equal(rows[np.argsort(rows[:, 0])], values())
    counts = [sum(len(batch["x"]) for batch in part) for part in found]
    assert max(counts) - min(counts) <= (4 if "batches" in name else 1)
    assert all(len(batch["x"]) <= size for part in found for batch in part)


@pytest.mark.parametrize("workers", [2, 3])
def test_the_part_of_arrays_is_every_sample_of_so_many(workers):
    for rank, part in enumerate(parts(samples_of(graph(), values()), workers, 4)):
        np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in part]), values()[rank::workers])


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_how_many_there_are_is_known(workers):
    whole = samples_of(graph(), values())
    for rank in range(workers):
        part = shared_out(whole, rank, workers)
        assert part.count == len(values()[rank::workers]) and not part.infinite


def test_a_model_of_a_fixed_number_takes_whole_batches():
    found = parts(samples_of(graph(batch=4), values(24)), 2, 100)
    assert [batch["x"][0, 0] // 2 for batch in found[0]] == [0, 8, 16]
    assert [batch["x"][0, 0] // 2 for batch in found[1]] == [4, 12, 20]


def test_the_first_samples_are_the_same_for_each_worker():
    whole = samples_of(graph(), values())
    for rank in range(2):
        np.testing.assert_array_equal(shared_out(whole, rank, 2).first(3)["x"], values()[:3])


def test_a_dataset_that_is_not_to_be_dealt_out_is_read_by_each():
    found = parts(samples_of(graph(), dataset(tf.data.experimental.AutoShardPolicy.OFF)), 2, 100)
    assert [len(part[0]["x"]) for part in found] == [COUNT, COUNT]


def test_image_files_are_dealt_out(tmp_path):
    for number in range(5):
        tf.io.write_file(str(tmp_path / f"{number}.png"), tf.io.encode_png(np.full((4, 4, 3), 10 * number, "uint8")))
    x = keras.Input((4, 4, 3), name="x")
    model = from_keras(keras.Model(x, keras.layers.Flatten()(x)))
    samples = samples_of(model, Images(tmp_path, preset="none"))
    found = parts(samples, 2, 100)
    assert [[int(image[0, 0, 0]) for batch in part for image in batch["x"]] for part in found] == [[0, 20, 40], [10, 30]]


@pytest.mark.parametrize("form", ["images", "samples", "one batch"])
def test_of_data_that_are_fewer_than_the_workers_some_have_none(form, tmp_path):
    x = keras.Input((4, 4, 3), name="x")
    model = from_keras(keras.Model(x, keras.layers.Flatten()(x)))
    pixels = np.stack([np.full((4, 4, 3), 10 * number, "uint8") for number in range(2)])
    for number, image in enumerate(pixels):
        tf.io.write_file(str(tmp_path / f"{number}.png"), tf.io.encode_png(image))
    tensors = tf.data.Dataset.from_tensor_slices(pixels)
    samples = samples_of(model, {"images": Images(tmp_path, preset="none"), "samples": tensors, "one batch": tensors.batch(2)}[form])
    shards = [shared_out(samples, rank, 3) for rank in range(3)]
    found = [[int(image[0, 0, 0]) for batch in shard.batches(100) for image in batch["x"]] for shard in shards]
    assert found == [[0], [10], []]


def test_records_are_dealt_out_by_files(tmp_path):
    for number in range(4):
        with tf.io.TFRecordWriter(str(tmp_path / f"{number}.tfrecord")) as writer:
            writer.write(np.full(2, number, "float32").tobytes())
    files = tf.data.Dataset.list_files(str(tmp_path / "*.tfrecord"), shuffle=False)
    data = files.interleave(tf.data.TFRecordDataset).map(lambda record: tf.reshape(tf.io.decode_raw(record, "float32"), (2,)))
    found = parts(samples_of(graph(), data), 2, 100)
    assert sorted(int(row[0]) for part in found for batch in part for row in batch["x"]) == [0, 1, 2, 3]
    assert [sum(len(batch["x"]) for batch in part) for part in found] == [2, 2]
