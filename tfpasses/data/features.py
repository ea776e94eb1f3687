"""Which feature of a TFRecord feeds which input of a model, and how it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from tfpasses.data.pixels import Pixels, Size
from tfpasses.graph import Graph
from tfpasses.manager import DataError

__all__ = ["Feature", "features_of"]

IMAGE = "image"
STORED = {"bytes_list": "bytes", "float_list": "float32", "int64_list": "int64"}
"""The three kinds of lists that a record holds -> how they are called."""
FORM = re.compile(r"(?:(?P<input>[^=]+)=)?(?P<key>[^=:\[\]]+)(?::(?P<kind>[a-z]+\d*)(?:\[(?P<shape>[\d,\s]*)\])?)?")
SAID = "FEATURE, FEATURE:image, FEATURE:float32[224,224,3], each with INPUT= before it where the model has several inputs"


@attrs.frozen
class Feature:
    """A feature that feeds an input."""

    input: str
    key: str
    dtype: str
    """What it is read as, whatever kind of list it is; bytes that are read as numbers are those as they lie in memory, lowest first."""
    shape: tuple[int, ...]
    pixels: Pixels | None = None
    """Where it is an encoded image."""

    def parsed(self, stored: str) -> Any:
        """How TensorFlow is to take it from a record that holds it as `stored`."""
        import tensorflow as tf

        raw = stored == "bytes"
        return tf.io.FixedLenFeature([] if raw and self.dtype != "string" else self.shape, tf.string if raw else stored)

    def tensor(self, value: Any, stored: str) -> Any:
        """What was taken from it, as the input's."""
        import tensorflow as tf

        if self.pixels is not None:
            return self.pixels.tensor(value)
        if stored == "bytes" and self.dtype != "string":
            return tf.reshape(tf.io.decode_raw(value, self.dtype), self.shape)
        return value if self.dtype == "string" else tf.cast(value, self.dtype)

    def wrong(self, example: Mapping[str, Any], stored: str) -> str | None:
        """What is wrong with it in a record, by `tf.train.Feature`s; None where nothing is, but for what is in an image."""
        if self.key not in example:
            return f"has no feature {self.key}; it has {described(example)}"
        kind = kind_of(example[self.key])
        if kind != stored:
            return f"holds {kind} in feature {self.key}, where the first record holds {stored}"
        values = getattr(example[self.key], next(one for one, said in STORED.items() if said == kind)).value
        wanted = int(np.prod(self.shape))
        if self.pixels is not None:
            return None if len(values) == 1 else f"holds {len(values)} strings in feature {self.key}, where one image is expected"
        if kind == "bytes" and self.dtype != "string":
            size = np.dtype(self.dtype).itemsize
            have = len(values[0]) if len(values) == 1 else None
            if have is None:
                return f"holds {len(values)} strings in feature {self.key}, where one of {wanted * size} bytes is expected"
            return (
                None
                if have == wanted * size
                else f"holds {have} bytes in feature {self.key}; {self} is {wanted * size} (of an encoded image say {self.key}:image)"
            )
        return None if len(values) == wanted else f"holds {len(values)} values in feature {self.key}; {self} is {wanted}"

    def fits(self, stored: str) -> bool:
        """Whether a list of that kind can be read as this."""
        return stored == "bytes" if self.pixels is not None or self.dtype == "string" else True

    def __str__(self) -> str:
        return IMAGE if self.pixels is not None else f"{self.dtype}[{','.join(map(str, self.shape))}]"


def features_of(graph: Graph, texts: Sequence[str], preset: str | None, resize: Size | None, crop: Size | None) -> list[Feature]:
    """One feature an input: as texts say, or, without any, by the inputs' own names.

    Raises `DataError`, one line, for texts that say nothing of the kind.
    """
    given: dict[str, Feature] = {}
    for text in texts or graph.inputs:
        match = FORM.fullmatch(text.strip()) if texts else None
        if texts and match is None:
            raise DataError(f"feature {text!r} is none of {SAID}")
        named = match["input"] if match else text
        if named is None and len(graph.inputs) > 1:
            raise DataError(f"feature {text!r} does not say which input it feeds ({', '.join(graph.inputs)}); write INPUT={text}")
        name = named or graph.inputs[0]
        if name not in graph.inputs:
            raise DataError(f"feature {text!r} feeds {name}; the model's inputs are {', '.join(graph.inputs)}")
        if name in given:
            raise DataError(f"features {given[name].key} and {text} feed the same input {name}")
        given[name] = feature(
            graph, name, match["key"] if match else text, match and match["kind"], match and match["shape"], (preset, resize, crop)
        )
    missing = [name for name in graph.inputs if name not in given]
    if missing:
        raise DataError(f"no feature feeds input {', '.join(missing)}; write {missing[0]}=FEATURE")
    images = [one for one in given.values() if one.pixels is not None]
    if not images and any(option is not None for option in (preset, resize, crop)):
        raise DataError("preset, resize and crop are for images, and no feature is one; write FEATURE:image")
    return [given[name] for name in graph.inputs]


def feature(
    graph: Graph, name: str, key: str, kind: str | None, shape: str | None, images: tuple[str | None, Size | None, Size | None]
) -> Feature:
    """One of them; dtype and shape are the input's where they are not said."""
    spec = graph.nodes[name].specs[0]
    if kind == IMAGE:
        return Feature(name, key, "string", (), Pixels.of(name, spec, *images))
    dtype = kind or spec.dtype
    try:
        known = dtype == "string" or (np.dtype(dtype).kind in "biuf" and np.dtype(dtype).name == dtype)
    except TypeError:
        known = False
    if not known:
        raise DataError(f"feature {key}: {dtype} is no dtype of numbers, and neither string nor image")
    if shape is not None:
        return Feature(name, key, dtype, tuple(int(size) for size in shape.split(",") if size.strip()))
    if spec.shape is None or None in spec.shape[1:]:
        raise DataError(f"feature {key} feeds input {name}, which is {spec}; say of which shape it is: {key}:{dtype}[..]")
    return Feature(name, key, dtype, tuple(size for size in spec.shape[1:] if size is not None))


def kind_of(feature: Any) -> str:
    """Which of the three kinds of lists a `tf.train.Feature` is."""
    return STORED.get(feature.WhichOneof("kind"), "nothing")


def described(example: Mapping[str, Any]) -> str:
    """What a record holds: name, kind and length of each feature."""
    said = []
    for key, feature in sorted(example.items()):
        values = getattr(feature, feature.WhichOneof("kind") or "bytes_list").value
        said.append(f"{key} ({kind_of(feature)}{f'[{len(values)}]' if len(values) != 1 else ''})")
    return ", ".join(said) or "none"
