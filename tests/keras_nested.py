"""Small models with models in them, or with layers called more than once."""

from __future__ import annotations

import keras
from keras import Input, Model
from keras import layers as L

import keras_custom as custom
from keras_registry import backbone, image, line, model

__all__: list[str] = []


# models in models


@model
def sequential():
    return keras.Sequential([Input((8, 8, 3)), L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU(), L.Flatten(), L.Dense(2)], name="chain")


@model
def sequential_built_later():
    made = keras.Sequential([L.Dense(4, activation="relu"), L.Dropout(0.2), L.Dense(2)])
    made.build((None, 3))
    return made


@model
def sequential_of_masked_layers():
    return keras.Sequential([Input((5,), dtype="int32"), L.Embedding(3, 4, mask_zero=True), L.LSTM(3), L.Dense(2)])


@model
def sequential_in_sequential():
    inner = keras.Sequential([Input((4,)), L.Dense(3, activation="relu"), L.Dense(2)], name="inner")
    return keras.Sequential([Input((4,)), inner, L.ReLU()], name="outer")


@model
def sequential_with_two_layers_of_one_activation():
    return keras.Sequential([Input((4,)), L.Dense(3, activation="tanh"), L.Dense(3, activation="tanh")])


@model
def nested():
    x = image()
    return Model(x, L.GlobalAveragePooling2D(name="pool")(backbone()(x)), name="classifier")


@model
def nested_in_nested():
    x = image()
    middle = Model(x, L.Conv2D(3, 1, name="conv")(backbone()(x)), name="middle")
    y = image("y")
    return Model(y, L.Flatten()(middle(y)), name="outer")


@model
def nested_that_is_nothing_but_nested():
    x, y = image(), image("y")
    middle = Model(x, backbone()(x), name="middle")
    return Model(y, middle(y), name="outer")


@model
def sequential_in_functional():
    x = line()
    inner = keras.Sequential([Input((4,)), L.Dense(3, activation="relu"), L.Dense(2)], name="inner")
    return Model(x, L.Dense(1)(inner(x)))


@model
def functional_in_sequential():
    return keras.Sequential([Input((8, 8, 3)), backbone(), L.Flatten(), L.Dense(2)])


@model
def nested_used_twice():
    a, b, shared = image("a"), image("b"), backbone()
    return Model([a, b], L.Subtract()([shared(a), shared(b)]))


@model
def nested_used_on_itself():
    x, shared = image(), backbone()
    return Model(x, shared(shared(x)))


@model
def nested_shared_between_two_models():
    x, y, z, inner = image(), image("y"), image("z"), backbone()
    left, right = Model(x, L.ReLU()(inner(x)), name="left"), Model(y, L.Conv2D(2, 1)(inner(y)), name="right")
    return Model(z, [left(z), right(z)])


def two_by_two(name: str = "cross") -> keras.Model:
    a, b = line(4, "a"), line(3, "b")
    d = L.Dense(2, name="d")(L.Concatenate(name="c")([a, b]))
    return Model([a, b], [d, L.ReLU(name="r")(d)], name=name)


@model
def nested_with_several_inputs_and_outputs():
    p, q, inner = line(4, "p"), line(3, "q"), two_by_two()
    first, second = inner([p, q])
    return Model([p, q], L.Add()([first, second]))


@model
def nested_with_an_output_that_nobody_uses():
    p, q, inner = line(4, "p"), line(3, "q"), two_by_two()
    return Model([p, q], inner([p, q])[0])


@model
def nested_with_dicts():
    b, a = line(4, "b"), line(3, "a")
    inner = Model({"b": b, "a": a}, {"z": L.Dense(2, name="of_b")(b), "y": L.Dense(2, name="of_a")(a)}, name="inner")
    p, q = line(4, "p"), line(3, "q")
    outputs = inner({"b": p, "a": q})
    return Model([p, q], L.Subtract()([outputs["z"], outputs["y"]]))


@model
def nested_given_a_dict_for_a_list():
    p, q, inner = line(4, "p"), line(3, "q"), two_by_two()
    return Model([p, q], inner({"b": q, "a": p}))


@model
def nested_given_one_tensor_twice():
    a, b, x = line(4, "a"), line(4, "b"), line()
    inner = Model([a, b], L.Subtract(name="s")([L.Dense(4, name="d")(a), b]), name="inner")
    y = inner([x, x])
    return Model(x, inner([x, y]))


@model
def nested_that_hands_an_input_through():
    a, b, x = line(4, "a"), line(4, "b"), line()
    inner = Model([a, b], [a, L.Add(name="s")([a, b])], name="inner")
    return Model(x, L.Multiply()(inner([x, L.Dense(4)(x)])))


@model
def nested_that_gives_one_tensor_twice():
    a, x = line(4, "a"), line()
    y = L.Dense(4, name="d")(a)
    return Model(x, L.Multiply()(Model(a, [y, y], name="inner")(x)))


@model
def nested_that_is_given_another_rank():
    a, x = line(4, "a"), Input((4, 1), name="x")
    return Model(x, Model(a, L.Dense(3)(a), name="inner")(x))


@model
def nested_that_is_given_another_dtype():
    a, x = line(4, "a"), Input((4,), dtype="int32", name="x")
    return Model(x, Model(a, L.Dense(3)(a), name="inner")(x))


@model
def nested_with_an_unused_input():
    a, b, x = line(4, "a"), line(4, "b"), line()
    inner = Model([a, b], L.Dense(3)(a), name="inner")
    return Model(x, inner([x, L.ReLU()(x)]))


@model
def nested_called_with_training():
    x = image()
    return Model(x, L.Flatten()(backbone()(x, training=True)))


@model
def nested_called_without_training():
    x = image()
    return Model(x, L.Flatten()(backbone()(x, training=False)))


@model
def nested_given_a_mask():
    a = Input((5, 4), name="a")
    inner = Model(a, L.LSTM(3, name="lstm")(a), name="inner")
    x = Input((5,), dtype="int32", name="x")
    return Model(x, inner(L.Embedding(3, 4, mask_zero=True)(x)))


@model
def nested_functional_subclass():
    a, x = line(4, "a"), line()
    return Model(x, custom.Trainer(a, L.Dense(3, name="d")(a), name="inner")(x))


# shared layers


@model
def shared_layer():
    a, b, dense = line(4, "a"), line(4, "b"), L.Dense(3)
    return Model([a, b], L.Add()([dense(a), dense(b)]))


@model
def shared_layer_with_activation():
    x, dense = line(), L.Dense(4, activation="relu")
    return Model(x, dense(dense(x)))


@model
def shared_by_a_model_and_a_nested_one():
    x, z, dense = line(), line(4, "z"), L.Dense(4, name="shared")
    inner = Model(x, L.ReLU()(dense(x)), name="inner")
    return Model(z, dense(inner(z)))


@model
def shared_weightless_layer():
    x, relu = line(), L.ReLU(max_value=1.0)
    return Model(x, [relu(L.Dense(3)(x)), relu(L.Dense(2)(x))])
