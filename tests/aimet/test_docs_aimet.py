"""What docs/aimet.md shows works as shown: on small networks of the same names, and on the ResNet50 that it names."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import resnet_start
import tfpasses

tf_keras = pytest.importorskip("tf_keras", reason="Keras 2 is not installed (pip install tf-keras)")

TEXT = (Path(__file__).parents[2] / "docs/aimet.md").read_text()
SECTIONS = dict(part.split("\n", 1) for part in TEXT.split("\n## ")[1:])


def blocks_of(*titles):
    """The Python of some sections."""
    return [block for title in titles for block in re.findall(r"```python\n(.*?)```", SECTIONS[title], re.DOTALL)]


def run(blocks):
    """Execute blocks one after the other; gives the names they leave, and what was warned of."""
    names: dict = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for block in blocks:
            exec(block, names)
    return names, [str(one.message) for one in caught if str(one.message).startswith("scaling")]


def of_keras():
    return run(blocks_of("Keras models"))


def of_sessions():
    return run(blocks_of("Sessions of TensorFlow 1"))


def of_corrected_sessions():
    first = blocks_of("Sessions of TensorFlow 1")[0]
    imported = "from tfpasses.passes.aimet import cross_layer_equalization"
    return run([first, imported, *blocks_of("Bias correction in sessions")])[0]


def of_corrected_keras():
    return run(blocks_of("Bias correction of Keras models"))[0]


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


def added(session, name):
    """The kernel and the bias of a layer of ResNet50 in a session."""
    multiply, add = (session.graph.get_operation_by_name(f"{name}/{kind}") for kind in ("Conv2D", "BiasAdd"))
    return session.run([multiply.inputs[1], add.inputs[1]])


def first_shift(kernel, images, symmetric):
    """What the first convolution of ResNet50 gives more with a quantized kernel, on average over images."""
    import tensorflow as tf

    from tfpasses.passes.quantization.quantizer import Quantizer

    padded = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)))
    more = Quantizer(8, "tf_enhanced", symmetric=symmetric).quantized(kernel).astype(np.float64) - kernel
    return tf.nn.conv2d(padded.astype(np.float64), more, 2, "VALID").numpy().mean(axis=(0, 1, 2))


def second_shift(kernel, beta, gamma):
    """What the third convolution of the first block gives more on average where it reads ReLUs of normal numbers: 3x3, `same` padding."""
    from tfpasses.passes.quantization.quantizer import Quantizer

    def mean(m, s):
        return m * 0.5 * (1 + math.erf(m / s / math.sqrt(2))) + s * math.exp(-((m / s) ** 2) / 2) / math.sqrt(2 * math.pi)

    means = np.array([mean(m, abs(s)) for m, s in zip(np.float64(beta), np.float64(gamma), strict=True)])
    return means, Quantizer(8, "tf_enhanced", symmetric=False).quantized(kernel).astype(np.float64) - kernel


def seen(size):
    """The share of places at which each tap of 3 x 3 sees the image."""
    one = np.array([size - 1, size, size - 1]) / size
    return np.outer(one, one)


def assert_corrected_sessions_are_what_is_said(names):
    sess, images = names["sess"], names["images"]
    kernel, bias = added(sess, "conv1_conv")
    wanted = bias - first_shift(kernel, images, symmetric=True)
    for name in ("empirical_sess", "mixed_sess"):
        np.testing.assert_allclose(added(names[name], "conv1_conv")[1], wanted, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(added(names[name], "conv1_conv")[0], kernel)
    kernel, bias = added(names["sess_after_cle"], "conv1_conv")
    wanted = bias - first_shift(kernel, images, symmetric=True)
    np.testing.assert_allclose(added(names["after_cle_sess"], "conv1_conv")[1], wanted, rtol=0, atol=1e-6)
    assert "conv2_block1_2_conv/Conv2D" in {one.name for one in names["conv_bn_dict"]}
    assert names["conv_layer"] in names["convs_bn"]
    before, after = added(sess, "conv2_block1_2_conv"), added(names["one_sess"], "conv2_block1_2_conv")
    size = names["network"].get_layer("conv2_block1_2_conv").output_shape[1]
    means, more = second_shift(before[0], *(np.full(before[0].shape[2], number) for number in (0.0, 1.0)))  # as Keras begins
    wanted = before[1] - means @ np.einsum("ij,ijkl->kl", seen(size), more)
    np.testing.assert_allclose(after[1], wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(added(names["mixed_sess"], "conv2_block1_2_conv")[1], wanted, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(after[0], before[0])
    assert np.any(added(sess, "conv2_block1_1_conv")[1] != added(names["one_sess"], "conv2_block1_1_conv")[1])
    np.testing.assert_array_equal(added(sess, "conv2_block1_3_conv")[1], added(names["one_sess"], "conv2_block1_3_conv")[1])


def assert_corrected_keras_models_are_what_is_said(names):
    model, images, one = names["model"], names["images"], "conv2_block1_2_conv"
    kernel, bias = weights(model, "conv1_conv")
    np.testing.assert_allclose(weights(names["on_data"], "conv1_conv")[1], bias - first_shift(kernel, images, True), rtol=0, atol=1e-6)
    folded = tfpasses.run(model, "fold-batch-norms").model
    for name, before in (("mixed", folded), ("after_cle", tfpasses.run(model, "cle").model)):
        kernel, bias = weights(before, "conv1_conv")
        wanted = bias - first_shift(kernel, images, symmetric=False)
        np.testing.assert_allclose(weights(names[name], "conv1_conv")[1], wanted, rtol=0, atol=1e-6)
    for name, before in (("one_on_data", model), ("one_by_statistics", folded)):
        pairs = zip(before.weights, names[name].weights, strict=True)
        changed = [a.path for a, b in pairs if not np.array_equal(np.asarray(a), np.asarray(b))]
        assert changed == [f"{one}/bias"]
    kernel, bias = weights(folded, one)
    means, more = second_shift(kernel, *(np.full(kernel.shape[2], number) for number in (0.0, 1.0)))
    wanted = bias - means @ np.einsum("ij,ijkl->kl", seen(model.get_layer(one).output.shape[1]), more)
    for name in ("one_by_statistics", "mixed"):
        np.testing.assert_allclose(weights(names[name], one)[1], wanted, rtol=0, atol=1e-6)


def test_the_examples_of_bias_correction_in_sessions_run_on_a_small_network(monkeypatch):
    monkeypatch.setattr(tf_keras.applications, "ResNet50", lambda **_: resnet_start.model(tf_keras))
    assert_corrected_sessions_are_what_is_said(of_corrected_sessions())


def test_the_examples_of_bias_correction_of_keras_models_run_on_a_small_network(monkeypatch):
    monkeypatch.setattr(keras.applications, "ResNet50", lambda **_: resnet_start.model(keras))
    assert_corrected_keras_models_are_what_is_said(of_corrected_keras())


@pytest.mark.slow
def test_the_examples_of_bias_correction_in_sessions_run_on_resnet50():
    assert_corrected_sessions_are_what_is_said(of_corrected_sessions())


@pytest.mark.slow
def test_the_examples_of_bias_correction_of_keras_models_run_on_resnet50():
    assert_corrected_keras_models_are_what_is_said(of_corrected_keras())


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
    assert len(rows) == 9
    for module, what in rows:
        loaded = importlib.import_module(f"tfpasses.passes.aimet.{module}")
        for name in re.findall(r"`([\w.]+)`", what):
            found = loaded
            for part in name.split("."):
                found = getattr(found, part)
            assert found.__doc__
    assert {"fold_all_batch_norms", "fold_given_batch_norms"} <= set(dir(importlib.import_module("tfpasses.passes.aimet.batch_norm_fold")))
