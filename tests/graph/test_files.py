import os

import pytest

from tfpasses.graph import WriteError, atomic_write


def test_what_was_written_beside_is_the_target_afterwards(tmp_path):
    with atomic_write(tmp_path / "out.txt") as beside:
        beside.write_text("new")
    assert (tmp_path / "out.txt").read_text() == "new"


def test_the_target_is_the_old_file_until_the_block_ends(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("old")
    with atomic_write(target) as beside:
        beside.write_text("new")
        assert target.read_text() == "old"


def test_the_path_beside_has_the_targets_suffix(tmp_path):
    with atomic_write(tmp_path / "model.keras") as beside:
        assert (beside.suffix, beside.parent) == (".keras", tmp_path)


def interrupted(target, error):
    with pytest.raises(type(error)), atomic_write(target) as beside:
        beside.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()], ids=repr)
def test_an_error_inside_the_block_leaves_the_old_file(tmp_path, error):
    target = tmp_path / "out.txt"
    target.write_text("old")
    interrupted(target, error)
    assert target.read_text() == "old"


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()], ids=repr)
def test_an_error_inside_the_block_leaves_nothing_beside(tmp_path, error):
    interrupted(tmp_path / "out.txt", error)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_write_error(tmp_path):
    with pytest.raises(WriteError, match=r"out.txt: cannot be written: No space left"), atomic_write(tmp_path / "out.txt"):
        raise OSError(28, "No space left on device")


def test_a_folder_is_not_overwritten(tmp_path):
    with pytest.raises(WriteError, match="is a directory; name a file"), atomic_write(tmp_path):
        pytest.fail("the block runs")


def test_a_missing_folder_is_a_write_error(tmp_path):
    with pytest.raises(WriteError, match=r"none/out.txt: cannot be written: No such file"), atomic_write(tmp_path / "none" / "out.txt"):
        pytest.fail("the block runs")


def test_an_existing_files_mode_is_kept(tmp_path):
    target = tmp_path / "out.txt"
    target.touch(mode=0o600)
    with atomic_write(target) as beside:
        beside.write_text("new")
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_new_files_mode_is_the_umasks(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "out.txt"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "out.txt").stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link_and_the_file_behind_it_is_replaced(tmp_path):
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    link.symlink_to(real)
    with atomic_write(link) as beside:
        beside.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"
