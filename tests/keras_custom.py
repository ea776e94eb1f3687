"""A user's own layers, functions and models, none of them registered with Keras."""

from __future__ import annotations

import keras
from keras import ops

__all__ = [
    "Block",
    "Forgetful",
    "Halved",
    "Joined",
    "Ones",
    "OrZero",
    "Parts",
    "Scale",
    "SequentialTrainer",
    "Small",
    "Tied",
    "Trainer",
    "WithoutConfig",
    "by_hand",
    "squash",
]


def squash(x):
    return x / (1 + ops.abs(x))


class Cube:
    def __call__(self, x):
        return x * x * x


by_hand = Cube()
"""An activation that is neither a function nor describable."""


class Ones(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return ops.ones(shape, dtype)


class Halved(keras.regularizers.Regularizer):
    def __call__(self, x):
        return ops.sum(x * x) / 2

    def get_config(self):
        return {}


class Small(keras.constraints.Constraint):
    def __call__(self, w):
        return ops.clip(w, -1, 1)


class Scale(keras.layers.Layer):
    """One weight a feature."""

    def __init__(self, factor: float, **options):
        super().__init__(**options)
        self.factor = factor

    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], initializer="ones", name="scale")

    def call(self, x):
        return x * self.scale * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class Block(keras.layers.Layer):
    """Layers inside, among them a custom one, and an argument for `training`."""

    def __init__(self, units: int, **options):
        super().__init__(**options)
        self.units = units
        self.dense = keras.layers.Dense(units, activation=squash)
        self.norm = keras.layers.BatchNormalization()
        self.scale = Scale(2.0)

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build((*shape[:-1], self.units))
        self.scale.build((*shape[:-1], self.units))

    def call(self, x, training=None):
        return self.scale(self.norm(self.dense(x), training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class OrZero(keras.layers.Layer):
    """Takes an optional second input."""

    def call(self, x, other=None):
        return x if other is None else x + other


class Parts(keras.layers.Layer):
    """Gives tensors in a nesting of dicts, lists and tuples."""

    def call(self, x):
        return {"z": x * 2, "a": [x + 1, (x,)]}


class Joined(keras.layers.Layer):
    """Takes such a nesting, and a tensor by keyword."""

    def call(self, parts, scale=None):
        return parts["z"] - parts["a"][0] * scale


class WithoutConfig(keras.layers.Layer):
    """Its constructor takes an object that Keras cannot describe, and it does not say how."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, x):
        return self.function(x)


class Forgetful(keras.layers.Layer):
    """Its get_config() leaves out how wide it is."""

    def __init__(self, units: int = 1, **options):
        super().__init__(**options)
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units))

    def call(self, x):
        return ops.matmul(x, self.kernel)

    def get_config(self):
        return super().get_config()


class Tied(keras.layers.Layer):
    """Uses the transposed table of an embedding that the model has as a layer of its own."""

    def __init__(self, embedding, **options):
        super().__init__(**options)
        self.embedding = keras.saving.deserialize_keras_object(embedding) if isinstance(embedding, dict) else embedding

    def build(self, shape):
        if not self.embedding.built:
            self.embedding.build(None)

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.embedding.embeddings))

    def get_config(self):
        return {**super().get_config(), "embedding": keras.saving.serialize_keras_object(self.embedding)}


class Trainer(keras.Model):
    """Functional, with a training step of its own."""

    steps = 0

    def train_step(self, data):
        Trainer.steps += 1
        return super().train_step(data)


class SequentialTrainer(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)
