"""Small Keras models of several layers, one for each thing that a frontend must carry over: `MODELS` maps a name to what builds it."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import Input, Model, ops
from keras import layers as L

import keras_custom as custom
import keras_nested  # noqa: F401  # lists its models
from keras_layers import randomize
from keras_registry import MODELS, backbone, build, image, line, model

__all__ = ["MODELS", "backbone", "build", "image", "line"]

# structures


@model
def dict_of_inputs_not_sorted():
    z, a = line(4, "z"), line(3, "a")
    return Model({"z": z, "a": a}, {"second": L.Dense(2, name="d2")(z), "first": L.Dense(3, name="d1")(a)})


@model
def nested_structures():
    z, a, m = line(4, "z"), line(3, "a"), line(2, "m")
    outputs = {"z": [L.Dense(2, name="d2")(z)], "a": (L.Dense(3, name="d1")(a), {"deep": L.ReLU(name="r")(m)})}
    return Model([z, {"second": a, "first": m}], outputs)


@model
def tuple_of_one():
    x = line()
    return Model((x,), (L.Dense(2)(x),))


@model
def list_of_one():
    x = line()
    return Model([x], [L.Dense(2)(x)])


@model
def output_that_is_an_input():
    x = line()
    return Model(x, [x, L.Dense(2)(x)])


@model
def one_tensor_as_two_outputs():
    x = line()
    y = L.Dense(2)(x)
    return Model(x, {"a": y, "b": y})


@model
def unused_input():
    x, y = line(), line(3, "y")
    return Model([x, y], L.Dense(2)(x))


@model
def intermediate_tensors():
    x = line()
    y = L.Dense(5, name="first")(x)
    z = L.Dense(2, name="second")(L.ReLU()(y))
    return Model(y, L.Softmax()(z))


@model
def optional_and_sparse_inputs():
    x, o, s = line(), Input((4,), name="o", optional=True), Input((4,), name="s", sparse=True)
    return Model([x, o, s], [L.Dense(2)(x), custom.OrZero()(x, o), L.Dense(2)(s)])


@model
def inner_output():
    x = line()
    y = L.Dense(3, activation="relu", name="hidden")(x)
    return Model(x, [y, L.Dense(2, name="top")(y)])


# keras.ops


@model
def operations_with_constants():
    x = line()
    y = 2.0 * x + 1 - x / 3.0
    return Model(x, ops.maximum(0.5 - y, np.float32([1, -1, 0, 0.25])) * np.arange(4, dtype="float32"))


@model
def operations_with_keywords():
    x = Input((3, 4), name="x")
    y = ops.concatenate([x, ops.transpose(x, axes=[0, 1, 2])], axis=1)
    y = ops.add(x1=y, x2=ops.sum(y, axis=1, keepdims=True))
    return Model(x, ops.clip(ops.einsum("abc,cd->abd", y, np.ones((4, 2), "float32")), x_min=-1.0, x_max=2.0))


@model
def operations_with_several_outputs():
    x = Input((6, 4), name="x")
    first, second = ops.split(x, 2, axis=1)
    parts = ops.unstack(second, 3, axis=1)
    return Model(x, [ops.matmul(first, ops.swapaxes(second, 1, 2)), parts[0] + parts[2]])


@model
def operations_on_slices():
    x = Input((6, 4), name="x")
    return Model(x, ops.stack([x[:, 0], x[:, -1, :]], axis=1) ** 2)


@model
def operations_on_slices_with_new_and_all_axes():
    x = Input((6, 4), name="x")
    return Model(x, [x[..., 0], x[:, None, ::2], x[:, 1:-1]])


@model
def operations_on_images_and_integers():
    x, n = Input((6, 6, 3), name="x"), Input((4,), dtype="int32", name="n")
    y = ops.conv(x, np.ones((3, 3, 3, 2), "float32"), strides=2) + ops.max_pool(x, 2, 2)[:, :2, :2, :2]
    return Model([x, n], [y, ops.concatenate([n, n + 1, ops.maximum(n, 2)], axis=-1)])


@model
def operations_on_numbers_of_mixed_dtypes():
    x, n = line(), Input((4,), dtype="int32", name="n")
    return Model([x, n], [n * 2, n * 2.5 + x, ops.where(n > 1, x, -x), ops.cast(n, "float16") + 1])


@model
def activation_operations():
    x = line()
    functions = (
        "relu",
        "relu6",
        "leaky_relu",
        "sigmoid",
        "hard_sigmoid",
        "silu",
        "hard_silu",
        "softplus",
        "softmax",
        "tanh",
        "exp",
        "gelu",
    )
    return Model(x, [getattr(ops, name)(x) for name in functions] + [keras.activations.relu(x, max_value=1.0), ops.softmax(x, axis=0)])


@model
def operation_used_by_a_nested_model():
    a, x = line(4, "a"), line()
    return Model(x, L.Dense(2)(Model(a, ops.abs(a) * 2.0 + np.ones(4, "float32"), name="inner")(x)))


# masks and attention


@model
def masked_lstm():
    x = Input((5,), dtype="int32", name="x")
    y = L.Embedding(3, 4, mask_zero=True)(x)
    y = L.TimeDistributed(L.Dense(4, activation="relu"))(y)
    return Model(x, L.Dense(2)(L.Bidirectional(L.LSTM(3))(L.BatchNormalization()(y))))


@model
def masked_pooling():
    x = Input((5,), dtype="int32", name="x")
    y = L.Embedding(3, 4, mask_zero=True)(x)
    return Model(x, L.GlobalAveragePooling1D()(L.Dense(3)(y)))


@model
def masked_softmax():
    x, m = line(), Input((4,), dtype="bool", name="m")
    return Model([x, m], L.Softmax()(x, mask=m))


@model
def masks_joined():
    x, y = Input((5,), dtype="int32", name="x"), Input((5,), dtype="int32", name="y")
    embed = L.Embedding(3, 4, mask_zero=True)
    joined = L.Concatenate(axis=1)([embed(x), embed(y)])
    return Model([x, y], L.GRU(3)(L.Dropout(0.3)(joined)))


@model
def masked_by_hand():
    x, m = Input((5, 4), name="x"), Input((5,), dtype="bool", name="m")
    return Model([x, m], L.LSTM(3)(x, mask=m))


@model
def masked_batch_norm_called_with_training():
    x, m = Input((5, 4), name="x"), Input((5,), dtype="bool", name="m")
    return Model([x, m], L.BatchNormalization()(x, mask=m, training=True))


@model
def masking_layer():
    x = Input((5, 4), name="x")
    return Model(x, L.LSTM(3)(L.Masking(0.0)(x)))


@model
def attention():
    q, v = Input((5, 4), name="q"), Input((3, 4), name="v")
    y, scores = L.MultiHeadAttention(2, 3)(q, v, return_attention_scores=True)
    y = L.GroupQueryAttention(2, 4, 2)(query=y, value=v, use_causal_mask=True)
    return Model([q, v], [L.LayerNormalization()(y), scores])


@model
def masked_attention():
    x = Input((5,), dtype="int32", name="x")
    y = L.Embedding(3, 4, mask_zero=True)(x)
    return Model(x, L.MultiHeadAttention(2, 3)(y, y))


@model
def initial_states():
    x = Input((5, 4), name="x")
    y, h, c = L.LSTM(3, return_sequences=True, return_state=True)(x)
    return Model(x, L.LSTM(3)(y, initial_state=[h, c]))


@model
def stateful():
    x = Input(batch_shape=(2, 5, 4), name="x")
    return Model(x, L.LSTM(3, stateful=True)(x))


# custom objects


@model
def custom_layers():
    x = line()
    y = custom.Scale(3.0, name="scale")(L.Dense(4)(x))
    return Model(x, custom.Block(5, name="block")(y))


@model
def custom_layers_of_dicts():
    x = line()
    parts = custom.Parts()(x)
    return Model(x, custom.Joined()({"z": parts["z"], "a": [parts["a"][0]]}, scale=parts["a"][1][0]))


@model
def wrapped_model():
    a, x = line(4, "a"), Input((5, 4), name="x")
    return Model(x, L.TimeDistributed(Model(a, L.Dense(3)(L.BatchNormalization()(a)), name="inner"))(x))


@model
def words():
    x = Input((1,), dtype="string", name="x")
    y = L.TextVectorization(output_sequence_length=4, vocabulary=["red", "green"])(x)
    return Model(x, L.LSTM(2)(L.Embedding(4, 3, mask_zero=True)(y)))


@model
def constant_attention_mask():
    x = Input((3, 4), name="x")
    return Model(x, L.MultiHeadAttention(2, 2)(x, x, attention_mask=np.tril(np.ones((1, 3, 3)))))


@model
def custom_functions():
    x = Input((5, 4), name="x")
    y = L.Dense(
        4, activation=custom.squash, kernel_initializer=custom.Ones(), kernel_regularizer=custom.Halved(), bias_constraint=custom.Small()
    )(x)
    y = L.Dense(4, activity_regularizer=custom.Halved())(y)
    return Model(x, L.LSTM(3, activation=custom.squash, kernel_initializer=custom.Ones())(y))


@model
def activation_that_cannot_be_described():
    x = line()
    return Model(x, L.Dense(4, activation=custom.by_hand)(L.Activation(custom.by_hand)(x)))


@model
def lambdas():
    x, factor = line(), np.float32(3.0)
    y = L.Lambda(lambda t: t * factor)(x)
    return Model(x, L.Lambda(custom.squash, name="f")(L.Dense(4, activation=lambda t: t - factor)(y)))


@model
def functional_subclass():
    x = line()
    return custom.Trainer(x, L.Dense(3)(x), name="trained")


@model
def sequential_subclass():
    return custom.SequentialTrainer([Input((4,)), L.Dense(3, activation="relu"), L.Dense(2)], name="trained")


@model
def names_that_look_like_ours():
    x = line()
    y = L.Dense(4, activation="relu", name="d")(x)
    y = L.ReLU(name="d.activation")(y) + 2.0
    return Model(x, L.Dense(2, name="add.const1")(y))


# trainable flags, dtype policies, data formats


@model
def frozen_parts():
    x, inner = image(), backbone()
    inner.get_layer("bn").trainable = False
    y = L.Conv2D(3, 1, trainable=False)(inner(x))
    return Model(x, L.BatchNormalization(trainable=False)(y, training=True))


@model
def frozen_but_for_one_layer():
    x = line()
    made = Model(x, L.Dense(2, name="top")(L.Dense(3, name="bottom")(x)))
    made.trainable = False
    made.get_layer("top").trainable = True
    return made


@model
def frozen_nested():
    x, inner = image(), backbone()
    inner.trainable = False
    return Model(x, L.Flatten()(inner(x)))


@model
def training_calls():
    x = line()
    y = L.BatchNormalization()(L.Dropout(0.5, seed=1)(x, training=True), training=True)
    return Model(x, L.BatchNormalization()(L.Dropout(0.5)(y, training=False)))


def of_policy(name: str) -> Callable[[], keras.Model]:
    def made() -> keras.Model:
        x = image()
        y = L.Conv2D(4, 3, activation="relu", dtype=name)(x)
        y = L.MaxPooling2D(dtype=name)(L.BatchNormalization(dtype=name)(y))
        y = L.Softmax(dtype=name)(L.Dense(3, dtype=name)(L.Flatten(dtype=name)(y)))
        return Model(x, L.Activation("linear", dtype="float32")(y))

    return made


for policy in ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16", "float64"):
    MODELS[f"policy_{policy}"] = of_policy(policy)


@model
def policy_set_for_all():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        x = image()
        inner = keras.Sequential([Input((8, 8, 3)), L.Conv2D(3, 3, padding="same"), L.BatchNormalization()], name="inner")
        return Model(x, L.Dense(2, activation="softmax", dtype="float32")(L.Flatten()(inner(backbone()(x)) * 2.0)))
    finally:
        keras.config.set_dtype_policy(before)


@model
def channels_first():
    x, first = Input((3, 8, 8), name="x"), {"data_format": "channels_first"}
    y = L.DepthwiseConv2D(3, activation="relu", **first)(L.ZeroPadding2D(1, **first)(x))
    y = L.AveragePooling2D(2, **first)(L.BatchNormalization(axis=1)(y))
    return Model(x, L.GlobalMaxPooling2D(**first)(y))


@model
def quantized():
    x = line()
    made = Model(x, L.Dense(2)(L.Dense(3, activation="relu")(x)))
    randomize(made)
    made.quantize("int8")
    return made


@model
def lora():
    x = line()
    dense = L.Dense(3, activation="relu")
    made = Model(x, L.Dense(2)(dense(x)))
    dense.enable_lora(2)
    return made
