"""--data on the command line: each kind of file, its options, and what is refused in one line with nothing written."""

import keras
import numpy as np
import pytest
import tensorflow as tf

TOUCHED = "it touched 75 % of its values on the given data"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model of which data of 0 below and 9 above touch the limit; one of two inputs; one that takes any size."""
    folder = tmp_path_factory.mktemp("limited")
    x = keras.Input((8, 8, 3), name="image")
    keras.Model(x, keras.layers.ReLU(6.0, name="relu6")(x)).save(folder / "model.keras")
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    keras.Model([a, b], keras.layers.ReLU(6.0, name="relu6")(keras.layers.Add()([a, b]))).save(folder / "two.keras")
    return folder


def pixels():
    """Two images, of whose rows a quarter is dark."""
    image = np.full((2, 8, 8, 3), 9, "uint8")
    image[:, :2] = 0
    return image


def example(**features):
    kinds = {"f": (tf.train.FloatList, "float_list"), "u": (tf.train.Int64List, "int64_list"), "i": (tf.train.Int64List, "int64_list")}
    made = {}
    for name, value in features.items():
        if isinstance(value, bytes):
            made[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        else:
            kind, field = kinds[value.dtype.kind]
            made[name] = tf.train.Feature(**{field: kind(value=value.ravel())})
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def write_records(path, *records):
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The same two images in every kind of file, and files that are damaged."""
    folder = tmp_path_factory.mktemp("data")
    images, encoded = pixels(), [tf.io.encode_png(one).numpy() for one in pixels()]
    np.savez(folder / "arrays.npz", image=images, label=np.arange(2))
    np.savez(folder / "nan.npz", image=np.where(np.arange(8) == 3, np.nan, np.ones((2, 3, 8, 8))).transpose(0, 2, 3, 1))
    np.save(folder / "array.npy", images)
    write_records(folder / "floats.tfrecord", *(example(image=one.astype("float32")) for one in images))
    write_records(folder / "raw.tfrecord", *(example(pixels=one.tobytes()) for one in images))
    write_records(folder / "encoded.tfrecord", *(example(png=one) for one in encoded))
    for number, one in enumerate(images):
        write_records(folder / f"shards/part.tfrecord-0000{number}-of-00002", example(image=one))
    write_records(folder / "short.tfrecord", example(image=images[0]), example(image=images[0, :1]))
    write_records(folder / "cut.tfrecord", example(image=images[0]), example(image=images[0]))
    (folder / "cut.tfrecord").write_bytes((folder / "cut.tfrecord").read_bytes()[:-10])
    for name in ("cats/a.png", "dogs/b.png"):
        for top in ("photos", "damaged"):
            (folder / top / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / top / name).write_bytes(encoded[0])
    (folder / "photos/notes.txt").write_text("not an image")
    (folder / "damaged/dogs/b.png").write_bytes(encoded[0][:40])
    (folder / "empty").mkdir()
    return folder


TAKEN = {
    "arrays by name": ("arrays.npz",),
    "one array": ("array.npy",),
    "floats in TFRecords": ("floats.tfrecord",),
    "raw bytes in TFRecords": ("raw.tfrecord", "--data-features", "pixels:uint8[8,8,3]"),
    "raw bytes in TFRecords for an input": ("raw.tfrecord", "--data-features", "image=pixels:uint8[8,8,3]"),
    "images in TFRecords": ("encoded.tfrecord", "--data-features", "png:image", "--preset", "none"),
    "a folder of shards": ("shards",),
    "a pattern of shards": ("shards/part.tfrecord-*",),
    "images": ("photos", "--preset", "none"),
    "a pattern of images": ("photos/*/*.png", "--preset", "none"),
    "images, resized": ("photos", "--preset", "none", "--resize", "8x8"),
    "images of a family": ("photos", "--preset", "efficientnet", "--crop", "8"),
}


@pytest.mark.parametrize("form", TAKEN)
def test_a_run_on(form, cli, models, data, tmp_path):
    name, *options = TAKEN[form]
    out = tmp_path / "out.keras"
    done = cli("run", models / "model.keras", "-p", "relu6-to-relu", "-o", out, "--data", data / name, *options)
    assert TOUCHED in " ".join(done.stdout.split())
    assert out.is_file()


def test_verify_compares_on_all_images(cli, models, data):
    done = cli("verify", models / "model.keras", models / "model.keras", "--data", data / "photos", "--preset", "tf")
    assert "0" in done.stdout


def test_two_inputs_from_records(cli, models, tmp_path):
    rows = np.array([[9.0, 9.0, 9.0, 0.0]] * 2, "float32")
    write_records(tmp_path / "x.tfrecord", *(example(left=row, right=row * 0) for row in rows))
    features = ("--data-features", "a=left", "--data-features", "b=right")
    done = cli("run", models / "two.keras", "-p", "relu6-to-relu", "-o", tmp_path / "o.keras", "--data", tmp_path / "x.tfrecord", *features)
    assert TOUCHED in " ".join(done.stdout.split())


REFUSED = {
    "missing": ("none.npz", "none.npz: no such file"),
    "a pattern that nothing matches": ("none-*.tfrecord", "none-*.tfrecord: no file matches"),
    "NaN": ("nan.npz", "data for input image has NaN in sample 0 (counted from 0); mend or leave out such samples"),
    "a damaged image": ("damaged", "damaged/dogs/b.png: is a damaged image, or cut short", "--preset", "tf"),
    "an empty folder": ("empty", "empty: holds no images", "--preset", "tf"),
    "no preset": ("photos", "how the model wants its pixels is not said; give a preset (preset=.., --preset): none"),
    "another preset": ("photos", "preset 'imagenet' is none of none, unit", "--preset", "imagenet"),
    "images smaller than what is cut out": ("photos", "after resizing it is smaller than the crop", "--preset", "tf", "--resize", "4"),
    "a record that is shorter": ("short.tfrecord", "record 1 (counted from 0) holds 24 values in feature image; float32[8,8,3] is 192"),
    "a file that is cut": ("cut.tfrecord", "cut.tfrecord: record 1 (counted from 0) is damaged, or this is no TFRecord file"),
    "a feature that is not there": (
        "floats.tfrecord", "has no feature picture, which is to feed input image; it has image (float32[192])", "--data-features", "picture"
    ),
    "features of no grammar": ("floats.tfrecord", "feature '[]' is none of FEATURE, FEATURE:image", "--data-features", "[]"),
    "features of images": ("photos", "photos: features are for TFRecord files", "--data-features", "image"),
    "a preset of arrays": ("array.npy", "array.npy: preset is for images", "--preset", "tf"),
    "a size that is none": (
        "photos", "Invalid value for '--resize': 'large' is no size in pixels, such as 224 or 224x192 (height x width)", "--resize", "large"
    ),
    "a size of nothing": ("photos", "Invalid value for '--crop': '0x8' is no size in pixels", "--crop", "0x8"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_refused(fault, refusal, models, data, tmp_path):
    name, message, *options = REFUSED[fault]
    said = refusal("run", models / "model.keras", "-p", "relu6-to-relu", "-o", tmp_path / "out.keras", "--data", data / name, *options)
    assert message in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [("--preset", "tf"), ("--resize", "8"), ("--crop", "8x8"), ("--data-features", "x")], ids=" ".join)
def test_options_without_data(option, refusal, models, tmp_path):
    said = refusal("run", models / "model.keras", "-p", "relu6-to-relu", "-o", tmp_path / "out.keras", *option)
    assert said == f"{option[0]} says how --data are read; name them, too. See main run --help"


def test_a_model_that_is_not_there_is_said_before_the_data_are_looked_at(refusal, tmp_path):
    assert "none.keras: no such file" in refusal("verify", tmp_path / "none.keras", tmp_path / "b.keras", "--data", tmp_path / "none.npz")


def test_the_program_says_nothing_else_when_it_refuses(shell, models, data, tmp_path):
    """What TensorFlow says of a pipeline that fails goes nowhere."""
    done = shell(
        "run", models / "model.keras", "-p", "relu6-to-relu", "-o", tmp_path / "o.keras", "--data", data / "damaged", "--preset", "tf"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {data}/damaged/dogs/b.png: is a damaged image, or cut short\n"
