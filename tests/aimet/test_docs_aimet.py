"""What docs/aimet.md shows works as shown: on small networks of the same names, and on the ResNet50 that it names."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import resnet_start

tf_keras = pytest.importorskip("tf_keras", reason="Keras 2 is not installed (pip install tf-keras)")

TEXT = (Path(__file__).parents[2] / "docs/aimet.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def run(blocks):
    """Execute blocks one after the other; gives the names they leave, and what was warned of."""
    names: dict = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for block in blocks:
            exec(block, names)
    return names, [str(one.message) for one in caught if str(one.message).startswith("scaling")]


def of_keras():
    return run(BLOCKS[:3])


def of_sessions():
    return run(BLOCKS[3:])


def weights(model, name):
    return [np.asarray(weight) for weight in model.get_layer(name).weights]


def assert_keras_examples_do_what_is_said(names, warned):
    model, equalized, without, folded, picked = (names[name] for name in ("model", "equalized", "without_relu6", "folded", "picked"))
    kinds = {type(layer) for one in (equalized, folded) for layer in one.layers}
    assert keras.layers.BatchNormalization not in kinds
    assert len(names["infos"]) > 0 and len(names["folded_pairs"]) >= 6
    for name in ("conv1_conv", "conv2_block1_2_conv"):
        for a, b in zip(weights(equalized, name), weights(folded, name), strict=True):
            np.testing.assert_array_equal(a, b)
        assert folded.get_layer(name) is without.get_layer(name) is not model.get_layer(name)
        assert np.any(weights(folded, name)[0] != weights(model, name)[0])
    title, why = "scaling conv1_conv, conv2_block1_1_conv", "conv2_block1_0_conv reads what conv1_conv gives, too"
    assert warned == [f"{title}: to scale it would change the function: {why}"]
    assert len(picked.layers) - len(names["picked_and_folded"].layers) == 3
    first, second = (info.cls_pair_info_list[0] for info in names["infos_by_hand"])
    assert (first.layer1.name, first.layer2.name, second.layer2.name) == ("conv1_conv", "conv2_block1_1_conv", "conv2_block1_2_conv")


def assert_session_examples_do_what_is_said(names, warned):
    kinds = {one.type for one in names["equalized_sess"].graph.get_operations()}
    assert not {"FusedBatchNormV3", "If"} & kinds
    x = np.random.default_rng(0).normal(size=(2, *names["network"].inputs[0].shape[1:]))

    def value(session):
        return session.run(f"{names['end']}:0", {f"{names['start']}:0": x})

    np.testing.assert_allclose(value(names["equalized_sess"]), value(names["after_high_bias"]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(value(names["after_scaling"]), value(names["sess"]), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(value(names["with_biases"]), value(names["sess"]), rtol=1e-3, atol=1e-5)
    assert warned == []
    assert len(names["session_infos_by_hand"][0].cls_pair_info_list) == 2
    assert np.isfinite(value(names["picked_sess"])).all()


def test_the_examples_for_keras_models_run_on_a_small_network(monkeypatch):
    monkeypatch.setattr(keras.applications, "ResNet50", lambda **_: resnet_start.model(keras))
    assert_keras_examples_do_what_is_said(*of_keras())


def test_the_examples_for_sessions_run_on_a_small_network(monkeypatch):
    monkeypatch.setattr(tf_keras.applications, "ResNet50", lambda **_: resnet_start.model(tf_keras))
    assert_session_examples_do_what_is_said(*of_sessions())


@pytest.mark.slow
def test_the_examples_for_keras_models_run_on_resnet50():
    assert_keras_examples_do_what_is_said(*of_keras())


@pytest.mark.slow
def test_the_examples_for_sessions_run_on_resnet50():
    assert_session_examples_do_what_is_said(*of_sessions())


def test_every_module_and_name_of_the_table_is_there():
    import importlib

    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", TEXT, re.MULTILINE)
    assert len(rows) == 7
    for module, what in rows:
        loaded = importlib.import_module(f"tfpasses.passes.aimet.{module}")
        for name in re.findall(r"`([\w.]+)`", what):
            found = loaded
            for part in name.split("."):
                found = getattr(found, part)
            assert found.__doc__
    assert {"fold_all_batch_norms", "fold_given_batch_norms"} <= set(dir(importlib.import_module("tfpasses.passes.aimet.batch_norm_fold")))
