import io

from rich.console import Console

from tfpasses.manager import Remark
from tfpasses.view import ProgressBar, print_remarks


def printed(remarks, **options):
    console = Console(file=io.StringIO(), width=100)
    print_remarks(console, remarks, **options)
    return [line.strip() for line in console.file.getvalue().splitlines()]


def test_remarks_of_one_reason_share_a_line():
    assert printed([Remark("p", "missed", name, "it is shared") for name in "ab"]) == ["p: a, b: it is shared"]


def test_of_many_nodes_three_are_named():
    assert printed([Remark("p", "missed", name, "it is shared") for name in "abcde"]) == ["p: a, b, c and 2 more: it is shared"]


def test_a_remedy_stands_behind_its_reason():
    assert printed([Remark("p", "missed", "a", "it is shared", "copy it")]) == ["p: a: it is shared (copy it)"]


def test_many_reasons_are_cut_short():
    lines = printed([Remark("p", "missed", "a", f"reason {number}") for number in range(5)], limit=2)
    assert lines == ["p: a: reason 0", "p: a: reason 1", ".. and 3 more; --json lists them all"]


def test_a_long_remark_is_not_broken():
    assert printed([Remark("p", "missed", "a", "word " * 50 + "end")])[0].endswith("end")


def test_square_brackets_are_no_markup():
    assert printed([Remark("p", "missed", "a", "shape [red]x[/red] [1,2]")]) == ["p: a: shape [red]x[/red] [1,2]"]


def test_there_is_no_bar_where_standard_error_is_no_terminal(capfd):
    with ProgressBar.shown(3) as bar:
        bar.step("reading")
        bar.done()
    assert capfd.readouterr() == ("", "")
