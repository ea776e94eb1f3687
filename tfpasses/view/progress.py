"""The progress bar: an observer. There is none when standard error is not a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tfpasses.graph import Graph, Rewrite
from tfpasses.manager import Observer, Pass, PassRecord

__all__ = ["ProgressBar"]

READ_AND_WRITE = 2


class ProgressBar(Observer):
    """Reading, each pass with its count of rewrites, writing."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress, self.task, self.rewrites = progress, task, 0

    @classmethod
    @contextmanager
    def shown(cls, passes: int) -> Iterator[ProgressBar]:
        """Show a bar on standard error, if that is a terminal, for as long as the block runs."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with (
            own_stderr() as stream,
            Progress(*columns, console=Console(file=stream), transient=True, disable=not stream.isatty()) as progress,
        ):
            yield cls(progress, progress.add_task("starting", total=passes + READ_AND_WRITE))

    def step(self, description: str) -> None:
        """A step begins that no observer hears of."""
        self.progress.update(self.task, description=description)

    def done(self) -> None:
        """That step has ended."""
        self.progress.advance(self.task)

    def run_started(self, passes: Sequence[Pass], graph: Graph) -> None:
        """Reading has ended."""
        self.done()

    def pass_started(self, pass_: Pass, graph: Graph) -> None:
        """The bar says which pass."""
        self.rewrites = 0
        self.step(pass_.name)

    def rewritten(self, pass_: Pass, rewrite: Rewrite) -> None:
        """Now and then the bar says how many."""
        self.rewrites += 1
        if self.rewrites % 16 == 0:
            self.step(f"{pass_.name}: {self.rewrites} rewrites")

    def pass_ended(self, record: PassRecord) -> None:
        """A step further."""
        self.done()

    def run_ended(self, graph: Graph) -> None:
        """What follows is the frontend's work."""
        self.step("building the new model")


@contextmanager
def own_stderr() -> Iterator[TextIO]:
    """Standard error; if a terminal, by a descriptor of its own, so that the bar lives on while chatter on the common one is silenced."""
    if not sys.stderr.isatty():
        yield sys.stderr
        return
    with os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding) as stream:
        yield stream
