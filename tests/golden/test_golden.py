"""What folding does to well-known architectures, as text. `make golden` writes the files in golden/ anew; read what changed.

The weights are dyadic numbers and the fold rounds each result once or twice, so the files are the same on every CPU.
"""

from functools import cache
from pathlib import Path

import keras
import pytest
from keras import layers as L

import tfpasses
import zoo

GOLDEN = Path(__file__).parents[2] / "golden"
ARCHITECTURES = ["DenseNet121", "EfficientNetB0", "MobileNetV2", "MobileNetV3Small", "ResNet50", "Xception"]
FORMS = ["before.txt", "after.txt", "diff"]


def folded(model):
    zoo.golden_weights(model)
    before = tfpasses.from_keras(model)
    return before, tfpasses.run(before, "fold-batch-norms")


@cache
def texts(name):
    before, result = folded(zoo.architecture(name))
    return {"before.txt": before.to_text(), "after.txt": result.graph.to_text(), "diff": tfpasses.diff(before, result.graph)}


@pytest.mark.parametrize(
    ("name", "form"), [pytest.param(name, form, marks=pytest.mark.xdist_group(name)) for name in ARCHITECTURES for form in FORMS]
)
def test_folding_batch_norms_in_a_well_known_architecture(name, form, file_regression):
    file_regression.check(texts(name)[form], fullpath=GOLDEN / f"{name}.{form}")


def conv_bn(name, filters=4):
    return [L.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv"), L.BatchNormalization(name=f"{name}_bn")]


def chain(tensor, layers):
    for layer in layers:
        tensor = layer(tensor)
    return tensor


def nested():
    """A model in a model."""
    inner = keras.Sequential([keras.Input((8, 8, 4)), *conv_bn("inner"), L.ReLU(name="inner_relu")], name="block")
    x = keras.Input((8, 8, 4), name="image")
    return keras.Model(x, L.Add(name="add")([x, inner(x)]), name="nested")


def shared_folds():
    """A shared convolution of which each use is followed by the same shared batch norm."""
    x, y = keras.Input((8, 8, 4), name="x"), keras.Input((8, 8, 4), name="y")
    layers = conv_bn("shared")
    return keras.Model([x, y], L.Add(name="add")([chain(x, layers), chain(y, layers)]), name="shared_folds")


def shared_stays():
    """A shared convolution of which only one use is followed by a batch norm."""
    x, y = keras.Input((8, 8, 4), name="x"), keras.Input((8, 8, 4), name="y")
    conv, bn = conv_bn("shared")
    return keras.Model([x, y], L.Add(name="add")([bn(conv(x)), conv(y)]), name="shared_stays")


def second_reader_stays():
    """A convolution whose value is also used before the batch norm, and one behind an activation."""
    x = keras.Input((8, 8, 4), name="image")
    conv, bn = conv_bn("skip")
    y = conv(x)
    y = L.Add(name="add")([y, bn(y)])
    y = L.Conv2D(4, 1, activation="relu", name="relu_conv")(y)
    return keras.Model(x, L.BatchNormalization(name="relu_bn")(y), name="second_reader_stays")


def several_outputs():
    """Two named outputs, one of them in the middle."""
    x = keras.Input((8, 8, 4), name="image")
    features = chain(x, conv_bn("stem"))
    scores = L.Dense(3, name="scores")(L.GlobalAveragePooling2D(name="pool")(features))
    return keras.Model({"image": x}, {"scores": scores, "features": features}, name="several_outputs")


@pytest.mark.parametrize("build", [nested, shared_folds, shared_stays, second_reader_stays, several_outputs], ids=lambda f: f.__name__)
def test_folding_batch_norms_in_a_small_model(build, file_regression):
    before, result = folded(build())
    remarks = "".join(f"{remark}\n" for remark in result.remarks) or "none\n"
    rewrites = "".join(f"{rewrite}\n" for rewrite in result.rewrites) or "none\n"
    difference = tfpasses.diff(before, result.graph) or "none\n"
    story = f"# {build.__doc__}\n\n{before.to_text()}\n# rewrites\n{rewrites}\n# remarks\n{remarks}\n# difference\n{difference}"
    file_regression.check(story, fullpath=GOLDEN / f"{build.__name__}.txt")
