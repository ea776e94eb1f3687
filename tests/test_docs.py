"""What the documents show works as shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpasses

ROOT = Path(__file__).parents[1]


def python_blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


def small_model() -> Any:
    image = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(image))
    return keras.Model(image, keras.layers.ReLU()(keras.layers.ReLU(name="again")(x)))


def test_the_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    exec(python_blocks("README.md")[0], {"model": small_model()})
    assert "-  batch_normalization" in capsys.readouterr().out
    assert (tmp_path / "folded.keras").is_file()
    assert (tmp_path / "folded.facts.npz").is_file()


def test_the_readme_example_of_graphs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = small_model()
    model.export(tmp_path / "saved_model_folder", verbose=False)
    signature = [tf.TensorSpec((None, 8, 8, 3), tf.float32)]
    function = tf.function(lambda x: model(x, training=False), input_signature=signature)
    with tf.Graph().as_default() as graph:
        tf.nn.relu(tf.compat.v1.placeholder("float32", (None, 3), name="x"), name="y")
    names = {"graph_def": graph.as_graph_def(), "function": function, "session": tf.compat.v1.Session(graph=graph)}
    exec(python_blocks("README.md")[1], {"tfpasses": tfpasses, **names})


def test_the_pass_in_contributing_is_a_working_pass() -> None:
    (block,) = python_blocks("CONTRIBUTING.md")
    exec(block, {})
    result = tfpasses.run(small_model(), "drop-second-relu", verify="numeric")
    assert [rewrite.rule for rewrite in result.rewrites] == ["drop"]
    assert sum(isinstance(layer, keras.layers.ReLU) for layer in result.model.layers) == 1


def test_the_pass_in_contributing_leaves_a_relu_with_a_limit_alone() -> None:
    (block,) = python_blocks("CONTRIBUTING.md")
    exec(block, {})
    image = keras.Input((4,))
    model = keras.Model(image, keras.layers.ReLU(6.0)(keras.layers.ReLU()(image)))
    result = tfpasses.run(model, "drop-second-relu", verify="numeric")
    assert not result.rewrites
    x = np.linspace(-10, 10, 8, dtype="float32").reshape(2, 4)
    assert np.array_equal(result.model(x), model(x))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/data.md", "docs/dependencies.md"])
def test_links_between_documents_lead_somewhere(name: str) -> None:
    path = ROOT / name
    targets = re.findall(r"\[[^\]]+\]\(([\w./-]+)\)", path.read_text())
    assert not [target for target in targets if not (path.parent / target).exists()]


def test_every_path_that_the_architecture_names_exists() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    paths = set(re.findall(r"`((?:graph|manager|frontends|passes|pattern)/[\w/]+\.py)`", text))
    assert paths
    missing = [path for path in paths if not (ROOT / path).exists() and not (ROOT / "tfpasses" / path).exists()]
    assert not missing
