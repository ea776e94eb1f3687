"""The command line. It only wires: what needs TensorFlow is imported by the command that uses it.

Exit codes: 0 done; 1 a verification or comparison failed; 2 bad use or bad input. Errors are one line on standard error.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from tfpasses.cli_data import DataOptions, check_data, taking_data
from tfpasses.cli_paths import check_model, check_readable, check_target, check_writable

__all__ = ["main"]

FILE = click.Path(path_type=Path)
NAMES = "Names, with commas between."


def names(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """An option's names, parted by commas."""
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


def selecting(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what of a model is meant."""
    for option in (
        click.option("--signature", help="The signature of a SavedModel that is meant. Without: all of them."),
        click.option("--outputs", callback=names, help=f"The values that a GraphDef gives (`node`, `node:1`). {NAMES} Without: guessed."),
        click.option("--inputs", callback=names, help=f"The placeholders of a GraphDef that are meant. {NAMES} Without: all."),
    ):
        command = option(command)
    return command


class Commands(click.Group):
    """Ends every error in one line on standard error and an exit code, whoever raises it."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **_: Any) -> Any:  # type: ignore[override]  # without click's overloads
        """Run and exit. An interrupt gives 130."""
        try:
            code = super().main(args, prog_name, standalone_mode=False) or 0
        except (KeyboardInterrupt, click.Abort):
            print("interrupted", file=sys.stderr)
            code = 130
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except Exception as error:
            if os.environ.get("TFPASSES_TRACEBACK"):
                raise
            text, code = describe(error)
            print(f"error: {text}", file=sys.stderr)
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A reader of standard output that went away (`| head`) ends it quietly, with 141."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit must not fail again
            raise click.exceptions.Exit(141) from error


def describe(error: Exception) -> tuple[str, int]:
    """One line for an error, and the exit code. An error that is not ours is marked, with how to see its traceback."""
    from tfpasses.graph import TfpassesError

    text = " ".join((error.format_message() if isinstance(error, click.ClickException) else str(error)).split())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{text} See {error.ctx.command_path} --help", 2
    if isinstance(error, click.ClickException):
        return text, 2
    if not isinstance(error, TfpassesError):
        return f"internal error: {type(error).__name__}: {text} (set TFPASSES_TRACEBACK=1 to see where, and please report it)", 2
    from tfpasses.manager import VerificationError

    return text, 1 if isinstance(error, VerificationError) else 2


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tfpasses")
def main() -> None:
    """Rewrite trained networks by passes: declarative, ordered by contracts, verified."""


@main.command()
@click.argument("model", type=FILE)
@click.option("-p", "--pipeline", required=True, help="Passes, as text (`fold-batch-norms,..{key=value}`) or as a .toml file.")
@click.option("-o", "--output", required=True, type=FILE, help="The file (.keras, .h5, .pb, .pbtxt) or SavedModel's folder to write.")
@selecting
@click.option(
    "--verify",
    type=click.Choice(["off", "structure", "shapes", "numeric"]),
    default="shapes",
    show_default=True,
    help="What to check after each pass.",
)
@taking_data("Inputs for passes that look at data, and for --verify numeric (without: random ones):")
@click.option("--facts", type=FILE, help="Also write what is known of the new model's values (.npz).")
@click.option("--load-facts", type=FILE, help="Facts about MODEL that an earlier run wrote with --facts.")
@click.option(
    "--strategy",
    type=click.Choice(["multi-worker"]),
    help="Share the data among several processes that run the same command, each with its TF_CONFIG; the first one writes.",
)
@click.option(
    "--wait", type=click.FloatRange(min=0), default=600, show_default=True, help="Seconds to wait for the others to be there (--strategy)."
)
@click.option("-v", "--verbose", is_flag=True, help="Also print every rewrite.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def run(
    model: Path,
    pipeline: str,
    output: Path,
    verify: str,
    data: DataOptions | None,
    facts: Path | None,
    load_facts: Path | None,
    strategy: str | None,
    wait: float,
    verbose: bool,
    as_json: bool,
    inputs: tuple[str, ...] | None,
    outputs: tuple[str, ...] | None,
    signature: str | None,
) -> None:
    """Rewrite MODEL by a pipeline of passes: a Keras model (.keras, .h5), a GraphDef (.pb, .pbtxt) or a SavedModel's folder. Operations of
    TensorFlow are raised first (canonicalize), and what no pass changed leaves as it was; where nothing changes, MODEL is copied.
    """
    from tfpasses import api
    from tfpasses.view import ProgressBar, print_remarks, print_rewrites, print_summary, run_json
    from tfpasses.workers import StrategyWorkers, await_workers, multi_worker_strategy

    passes = pipeline_of(pipeline)
    check_model(model)
    check_readable(load_facts)
    check_data(data)
    check_target(output)
    check_writable(facts)
    if data is not None and verify != "numeric" and not any(item.contract.reads_data for item in passes.passes):
        raise click.BadParameter("is only used with --verify numeric, and by passes that look at data; here is none.", param_hint="--data")
    if facts is not None and facts.resolve() in (output.resolve(), model.resolve()):
        raise click.BadParameter(f"{facts}: is also the name of a model; name another file.", param_hint="--facts")
    with ProgressBar.shown(len(passes.passes)) as bar, quiet(several=strategy is not None):
        workers = None
        if strategy is not None:
            bar.step("waiting for the other workers")
            await_workers(wait, say=lambda text: click.echo(text, err=True))
            with silent():
                workers = StrategyWorkers.of(multi_worker_strategy())
        bar.step(f"reading {model.name}")
        result = api.run(
            model,
            passes,
            verify=verify,  # type: ignore[arg-type]  # a Choice
            data=data.read() if data else None,
            facts=load_facts,
            observers=[bar],
            inputs=inputs,
            outputs=outputs,
            signature=signature,
            strategy=workers.strategy if workers else None,
        )
        if as_json:
            report = json_text(run_json(str(passes), result.journal, result.timings, result.remarks, result.verdicts))
        else:
            report = drawn(
                lambda console: print_summary(console, result.journal, result.timings, result.verdicts, verify),
                lambda console: print_rewrites(console, result.rewrites if verbose else ()),
                lambda console: print_remarks(console, result.remarks),
            )
            report += f"{model} -> {output}" + (f", facts in {facts}" if facts else "")
            report += f" (worker {workers.rank} of {workers.count}: worker 0 writes)" if workers and workers.rank else ""
        if workers is None or workers.rank == 0:
            bar.step(f"writing {output.name}")
            result = result.detached()
            gc.collect()  # Keras takes memory to write a file: the model that went in need not be there beside it
            api.save(result, output, facts=facts)
        if workers is not None:
            workers.meet()
    click.echo(report)


@main.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_passes(as_json: bool) -> None:
    """List the passes and named pipelines that are installed, with their options."""
    from tfpasses.manager import named_pipelines, registered_passes
    from tfpasses.view import list_json

    installed = list_json(registered_passes(), named_pipelines())
    if as_json:
        click.echo(json_text(installed))
        return
    for item in (*installed["passes"], *installed["pipelines"]):
        effect = item.get("effect")
        click.echo(f"{item['name']}: {item['summary']}\n  {f'effect: {effect}' if effect else 'a named pipeline'}")
        for option, about in item["options"].items():
            click.echo(f"  {option}={about['type']} ({'required' if about['required'] else 'default ' + str(about['default'])})")


@main.command()
@click.argument("model", type=FILE)
@click.option("--format", "kind", type=click.Choice(["text", "dot", "svg", "json"]), help="Without: what -o's ending says, else text.")
@click.option("-o", "--output", type=FILE, help="Write to a file instead of standard output.")
@click.option("-p", "--pipeline", help="Show it after these passes: `canonicalize` for the operations of TensorFlow raised, say.")
@selecting
def show(
    model: Path,
    kind: str | None,
    output: Path | None,
    pipeline: str | None,
    inputs: tuple[str, ...] | None,
    outputs: tuple[str, ...] | None,
    signature: str | None,
) -> None:
    """Show MODEL as a graph: text, Graphviz's language, an SVG picture, or JSON."""
    from tfpasses import api, view
    from tfpasses.graph import atomic_write
    from tfpasses.models import Selection

    kind = kind or {".dot": "dot", ".svg": "svg", ".json": "json"}.get(output.suffix if output else "", "text")
    check_model(model)
    check_writable(output)
    with quiet():
        graph = api.load(model, wanted=Selection(inputs, outputs, signature))
        if pipeline is not None:
            graph = api.run(graph, pipeline_of(pipeline)).graph
    forms: dict[str, Callable[[], str]] = {
        "text": graph.to_text,
        "dot": lambda: view.to_dot(graph),
        "svg": lambda: view.to_svg(graph) or "",
    }
    text = forms[kind]() if kind in forms else json.dumps(view.graph_json(graph), indent=1, allow_nan=False) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    with atomic_write(output) as beside:
        beside.write_text(text, encoding="utf-8")


@main.command("diff")
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@selecting
def diff_models(
    a: Path, b: Path, as_json: bool, inputs: tuple[str, ...] | None, outputs: tuple[str, ...] | None, signature: str | None
) -> None:
    """Compare the graphs of A and B as text; exit 1 where they differ."""
    from tfpasses import api
    from tfpasses.graph import diff
    from tfpasses.models import Selection

    check_model(a, b)
    wanted = Selection(inputs, outputs, signature, lenient=True)
    with quiet():
        lines = diff(api.load(a, wanted=wanted), api.load(b, wanted=wanted)).splitlines()
    if lines and lines[0].startswith("---"):
        lines[:2] = [f"--- {a}", f"+++ {b}"]
    if as_json:
        click.echo(json_text({"format": "tfpasses-diff", "version": 1, "equal": not lines, "diff": lines}))
    else:
        for line in lines:
            click.secho(line, fg={"-": "red", "+": "green", "@": "cyan"}.get(line[0]))
    raise click.exceptions.Exit(1 if lines else 0)


@main.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@taking_data("Inputs of A, all of which are compared (without: seeded random ones):")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the random inputs.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Allowed difference relative to an output's scale. Without: what A's own rounding explains.",
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@selecting
def verify(
    a: Path,
    b: Path,
    data: DataOptions | None,
    seed: int,
    tolerance: float | None,
    as_json: bool,
    inputs: tuple[str, ...] | None,
    outputs: tuple[str, ...] | None,
    signature: str | None,
) -> None:
    """Call A and B on the same inputs and compare their outputs; exit 1 beyond tolerance."""
    from tfpasses import api, view
    from tfpasses.models import Selection

    check_model(a, b)
    check_data(data)
    wanted = Selection(inputs, outputs, signature, lenient=True)
    with quiet():
        found = api.compare_models(a, b, data.read() if data else None, tolerance=tolerance, seed=seed, wanted=wanted)
    if as_json:
        click.echo(json_text(view.verify_json(found)))
    else:
        click.echo(drawn(lambda console: view.print_differences(console, found)), nl=False)
    raise click.exceptions.Exit(0 if all(difference.ok for difference in found) else 1)


@main.command()
@click.argument("model", type=FILE)
@click.argument("output", type=FILE)
@selecting
def convert(model: Path, output: Path, inputs: tuple[str, ...] | None, outputs: tuple[str, ...] | None, signature: str | None) -> None:
    """Write MODEL as another kind, by OUTPUT's ending: a GraphDef of constants (.pb, .pbtxt), or a SavedModel's folder."""
    from tfpasses import models

    check_model(model)
    check_target(output)
    with quiet():
        read, graph = models.opened(model, models.Selection(inputs, outputs, signature))
        models.save_file(graph, output, None if read is graph else read)
    click.echo(f"{model} -> {output}")


def pipeline_of(text: str) -> Any:
    """A pipeline as text, or in a .toml file."""
    from tfpasses.manager import Pipeline

    return Pipeline.read(text) if text.endswith(".toml") else Pipeline.parse(text)


def json_text(value: Any) -> str:
    """A value as JSON proper, which has no NaN."""
    return json.dumps(value, indent=1, allow_nan=False)


def drawn(*drawings: Callable[[Any], None]) -> str:
    """What functions draw on a console, as text for standard output: 120 columns wide where that is no terminal."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 120)
    with console.capture() as text:
        for draw in drawings:
            draw(console)
    return text.get()


@contextlib.contextmanager
def quiet(*, several: bool = False) -> Iterator[None]:
    """Silence TensorFlow's start-up chatter and the warnings of Keras and absl: what a user reads here is ours. Where there are `several`
    processes, TensorFlow must not look for its devices before it knows of the others.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if "tensorflow" not in sys.modules:
                start_quietly(look=not several)
            yield
    finally:
        logging.disable(before)


def start_quietly(*, look: bool) -> None:
    """Import TensorFlow, and let it look for its devices."""
    with silent():
        tensorflow = importlib.import_module("tensorflow")
        if look:
            tensorflow.config.list_logical_devices()


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Let nothing through to standard error: what TensorFlow says of devices goes to file descriptor 2, whatever the log level."""
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


if __name__ == "__main__":
    main()
