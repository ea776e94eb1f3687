"""Whether two Keras models are the same: configuration, weights bit by bit, and outputs bit by bit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfpasses.graph.values import map_leaves

__all__ = [
    "arrays_of",
    "assert_same_configuration",
    "assert_same_model",
    "assert_same_outputs",
    "configuration",
    "graph_size",
    "inputs_for",
    "outputs_of",
]


def inputs_for(model: keras.Model, seed: int = 0, batch: int = 2) -> Any:
    """Inputs in the structure that the model takes: small normal numbers, small integers, or words."""
    rng = np.random.default_rng(seed)

    def draw(tensor: Any) -> Any:
        shape = [batch if size is None and axis == 0 else 7 if size is None else size for axis, size in enumerate(tensor.shape)]
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if dtype == "string":
            return np.array(rng.choice(["red", "green", "blue", "mauve"], shape))
        if "int" in dtype:
            return rng.integers(0, 3, shape).astype(dtype)
        return rng.normal(size=shape).astype(np.float32).astype(dtype if dtype != "bfloat16" else "float32")

    return map_leaves(functional(model)._inputs_struct, draw)


def functional(model: keras.Model) -> Any:
    return model._functional if isinstance(model, keras.Sequential) else model


def outputs_of(model: keras.Model, x: Any, **options: Any) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(value) for value in keras.tree.flatten(model(x, **options))]


def arrays_of(model: keras.Model) -> list[np.ndarray]:
    """Copies of all variables, the seed generators' states included."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.variables]


def assert_same_arrays(new: list[np.ndarray], old: list[np.ndarray]) -> None:
    assert len(new) == len(old)
    for a, b in zip(new, old, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()


def assert_same_outputs(new: keras.Model, old: keras.Model, x: Any, **options: Any) -> None:
    assert_same_arrays(outputs_of(new, x, **options), outputs_of(old, x, **options))


def configuration(model: keras.Model) -> dict[str, Any]:
    """`get_config()` as leaves by path, without shared objects' ids, addresses, and the shapes that layers were built with."""
    return dict(leaves(model.get_config(), ""))


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        yield path, "dict" if isinstance(value, dict) else "list"
        for key, part in parts:
            if key not in ("shared_object_id", "build_config"):
                yield from leaves(part, f"{path}/{key}")
    elif isinstance(value, np.ndarray | np.generic):
        yield path, (value.dtype.name, value.shape, value.tobytes())
    else:
        yield path, re.sub(r" at 0x\w+", "", value) if isinstance(value, str) else value


def assert_same_configuration(new: keras.Model, old: keras.Model) -> None:
    a, b = configuration(new), configuration(old)
    missing = object()
    differences = {
        path: (a.get(path, missing), b.get(path, missing)) for path in {**a, **b} if a.get(path, missing) != b.get(path, missing)
    }
    assert differences == {}


def numberless(path: str) -> str:
    """A variable's path without the numbers by which Keras tells layers that it has named itself."""
    return re.sub(r"_\d+", "", path)


def input_layers(model: keras.Model) -> list[Any]:
    return [(x._keras_history.operation.name, x.shape, x.dtype) for x in functional(model)._inputs]


def assert_same_model(new: keras.Model, old: keras.Model, described: bool = True) -> None:
    """Everything but what the models compute: class, name, layers, wiring, structures, weights, trainable flags.

    Not `described`: without the configuration.
    """
    assert new is not old
    assert type(new) is type(old)
    assert new.name == old.name
    assert [type(layer) for layer in new._flatten_layers()] == [type(layer) for layer in old._flatten_layers()]
    assert [layer.name for layer in new.layers] == [layer.name for layer in old.layers]
    assert [layer.trainable for layer in new._flatten_layers()] == [layer.trainable for layer in old._flatten_layers()]
    assert functional(new).output_names == functional(old).output_names
    assert input_layers(new) == input_layers(old)
    assert [(x.shape, x.dtype) for x in new.outputs] == [(x.shape, x.dtype) for x in old.outputs]
    if described:
        assert_same_configuration(new, old)
    assert [numberless(w.path) for w in new.weights] == [numberless(w.path) for w in old.weights]
    assert [w.trainable for w in new.weights] == [w.trainable for w in old.weights]
    assert_same_arrays(arrays_of(new), arrays_of(old))
    assert not {id(v) for v in new.variables} & {id(v) for v in old.variables}


def graph_size(model: keras.Model) -> list[tuple[str, int, int]]:
    """How often Keras has recorded each layer (those in nested models too) as called and used."""
    operations = {id(op): op for op in [*functional(model).operations, *model._flatten_layers()]}
    return [(op.name, len(op._inbound_nodes), len(op._outbound_nodes)) for op in operations.values()]
