"""The main job, end to end, on real data that needs no download.

Trains a small depthwise-separable network with batch norms on scikit-learn's handwritten digits (1,797 images of 8 x 8), saves it,
folds its batch norms through the command line with every rewrite verified numerically, and checks on the test images that the
accuracy and the function are what they were. Writes to demo/output/.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # so small a network wants no GPU, nor messages about there being none

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

OUTPUT = Path(__file__).parent / "output"
PROGRAM = [sys.executable, "-m", "tfpasses"]


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test images, (n, 8, 8, 1) in [0, 1], and their labels."""
    data = load_digits()
    images = (data.images / 16).astype("float32")[..., None]
    x, x_test, y, y_test = train_test_split(images, data.target, test_size=0.25, random_state=0, stratify=data.target)
    return x, x_test, y, y_test


def network() -> keras.Model:
    """Stem, two depthwise-separable blocks, one residual connection that takes a convolution's value before its batch norm."""
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.ReLU(6.0, name="stem_relu")(layers.BatchNormalization(momentum=0.9, name="stem_bn")(x))
    for block, filters in enumerate((32, 48), start=1):
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"block{block}_dw")(x)
        x = layers.ReLU(6.0, name=f"block{block}_dw_relu")(layers.BatchNormalization(momentum=0.9, name=f"block{block}_dw_bn")(x))
        x = layers.Conv2D(filters, 1, use_bias=False, name=f"block{block}_pw")(x)
        x = layers.ReLU(6.0, name=f"block{block}_pw_relu")(layers.BatchNormalization(momentum=0.9, name=f"block{block}_pw_bn")(x))
        x = layers.MaxPooling2D(name=f"block{block}_pool")(x)
    wide = layers.Conv2D(48, 3, padding="same", name="residual")(x)
    normed = layers.BatchNormalization(momentum=0.9, name="residual_bn")(wide)
    x = layers.Add(name="add")([wide, normed])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.BatchNormalization(momentum=0.9, name="head_bn")(layers.Dense(32, use_bias=False, name="head")(x))
    return keras.Model(image, layers.Dense(10, name="digit")(layers.ReLU(name="head_relu")(x)), name="digits")


def command(*arguments: str) -> None:
    """Run the command line as a user would, and show it."""
    print(f"\n$ tfpasses {' '.join(arguments)}", flush=True)
    subprocess.run([*PROGRAM, *arguments], check=True)


def main() -> None:
    keras.utils.set_random_seed(0)
    OUTPUT.mkdir(exist_ok=True)
    before, after = OUTPUT / "digits.keras", OUTPUT / "digits-folded.keras"
    x, x_test, y, y_test = digits()
    model = network()
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    print(f"training on {len(x):,} digits ..", flush=True)
    model.fit(x, y, epochs=12, batch_size=64, verbose=0)
    model.save(before)
    np.savez(OUTPUT / "test-images.npz", image=x_test)

    data = str(OUTPUT / "test-images.npz")
    command("run", str(before), "-p", "fold-batch-norms", "-o", str(after), "--verbose", "--verify", "numeric", "--data", data)
    command("verify", str(before), str(after), "--data", data)
    command("show", str(after), "--format", "svg", "-o", str(OUTPUT / "digits-folded.svg"))

    loaded = [keras.saving.load_model(path, compile=False) for path in (before, after)]
    predictions = [loaded_model.predict(x_test, verbose=0).argmax(-1) for loaded_model in loaded]
    for path, loaded_model, predicted in zip((before, after), loaded, predictions, strict=True):
        norms = sum(isinstance(layer, layers.BatchNormalization) for layer in loaded_model.layers)
        print(f"\n{path.name}: {len(loaded_model.layers)} layers, {norms} batch norms, accuracy {np.mean(predicted == y_test):.4f}", end="")
    same = np.array_equal(*predictions)
    print(f"\nThe two models give {'the same answer for every' if same else 'DIFFERENT answers for some'} test image.")
    print(f"\nThe models and a picture of the result are in {OUTPUT}/")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
