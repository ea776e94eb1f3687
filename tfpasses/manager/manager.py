"""The pass manager: plans, runs the passes one after the other, tells the observers."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from tfpasses.graph import Edit, Evaluator, Graph, Rewrite, TfpassesError
from tfpasses.manager.contract import Property
from tfpasses.manager.errors import DataError, PassError
from tfpasses.manager.observers import Observer, PassRecord
from tfpasses.manager.passes import Context, Pass
from tfpasses.manager.pipeline import Pipeline
from tfpasses.manager.plan import plan
from tfpasses.manager.samples import Samples
from tfpasses.manager.workers import Workers
from tfpasses.pattern import RewriteError

__all__ = ["run_passes"]


def run_passes(
    graph: Graph,
    pipeline: Pipeline,
    observers: Sequence[Observer] = (),
    evaluator: Evaluator | None = None,
    data: Samples | None = None,
    workers: Workers | None = None,
) -> Graph:
    """Run a pipeline. The graph that goes in is never changed; the one that comes out shares what was not touched. `data` are for passes
    that look at such; they need the evaluator. `workers` are there where several processes run it together.

    Raises `PipelineError` before anything runs, `PassError` (with its cause) where a pass raises, `DataError` where the data
    cannot be read or do not fit, and whatever an observer raises.
    """
    passes = plan(pipeline.passes, graph, has_data=data is not None)
    for observer in observers:
        observer.run_started(passes, graph)
    for item in passes:
        for observer in observers:
            observer.pass_started(item, graph)
        record = run_pass(item, graph, observers, Context(evaluator, data, workers))
        for observer in observers:
            observer.pass_ended(record)
        graph = record.after
    for observer in observers:
        observer.run_ended(graph)
    return graph


def run_pass(
    item: Pass,
    graph: Graph,
    observers: Sequence[Observer],
    context: Context,
) -> PassRecord:
    """One pass on one graph."""
    edit = Edit(graph, made_by=item.name)

    raised: list[Exception] = []

    def on_rewrite(rewrite: Rewrite) -> None:
        try:
            for observer in observers:
                observer.rewritten(item, rewrite)
        except Exception as error:
            raised.append(error)
            raise

    def on_progress(done: int, whole: int | None) -> None:
        for observer in observers:
            observer.progressed(item, done, whole)

    try:
        remarks = tuple(item.apply(edit, attrs.evolve(context, on_rewrite=on_rewrite, on_progress=on_progress)))
        after = edit.freeze()
    except Exception as error:
        if error in raised or isinstance(error, DataError):  # the observer's own, or the user's data: no fault of the pass
            raise
        if isinstance(error, RewriteError):
            raise PassError(f"pass {error}") from error
        if isinstance(error, TfpassesError):
            raise PassError(f"pass {item.name}: {error}") from error
        raise PassError(f"pass {item.name} failed after {len(edit.journal)} rewrites: {type(error).__name__}: {error}") from error
    return PassRecord(item, graph, drop_broken_facts(item, graph, after), tuple(edit.journal), remarks)


def drop_broken_facts(item: Pass, before: Graph, after: Graph) -> Graph:
    """Facts of a kind that the pass breaks, and that it did not renew, are no longer true."""
    kinds = {broken.kind for broken in item.contract.breaks if not isinstance(broken, Property)}
    stale = {key for key, fact in after.facts.items() if key[1] in kinds and before.facts.get(key) is fact}
    return attrs.evolve(after, facts={key: fact for key, fact in after.facts.items() if key not in stale}) if stale else after
