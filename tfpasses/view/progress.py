"""The progress bar: an observer. A row for the run, and one for a pass that tells its steps. None when standard error is no terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tfpasses.graph import Graph, Rewrite
from tfpasses.manager import Observer, Pass, PassRecord

__all__ = ["ProgressBar"]

READ_AND_WRITE = 2


class Share(ProgressColumn):
    """How much is done, in percent; where the whole is not known, how many steps."""

    def render(self, task: Task) -> Text:
        """As a column of rich."""
        return Text(f"{task.completed:.0f} done" if task.total is None else f"{task.percentage:3.0f} %")


class TimeLeft(TimeRemainingColumn):
    """The time left, where there is an idea of it."""

    def render(self, task: Task) -> Text:
        """As a column of rich."""
        time = super().render(task)
        return time.append(" left") if time.plain else time


class Rows(Progress):
    """A row for the run and, while a pass tells its steps, one for those, which has the time left."""

    run = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    steps = (TextColumn("{task.description}"), BarColumn(), Share(), TimeLeft())

    def get_renderables(self) -> Iterable[RenderableType]:
        """A table a row, since rich has one set of columns for all rows of a table."""
        for task in self.tasks:
            self.columns = self.steps if task.fields.get("is_steps") else self.run
            yield self.make_tasks_table([task])


class ProgressBar(Observer):
    """Reading, each pass with its count of rewrites, writing; under it what a pass tells of its steps, with the time left."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress, self.task, self.rewrites = progress, task, 0
        self.steps: TaskID | None = None

    @classmethod
    @contextmanager
    def shown(cls, passes: int) -> Iterator[ProgressBar]:
        """Show a bar on standard error, if that is a terminal, for as long as the block runs."""
        with (
            own_stderr() as stream,
            Rows(console=Console(file=stream), transient=True, disable=not stream.isatty()) as progress,
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

    def progressed(self, pass_: Pass, done: int, whole: int | None) -> None:
        """The row of the steps, from the first that is told."""
        if self.steps is None:
            self.steps = self.progress.add_task("  steps", total=whole, completed=done, is_steps=True)
        self.progress.update(self.steps, completed=done, total=whole)

    def pass_ended(self, record: PassRecord) -> None:
        """A step further."""
        if self.steps is not None:
            self.progress.remove_task(self.steps)
            self.steps = None
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
