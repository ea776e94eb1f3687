"""The part of the data that one of several workers reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from tfpasses.data.arrays import ArraySamples
from tfpasses.data.streams import StreamSamples
from tfpasses.graph import Array

__all__ = ["Shard", "shared_out"]


def shared_out(samples: ArraySamples | StreamSamples, rank: int, count: int) -> ArraySamples | StreamSamples | Shard:
    """The part of the worker of a rank, of so many: of a dataset what `tf.data` gives it by its policy of sharding, of image files every
    one of so many, of anything else, and of those that are fewer than the workers, every sample of so many. Together the parts are all
    samples, each once; some may be empty.
    """
    few = isinstance(samples, StreamSamples) and samples.source.length is not None and samples.source.length < count
    if isinstance(samples, StreamSamples) and samples.source.part is not None and not few:
        return StreamSamples(samples.intake, samples.graph, samples.source.part(rank, count))
    return Shard(samples, rank, count)


@attrs.frozen(eq=False)
class Shard:
    """Every sample of so many; of a model that takes a fixed number, or has no axis of samples, every batch of so many. Each worker reads
    all of the data, and gives its part of them. See `tfpasses.manager.Samples`.
    """

    whole: ArraySamples | StreamSamples
    rank: int
    workers: int

    @property
    def count(self) -> int | None:
        """How many samples there are in the part."""
        known = self.whole.count
        return None if known is None else (known - self.rank + self.workers - 1) // self.workers

    @property
    def infinite(self) -> bool:
        """Whether there is no end."""
        return self.whole.infinite

    def batches(self, size: int) -> Iterator[Mapping[str, Array]]:
        """This worker's part of batches that are larger by the number of workers."""
        if self.whole.intake.fixed is not None or not self.whole.intake.parted:
            yield from (batch for number, batch in enumerate(self.whole.batches(size)) if number % self.workers == self.rank)
            return
        for batch in self.whole.batches(size * self.workers):
            mine = {name: array[self.rank :: self.workers] for name, array in batch.items()}
            if len(next(iter(mine.values()))):
                yield mine

    def first(self, size: int) -> Mapping[str, Array]:
        """The first of all batches: the same for each worker."""
        return self.whole.first(size)
