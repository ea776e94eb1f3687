"""Folders of images: order, sizes, normalization, and files that are none. Expected pixels come from NumPy and from keras.applications."""

import importlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from graphs import graph, node
from tfpasses.data import Images, samples_of
from tfpasses.data.presets import FAMILIES
from tfpasses.graph import Spec
from tfpasses.manager import DataError


def taking(*shape, dtype="float32"):
    return graph(node("x", "Input", spec=Spec((None, *shape), dtype)), outputs=["x"])


MODEL = taking(8, 8, 3)


def picture(height=8, width=8, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype("uint8")


def smooth(height, width):
    """Brightness that grows linearly from left to right and from top to bottom: what resizing keeps."""
    y, x = np.mgrid[0:height, 0:width]
    plane = 40 + 100 * (x + 0.5) / width + 60 * (y + 0.5) / height
    return np.repeat(plane[..., np.newaxis], 3, axis=2).astype("uint8")


def write(path, pixels, kind="png"):
    encode = {"png": tf.io.encode_png, "jpg": lambda image: tf.io.encode_jpeg(image, quality=100)}[kind]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(pixels).numpy())
    return path


def read(model, data):
    return np.concatenate([batch["x"] for batch in samples_of(model, data).batches(3)])


def bmp(pixels):
    """An uncompressed bitmap of 24 bits, from the bottom row up, blue first."""
    height, width, _ = pixels.shape
    assert width % 4 == 0
    body = pixels[::-1, :, ::-1].tobytes()
    head = b"BM" + (54 + len(body)).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    info = (40).to_bytes(4, "little") + width.to_bytes(4, "little") + height.to_bytes(4, "little") + b"\1\0\x18\0" + bytes(24)
    return head + info + body


def test_images_of_a_folder_and_of_the_folders_in_it_come_in_the_order_of_their_names(tmp_path):
    places = ["b/2.png", "a/9.PNG", "a/10.png", "0.png", "c/d/1.png"]
    for seed, place in enumerate(places):
        write(tmp_path / place, picture(seed=seed))
    (tmp_path / "a/labels.txt").write_text("no image")
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails/x.png").write_text("no image")
    (tmp_path / "a/.hidden.png").write_text("no image")
    samples = samples_of(MODEL, Images(tmp_path, preset="none"))
    assert (samples.count, samples.infinite) == (5, False)
    expected = np.stack([picture(seed=places.index(place)) for place in ("0.png", "a/10.png", "a/9.PNG", "b/2.png", "c/d/1.png")])
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in samples.batches(2)]), expected)


def test_one_image_and_a_pattern(tmp_path):
    for seed in range(3):
        write(tmp_path / f"{seed}.png", picture(seed=seed))
    np.testing.assert_array_equal(read(MODEL, Images(tmp_path / "1.png", preset="none")), [picture(seed=1)])
    np.testing.assert_array_equal(read(MODEL, Images(f"{tmp_path}/[02].png", preset="none")), [picture(seed=0), picture(seed=2)])


def test_kinds_of_files(tmp_path):
    pixels = smooth(8, 8)
    write(tmp_path / "a.png", pixels)
    (tmp_path / "b.bmp").write_bytes(bmp(pixels))
    write(tmp_path / "c.jpeg", pixels, "jpg")
    found = read(MODEL, Images(tmp_path, preset="none"))
    np.testing.assert_array_equal(found[:2], [pixels, pixels])
    np.testing.assert_allclose(found[2], pixels, atol=3)  # JPEG at quality 100


def test_grey_images_are_given_to_models_of_colour_and_the_other_way_round(tmp_path):
    grey = picture(channels=1)
    write(tmp_path / "a.png", grey)
    np.testing.assert_array_equal(read(MODEL, Images(tmp_path, preset="none")), [np.repeat(grey, 3, axis=2)])
    np.testing.assert_array_equal(read(taking(8, 8, 1), Images(tmp_path, preset="none")), [grey])


def test_a_model_that_takes_channels_first_is_given_them_first(tmp_path):
    write(tmp_path / "a.png", picture())
    np.testing.assert_array_equal(read(taking(3, 8, 8), Images(tmp_path, preset="none")), [picture().transpose(2, 0, 1)])


PRESETS = {
    "none": lambda x: x,
    "unit": lambda x: x / 255,
    "tf": lambda x: x / 127.5 - 1,
    "torch": lambda x: (x / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225]),
    "caffe": lambda x: x[..., ::-1] - np.array([103.939, 116.779, 123.68]),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_what_it_says(preset, tmp_path):
    write(tmp_path / "a.png", picture())
    expected = PRESETS[preset](picture().astype("float64"))
    np.testing.assert_allclose(read(MODEL, Images(tmp_path, preset))[0], expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_normalized_as_keras_does_it(family, tmp_path):
    write(tmp_path / "a.png", picture())
    module = importlib.import_module(f"keras.applications.{family}")
    expected = module.preprocess_input(picture().astype("float32")[np.newaxis])
    np.testing.assert_allclose(read(MODEL, Images(tmp_path, family)), expected, rtol=1e-6, atol=1e-5)


def test_every_family_of_keras_applications_is_known():
    modules = {name for name in dir(keras.applications) if hasattr(getattr(keras.applications, name), "preprocess_input")}
    assert modules - {"imagenet_utils"} == set(FAMILIES)


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(8, 12, (0, 2, 8, 8)), (13, 8, (2, 0, 8, 8)), (8, 8, (0, 0, 8, 8))],
    ids=["wide", "high", "as it is"],
)
def test_without_more_the_middle_is_taken_as_large_as_it_goes(height, width, box, tmp_path):
    """Of images of which one side fits nothing is resized."""
    pixels = picture(height, width)
    write(tmp_path / "a.png", pixels)
    top, left, h, w = box
    np.testing.assert_array_equal(read(MODEL, Images(tmp_path, preset="none")), [pixels[top : top + h, left : left + w]])


SIZES = [(64, 48), (48, 96), (400, 16), (5, 7), (9, 9)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_shorter_side_is_resized_to_fit_and_the_middle_taken(size, tmp_path):
    """The middle square of a linear image has the brightness of those places, whatever its size was."""
    height, width = size
    write(tmp_path / "a.png", smooth(height, width))
    (found,) = read(MODEL, Images(tmp_path, preset="none"))
    scale = max(8 / height, 8 / width)
    places = (np.arange(8) + 0.5 - 4) / scale
    expected = 40 + 100 * (places[np.newaxis, :] + width / 2) / width + 60 * (places[:, np.newaxis] + height / 2) / height
    step = max(100 / (scale * width), 60 / (scale * height))  # half a pixel off where a size is rounded; a pixel at the border
    np.testing.assert_allclose(found[..., 0], expected, atol=1.5 * step + 1)


def test_resize_and_crop_as_torchvision_has_them(tmp_path):
    """The shorter side becomes 16, the longer int(16 * 30 / 20) = 24; then the middle 8 x 8."""
    pixels = picture(20, 30)
    write(tmp_path / "a.png", pixels)
    whole = np.asarray(tf.image.resize(pixels, (16, 24), antialias=True))
    np.testing.assert_allclose(read(MODEL, Images(tmp_path, "none", resize=16)), [whole[4:12, 8:16]], atol=1e-3)
    np.testing.assert_allclose(
        read(taking(None, None, 3), Images(tmp_path, "none", resize=16, crop=(10, 12))), [whole[3:13, 6:18]], atol=1e-3
    )


def test_resize_to_height_and_width_as_keras_has_it(tmp_path):
    pixels = picture(20, 30)
    write(tmp_path / "a.png", pixels)
    whole = np.asarray(tf.image.resize(pixels, (8, 8), antialias=True))
    for model in (MODEL, taking(None, None, 3)):
        np.testing.assert_allclose(read(model, Images(tmp_path, "none", resize=(8, 8))), [whole], atol=1e-3)


def test_a_model_that_takes_bytes_needs_no_preset(tmp_path):
    write(tmp_path / "a.png", picture())
    found = read(taking(8, 8, 3, dtype="uint8"), Images(tmp_path))
    assert found.dtype == "uint8"
    np.testing.assert_array_equal(found, [picture()])


def test_a_model_of_a_fixed_number_of_images(tmp_path):
    for seed in range(4):
        write(tmp_path / f"{seed}.png", picture(seed=seed))
    model = graph(node("x", "Input", spec=Spec((2, 8, 8, 3), "float32")), outputs=["x"])
    assert [len(batch["x"]) for batch in samples_of(model, Images(tmp_path, "none")).batches(32)] == [2, 2]


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "text": lambda path: path.write_text("this is no image"),
    "nothing": lambda path: path.write_bytes(b""),
    "half a PNG": cut,
    "half a JPEG": lambda path: cut(write(path, picture(64, 64), "jpg")),
}
NO_IMAGE, DAMAGED = "is no image that can be read (JPEG, PNG, BMP, GIF, WebP)", "is a damaged image, or cut short"


@pytest.mark.parametrize(("fault", "said"), [("text", NO_IMAGE), ("nothing", NO_IMAGE), ("half a PNG", DAMAGED), ("half a JPEG", DAMAGED)])
def test_a_file_that_is_no_image_is_named(fault, said, tmp_path):
    for seed in range(40):
        write(tmp_path / f"{seed:02}.png", picture(seed=seed))
    DAMAGE[fault](tmp_path / "33.png")
    samples = samples_of(MODEL, Images(tmp_path, "none"))
    with pytest.raises(DataError, match=f"^{re.escape(f'{tmp_path}/33.png: {said}')}$"):
        for _ in samples.batches(8):
            pass


FAULTS = {
    "no preset": ({}, MODEL, "how the model wants its pixels is not said; give a preset (preset=.., --preset): none, unit,"),
    "unknown preset": ({"preset": "imagenet"}, MODEL, "preset 'imagenet' is none of none, unit, tf, torch, caffe, or a family of"),
    "another crop": ({"preset": "tf", "crop": 7}, MODEL, "images of 7x7 pixels do not fit input x, which is float32[?,8,8,3]"),
    "any size": ({"preset": "tf"}, taking(None, None, 3), "images of any size; say which: crop=224, resize=(224, 224), --crop 224,"),
    "no images": ({"preset": "tf"}, taking(8), "input x is float32[?,8] and takes no images"),
    "two channels": ({"preset": "tf"}, taking(8, 8, 2), "input x is float32[?,8,8,2]; images have 1, 3 or 4 channels"),
    "grey in caffe": ({"preset": "caffe"}, taking(8, 8, 1), "preset caffe is for three channels; input x is float32[?,8,8,1]"),
    "fractions for bytes": ({"preset": "tf"}, taking(8, 8, 3, dtype="uint8"), "takes pixels as they are; preset tf gives fractions"),
    "small": ({"preset": "tf", "resize": 5}, MODEL, "a.png: after resizing it is smaller than the crop; give a larger resize, or none"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_options_that_do_not_fit(fault, tmp_path):
    options, model, message = FAULTS[fault]
    write(tmp_path / "a.png", picture())
    with pytest.raises(DataError, match=re.escape(message)):
        read(model, Images(tmp_path, **options))


def test_a_folder_without_images_and_one_that_is_not_there(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: holds no images (.jpg, .jpeg, .png, .bmp, .gif, .webp)")):
        read(MODEL, Images(tmp_path, "tf"))
    with pytest.raises(DataError, match="none: no such file"):
        read(MODEL, Images(tmp_path / "none", "tf"))


def test_images_are_for_a_model_of_one_input(tmp_path):
    write(tmp_path / "a.png", picture())
    spec = Spec((None, 8, 8, 3), "float32")
    with pytest.raises(DataError, match="images are for a model of one input; the model's inputs are a, b"):
        samples_of(graph(node("a", "Input", spec=spec), node("b", "Input", spec=spec), outputs=["a"]), Images(tmp_path, "tf"))
