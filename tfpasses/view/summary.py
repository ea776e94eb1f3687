"""The table at the end of a run, and the remarks below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tfpasses.graph import Rewrite
from tfpasses.manager import PassRecord, Remark, Verdict

__all__ = ["print_remarks", "print_rewrites", "print_summary"]

SHOWN = 20


def print_summary(
    console: Console, records: Sequence[PassRecord], timings: Sequence[tuple[str, float]], verdicts: Sequence[Verdict], verify: str
) -> None:
    """A row a pass: what it rewrote and what it left, how large the graph is, how long it took, what verification says."""
    table = Table(title=None)
    for heading, justify in (("pass", "left"), ("rewrites", "right"), ("left alone", "right"), ("nodes", "right"), ("time", "right"), ("verified", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]  # rich's literals
    for record, (name, seconds) in zip(records, timings, strict=True):
        missed = sum(remark.kind == "missed" for remark in record.remarks)
        nodes = f"{len(record.before.nodes)} -> {len(record.after.nodes)}"
        table.add_row(escape(name), str(len(record.journal)), str(missed), nodes, f"{seconds * 1000:.0f} ms", verified(name, verdicts, verify))
    console.print(table)


def verified(name: str, verdicts: Sequence[Verdict], verify: str) -> str:
    """What was verified of a pass, in words."""
    own = [verdict for verdict in verdicts if verdict.pass_name == name]
    if not own:
        return "not checked" if verify == "off" else verify if verify != "numeric" else "shapes (nothing to compare)"
    worst = max(verdict.error / verdict.bound if verdict.bound else 0.0 for verdict in own)
    return f"numeric: {len(own)} comparisons, worst at {worst:.0%} of its bound"


def print_rewrites(console: Console, rewrites: Sequence[Rewrite]) -> None:
    """A line a rewrite."""
    for rewrite in rewrites:
        console.print(f"  {escape(str(rewrite))}", highlight=False, soft_wrap=True)


def print_remarks(console: Console, remarks: Sequence[Remark], limit: int = SHOWN) -> None:
    """The remarks, those of one reason together, at most `limit` lines."""
    for number, line in enumerate(grouped(remarks)):
        if number == limit:
            console.print(f"  .. {len(list(grouped(remarks))) - limit} more; --json lists them all")
            return
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)


def grouped(remarks: Sequence[Remark]) -> Iterator[str]:
    """`pass: node, node, ..: reason (remedy)`."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for remark in remarks:
        groups.setdefault((remark.pass_name, remark.reason, remark.remedy), []).append(remark.node)
    for (name, reason, remedy), nodes in groups.items():
        named = ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
        yield f"{name}: {named}: {reason}" + (f" ({remedy})" if remedy else "")
