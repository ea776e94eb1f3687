"""Files of data by their names: what is read from each, and what is refused."""

import re

import numpy as np
import pytest

from graphs import graph, node
from tfpasses.data import Images, Records, read_data, samples_of
from tfpasses.graph import Spec
from tfpasses.manager import DataError

ONE = graph(node("x", "Input", spec=Spec((None, 4), "float32")), outputs=["x"])
X = np.arange(28, dtype="float32").reshape(7, 4)


def test_an_npz_has_arrays_by_name_others_than_inputs_among_them(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, labels=np.arange(7))
    for data in (tmp_path / "a.npz", str(tmp_path / "a.npz"), read_data(tmp_path / "a.npz")):
        np.testing.assert_array_equal(samples_of(ONE, data).first(7)["x"], X)


def test_an_npy_stays_on_the_disk(tmp_path):
    np.save(tmp_path / "a.npy", X)
    array = read_data(tmp_path / "a.npy")
    assert isinstance(array, np.memmap) and not array.flags.writeable
    samples = samples_of(ONE, tmp_path / "a.npy")
    assert samples.count == 7
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in samples.batches(2)]), X)


KINDS = {
    "a.tfrecord": (["a.tfrecord"], Records),
    "a.tfrecords": (["a.tfrecords"], Records),
    "a.tfrecord.gz": (["a.tfrecord.gz"], Records),
    "shards": (["shards/a.tfrecord-00000-of-00002", "shards/a.tfrecord-00001-of-00002", "shards/info.json"], Records),
    "*.tfrecord": (["a.tfrecord", "b.tfrecord"], Records),
    "a.JPG": (["a.JPG"], Images),
    "photos": (["photos/cats/a.png", "photos/readme.txt"], Images),
    "photos/*.png": (["photos/a.png"], Images),
    "empty": (["empty/x.txt"], Images),
}


@pytest.mark.parametrize("path", KINDS)
def test_the_kind_of_files_is_known_by_their_names(path, tmp_path):
    files, kind = KINDS[path]
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    assert isinstance(read_data(tmp_path / path), kind)


REFUSED = {
    "none.npz": ({}, "none.npz: no such file"),
    "*.png": ({}, "*.png: no file matches"),
    "a.csv": ({}, "a.csv: is none of what data are read from: .npz, .npy, .tfrecord, a folder of images"),
    "a.npy": ({}, "a.npy: not an .npy file of one array of numbers; write one with numpy.save(path, array)"),
    "a.npz": ({}, "a.npz: not an .npz file of arrays; write one with numpy.savez(path, input_name=array)"),
    "b.npy": ({"preset": "tf", "crop": 3}, "b.npy: preset, crop are for images"),
    "b.npz": ({"resize": 3}, "b.npz: resize is for images"),
    "c.npz": ({"features": ["x"]}, "c.npz: features are for TFRecord files (.tfrecord, .tfrecords)"),
    "photos": ({"features": ["x"]}, "photos: features are for TFRecord files"),
    "both": ({}, "both: holds images and TFRecords; name one kind"),
}


@pytest.mark.parametrize("path", REFUSED)
def test_refused(path, tmp_path):
    for name in ("a.csv", "a.npy", "a.npz", "b.npy", "b.npz", "c.npz", "photos/a.jpg", "both/a.jpg", "both/a.tfrecord"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("nothing of the kind")
    options, message = REFUSED[path]
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read_data(tmp_path / path, **options)
    assert "\n" not in str(caught.value)


def test_an_npy_that_is_cut_short_or_holds_objects(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, X)
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(DataError, match=re.escape("not an .npy file of one array of numbers")):
        read_data(path)
    np.save(path, np.array([{}]))
    with pytest.raises(DataError, match=re.escape("not an .npy file of one array of numbers")):
        read_data(path)


def test_an_npy_is_for_a_model_of_one_input(tmp_path):
    np.save(tmp_path / "a.npy", X)
    spec = Spec((None, 4), "float32")
    model = graph(node("a", "Input", spec=spec), node("b", "Input", spec=spec), outputs=["a"])
    with pytest.raises(DataError, match="data are one array; the model's inputs are a, b"):
        samples_of(model, tmp_path / "a.npy")
