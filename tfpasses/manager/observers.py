"""Observers: they watch a run. Timing, remarks, the journal, verification and the progress bar are all observers."""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs

from tfpasses.graph import Graph, Rewrite, check_shapes, check_structure
from tfpasses.manager.errors import VerificationError
from tfpasses.manager.passes import Pass, Remark

__all__ = ["Journal", "Observer", "PassRecord", "RemarkLog", "ShapeCheck", "StructureCheck", "Timing"]


@attrs.frozen(eq=False)
class PassRecord:
    """What one pass did."""

    pass_: Pass
    before: Graph
    after: Graph
    journal: tuple[Rewrite, ...]
    remarks: tuple[Remark, ...]


class Observer:
    """Base: every method does nothing. An exception raised in one stops the run."""

    def run_started(self, passes: Sequence[Pass], graph: Graph) -> None:
        """The passes are ordered; none has run."""

    def pass_started(self, pass_: Pass, graph: Graph) -> None:
        """A pass is about to run on the graph."""

    def rewritten(self, pass_: Pass, rewrite: Rewrite) -> None:
        """A rewrite was made; the pass may still fail."""

    def progressed(self, pass_: Pass, done: int, whole: int | None) -> None:
        """Of what a pass does so many steps are done, of so many where that is known."""

    def pass_ended(self, record: PassRecord) -> None:
        """A pass has ended without an error."""

    def run_ended(self, graph: Graph) -> None:
        """All passes have ended."""


@attrs.define
class Timing(Observer):
    """Seconds a pass, rewriting only, in the order of running."""

    seconds: list[tuple[str, float]] = attrs.field(factory=list)
    _start: float = 0.0

    def pass_started(self, pass_: Pass, graph: Graph) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def pass_ended(self, record: PassRecord) -> None:
        """Stop the clock."""
        self.seconds.append((record.pass_.name, time.perf_counter() - self._start))


@attrs.define
class RemarkLog(Observer):
    """All remarks, in order."""

    remarks: list[Remark] = attrs.field(factory=list)

    def pass_ended(self, record: PassRecord) -> None:
        """Keep the remarks."""
        self.remarks.extend(record.remarks)


@attrs.define
class Journal(Observer):
    """A record a pass, with its snapshots and rewrites. Snapshots share what was not touched, so keeping them costs little."""

    records: list[PassRecord] = attrs.field(factory=list)

    def pass_ended(self, record: PassRecord) -> None:
        """Keep the record."""
        self.records.append(record)


class StructureCheck(Observer):
    """After each pass: is the graph well-formed?"""

    def pass_ended(self, record: PassRecord) -> None:
        """Raise `VerificationError` where it is not."""
        try:
            check_structure(record.after)
        except ValueError as error:
            raise VerificationError(f"pass {record.pass_.name} left a graph that is not well-formed: {error}") from error


class ShapeCheck(Observer):
    """After each pass: does every node have the shape that its operation gives?"""

    def pass_ended(self, record: PassRecord) -> None:
        """Raise `VerificationError` where one does not."""
        try:
            check_shapes(record.after, record.before)
        except ValueError as error:
            raise VerificationError(f"pass {record.pass_.name} left shapes that do not fit: {error}") from error
