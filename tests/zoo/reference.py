"""A float64 twin of a model, to say what its float32 outputs should have been."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = ["float64_model", "float64_outputs"]

_NARROW = frozenset({"float16", "bfloat16", "float32", "mixed_float16", "mixed_bfloat16"})
_NARROW_TENSORS = frozenset({tf.float16, tf.bfloat16, tf.float32})
_STORED = frozenset({"Const", "ReadVariableOp", "VarHandleOp", "Placeholder", "NoOp"})
"""Operations that hold a number without computing one: a float32 constant is exact in float64."""


def float64_outputs(model: keras.Model, x: Any) -> np.ndarray | list[np.ndarray]:
    """Outputs of a Functional or Sequential `model` on `x`, every step computed in float64, without a graph optimizer.

    Structured as the model's own outputs (a list, or a dictionary, where there are several).
    Raises ArithmeticError when some operation has no float64 kernel in Keras (e.g. bilinear resizing).
    """
    twin = float64_model(model)
    x = keras.tree.map_structure(_widen, x)
    with _float64_policy():
        _require_float64(twin, x)
        return keras.tree.map_structure(lambda tensor: tensor.numpy(), twin(x, training=False))


def float64_model(model: keras.Model) -> keras.Model:
    """A copy of `model`, weights included, whose layers, inputs and casts are all float64.

    Rebuilt from the configuration, not by `keras.models.clone_model`: that one re-uses the `keras.ops` nodes as they are,
    and a `Cast` to float32 among them would stay.
    """
    config = _widen_config(model.get_config())
    with _float64_policy(), keras.saving.custom_object_scope(_own_classes(model)), _unsafe_lambdas():
        twin = type(model).from_config(config)
        if not twin.built:
            twin.build(model.input_shape)
        _copy_weights(model, twin)
    return twin


def _own_classes(model: keras.Model) -> dict[str, type]:
    """The layer classes that are not Keras's; those would hide the `keras.ops` nodes of the same names, "Add" for one."""
    classes = {type(layer) for layer in model._flatten_layers()}
    return {cls.__name__: cls for cls in classes if not cls.__module__.startswith("keras.")}


def _widen(array: Any) -> np.ndarray:
    array = np.asarray(array)
    return array.astype(np.float64) if array.dtype.kind == "f" or array.dtype.name == "bfloat16" else array


def _widen_config(config: Any) -> Any:
    """`config` with float64 for every narrower dtype, policy or cast in it."""
    if isinstance(config, dict):
        if str(config.get("class_name")).startswith("Quantized"):
            raise ValueError("a quantized layer has no float64 twin: take the reference before quantizing")
        if config.get("class_name") in ("DTypePolicy", "FloatDTypePolicy"):
            return {**config, "config": {**config["config"], "name": "float64"}}
        return {key: _widen_dtype(value) if key.endswith("dtype") else _widen_config(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_widen_config(item) for item in config)
    return config


def _widen_dtype(dtype: Any) -> Any:
    return "float64" if isinstance(dtype, str) and dtype in _NARROW else _widen_config(dtype)


def _copy_weights(model: keras.Model, twin: keras.Model) -> None:
    for source, target in zip(model.weights, twin.weights, strict=True):
        if (_owner(source), source.shape) != (_owner(target), target.shape):
            raise ValueError(f"weight {source.path}{source.shape} meets {target.path}{target.shape} in the float64 twin")
        target.assign(keras.ops.convert_to_numpy(source).astype(target.dtype))
    for layer in twin._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with a copy made when built, not with its weights


def _owner(weight: keras.Variable) -> list[str]:
    """The last layer's and the weight's own name; the models' names in front of them depend on when a model was built."""
    *layer, own = weight.path.split("/")[-2:]
    return [*layer, re.sub(r"^variable_\d+$", "variable", own)]  # a weight that has no name is numbered by Keras as it comes


def _require_float64(twin: keras.Model, x: Any) -> None:
    """Trace `twin` and raise ArithmeticError if any operation, also within a layer, computes in less than float64."""
    spec = keras.tree.map_structure(lambda array: tf.TensorSpec(array.shape, array.dtype), x)
    graph = tf.function(lambda x: twin(x, training=False)).get_concrete_function(spec).graph
    narrow = sorted({f"{op.type} {op.name}" for op in _operations(graph) if _computes_narrowly(op)})
    if narrow:
        raise ArithmeticError(f"{twin.name} is no float64 reference, these operations compute in less: {', '.join(narrow[:8])}")


def _operations(graph: tf.Graph) -> Iterator[tf.Operation]:
    yield from graph.get_operations()
    for name in graph._functions:
        function = graph._get_function(name)
        inner = getattr(function, "graph", None)
        if inner is not None:
            yield from _operations(inner)


def _computes_narrowly(op: tf.Operation) -> bool:
    return op.type not in _STORED and any(tensor.dtype in _NARROW_TENSORS for tensor in op.outputs)


@contextmanager
def _float64_policy() -> Iterator[None]:
    """Within the block Keras's defaults are float64 too, for layers that ask `floatx()` behind their own dtype's back."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


@contextmanager
def _unsafe_lambdas() -> Iterator[None]:
    """Within the block `from_config` may revive Lambda layers: the tests' own code, not a stranger's file."""
    from keras.src.saving.serialization_lib import SafeModeScope

    with SafeModeScope(safe_mode=False):
        yield
