"""The table at the end of a run with the remarks below it, and the table of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tfpasses.graph import Rewrite
from tfpasses.manager import PassRecord, Remark, Verdict

__all__ = ["print_differences", "print_remarks", "print_rewrites", "print_summary"]

SHOWN = 20


def print_summary(
    console: Console, records: Sequence[PassRecord], timings: Sequence[tuple[str, float]], verdicts: Sequence[Verdict], verify: str
) -> None:
    """A row a pass: what it rewrote and what it left, how large the graph is, how long it took, what verification says."""
    table = new_table("pass")
    for heading in ("rewrites", "left alone", "nodes", "time"):
        table.add_column(heading, justify="right")
    table.add_column("verified")
    for record, (name, seconds) in zip(records, timings, strict=True):
        missed = sum(remark.kind == "missed" for remark in record.remarks)
        nodes = f"{len(record.before.nodes)} -> {len(record.after.nodes)}"
        table.add_row(
            escape(name), str(len(record.journal)), str(missed), nodes, f"{seconds * 1000:.0f} ms", verified(name, verdicts, verify)
        )
    console.print(table)


def new_table(first: str) -> Table:
    """A table without a frame, whose first column is never cut."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(first, no_wrap=True)
    return table


def verified(name: str, verdicts: Sequence[Verdict], verify: str) -> str:
    """What was verified of a pass, in words."""
    own = [verdict for verdict in verdicts if verdict.pass_name == name]
    if not own:
        return "not checked" if verify == "off" else verify if verify != "numeric" else "shapes (nothing to compare)"
    worst = max(verdict.error / verdict.bound if verdict.bound else 0.0 for verdict in own)
    return f"numeric: {len(own)} check{'s' * (len(own) > 1)}, at most {worst:.0%} of the bound"


def print_rewrites(console: Console, rewrites: Sequence[Rewrite]) -> None:
    """A line a rewrite."""
    for rewrite in rewrites:
        console.print(f"  {escape(str(rewrite))}", highlight=False, soft_wrap=True)


def print_differences(console: Console, differences: Sequence[Any]) -> None:
    """A row an output of two compared models (`OutputDifference`)."""
    table = new_table("output")
    for heading in ("max difference", "mean difference", "allowed", "output's scale"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for d in differences:
        verdict = "ok" if d.ok else "[red]DIFFERS[/red]"
        table.add_row(escape(d.output), *(f"{value:.3g}" for value in (d.maximum, d.mean, d.allowed, d.scale)), verdict)
    console.print(table)


def print_remarks(console: Console, remarks: Sequence[Remark], limit: int = SHOWN) -> None:
    """The remarks, those of one reason together, at most `limit` lines."""
    lines = list(grouped(remarks))
    for line in lines[:limit]:
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    if len(lines) > limit:
        console.print(f"  .. and {len(lines) - limit} more; --json lists them all", highlight=False)


def grouped(remarks: Sequence[Remark]) -> Iterator[str]:
    """`pass: node, node, ..: reason (remedy)`."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for remark in remarks:
        groups.setdefault((remark.pass_name, remark.reason, remark.remedy), []).append(remark.node)
    for (name, reason, remedy), nodes in groups.items():
        named = ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
        yield f"{name}: {named}: {reason}" + (f" ({remedy})" if remedy else "")
