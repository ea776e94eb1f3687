"""Memory that is used again: arrays lie apart from one another while they are kept, and what is let go is taken anew."""

from __future__ import annotations

import gc
import weakref

import ml_dtypes
import numpy as np
import pytest

from tfpasses.passes.correction import blocks
from tfpasses.passes.correction.blocks import ALIGNMENT, Blocks

BYTES = np.dtype(np.uint8)


def address(array):
    return array.ctypes.data


def test_arrays_have_the_shape_and_dtype_asked_for_and_begin_aligned():
    room = Blocks(10_000)
    for dtype in ("float32", "float16", "int64", "bool", ml_dtypes.bfloat16):
        for shape in ((), (3,), (2, 0), (5, 3)):
            made = room.array(shape, np.dtype(dtype))
            assert (made.shape, made.dtype) == (shape, np.dtype(dtype))
            assert made.flags.c_contiguous and address(made) % ALIGNMENT == 0


def test_what_is_kept_is_never_written_over_and_stays_within_the_limit():
    generator = np.random.default_rng(0)
    room, kept, refused = Blocks(20_000), [], 0
    for number in range(2_000):
        while kept and generator.random() < 0.5:
            kept.pop(generator.integers(len(kept)))
        made = room.array((int(generator.integers(0, 4_000)),), BYTES)
        if made is None:
            refused += 1
        else:
            made[:] = number % 251
            kept.append((made, number % 251))
        assert sum(len(array) for array, _ in kept) <= 20_000
        assert sum(len(block.memory) for block in room.blocks) <= 20_000
    assert refused > 0
    assert all((array == value).all() for array, value in kept)


def test_what_is_let_go_is_taken_anew():
    room = Blocks(1_000)
    first = room.array((1_000,), BYTES)
    place = address(first)
    assert room.array((1,), BYTES) is None
    del first
    assert address(room.array((1_000,), BYTES)) == place


def test_neighbours_that_are_let_go_make_room_for_a_large_one():
    for order in ((0, 1, 2), (0, 2, 1), (2, 1, 0), (1, 0, 2)):
        room = Blocks(3 * ALIGNMENT)
        parts = dict(enumerate(room.array((ALIGNMENT,), BYTES) for _ in range(3)))
        for number in order:
            del parts[number]
        assert room.array((3 * ALIGNMENT,), BYTES) is not None


def test_neighbours_of_one_that_is_kept_make_no_room():
    room = Blocks(3 * ALIGNMENT)
    parts = [room.array((ALIGNMENT,), BYTES) for _ in range(3)]
    kept = parts[1]
    parts.clear()
    assert room.array((2 * ALIGNMENT,), BYTES) is None
    assert room.array((ALIGNMENT,), BYTES) is not None and kept is not None


def test_a_view_of_memory_that_another_library_holds_keeps_it():
    room = Blocks(ALIGNMENT)
    made = room.array((ALIGNMENT,), BYTES)
    capsule = made.__dlpack__()
    del made
    gc.collect()
    assert room.array((ALIGNMENT,), BYTES) is None
    del capsule
    assert room.array((ALIGNMENT,), BYTES) is not None


def test_idle_blocks_make_way_for_an_array_that_none_of_them_holds(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 100)
    room = Blocks(300)
    parts = [room.array((100,), BYTES) for _ in range(3)]
    kept = parts.pop()
    idle = [weakref.ref(block.memory) for block in room.blocks[:2]]
    assert room.array((200,), BYTES) is None
    parts.clear()
    assert room.array((200,), BYTES) is not None and kept is not None
    assert [one() for one in idle] == [None, None]


@pytest.mark.parametrize("limit", [0, -1, 15])
def test_what_is_larger_than_the_limit_has_no_room(limit):
    room = Blocks(limit)
    assert room.array((16,), BYTES) is None
    assert room.blocks == []
