"""What docs/data.md shows works as shown."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfpasses.data.files import IMAGES
from tfpasses.data.presets import MODES

TEXT = (Path(__file__).parents[2] / "docs/data.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"^    tfpasses (.*)$", TEXT, re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the examples read: pictures, and records of such."""
    monkeypatch.chdir(tmp_path)
    encoded = [tf.io.encode_png(np.full((48, 40, 3), 80 * n, "uint8")).numpy() for n in range(3)]
    (tmp_path / "photos").mkdir()
    with tf.io.TFRecordWriter(str(tmp_path / "train-0.tfrecord")) as writer:
        for number, picture in enumerate(encoded):
            (tmp_path / f"photos/{number}.png").write_bytes(picture)
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture]))
            writer.write(tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature})).SerializeToString())
    return tmp_path


def test_the_examples_run(folder):
    names = {}
    assert len(BLOCKS) == 5
    for block in BLOCKS:
        exec(block, names)


def test_the_commands_run(folder):
    from click.testing import CliRunner

    from tfpasses.cli import main

    names = {}
    exec(BLOCKS[0], names)
    names["model"].save("model.keras")
    np.save("images.npy", names["images"])
    assert len(COMMANDS) == 4
    for command in COMMANDS:
        result = CliRunner().invoke(main, command)
        assert result.exit_code in (0, 1 if command.startswith("verify") else 0), result.output
        assert "error" not in result.stderr


def test_every_kind_of_image_and_every_mode_is_named():
    for kind in {"JPEG" if end in (".jpg", ".jpeg") else end[1:].upper() for end in IMAGES if end != ".webp"} | {"WebP"}:
        assert kind in TEXT
    assert all(f"`{mode}`" in TEXT for mode in MODES)
