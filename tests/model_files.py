"""Small models with all names given, for tests of the command line, the interface and the pictures."""

import keras
from keras import layers as L

import zoo

__all__ = ["arithmetic", "nested", "small", "weighted"]


def weighted(model):
    """The model with exact weights that do not depend on the machine."""
    zoo.golden_weights(model)
    return model


def small(name="small", filters=4):
    """Convolution, batch norm (which folds), ReLU, pool, dense."""
    x = keras.Input((8, 8, 3), name="image")
    y = L.Conv2D(filters, 3, padding="same", name="conv")(x)
    y = L.BatchNormalization(name="bn")(y)
    y = L.ReLU(name="relu")(y)
    y = L.GlobalAveragePooling2D(name="pool")(y)
    return weighted(keras.Model(x, L.Dense(2, name="dense")(y), name=name))


def nested():
    """Two inputs, two outputs, a model in a model in a model; one batch norm folds, one lies behind an activation."""
    i = keras.Input((8, 8, 3), name="inner_in")
    y = L.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(i)
    y = L.BatchNormalization(name="bn")(y)
    core = keras.Model(i, y, name="core")
    i = keras.Input((8, 8, 3), name="block_in")
    block = keras.Model(i, L.ReLU(6.0, name="relu6")(core(i)), name="block")
    x, skip = keras.Input((8, 8, 3), name="image"), keras.Input((8, 8, 4), name="skip")
    z = L.Add(name="add")([block(x), skip])
    z = L.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="down")(z)
    features = L.BatchNormalization(name="late_bn")(z)
    scores = L.Dense(2, activation="softmax", name="scores")(L.GlobalAveragePooling2D(name="pool")(features))
    return weighted(keras.Model([x, skip], {"scores": scores, "features": features}, name="nested"))


def arithmetic():
    """A keras.ops operation between layers, which .h5 cannot hold."""
    x = keras.Input((4,), name="x")
    return weighted(keras.Model(x, keras.ops.exp(L.Dense(3, name="dense")(x)), name="arithmetic"))
