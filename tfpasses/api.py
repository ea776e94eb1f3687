"""What a user calls: read, run, write. Glue between models and the manager; TensorFlow is imported by the calls that need it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np

from tfpasses import models
from tfpasses.data import read_data, samples_of, shared_out
from tfpasses.graph import Array, Evaluator, Graph, GraphError, Ref, Rewrite, TfpassesError
from tfpasses.known import CANONICALIZE, Facts, check_facts, has_operations, read_facts, rename_facts, write_facts
from tfpasses.manager import (
    DataError,
    Journal,
    NumericCheck,
    Observer,
    OutputDifference,
    Pass,
    PassRecord,
    Pipeline,
    Remark,
    RemarkLog,
    ShapeCheck,
    StructureCheck,
    Timing,
    Verdict,
    VerificationError,
    all_batches,
    compare_outputs,
    random_inputs,
    run_passes,
    worst_of,
)
from tfpasses.workers import StrategyWorkers

__all__ = [
    "LEVELS",
    "DataError",
    "OutputDifference",
    "Result",
    "Verify",
    "compare_models",
    "from_concrete_function",
    "from_graph_def",
    "from_keras",
    "from_saved_model",
    "from_session",
    "load",
    "read_data",
    "run",
    "save",
]

Verify = Literal["off", "structure", "shapes", "numeric"]
LEVELS: Sequence[Verify] = ("off", "structure", "shapes", "numeric")


@attrs.frozen(eq=False)
class Result:
    """What a run gives."""

    model: Any
    """Of the kind that went in: a new Keras model for a Keras model, a GraphDef for a GraphDef, a graph for a graph, and so on."""
    graph: Graph
    """The rewritten graph, with its facts."""
    remarks: tuple[Remark, ...]
    timings: tuple[tuple[str, float], ...]
    """Seconds a pass, in the order of running."""
    journal: tuple[PassRecord, ...]
    """A record a pass: the graphs before and after, and every rewrite."""
    verdicts: tuple[Verdict, ...] = ()
    """What numeric verification measured."""
    names: models.Names = attrs.field(factory=dict)
    """Node of `graph` -> its name when `model` is read again, where that differs."""

    origin: Path | None = None
    """The file that went in, where it was one."""
    changed: bool = True
    """Whether anything was rewritten, but for raising operations that are written as they were read."""

    @property
    def rewrites(self) -> tuple[Rewrite, ...]:
        """Every rewrite of the run, in order."""
        return tuple(rewrite for record in self.journal for rewrite in record.journal)

    def detached(self) -> Result:
        """The same without the journal, and with the graph as it is read from the new model: nothing in it keeps the model that went in,
        or its weights, in memory. Of a graph that went in only the journal is let go: a graph keeps the model it was read from.
        """
        if isinstance(self.model, Graph):
            return attrs.evolve(self, journal=())
        graph = attrs.evolve(models.read_again(self.model, self.graph), facts=rename_facts(self.graph.facts, self.names))
        return attrs.evolve(self, journal=(), graph=graph, names={})


def from_keras(model: Any) -> Graph:
    """Read a built Functional or Sequential model. Nothing is copied or changed. Raises `UnsupportedModelError` for any other model."""
    from tfpasses.frontends import keras as frontend

    return frontend.from_keras(model)


def from_graph_def(definition: Any, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None) -> Graph:
    """Read a `tf.compat.v1.GraphDef`, without its variables.

    `inputs` are names of placeholders, without them all. `outputs` are values (`node`, `node:1`); without them the results that
    TensorFlow names `Identity`, `Identity_1`, .., or the one node that nothing reads. Raises `GraphError`, one line, for a malformed one.
    """
    from tfpasses.frontends import graph_def as frontend

    return frontend.from_graph_def(definition, inputs, outputs)


def from_concrete_function(function: Any) -> Graph:
    """Read a `ConcreteFunction`, or a `tf.function` of one trace, with its variables. Raises `UnsupportedModelError` for another."""
    from tfpasses.frontends import graph_def as frontend

    return frontend.from_concrete_function(function)


def from_saved_model(source: Any, signature: str | None = None, tags: str | Sequence[str] | None = None) -> Graph:
    """Read a SavedModel's folder, or what `tf.saved_model.load` gave: every signature, or the named one.

    Raises `UnsupportedModelError`, one line, naming what there is.
    """
    from tfpasses.frontends import graph_def as frontend

    return frontend.from_saved_model(source, signature, tags)


def from_session(session: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
    """Read the graph of a `tf.compat.v1.Session` with the values of its variables, between placeholders and values named by the caller.

    Raises `UnsupportedModelError`, one line, for unknown names, uninitialized variables and a closed session.
    """
    from tfpasses.frontends import graph_def as frontend

    return frontend.from_session(session, inputs, outputs)


def load(path: str | Path, facts: str | Path | None = None, wanted: models.Selection = models.EVERYTHING) -> Graph:
    """Read a model file (`.keras`, `.h5`, `.pb`, `.pbtxt`) or a SavedModel's folder into a graph, with the facts that an earlier run saved
    beside it.

    Raises `UnsupportedModelError` or `FactsError`, one line, naming the file and what to do.
    """
    _, graph = models.opened(path, wanted)
    return graph if facts is None else attrs.evolve(graph, facts=read_facts(facts, graph))


def save(what: Any, path: str | Path, facts: str | Path | None = None) -> None:
    """Write a graph, a model or a `Result` as the path's suffix says (a path without suffix is a SavedModel's folder); with `facts`, also
    what is known of its values (`.npz`).

    Raises `UnsupportedModelError` where the format cannot hold the model, `WriteError` where a file cannot be written.
    """
    result = what if isinstance(what, Result) else None
    model, names = (what, {}) if result is None else (result.model, result.names)
    graph = models.read(what) if result is None else result.graph
    if result is not None and result.origin is not None and not result.changed and models.same_kind(result.origin, Path(path)):
        models.copy_file(result.origin, Path(path))
    else:
        if isinstance(model, Graph) and facts is not None:  # whose names the written model has
            model, names = models.write(model)
        models.save_file(graph, path, None if isinstance(model, Graph) else model)
    if facts is not None:
        written = models.opened(path)[1] if models.differs_in_file(graph, path) else models.read_again(model, graph)
        write_facts(facts, rename_facts(graph.facts, names), written)


def run(
    model: Any,
    pipeline: str | Pipeline | Pass | Iterable[Pass | str],
    *,
    verify: Verify = "shapes",
    data: Any = None,
    facts: Facts | str | Path | None = None,
    observers: Sequence[Observer] = (),
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    signature: str | None = None,
    strategy: Any = None,
    progress: bool = False,
) -> Result:
    """Run a pipeline on a model, and give a rewritten one of the same kind: a Keras model, a GraphDef, a (concrete) function, a SavedModel
    (its folder, or as loaded), a session, a graph.

    `verify`: `structure` and `shapes` check the graph after each pass; `numeric` also makes every pass that claims to keep the
    function prove it against float64, on the first samples of `data` or seeded random inputs. Passes may look at `data`, too.
    `data`: whatever `tfpasses.data.samples_of` takes: arrays, a `tf.data.Dataset`, a generator, the name of a file or folder.
    `facts`: what is known of the model's values, or the file an earlier run saved. `inputs` and `outputs` name what is meant in a
    GraphDef or a session, `signature` in a SavedModel. On operations of TensorFlow `canonicalize` runs first, named or not.

    `strategy`: a `tf.distribute.MultiWorkerMirroredStrategy`, where each of several processes runs the same pipeline on the same model:
    each reads its part of the data, and all get the same. See docs/workers.md.

    `progress=True` shows a bar while it runs, if standard error is a terminal.

    Raises `PipelineError` before anything runs, `DataError` for data that cannot be read or do not fit the model, `PassError` where a pass
    fails, also where another worker is lost, `VerificationError` where a check does.
    """
    if progress:
        from tfpasses.view import ProgressBar

        passes = Pipeline.of(pipeline)
        with ProgressBar.shown(len(passes.passes)) as bar:
            bar.step("reading the model")
            return run(
                model,
                passes,
                verify=verify,
                data=data,
                facts=facts,
                observers=[*observers, bar],
                inputs=inputs,
                outputs=outputs,
                signature=signature,
                strategy=strategy,
            )
    if verify not in LEVELS:
        raise TfpassesError(f"verify={verify!r} is none of {', '.join(LEVELS)}")
    passes = Pipeline.of(pipeline)
    reads_data = any(item.contract.reads_data for item in passes.passes)
    if data is not None and verify != "numeric" and not reads_data:
        raise DataError('data is only used with verify="numeric", and by passes that look at data; here is none')
    origin = Path(model) if isinstance(model, str | Path) else None
    given = isinstance(model, Graph)
    model, graph = models.opened(model, models.Selection(names_of(inputs), names_of(outputs), signature))
    if facts is not None:
        graph = attrs.evolve(graph, facts=read_facts(facts, graph) if isinstance(facts, str | Path) else check_facts(facts))
    if has_operations(graph) and all(item.name != CANONICALIZE for item in passes.passes):
        passes = Pipeline.of([CANONICALIZE, *passes.passes])
    level = LEVELS.index(verify)
    timing, remarks, journal = Timing(), RemarkLog(), Journal()
    watching: list[Observer] = [timing, remarks, journal]
    watching += [StructureCheck()] if level >= 1 else []
    watching += [ShapeCheck()] if level >= 2 else []
    evaluator, numeric = None, None
    workers = None if strategy is None else StrategyWorkers.of(strategy)
    samples: Any = None if data is None else samples_of(graph, data)
    if workers is not None and samples is not None:
        samples = shared_out(samples, workers.rank, workers.count)
    if verify == "numeric" or (reads_data and samples is not None):
        evaluator = models.evaluator(graph)
    if verify == "numeric" and evaluator is not None:
        numeric = NumericCheck(evaluator, None if samples is None else samples.first(FEW))
        watching.append(numeric)
    rewritten = run_passes(graph, passes, [*watching, *observers], evaluator, samples, workers)
    done = Result(
        rewritten,
        rewritten,
        tuple(remarks.remarks),
        tuple(timing.seconds),
        tuple(journal.records),
        tuple(numeric.verdicts) if numeric else (),
        origin=origin,
        changed=any(record.journal for record in journal.records if record.pass_.name != CANONICALIZE),
    )
    if given:
        return done
    notes: list[Remark] = []
    last = rewritten if done.changed else graph
    written, names = models.write(last, lambda text: notes.append(Remark(WRITING, "note", graph.name, text)))
    if numeric is not None:
        fed = numeric.inputs if numeric.inputs is not None else random_inputs(graph)
        for text in check_written(last, written, graph, model, numeric.evaluator, fed):
            notes.append(Remark(WRITING, "note", graph.name, text))
    return attrs.evolve(done, model=written, remarks=(*done.remarks, *notes), names=names)


WRITING = "write"
"""What remarks about the written model stand under."""


def names_of(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Names as a tuple; one alone is one of one."""
    return None if names is None else (names,) if isinstance(names, str) else tuple(names)


def check_written(graph: Graph, model: Any, read: Graph, source: Any, evaluator: Evaluator, inputs: Mapping[str, Array]) -> Iterator[str]:
    """Does the written model compute the graph, wherever that gives a number? Says where it could not be asked: of a model whose value
    is a matter of chance (something is called in training mode), that Keras cannot run here (channels first on a CPU), or where the
    model that went in, `source`, does not compute its own graph, `read`.

    Raises `VerificationError` where it does not.
    """
    if any(node.config.get("training") for node in graph.nodes.values()):
        yield "the written model was not called to be compared: something in it is called in training mode"
        return
    try:
        off = misfit(graph, model, evaluator, inputs)
        if off is not None and (before := misfit(read, source, evaluator, inputs)) is not None:
            who = models.whose(read)
            yield f"the written model was not compared: {who} does not compute the model that went in as its graph says ({amount(before)})"
            return
    except GraphError as error:
        yield f"the written model was not compared: {error}"
        return
    if off is not None:
        raise VerificationError(f"the written model does not compute the rewritten graph: {amount(off)}{models.likely_cause(graph)}")


def misfit(graph: Graph, model: Any, evaluator: Evaluator, inputs: Mapping[str, Array]) -> OutputDifference | None:
    """The first output at which a Keras model does not compute its graph, if any. Raises `GraphError` where Keras cannot call it."""
    fed = {Ref(name): inputs[name] for name in graph.inputs}
    ours = evaluator.compile(graph, list(fed), graph.outputs)(fed)
    theirs = models.call(model, graph, list(fed.values()))
    theirs = [
        np.where(np.isfinite(a), b, a) if a.dtype.kind == "f" and a.shape == b.shape else b for a, b in zip(ours, theirs, strict=True)
    ]
    return next((found for found in compare_outputs(graph, ours, theirs, evaluator, fed) if not found.ok), None)


def amount(difference: OutputDifference) -> str:
    return f"output {difference.output} is off by {difference.maximum:.3g}, allowed {difference.allowed:.3g}"


FEW = 32
"""So many samples are looked at where not all are wanted, and called at once where all are."""


def compare_models(
    a: Any,
    b: Any,
    data: Any = None,
    *,
    tolerance: float | None = None,
    seed: int = 0,
    wanted: models.Selection = models.EVERYTHING,
) -> list[OutputDifference]:
    """Call two models, or those in two files, on the same inputs and compare their outputs one by one, in order. Inputs go by name where
    the two models have the same names, else by order. `data` as for `run`, all of them; without, seeded random inputs.

    What is allowed: see `tfpasses.manager.compare_outputs`. Raises `TfpassesError` where the inputs or
    the number of outputs differ, `VerificationError` where an output's shape does.
    """
    (a, first), (b, second) = models.opened(a, wanted), models.opened(b, wanted)
    by_name = sorted(first.inputs) == sorted(second.inputs)
    pairs = [(first.inputs, first), (first.inputs if by_name else second.inputs, second)]
    specs = [[graph.nodes[name].specs[0] for name in names] for names, graph in pairs]
    if specs[0] != specs[1] or len(first.outputs) != len(second.outputs):
        raise TfpassesError(
            f"the models take {', '.join(map(str, specs[0]))} and {', '.join(map(str, specs[1]))}, and give "
            f"{len(first.outputs)} and {len(second.outputs)} outputs; they cannot be compared"
        )
    evaluator = models.evaluator(first)

    def compared(inputs: Mapping[str, Array]) -> list[OutputDifference]:
        values = [inputs[name] for name in first.inputs]
        ours = models.call(a, first, values)
        theirs = models.call(b, second, [inputs[name] for name in second.inputs] if by_name else values)
        for name, x, y in zip(first.output_names, ours, theirs, strict=True):
            if x.shape != y.shape:
                raise VerificationError(f"output {name} has shape {x.shape} in the first model and {y.shape} in the second")
        fed = {Ref(name): value for name, value in zip(first.inputs, values, strict=True)}
        return compare_outputs(first, ours, theirs, evaluator, fed, tolerance)

    parts = [random_inputs(first, seed)] if data is None else all_batches(samples_of(first, data, finite=False), FEW)
    return worst_of([compared(inputs) for inputs in parts])
