"""TFRecord files: which feature feeds which input, shards, images in them, and what is wrong with a record."""

import re

import numpy as np
import pytest
import tensorflow as tf

from graphs import graph, node
from tfpasses.data import Records, samples_of
from tfpasses.graph import Spec
from tfpasses.manager import DataError


def taking(**specs):
    inputs = [node(name, "Input", spec=Spec(*spec)) for name, spec in specs.items()]
    return graph(*inputs, outputs=[inputs[0].name])


MODEL = taking(x=((None, 2, 3), "float32"))
X = np.arange(30, dtype="float32").reshape(5, 2, 3)


def example(**features):
    """A record: floats, whole numbers, bytes, or a list of bytes."""
    made = {}
    for name, value in features.items():
        if isinstance(value, bytes | list):
            values = [value] if isinstance(value, bytes) else value
            made[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
            continue
        array = np.asarray(value)
        if array.dtype.kind == "f":
            made[name] = tf.train.Feature(float_list=tf.train.FloatList(value=array.ravel()))
        else:
            made[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=array.ravel()))
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def write(path, *records, compression=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for record in records:
            writer.write(record)
    return path


def read(model, data, size=2):
    batches = list(samples_of(model, data).batches(size))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def test_features_of_the_inputs_names_feed_them_without_more(tmp_path):
    path = write(tmp_path / "a.tfrecord", *(example(x=x, label=3) for x in X))
    samples = samples_of(MODEL, Records(path))
    assert (samples.count, samples.infinite) == (None, False)
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in samples.batches(2)]), X)


FEEDING = {
    "by another name": (["image"], lambda x: example(image=x)),
    "with what it is": (["image:float32[2,3]"], lambda x: example(image=x)),
    "whole numbers": (["image:int64[2,3]"], lambda x: example(image=x.astype(int))),
    "whole numbers without saying so": (["image"], lambda x: example(image=x.astype(int))),
    "bytes of bytes": (["image:uint8[2,3]"], lambda x: example(image=x.astype("uint8").tobytes())),
    "bytes of 16-bit numbers": (["image:int16[2,3]"], lambda x: example(image=x.astype("<i2").tobytes())),
    "bytes of fractions": (["image"], lambda x: example(image=x.astype("<f4").tobytes())),
    "slashes and an input": (["x=image/raw:float32[2, 3]"], lambda x: example(**{"image/raw": x})),
}


@pytest.mark.parametrize("form", FEEDING)
def test_a_feature_feeds_an_input(form, tmp_path):
    features, record = FEEDING[form]
    found = read(MODEL, Records(write(tmp_path / "a.tfrecord", *map(record, X)), features))["x"]
    assert found.dtype == "float32"
    np.testing.assert_array_equal(found, X)


def test_several_inputs(tmp_path):
    model = taking(ids=((None, 4), "int32"), word=((None,), "string"), weight=((None,), "float32"))
    path = write(tmp_path / "a.tfrecord", *(example(i=np.arange(4) + n, word=f"w{n}".encode(), w=n / 2) for n in range(3)))
    found = read(model, Records(path, ["ids=i", "weight=w", "word=word"]))
    np.testing.assert_array_equal(found["ids"], np.arange(4) + np.arange(3)[:, np.newaxis])
    assert (found["ids"].dtype, found["word"].tolist(), found["weight"].tolist()) == ("int32", [b"w0", b"w1", b"w2"], [0.0, 0.5, 1.0])


def test_encoded_images_are_decoded_resized_cropped_and_normalized(tmp_path):
    model = taking(x=((None, 8, 8, 3), "float32"))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype("uint8")
    path = write(tmp_path / "a.tfrecord", *(example(**{"image/encoded": tf.io.encode_png(one).numpy()}) for one in pixels))
    np.testing.assert_allclose(read(model, Records(path, ["image/encoded:image"], "tf"))["x"], pixels / 127.5 - 1, atol=1e-6)
    found = read(taking(x=((None, None, None, 3), "float32")), Records(path, ["image/encoded:image"], "none", crop=4, resize=8))["x"]
    np.testing.assert_array_equal(found, pixels[:, 2:6, 2:6])


def test_shards_are_read_in_the_order_of_their_names(tmp_path):
    for shard, rows in ((1, X[2:3]), (0, X[:2]), (2, X[3:3]), (3, X[3:])):
        write(tmp_path / f"shards/x.tfrecord-{shard:05}-of-00004", *(example(x=x) for x in rows))
    (tmp_path / "shards/README.txt").write_text("not a shard")
    for path in (tmp_path / "shards", f"{tmp_path}/shards/x.tfrecord-*", str(tmp_path / "shards")):
        np.testing.assert_array_equal(read(MODEL, Records(path), 4)["x"], X)


def test_a_compressed_file(tmp_path):
    path = write(tmp_path / "a.tfrecord.gz", *(example(x=x) for x in X), compression="GZIP")
    np.testing.assert_array_equal(read(MODEL, Records(path))["x"], X)


def flipped(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


GOOD = [example(x=x) for x in X]
BAD_RECORDS = {
    "without the feature": (example(y=X[0], z=1), "has no feature x; it has y (float32[6]), z (int64)"),
    "of another length": (example(x=X[0, :1]), "holds 3 values in feature x; float32[2,3] is 6"),
    "of another kind": (example(x=[b"1", b"2"]), "holds bytes in feature x, where the first record holds float32"),
    "no example": (b"\xff\xff\xff", "is no tf.train.Example"),
}


@pytest.mark.parametrize("fault", BAD_RECORDS)
def test_a_bad_record_is_named_with_its_file_and_number(fault, tmp_path):
    record, said = BAD_RECORDS[fault]
    write(tmp_path / "0.tfrecord", *GOOD)
    write(tmp_path / "1.tfrecord", *GOOD[:3], record, *GOOD)
    with pytest.raises(DataError, match=f"^{re.escape(f'{tmp_path}/1.tfrecord: record 3 (counted from 0) {said}')}$"):
        read(MODEL, Records(tmp_path))


@pytest.mark.parametrize("where", ["in the middle", "at the end"])
def test_a_damaged_file_is_named_with_the_record_at_which_it_is(where, tmp_path):
    path = write(tmp_path / "a.tfrecord", *GOOD)
    size = path.stat().st_size // 5
    if where == "in the middle":
        flipped(path, 2 * size + 20)
    else:
        path.write_bytes(path.read_bytes()[:-20])
    number = 2 if where == "in the middle" else 4
    with pytest.raises(DataError, match=re.escape(f"{path}: record {number} (counted from 0) is damaged, or this is no TFRecord file (")):
        read(MODEL, Records(path))


def test_a_file_of_something_else(tmp_path):
    (tmp_path / "a.tfrecord").write_text("this is text, and more than a few bytes of it")
    with pytest.raises(
        DataError, match=re.escape("a.tfrecord: record 0 (counted from 0) is damaged, or this is no TFRecord file")
    ) as caught:
        read(MODEL, Records(tmp_path))
    assert "\n" not in str(caught.value)


def test_files_without_records(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.tfrecord")
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: holds no records")):
        read(MODEL, Records(tmp_path))


def test_an_image_in_a_record_that_is_none(tmp_path):
    encoded = tf.io.encode_png(np.zeros((8, 8, 3), "uint8")).numpy()
    path = write(tmp_path / "a.tfrecord", example(e=encoded), example(e=b"no image"))
    model = taking(x=((None, 8, 8, 3), "float32"))
    with pytest.raises(DataError, match=re.escape(f"{path}: record 1 (counted from 0), image in e: is no image that can be read")):
        read(model, Records(path, ["e:image"], "tf"))


TWO = taking(a=((None, 2, 3), "float32"), b=((None, 2, 3), "float32"))
BAD_FEATURES = {
    "none of its name": (MODEL, ["y"], "has no feature y, which is to feed input x; it has bytes (bytes), label (int64), x"),
    "no grammar": (MODEL, ["x:[2"], "feature 'x:[2' is none of FEATURE, FEATURE:image, FEATURE:float32[224,224,3], each with INPUT="),
    "no dtype": (MODEL, ["x:float[2,3]"], "feature x: float is no dtype of numbers, and neither string nor image"),
    "no input": (MODEL, ["z=x"], "feature 'z=x' feeds z; the model's inputs are x"),
    "which input": (TWO, ["x"], "feature 'x' does not say which input it feeds (a, b); write INPUT=x"),
    "an input without": (TWO, ["a=x"], "no feature feeds input b; write b=FEATURE"),
    "an input twice": (TWO, ["a=x", "a=y", "b=x"], "features x and a=y feed the same input a"),
    "another shape": (MODEL, ["x:float32[5]"], "record 0 (counted from 0) holds 6 values in feature x; float32[5] is 5"),
    "a shape that does not fit": (MODEL, ["x:float32[6]"], "data for input x has shape (6,) in element 0 (counted from 0); float32[?,2,3]"),
    "numbers for an image": (taking(x=((None, 8, 8, 3), "float32")), ["x:image"], "holds float32 in feature x, which is no image"),
    "bytes of another length": (MODEL, ["bytes"], "holds 5 bytes in feature bytes; float32[2,3] is 24 (of an encoded"),
    "an unknown size": (taking(x=((None, None), "float32")), ["x"], "feature x feeds input x, which is float32[?,?]; say of which shape"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_FEATURES)
def test_features_that_do_not_fit(fault, tmp_path):
    model, features, message = BAD_FEATURES[fault]
    path = write(tmp_path / "a.tfrecord", *(example(x=x, label=3, bytes=b"12345") for x in X))
    preset = "tf" if "image" in features[0] else None
    with pytest.raises(DataError, match=re.escape(message)):
        read(model, Records(path, features, preset))


def test_a_preset_without_an_image(tmp_path):
    path = write(tmp_path / "a.tfrecord", *GOOD)
    with pytest.raises(DataError, match=re.escape("preset, resize and crop are for images, and no feature is one; write FEATURE:image")):
        read(MODEL, Records(path, preset="tf"))
