"""TFRecord files of `tf.train.Example`s."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from tfpasses.data.datasets import eagerly, elements
from tfpasses.data.features import Feature, described, features_of, kind_of
from tfpasses.data.files import DataFile, found, is_records
from tfpasses.data.images import AHEAD, what_went_wrong
from tfpasses.data.pixels import Size
from tfpasses.data.streams import Source, first_line
from tfpasses.graph import Graph
from tfpasses.manager import DataError

__all__ = ["Records"]


@attrs.frozen
class Records(DataFile):
    """TFRecords in a file, a folder, or those that a pattern matches (`train-*.tfrecord`), in the order of their names; with `.gz` behind
    the name compressed.
    """

    path: str | Path
    features: Sequence[str] = ()
    """What feeds the model, a text each: the name of a feature; `:float32[224,224,3]` behind it says how it is read where that is not
    what the input takes, `:image` that it is an encoded image; `input=` before it which input it feeds, where there are several. Without
    any, features of the inputs' names. Bytes that are read as numbers are those as they lie in memory.
    """
    preset: str | None = None
    """Of images, as are the next two: see `Images`."""
    resize: Size | None = None
    crop: Size | None = None

    def source(self, graph: Graph) -> Source:
        """Record by record; see `DataFile`."""
        files = [str(file) for file in found(self.path) if is_records(file)]
        features = features_of(graph, tuple(self.features), self.preset, self.resize, self.crop)
        reading = Reading(files, features, stored_kinds(files, features, os.fspath(self.path)))
        return Source(os.fspath(self.path), reading.elements, fixed_memory=True)


@attrs.frozen
class Reading:
    """Files that are read one after the other."""

    files: Sequence[str]
    features: Sequence[Feature]
    stored: Mapping[str, str]
    """Name of a feature -> the kind of list it is in the first record."""

    def elements(self) -> Iterator[Any]:
        """Record by record, as values by input name, some made at the same time."""
        for file in self.files:
            number = 0
            try:
                for element in elements(self.dataset(file)):
                    yield element
                    number += 1
            except Exception as error:  # TensorFlow's, of many kinds
                raise DataError(self.explained(file, number, error)) from error

    def dataset(self, file: str) -> Any:
        """One file."""
        import tensorflow as tf

        wanted = {one.key: one.parsed(self.stored[one.key]) for one in self.features}

        def parse(record: Any) -> Any:
            values = tf.io.parse_single_example(record, wanted)
            return {one.input: one.tensor(values[one.key], self.stored[one.key]) for one in self.features}

        with eagerly():
            return raw(file).map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(AHEAD)

    def explained(self, file: str, number: int, error: Exception) -> str:
        """What is wrong with a record, found by looking at it again."""
        where = f"{file}: record {number} (counted from 0)"
        example = example_at(file, number)
        if isinstance(example, str):
            return f"{where} {example}"
        for one in self.features:
            fault = None if example is None else one.wrong(example, self.stored[one.key])
            if fault is not None:
                return f"{where} {fault}"
        images = [one.key for one in self.features if one.pixels is not None]
        if images:
            return f"{where}, image in {' or '.join(images)}: {what_went_wrong(error)}"
        return f"{where} cannot be read: {first_line(error)}"


def raw(file: str) -> Any:
    """The records of a file as bytes."""
    import tensorflow as tf

    return tf.data.TFRecordDataset(file, compression_type="GZIP" if file.endswith(".gz") else "")


def example_at(file: str, number: int) -> Mapping[str, Any] | str | None:
    """The features of one record, or what is wrong with it; None where there is none."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        with eagerly():
            record = next(iter(raw(file).skip(number).take(1)), None)
            if record is None:
                return None
            example = tf.train.Example()
            example.ParseFromString(record.numpy())
    except DecodeError:
        return "is no tf.train.Example"
    except tf.errors.OpError as error:
        return f"is damaged, or this is no TFRecord file ({first_line(error)})"
    return dict(example.features.feature)


def stored_kinds(files: Sequence[str], features: Sequence[Feature], name: str) -> dict[str, str]:
    """In which kinds of lists the first record of all has the features. Raises `DataError` where there is none, or it lacks one of them."""
    for file in files:
        example = example_at(file, 0)
        if example is None:
            continue
        where = f"{file}: record 0 (counted from 0)"
        if isinstance(example, str):
            raise DataError(f"{where} {example}")
        for one in features:
            if one.key not in example:
                raise DataError(
                    f"{where} has no feature {one.key}, which is to feed input {one.input}; it has {described(example)}; "
                    "say which one does (features=[..], --data-features)"
                )
            if not one.fits(kind_of(example[one.key])):
                raise DataError(f"{where} holds {kind_of(example[one.key])} in feature {one.key}, which is no {one}")
        return {one.key: kind_of(example[one.key]) for one in features}
    raise DataError(f"{name}: holds no records")
