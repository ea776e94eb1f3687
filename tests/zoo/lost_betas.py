"""What each batch norm's beta does to a model's output."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from zoo.relative_error import relative_error

__all__ = ["effects_of_lost_betas"]


def effects_of_lost_betas(model: keras.Model, x: np.ndarray) -> dict[str, float]:
    """Relative change of the output for each beta set to zero, by its path, the model itself untouched.

    The weights are arguments of one traced function.  They must all be tensors: a variable among them is another
    signature, and the function would be traced anew for each batch norm.
    """
    trainable = [tf.convert_to_tensor(variable.value) for variable in model.trainable_variables]
    fixed = [tf.convert_to_tensor(variable.value) for variable in model.non_trainable_variables]
    outputs = tf.function(lambda trainable, fixed, x: model.stateless_call(trainable, fixed, x, training=False)[0])
    intact = outputs(trainable, fixed, x)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    betas = {id(layer.beta) for layer in norms}
    effects = {}
    for index, variable in enumerate(model.trainable_variables):
        if id(variable) in betas:
            lost = [*trainable[:index], tf.zeros_like(trainable[index]), *trainable[index + 1 :]]
            effects[variable.path] = relative_error(outputs(lost, fixed, x), intact)
    return effects
