"""Memory for arrays that come and go, used again instead of given back: fresh pages cost many times what a copy into used ones does."""

from __future__ import annotations

import math
import weakref
from collections import deque
from itertools import pairwise
from typing import Any

import attrs
import numpy as np

from tfpasses.graph import Array

__all__ = ["ALIGNMENT", "Blocks"]

ALIGNMENT = 64
"""Arrays begin at addresses that are divisible by this many bytes, as those of TensorFlow's own values do."""
BLOCK = 1 << 30
"""Bytes of a block, where it is not made larger for one array, or smaller for the limit."""


@attrs.define(eq=False)
class Block:
    """Some memory, parts of which are taken."""

    memory: Array
    """[bytes], uint8."""
    free: list[tuple[int, int]]
    """The spans that are not taken, in order, no two of them adjacent."""

    @classmethod
    def of(cls, size: int) -> Block:
        """One of so many bytes, all of them free."""
        memory = np.empty(size + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        return cls(memory[start : start + size], [(0, size)])

    def take(self, size: int) -> tuple[int, int] | None:
        """The first free span of so many bytes, no longer free; None where there is none."""
        for place, (start, stop) in enumerate(self.free):
            if stop - start >= size:
                end = min(start + -(-size // ALIGNMENT) * ALIGNMENT, stop)
                self.free[place : place + 1] = [(end, stop)] if end < stop else []
                return start, end
        return None

    def give(self, span: tuple[int, int]) -> None:
        """Let a span be free again."""
        spans = sorted([*self.free, span])
        ends = [start for before, (start, _) in pairwise([(-1, -1), *spans]) if before[1] != start]
        stops = [stop for (_, stop), after in pairwise([*spans, (-1, -1)]) if after[0] != stop]
        self.free = list(zip(ends, stops, strict=True))

    @property
    def idle(self) -> bool:
        """Whether nothing of it is taken."""
        return self.free == [(0, len(self.memory))]


@attrs.define(eq=False)
class Blocks:
    """Blocks of at most so many bytes in all, made when they are needed."""

    limit: int
    blocks: list[Block] = attrs.field(factory=list)
    returned: deque[tuple[Block, tuple[int, int]]] = attrs.field(factory=deque)
    """What is to be given back: an array may be let go at any time, on any thread, so that nothing else is done then."""

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
        """An array of any content, whose memory is free again when it is let go; None where there is no room."""
        found = self.room(math.prod(shape) * dtype.itemsize)
        if found is None:
            return None
        block, (start, _) = found
        made: np.ndarray[Any, Any] = np.ndarray(shape, dtype, buffer=block.memory, offset=start)
        weakref.finalize(made, self.returned.append, found).atexit = False
        return made

    def room(self, size: int) -> tuple[Block, tuple[int, int]] | None:
        """So many bytes in a row, of one block, taken."""
        while self.returned:
            block, span = self.returned.popleft()
            block.give(span)
        for block in self.blocks:
            taken = block.take(size)
            if taken is not None:
                return block, taken
        left = self.limit - sum(len(block.memory) for block in self.blocks)
        if left < size:
            idle = [block for block in self.blocks if block.idle]
            left += sum(len(block.memory) for block in idle)
            if left < size:
                return None
            self.blocks = [block for block in self.blocks if block not in idle]
        made = Block.of(max(size, min(BLOCK, left)))
        self.blocks.append(made)
        taken = made.take(size)
        return None if taken is None else (made, taken)
