"""Values that wait: in memory up to a limit, beyond it in files."""

from __future__ import annotations

import tempfile

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from tfpasses.passes.correction.live import Live, read_size


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def numbers(count=10, dtype="float32"):
    return np.arange(count).astype(dtype).reshape(2, -1)


@pytest.mark.parametrize(
    ("text", "size"), [("7", 7), ("2GB", 2 * 10**9), ("1.5 kb", 1500), ("512MiB", 512 * 2**20), (" 3 TiB ", 3 * 2**40), ("0", 0)]
)
def test_sizes_are_read(text, size):
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "2 GBs", "1,5GB", "nan"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="is no size of memory; write one as 2GB or 512MiB"):
        read_size(text)


def test_three_quarters_of_the_limit_wait_as_they_are_and_the_rest_in_files():
    values = [tf.constant(numbers(16)) for _ in range(4)]
    with Live(4 * 64) as live:
        waiting = [live.hold(value) for value in values]
        assert [one.value is value for one, value in zip(waiting, values, strict=True)] == [True, True, True, False]
        assert waiting[3].value.tolist() == values[3].numpy().tolist()
        assert (live.kept, live.spilled) == (192, 64)


def test_room_is_given_back_when_a_value_is_let_go():
    with Live(4 * 64) as live:
        waiting = [live.hold(numbers(16)) for _ in range(2)]
        del waiting
        assert live.kept == 0
        again = [live.hold(numbers(16)) for _ in range(2)]
        assert live.spilled == 0 and len(again) == 2


@pytest.mark.parametrize("dtype", ["float32", "float16", ml_dtypes.bfloat16, "int64", "bool"])
def test_what_does_not_fit_comes_back_from_a_file_that_goes_with_it(folder, dtype):
    value = numbers(dtype=dtype)
    with Live(0) as live:
        waiting = live.hold(value)
        assert live.spilled == value.nbytes and live.kept == 0
        assert len(list(folder.glob("*/*"))) == 1
        back = waiting.value
        assert back.dtype == value.dtype
        np.testing.assert_array_equal(back, value)
        del waiting
        assert list(folder.glob("*/*")) == []
    assert list(folder.iterdir()) == []


def test_no_file_outlasts_an_error(folder):
    with pytest.raises(KeyError), Live(0) as live:
        kept = live.hold(numbers())
        raise KeyError(kept)
    assert list(folder.iterdir()) == []


def test_without_spilling_no_folder_is_made(folder):
    with Live(100) as live:
        live.hold(numbers())
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("shape", [(), (0, 3), (1, 0)])
def test_odd_shapes_come_back(shape):
    with Live(-1) as live:
        waiting = live.hold(np.ones(shape, "float32"))
        assert waiting.value.shape == shape
