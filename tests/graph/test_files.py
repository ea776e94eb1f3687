import os

import pytest

from tfpasses.graph import WriteError, atomic_directory, atomic_write


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


# folders


def fill(folder, text="new"):
    (folder / "part").mkdir()
    (folder / "part" / "file").write_text(text)
    (folder / "marker").touch()


def text_of(folder):
    return (folder / "part" / "file").read_text()


def test_a_folder_takes_its_place_when_the_block_has_ended(tmp_path):
    with atomic_directory(tmp_path / "out", "marker") as beside:
        fill(beside)
        assert not (tmp_path / "out").exists()
    assert text_of(tmp_path / "out") == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_the_target_is_the_old_folder_until_the_block_ends(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    fill(target, "old")
    (target / "left over").touch()
    with atomic_directory(target, "marker") as beside:
        fill(beside)
        assert text_of(target) == "old"
    assert text_of(target) == "new"
    assert sorted(file.name for file in target.iterdir()) == ["marker", "part"]
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()], ids=repr)
def test_an_error_inside_the_block_leaves_the_old_folder(tmp_path, error):
    target = tmp_path / "out"
    target.mkdir()
    fill(target, "old")
    with pytest.raises(type(error)), atomic_directory(target, "marker") as beside:
        fill(beside)
        raise error
    assert text_of(target) == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_the_old_folder_comes_back_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    target = tmp_path / "out"
    target.mkdir()
    fill(target, "old")
    rename = type(target).rename

    def fails(path, to):
        if to == target and not path.name.endswith(".old"):
            raise OSError(28, "No space left on device")
        return rename(path, to)

    monkeypatch.setattr(type(target), "rename", fails)
    with pytest.raises(WriteError, match="out: cannot be written: No space left"), atomic_directory(target, "marker") as beside:
        fill(beside)
    assert text_of(target) == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    with atomic_directory(tmp_path / "out", "marker") as beside:
        fill(beside)
    assert text_of(tmp_path / "out") == "new"


def test_a_folder_of_other_things_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(WriteError, match="is a folder of other things, with no marker; name another"), atomic_directory(tmp_path, "marker"):
        pytest.fail("the block runs")
    assert (tmp_path / "thesis.tex").exists()


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "out").write_text("old")
    with pytest.raises(WriteError, match="is a file; name a folder"), atomic_directory(tmp_path / "out", "marker"):
        pytest.fail("the block runs")


def test_a_missing_parent_is_a_write_error(tmp_path):
    with (
        pytest.raises(WriteError, match="none/out: cannot be written: No such file"),
        atomic_directory(tmp_path / "none" / "out", "marker"),
    ):
        pytest.fail("the block runs")


def test_a_new_folders_mode_is_the_umasks(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_directory(tmp_path / "out", "marker"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    fill(real, "old")
    link.symlink_to(real)
    with atomic_directory(link, "marker") as beside:
        fill(beside)
    assert link.is_symlink()
    assert text_of(real) == "new"
