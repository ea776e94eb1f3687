"""Samples that come one after the other, or some at a time: in batches of the size that is asked for, whatever the source's are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import numpy as np

from tfpasses.data.intake import Intake
from tfpasses.data.structures import as_array, inputs_of
from tfpasses.graph import Array, Graph, TfpassesError
from tfpasses.manager import DataError

__all__ = ["Source", "StreamSamples", "first_line"]


NOISE = re.compile(r"\{\{[^}]*\}\}|\[Op:\w+\](?: name: ?)?")
"""What TensorFlow puts around what it says."""


def first_line(error: BaseException) -> str:
    """An exception in one line: its type and the first line of what it says."""
    lines = [line for line in NOISE.sub("", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[0].split())}" if lines else type(error).__name__


@attrs.frozen(eq=False)
class Source:
    """Where elements come from: samples or batches, in a structure that `inputs_of` knows."""

    name: str
    """How an error calls it: `the dataset`, the name of a folder."""
    open: Callable[[], Iterator[Any]]
    """Begins to read."""
    again: bool = True
    """Whether it can be read more than once."""
    infinite: bool = False
    length: int | None = None
    """How many elements there are, where that is known."""
    batch: int | None = None
    """How many samples are in each, where that is known and they are batches."""
    fixed_memory: bool = False
    """Whether an element stays as it is when the next one is read."""
    part: Callable[[int, int], Source] | None = None
    """The part of one worker, by its rank, of so many, where it can be read without the others'."""
    explain: Callable[[Exception, int], str] | None = None
    """What an exception means that was raised in the place of an element, by its number; without, its first line is said."""

    def elements(self) -> Iterator[Any]:
        """Read them. Whatever is raised by what is not ours is a `DataError`, one line."""
        number = 0
        try:
            elements = self.open()
            for element in elements:
                yield element
                number += 1
        except TfpassesError:
            raise
        except Exception as error:  # a user's code, or TensorFlow's: there is no telling what it raises
            if self.explain is not None:
                raise DataError(self.explain(error, number)) from error
            raise DataError(f"{self.name} failed at element {number} (counted from 0): {first_line(error)}") from error


@attrs.frozen(eq=False)
class Piece:
    """An element, or a part of one, as arrays with an axis of samples."""

    arrays: Mapping[str, Array]
    size: int

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of one sample."""
        return [array.shape[1:] for array in self.arrays.values()]

    def copy(self) -> Piece:
        """The same in memory of its own."""
        return Piece({name: array.copy() for name, array in self.arrays.items()}, self.size)


class StreamSamples:
    """Samples from a source; see `tfpasses.manager.Samples`. The first element is read, and checked, when this is made.

    Held at any time are, beside what the source gave last, a batch and the pieces it is made of.
    """

    def __init__(self, intake: Intake, graph: Graph, source: Source) -> None:
        self.intake, self.graph, self.source = intake, graph, source
        self.single = False
        """Whether the elements are samples, and no batches."""
        self._begun = False
        self._seen: list[Piece] = []
        self._rest: Iterator[Piece] | None = None
        """What was read in advance, and where it goes on: the next reading's."""
        self._look(1)
        if not self._seen:
            raise DataError(f"{source.name} holds no samples")

    @property
    def infinite(self) -> bool:
        """Whether there is no end."""
        return self.source.infinite

    @property
    def count(self) -> int | None:
        """How many samples there are, where that is known."""
        if self.source.length is None or not self.intake.parted:
            return None
        if self.single:
            return self.source.length
        return None if self.source.batch is None else self.source.length * self.source.batch

    def batches(self, size: int) -> Iterator[Mapping[str, Array]]:
        """Batches of `size` samples; a smaller one before samples of another shape, and at the end."""
        if self._rest is not None:
            return self._batched(self._go_on(), size, self.intake)
        return self._batched(self._pieces(), size, self.intake)

    def first(self, size: int) -> Mapping[str, Array]:
        """The first of the batches, NaN and infinity among them. This is not a reading: the next begins with the same."""
        self._look(size if self.intake.parted else 1)
        return next(self._batched(iter(self._seen), size, attrs.evolve(self.intake, finite=False)))

    def _look(self, size: int) -> None:
        """Read so many samples in advance, or all there are."""
        if self._rest is None:
            self._seen, self._rest = [], self._pieces()
        size = self.intake.fixed or size
        while sum(piece.size for piece in self._seen) < size:
            if self._seen and not self.source.fixed_memory:  # reading on may write into the same memory
                self._seen[-1] = self._seen[-1].copy()
            piece = next(self._rest, None)
            if piece is None:
                return
            self._seen.append(piece)

    def _go_on(self) -> Iterator[Piece]:
        """The reading that was begun in advance."""
        seen, rest = self._seen, self._rest
        self._seen, self._rest = [], None
        assert rest is not None
        while seen:
            yield seen.pop(0)
        yield from rest

    def _pieces(self) -> Iterator[Piece]:
        """Read the source from its beginning."""
        if not self.source.again and self._begun:
            raise DataError(
                f"{self.source.name} can be read only once, and the data are read again; give a callable that makes one, or a dataset"
            )
        self._begun = True
        for number, element in enumerate(self.source.elements()):
            piece = self._piece(element, number)
            if piece.size:
                yield piece

    def _piece(self, element: Any, number: int) -> Piece:
        """An element as arrays, checked but for their values."""
        where = f" in element {number} (counted from 0)"
        arrays = {name: as_array(name, value, where) for name, value in inputs_of(self.graph, element, where).items()}
        if not self.intake.parted:
            for name, array in arrays.items():
                self.intake.shaped(name, array, where)
            return Piece(arrays, 1)
        one = [array.ndim + 1 == len(self.intake.specs[name].dims) for name, array in arrays.items()]
        self.single = all(one)
        for name, array in arrays.items():
            self.intake.shaped(name, array, where, one=self.single)
        if self.single:
            arrays = {name: array[np.newaxis] for name, array in arrays.items()}
        return Piece(arrays, self.intake.counted(arrays, where))

    def _batched(self, pieces: Iterator[Piece], size: int, intake: Intake) -> Iterator[Mapping[str, Array]]:
        """Pieces cut and joined to batches, and cast."""
        if not intake.parted:
            for piece in pieces:
                yield intake.cast(piece.arrays, 0)
            return
        size = intake.fixed or size
        batch = Filling(size)
        first = 0
        for piece in pieces:
            if batch.size and batch.shapes != piece.shapes:
                intake.filled(batch.size)
                yield batch.taken()
            start = 0
            while start < piece.size:
                stop = min(start + size - batch.size, piece.size)
                raw = {name: array[start:stop] for name, array in piece.arrays.items()}
                cast = intake.cast(raw, first)
                first, start = first + stop - start, stop
                if not batch.size and len(next(iter(raw.values()))) == size:
                    yield cast if self.source.fixed_memory else {name: own(array, raw[name]) for name, array in cast.items()}
                    continue
                batch.put(cast)
                if batch.size == size:
                    yield batch.taken()
        if batch.size:
            intake.filled(batch.size)
            yield batch.taken()


class Filling:
    """A batch that is filled sample by sample, in memory of its own."""

    def __init__(self, most: int) -> None:
        self.most, self.size = most, 0
        self.arrays: dict[str, Array] = {}

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of one sample."""
        return [array.shape[1:] for array in self.arrays.values()]

    def put(self, arrays: Mapping[str, Array]) -> None:
        """Samples more. Words are held as objects, since arrays of them are as wide as their longest."""
        have, more = self.size, len(next(iter(arrays.values())))
        room = len(next(iter(self.arrays.values()))) if have else 0
        if have + more > room:
            room = min(self.most, max(have + more, 2 * room, ROOM))
            before = self.arrays
            kinds = {name: object if array.dtype.kind in "SU" else array.dtype for name, array in arrays.items()}
            self.arrays = {name: np.empty((room, *array.shape[1:]), kinds[name]) for name, array in arrays.items()}
            for name, array in before.items():
                self.arrays[name][:have] = array[:have]
        for name, array in arrays.items():
            self.arrays[name][have : have + more] = array
        self.size += more

    def taken(self) -> Mapping[str, Array]:
        """What is in it; it is empty then."""
        arrays, size = self.arrays, self.size
        self.arrays, self.size = {}, 0
        return {name: array[:size] for name, array in arrays.items()}


ROOM = 256
"""A batch has room for so many samples at first, if it may be so large."""


def own(array: Array, given: Array) -> Array:
    """An array in memory of its own: what it was cast from may be written into when the next is read."""
    return array.copy() if array is given else array
