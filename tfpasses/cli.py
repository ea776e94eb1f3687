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

__all__ = ["main"]

FILE = click.Path(path_type=Path)
MODEL_SUFFIXES = (".keras", ".h5", ".hdf5")


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
@click.option("-o", "--output", required=True, type=FILE, help="The file to write, .keras or .h5.")
@click.option(
    "--verify",
    type=click.Choice(["off", "structure", "shapes", "numeric"]),
    default="shapes",
    show_default=True,
    help="What to check after each pass.",
)
@click.option("--data", type=FILE, help="Inputs for --verify numeric: an .npz with an array by input name. Without: seeded random ones.")
@click.option("--facts", type=FILE, help="Also write what is known of the new model's values (.npz).")
@click.option("--load-facts", type=FILE, help="Facts about MODEL that an earlier run wrote with --facts.")
@click.option("-v", "--verbose", is_flag=True, help="Also print every rewrite.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def run(
    model: Path,
    pipeline: str,
    output: Path,
    verify: str,
    data: Path | None,
    facts: Path | None,
    load_facts: Path | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Rewrite MODEL (.keras or .h5) by a pipeline of passes."""
    from tfpasses import api
    from tfpasses.manager import Pipeline
    from tfpasses.view import ProgressBar, print_remarks, print_rewrites, print_summary, run_json

    passes = Pipeline.read(pipeline) if pipeline.endswith(".toml") else Pipeline.parse(pipeline)
    check_readable(model, data, load_facts)
    check_writable(output, facts)
    if output.suffix not in MODEL_SUFFIXES:
        raise click.BadParameter(f"{output}: models are written as .keras or .h5.", param_hint="-o")
    if data is not None and verify != "numeric":
        raise click.BadParameter("is only used with --verify numeric.", param_hint="--data")
    if facts is not None and facts.resolve() in (output.resolve(), model.resolve()):
        raise click.BadParameter(f"{facts}: is also the name of a model; name another file.", param_hint="--facts")
    with ProgressBar.shown(len(passes.passes)) as bar, quiet():
        bar.step(f"reading {model.name}")
        source = api.read_model(model)
        inputs = api.read_data(data) if data else None
        result = api.run(source, passes, verify=verify, data=inputs, facts=load_facts, observers=[bar])  # type: ignore[arg-type]  # a Choice
        if as_json:
            report = json_text(run_json(str(passes), result.journal, result.timings, result.remarks, result.verdicts))
        else:
            report = drawn(
                lambda console: print_summary(console, result.journal, result.timings, result.verdicts, verify),
                lambda console: print_rewrites(console, result.rewrites if verbose else ()),
                lambda console: print_remarks(console, result.remarks),
            )
            report += f"{model} -> {output}" + (f", facts in {facts}" if facts else "")
        bar.step(f"writing {output.name}")
        source, result = None, result.detached()
        gc.collect()  # Keras takes memory to write a file: the model that went in need not be there beside it
        api.save(result, output, facts=facts)
    click.echo(report)


@main.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_passes(as_json: bool) -> None:
    """List the passes that are installed, with their options."""
    from tfpasses.manager import registered_passes
    from tfpasses.view import list_json

    installed = list_json(registered_passes())
    if as_json:
        click.echo(json_text(installed))
        return
    for item in installed["passes"]:
        click.echo(f"{item['name']}: {item['summary']}\n  effect: {item['effect']}")
        for option, about in item["options"].items():
            click.echo(f"  {option}={about['type']} ({'required' if about['required'] else 'default ' + str(about['default'])})")


@main.command()
@click.argument("model", type=FILE)
@click.option("--format", "kind", type=click.Choice(["text", "dot", "svg", "json"]), help="Without: what -o's ending says, else text.")
@click.option("-o", "--output", type=FILE, help="Write to a file instead of standard output.")
def show(model: Path, kind: str | None, output: Path | None) -> None:
    """Show MODEL as a graph: text, Graphviz's language, an SVG picture, or JSON."""
    from tfpasses import api, view
    from tfpasses.graph import atomic_write

    kind = kind or {".dot": "dot", ".svg": "svg", ".json": "json"}.get(output.suffix if output else "", "text")
    check_readable(model)
    check_writable(output)
    with quiet():
        graph = api.load(model)
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
def diff_models(a: Path, b: Path, as_json: bool) -> None:
    """Compare the graphs of A and B as text; exit 1 where they differ."""
    from tfpasses import api
    from tfpasses.graph import diff

    check_readable(a, b)
    with quiet():
        lines = diff(api.load(a), api.load(b)).splitlines()
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
@click.option("--data", type=FILE, help="An .npz with an array by input name of A. Without: seeded random inputs.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the random inputs.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Allowed difference relative to an output's scale. Without: what A's own rounding explains.",
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def verify(a: Path, b: Path, data: Path | None, seed: int, tolerance: float | None, as_json: bool) -> None:
    """Call A and B on the same inputs and compare their outputs; exit 1 beyond tolerance."""
    from tfpasses import api, view

    check_readable(a, b, data)
    with quiet():
        inputs = api.read_data(data) if data else None
        found = api.compare_models(api.read_model(a), api.read_model(b), inputs, tolerance=tolerance, seed=seed)
    if as_json:
        click.echo(json_text(view.verify_json(found)))
    else:
        click.echo(drawn(lambda console: view.print_differences(console, found)), nl=False)
    raise click.exceptions.Exit(0 if all(difference.ok for difference in found) else 1)


def check_readable(*paths: Path | None) -> None:
    """Refuse an input file that is not there before TensorFlow is loaded."""
    for path in filter(None, paths):
        if not os.path.isfile(path):  # unlike Path.is_file it also takes a name that is too long
            raise click.ClickException(f"{path}: {'is a directory; name a file' if os.path.isdir(path) else 'no such file'}")


def check_writable(*paths: Path | None) -> None:
    """Refuse an output that cannot be written before any work is done."""
    from tfpasses.graph import WriteError

    for path in filter(None, paths):
        if os.path.isdir(path):
            raise WriteError(f"{path}: is a directory; name a file")
        if not os.path.isdir(path.parent):
            raise WriteError(f"{path}: cannot be written: there is no folder {path.parent}")
        if not os.access(path.parent, os.W_OK):
            raise WriteError(f"{path}: cannot be written: no permission to write in {path.parent}")


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
def quiet() -> Iterator[None]:
    """Silence TensorFlow's start-up chatter and the warnings of Keras and absl: what a user reads here is ours."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if "tensorflow" not in sys.modules:
                start_quietly()
            yield
    finally:
        logging.disable(before)


def start_quietly() -> None:
    """Import TensorFlow and let it look for its devices: what it says of that goes to file descriptor 2, whatever the log level."""
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        importlib.import_module("tensorflow").config.list_logical_devices()
    finally:
        os.dup2(saved, 2)
        os.close(saved)


if __name__ == "__main__":
    main()
