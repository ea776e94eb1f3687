"""One-layer Keras models: `LAYERS` maps a name to (make the layer, shape of its inputs, their dtype)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import keras
import numpy as np
from keras import layers as L

__all__ = ["CANONICAL", "LAYERS", "LayerCase", "randomize", "single"]


@attrs.frozen
class LayerCase:
    """A layer and what it is called on. `make` gives a new layer each time; `inputs` of them are joined in a list."""

    make: Callable[[], Any]
    shape: tuple[int | None, ...]
    inputs: int = 1
    dtype: str = "float32"

    def model(self) -> keras.Model:
        tensors = [keras.Input(self.shape, dtype=self.dtype, name=f"x{number}") for number in range(self.inputs)]
        model = keras.Model(tensors if self.inputs > 1 else tensors[0], self.make()(tensors if self.inputs > 1 else tensors[0]), name="m")
        randomize(model)
        return model


def randomize(model: keras.Model, seed: int = 0) -> None:
    """Give every floating-point weight small random values (positive ones where a variance or a statistic is due)."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "float" in variable.dtype and "normalization" not in variable.path.replace("batch_normalization", ""):
            values = rng.normal(0.0, 0.4, variable.shape)
            variable.assign(np.abs(values) + 0.5 if "var" in variable.name or "scale" in variable.name else values)


def single(layer: Any, shape: tuple[int | None, ...], dtype: str = "float32") -> keras.Model:
    """A model of one layer."""
    return LayerCase(lambda: layer, shape, dtype=dtype).model()


LINE, IMAGE, CUBE = (9, 4), (9, 8, 4), (5, 6, 7, 2)
FIRST = {"data_format": "channels_first"}

CANONICAL: dict[str, LayerCase] = {
    "conv1d": LayerCase(lambda: L.Conv1D(6, 3, activation="relu"), LINE),
    "conv1d causal dilated": LayerCase(lambda: L.Conv1D(6, 3, padding="causal", dilation_rate=2), LINE),
    "conv1d strided same": LayerCase(lambda: L.Conv1D(6, 2, strides=3, padding="same", use_bias=False), LINE),
    "conv2d": LayerCase(lambda: L.Conv2D(6, (3, 2)), IMAGE),
    "conv2d strided same": LayerCase(lambda: L.Conv2D(6, 3, strides=(2, 3), padding="same"), IMAGE),
    "conv2d dilated": LayerCase(lambda: L.Conv2D(6, 3, dilation_rate=(2, 1), padding="same"), IMAGE),
    "conv2d grouped": LayerCase(lambda: L.Conv2D(6, 3, groups=2, strides=2), IMAGE),
    "conv2d channels first": LayerCase(lambda: L.Conv2D(6, (3, 2), strides=2, padding="same", **FIRST), (4, 9, 8)),
    "conv2d softmax": LayerCase(lambda: L.Conv2D(6, 1, activation="softmax"), IMAGE),
    "conv3d": LayerCase(lambda: L.Conv3D(3, 2, padding="same", strides=(1, 2, 1)), CUBE),
    "depthwise1d": LayerCase(lambda: L.DepthwiseConv1D(3, depth_multiplier=2, strides=2), LINE),
    "depthwise2d": LayerCase(lambda: L.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), IMAGE),
    "depthwise2d strided": LayerCase(lambda: L.DepthwiseConv2D((3, 2), strides=2, use_bias=False), IMAGE),
    "depthwise2d dilated": LayerCase(lambda: L.DepthwiseConv2D(3, dilation_rate=(2, 2), padding="same"), IMAGE),
    "depthwise2d channels first": LayerCase(lambda: L.DepthwiseConv2D(3, depth_multiplier=2, **FIRST), (4, 9, 8)),
    "transpose1d": LayerCase(lambda: L.Conv1DTranspose(5, 3, strides=2), LINE),
    "transpose2d": LayerCase(lambda: L.Conv2DTranspose(5, 3, strides=2, padding="same"), IMAGE),
    "transpose2d valid": LayerCase(lambda: L.Conv2DTranspose(5, (2, 3), strides=3, use_bias=False), IMAGE),
    "transpose2d output padding": LayerCase(lambda: L.Conv2DTranspose(5, 3, strides=2, padding="same", output_padding=1), IMAGE),
    "transpose2d dilated": LayerCase(lambda: L.Conv2DTranspose(5, 3, dilation_rate=2), IMAGE),
    "transpose3d": LayerCase(lambda: L.Conv3DTranspose(2, 2, strides=(1, 2, 1)), CUBE),
    "separable1d": LayerCase(lambda: L.SeparableConv1D(5, 3, depth_multiplier=2, strides=2), LINE),
    "separable2d": LayerCase(lambda: L.SeparableConv2D(5, 3, padding="same", activation="tanh"), IMAGE),
    "separable2d channels first": LayerCase(lambda: L.SeparableConv2D(5, 3, **FIRST), (4, 9, 8)),
    "dense": LayerCase(lambda: L.Dense(5), (4,)),
    "dense on images": LayerCase(lambda: L.Dense(5, use_bias=False), IMAGE),
    "batch norm": LayerCase(lambda: L.BatchNormalization(epsilon=1e-2), IMAGE),
    "batch norm without gamma": LayerCase(lambda: L.BatchNormalization(scale=False, momentum=0.5), (4,)),
    "batch norm without beta": LayerCase(lambda: L.BatchNormalization(center=False), LINE),
    "batch norm axis 1": LayerCase(lambda: L.BatchNormalization(axis=1), (4, 9, 8)),
    "relu": LayerCase(L.ReLU, (4,)),
    "relu all": LayerCase(lambda: L.ReLU(max_value=0.5, negative_slope=0.1, threshold=0.2), (40,)),
    "leaky relu": LayerCase(lambda: L.LeakyReLU(negative_slope=0.3), (4,)),
    "prelu": LayerCase(lambda: L.PReLU(alpha_initializer="random_uniform"), IMAGE),
    "prelu with shared axes": LayerCase(lambda: L.PReLU(shared_axes=[1, 2], alpha_initializer="random_uniform"), IMAGE),
    "softmax": LayerCase(L.Softmax, (4,)),
    **{
        f"activation {name}": LayerCase(lambda name=name: L.Activation(name), (40,))
        for name in (
            *("relu", "relu6", "leaky_relu", "sigmoid", "hard_sigmoid", "tanh", "silu", "hard_silu", "softplus", "exponential"),
            *("softmax", "linear"),
        )
    },
    **{name.lower(): LayerCase(getattr(L, name), IMAGE, inputs=2) for name in ("Subtract",)},
    **{name.lower(): LayerCase(getattr(L, name), IMAGE, inputs=3) for name in ("Add", "Multiply", "Maximum", "Minimum", "Concatenate")},
    "concatenate axis 1": LayerCase(lambda: L.Concatenate(axis=1), IMAGE, inputs=2),
    "pad1d": LayerCase(lambda: L.ZeroPadding1D((1, 2)), LINE),
    "pad2d": LayerCase(lambda: L.ZeroPadding2D(((1, 2), (0, 3))), IMAGE),
    "pad2d channels first": LayerCase(lambda: L.ZeroPadding2D(((1, 2), (0, 3)), **FIRST), (4, 9, 8)),
    "up1d": LayerCase(lambda: L.UpSampling1D(3), LINE),
    "up2d": LayerCase(lambda: L.UpSampling2D((2, 3)), IMAGE),
    "up2d bilinear": LayerCase(lambda: L.UpSampling2D((3, 2), interpolation="bilinear"), IMAGE),
    "up2d channels first": LayerCase(lambda: L.UpSampling2D(2, **FIRST), (4, 9, 8)),
    "up2d bilinear channels first": LayerCase(lambda: L.UpSampling2D(2, interpolation="bilinear", **FIRST), (4, 9, 8)),
    "up3d": LayerCase(lambda: L.UpSampling3D((1, 2, 3)), CUBE),
    "crop1d": LayerCase(lambda: L.Cropping1D((1, 2)), LINE),
    "crop2d": LayerCase(lambda: L.Cropping2D(((1, 2), (0, 3))), IMAGE),
    "crop2d channels first": LayerCase(lambda: L.Cropping2D(((1, 2), (0, 3)), **FIRST), (4, 9, 8)),
    "crop3d": LayerCase(lambda: L.Cropping3D(((1, 0), (0, 2), (1, 1))), CUBE),
    "pad3d": LayerCase(lambda: L.ZeroPadding3D(((1, 0), (0, 2), (1, 1))), CUBE),
    **{
        f"{kind.lower()}pool{rank}d {padding}": LayerCase(
            lambda kind=kind, rank=rank, padding=padding: getattr(L, f"{kind}Pooling{rank}D")(
                2 if rank == 3 else 3, strides=2, padding=padding
            ),
            shape,
        )
        for kind in ("Max", "Average")
        for rank, shape in ((1, LINE), (2, IMAGE), (3, CUBE))
        for padding in ("valid", "same")
    },
    "averagepool2d channels first": LayerCase(lambda: L.AveragePooling2D((3, 2), strides=2, padding="same", **FIRST), (4, 9, 8)),
    **{
        f"global{kind.lower()}pool{rank}d": LayerCase(
            lambda kind=kind, rank=rank: getattr(L, f"Global{kind}Pooling{rank}D")(keepdims=rank == 2), shape
        )
        for kind in ("Max", "Average")
        for rank, shape in ((1, LINE), (2, IMAGE), (3, CUBE))
    },
    "global pool channels first": LayerCase(lambda: L.GlobalAveragePooling2D(**FIRST), (4, 9, 8)),
    "identity": LayerCase(L.Identity, (4,)),
    "flatten": LayerCase(L.Flatten, IMAGE),
    "reshape": LayerCase(lambda: L.Reshape((-1, 6)), IMAGE),
    **{
        name.lower(): LayerCase(lambda name=name: getattr(L, name)(0.3), (4,))
        for name in ("Dropout", "GaussianNoise", "GaussianDropout", "AlphaDropout")
    },
    "seeded dropout": LayerCase(lambda: L.Dropout(0.3, seed=7), (4,)),
    "spatial dropout": LayerCase(lambda: L.SpatialDropout2D(0.3), IMAGE),
    "activity regularization": LayerCase(lambda: L.ActivityRegularization(l1=0.1), (4,)),
}
"""Each becomes canonical nodes."""


def adapted(layer: Any, data: Any) -> Any:
    layer.adapt(data)
    return layer


WORDS = ["red", "green", "blue"]

OPAQUE: dict[str, LayerCase] = {
    "softmax axis 1": LayerCase(lambda: L.Softmax(axis=1), IMAGE),
    "flatten channels first": LayerCase(lambda: L.Flatten(**FIRST), IMAGE),
    "batch norm renorm": LayerCase(lambda: L.BatchNormalization(renorm=True), (4,)),
    "elu": LayerCase(lambda: L.ELU(alpha=0.5), (4,)),
    "layer norm": LayerCase(lambda: L.LayerNormalization(epsilon=1e-2), (4,)),
    "group norm": LayerCase(lambda: L.GroupNormalization(2), IMAGE),
    "rms norm": LayerCase(L.RMSNormalization, (4,)),
    "unit norm": LayerCase(L.UnitNormalization, (4,)),
    "spectral norm": LayerCase(lambda: L.SpectralNormalization(L.Conv2D(3, 2)), IMAGE),
    "embedding": LayerCase(lambda: L.Embedding(5, 3), (6,), dtype="int32"),
    "lstm": LayerCase(lambda: L.LSTM(3, return_sequences=True), LINE),
    "gru": LayerCase(lambda: L.GRU(3, activation="relu"), LINE),
    "simple rnn": LayerCase(lambda: L.SimpleRNN(3), LINE),
    "rnn of cells": LayerCase(lambda: L.RNN([L.LSTMCell(3), L.GRUCell(2)]), LINE),
    "conv lstm": LayerCase(lambda: L.ConvLSTM1D(2, 2), (3, 5, 2)),
    "bidirectional": LayerCase(lambda: L.Bidirectional(L.LSTM(3), merge_mode="sum"), LINE),
    "time distributed": LayerCase(lambda: L.TimeDistributed(L.Dense(3, activation="relu")), LINE),
    "time distributed lambda": LayerCase(lambda: L.TimeDistributed(L.Lambda(lambda x: x * 2, output_shape=(4,))), LINE),
    "attention": LayerCase(L.Attention, LINE, inputs=2),
    "upsampling": LayerCase(lambda: L.UpSampling2D(2, interpolation="bicubic"), IMAGE),
    "permute": LayerCase(lambda: L.Permute((3, 1, 2)), IMAGE),
    "repeat": LayerCase(lambda: L.RepeatVector(3), (4,)),
    "dot": LayerCase(lambda: L.Dot(axes=1), (4,), inputs=2),
    "average": LayerCase(L.Average, (4,), inputs=2),
    "einsum dense": LayerCase(lambda: L.EinsumDense("abc,cd->abd", output_shape=(None, 5), bias_axes="d"), LINE),
    "adaptive pool": LayerCase(lambda: L.AdaptiveAveragePooling2D(3), IMAGE),
    "rescaling": LayerCase(lambda: L.Rescaling(1 / 255.0, offset=-0.5), IMAGE),
    "resizing": LayerCase(lambda: L.Resizing(4, 5), IMAGE),
    "random flip": LayerCase(lambda: L.RandomFlip(seed=3), IMAGE),
    "normalization": LayerCase(lambda: adapted(L.Normalization(), np.arange(12.0).reshape(3, 4)), (4,)),
    "normalization given": LayerCase(lambda: L.Normalization(mean=[1.0, 2, 3, 4], variance=[1.0, 2, 1, 2]), (4,)),
    "discretization": LayerCase(lambda: L.Discretization(bin_boundaries=[-0.5, 0.5]), (4,)),
    "discretization adapted": LayerCase(lambda: adapted(L.Discretization(num_bins=3), np.arange(12.0).reshape(3, 4)), (4,)),
    "category encoding": LayerCase(lambda: L.CategoryEncoding(4, output_mode="multi_hot"), (4,), dtype="int32"),
    "hashing": LayerCase(lambda: L.Hashing(4), (2,), dtype="string"),
    "string lookup": LayerCase(lambda: L.StringLookup(vocabulary=WORDS), (2,), dtype="string"),
    "string lookup adapted": LayerCase(lambda: adapted(L.StringLookup(output_mode="multi_hot"), WORDS), (2,), dtype="string"),
    "integer lookup": LayerCase(lambda: adapted(L.IntegerLookup(), [3, 1, 1, 2]), (2,), dtype="int64"),
    "text vectorization": LayerCase(lambda: adapted(L.TextVectorization(output_sequence_length=3), WORDS), (1,), dtype="string"),
    "lambda": LayerCase(lambda: L.Lambda(lambda x, k=2.0: x * k, arguments={"k": 3.0}), (4,)),
}

LAYERS: dict[str, LayerCase] = CANONICAL | OPAQUE
