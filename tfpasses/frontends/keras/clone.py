"""A new layer like one in memory: same class, same configuration, same state. The source is only looked at."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from types import FunctionType
from typing import Any

import keras
from keras.src.saving.serialization_lib import SafeModeScope

from tfpasses.graph import Array, UnsupportedModelError

__all__ = ["constructor_arguments", "copied_operation", "copy_random_state", "copy_state", "copy_trainable", "rebuilt"]

OBJECTS = ("activation", "_initializer", "_regularizer", "_constraint")
"""How the constructor's arguments end that take a function or an object of the user's."""

PLAIN = {"activation": keras.activations.linear, "activity_regularizer": keras.regularizers.L1(0.0)}
"""What `get_config` describes in place of one of these; in place of the others, None."""


def constructor_arguments(source: Any) -> dict[str, Any]:
    """A built-in layer's configuration with its initializers, regularizers, constraints and functions as objects, not described:
    the constructor takes both, and a user's own objects need no registration, no name and no `get_config()`.
    """
    objects = {key: value for key, value in vars(source).items() if key.endswith(OBJECTS) and key[0] != "_" and value is not None}
    config = shadow(source, **{key: PLAIN.get(key) for key in objects}).get_config()
    config.update({key: value for key, value in objects.items() if key in config})
    if is_custom(type(source.dtype_policy)) or isinstance(config.get("dtype"), str):  # SpatialDropout tells its weights' dtype
        config["dtype"] = source.dtype_policy
    return dict(config)


def copied_operation(source: Any, name: str) -> Any:
    """A `keras.ops` operation like another, called nowhere yet."""
    return shadow(source, name=name, _inbound_nodes=[], _outbound_nodes=[])


def shadow(source: Any, **changes: Any) -> Any:
    """A shallow copy with some attributes changed, by no constructor and no setter."""
    copied = object.__new__(type(source))
    vars(copied).update(vars(source), **changes)
    return copied


def rebuilt(source: Any, name: str) -> Any:
    """An unbuilt layer of the same class and configuration. It is in memory already, so Keras's safe mode has nothing to guard.

    Raises `UnsupportedModelError` where the configuration does not tell enough.
    """
    if isinstance(source, keras.layers.Lambda):
        options = {"output_shape": source._output_shape, "mask": source.mask, "arguments": source.arguments}
        return keras.layers.Lambda(source.function, name=name, dtype=source.dtype_policy, trainable=source.trainable, **options)
    try:
        config = unbuilt(source.get_config() if is_custom(type(source)) else constructor_arguments(source))
        config["name"] = name
        with keras.saving.custom_object_scope(custom_objects(source)), SafeModeScope(safe_mode=False):
            layer = type(source).from_config(config)
    except Exception as error:  # a user's own get_config or from_config may raise anything
        raise UnsupportedModelError(
            f"layer {source.name}: {type(source).__name__} cannot be rebuilt from its configuration "
            f"({type(error).__name__}: {first_line(error)}); "
            "give it a get_config() that returns all arguments of its constructor"
        ) from error
    for old, new in zip(source._flatten_layers(), layer._flatten_layers(), strict=False):
        share_functions(old, new)
        if isinstance(old, keras.Model):
            new.dtype_policy = old.dtype_policy  # which from_config() does not know
    return layer


def unbuilt(config: Any) -> Any:
    """A configuration without the shapes that inner layers were built with: the first call builds them, under their new names."""
    if isinstance(config, dict):
        return {key: unbuilt(value) for key, value in config.items() if key != "build_config"}
    return [unbuilt(value) for value in config] if isinstance(config, list) else config


def custom_objects(source: Any) -> dict[str, Any]:
    """The user's own classes and functions in a layer, by the names under which its configuration mentions them."""
    found: dict[str, Any] = {}
    for part in source._flatten_layers():
        for value in (part, *vars(part).values()):
            named = value if isinstance(value, FunctionType | type) else type(value)
            if is_custom(named):
                found[named.__name__] = named
    return found


def is_custom(named: Any) -> bool:
    """Whether a class or function is neither Python's nor Keras's own."""
    return str(named.__module__).partition(".")[0] not in ("builtins", "keras", "tensorflow", "numpy", "collections", "types")


def share_functions(old: Any, new: Any) -> None:
    """Let the new layer use the very functions of the old one: rebuilt from bytecode they would have lost their globals."""
    for key, value in vars(old).items():
        mine = vars(new).get(key)
        if (
            isinstance(value, FunctionType)
            and mine is not value
            and not hasattr(type(old), key)
            and (mine is None or isinstance(mine, FunctionType))
        ):
            setattr(new, key, value)


def copy_state(source: Any, layer: Any, arrays: Sequence[Array]) -> None:
    """Weights (as given), trainable flags, and what else the layers inside keep (vocabularies, statistics, random states)."""
    variables = in_order_of(source, layer)
    if [tuple(variable.shape) for variable in variables] != [array.shape for array in arrays]:
        raise UnsupportedModelError(
            f"layer {source.name}: rebuilt from its configuration, {type(source).__name__} has other weights "
            f"({len(variables)} instead of {len(arrays)}, or other shapes); its get_config() does not tell all"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    copy_random_state(source, layer)
    copy_trainable(source, layer)
    for old, new in zip(source._flatten_layers(), layer._flatten_layers(), strict=False):
        if hasattr(old, "save_assets"):
            with tempfile.TemporaryDirectory() as folder:
                old.save_assets(folder)
                new.load_assets(folder)
        if isinstance(new, keras.layers.Normalization) and new.built:
            new.finalize_state()


def in_order_of(source: Any, layer: Any) -> list[Any]:
    """The layer's weights in the order of the source's, by name where names tell: a layer quantized when built may have another order."""
    names = {variable.name: variable for variable in layer.weights}
    wanted = [variable.name for variable in source.weights]
    return [names[name] for name in wanted] if len(wanted) == len(set(wanted)) and set(wanted) == set(names) else list(layer.weights)


def copy_random_state(source: Any, layer: Any) -> None:
    """The states of random generators: variables that are no weights."""
    for old, new in zip(unweighted(source), unweighted(layer), strict=False):
        new.assign(old)


def unweighted(layer: Any) -> list[Any]:
    weights = {id(variable) for variable in layer.weights}
    return [variable for variable in layer.variables if id(variable) not in weights]


def copy_trainable(source: Any, layer: Any) -> None:
    """The trainable flags of a layer and all layers inside. Setting one sets those below it, so each is set after the one above it."""
    pairs = list(zip(source._flatten_layers(), layer._flatten_layers(), strict=False))
    for old, new in pairs:
        if old.trainable != new.trainable:
            new.trainable = old.trainable


def first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
