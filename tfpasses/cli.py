"""The command line. It only wires: what needs TensorFlow is imported by the command that uses it.

Exit codes: 0 done; 1 a verification or comparison failed; 2 bad use or bad input, one line on standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

__all__ = ["main"]

FILE = click.Path(path_type=Path)


class Commands(click.Group):
    """Turns every error that reaches the top into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get("TFPASSES_TRACEBACK"):
                raise
            print(f"error: {describe(error)}", file=sys.stderr)
            raise click.exceptions.Exit(exit_code(error)) from error


def describe(error: Exception) -> str:
    """One line for an error; one that is not ours is marked, with how to see its traceback."""
    from tfpasses.graph import TfpassesError

    text = " ".join(str(error).split())
    if isinstance(error, TfpassesError):
        return text
    return f"internal error: {type(error).__name__}: {text} (set TFPASSES_TRACEBACK=1 to see where, and please report it)"


def exit_code(error: Exception) -> int:
    """1 where a verification failed, else 2."""
    from tfpasses.manager import VerificationError

    return 1 if isinstance(error, VerificationError) else 2


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tfpasses")
def main() -> None:
    """Rewrite trained networks by passes: declarative, ordered by contracts, verified."""


@main.command()
@click.argument("model", type=FILE)
@click.option("-p", "--pipeline", required=True, help="Passes, as text (`fold-batch-norms,..{key=value}`) or as a .toml file.")
@click.option("-o", "--output", required=True, type=FILE, help="The file to write, .keras or .h5.")
@click.option("--verify", type=click.Choice(["off", "structure", "shapes", "numeric"]), default="shapes", show_default=True, help="What to check after each pass.")
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
    """Run a pipeline on MODEL (.keras or .h5) and write the rewritten model."""
    from rich.console import Console

    from tfpasses import api
    from tfpasses.manager import Pipeline
    from tfpasses.view import ProgressBar, print_remarks, print_rewrites, print_summary, run_json

    passes = Pipeline.read(pipeline) if pipeline.endswith(".toml") else Pipeline.parse(pipeline)
    check_writable(output, facts)
    with ProgressBar.shown(len(passes.passes)) as bar, quiet():
        bar.step(f"reading {model.name}")
        source = api.read_model(model)
        result = api.run(source, passes, verify=verify, data=read_arrays(data), facts=load_facts, observers=[bar])  # type: ignore[arg-type]  # a Choice
        bar.step(f"writing {output.name}")
        api.save(result, output, facts=facts)
    if as_json:
        print(json.dumps(run_json(str(passes), result.journal, result.timings, result.remarks, result.verdicts), indent=1))
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    print_summary(console, result.journal, result.timings, result.verdicts, verify)
    if verbose:
        print_rewrites(console, result.rewrites)
    print_remarks(console, result.remarks)
    console.print(f"{model} -> {output}" + (f", facts in {facts}" if facts else ""), soft_wrap=True)


@main.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_passes(as_json: bool) -> None:
    """List the passes that are installed, with their options."""
    from tfpasses.manager import options_of, registered_passes, type_name

    passes = registered_passes()
    if as_json:
        print(json.dumps([describe_pass(name, cls) for name, cls in passes.items()], indent=1))
        return
    for name, cls in passes.items():
        print(f"{name}: {first_line(cls)}")
        print(f"  effect: {cls.contract.effect.value}")
        for option, (kind, default) in options_of(cls).items():
            print(f"  {option}={type_name(kind)} (default {default})")


def describe_pass(name: str, cls: Any) -> dict[str, Any]:
    """A pass as JSON."""
    from tfpasses.manager import options_of, type_name

    options = {option: {"type": type_name(kind), "default": str(default)} for option, (kind, default) in options_of(cls).items()}
    return {"name": name, "summary": first_line(cls), "effect": cls.contract.effect.name, "options": options}


def first_line(cls: Any) -> str:
    """The first line of a docstring."""
    return (cls.__doc__ or "").strip().partition("\n")[0]


@main.command()
@click.argument("model", type=FILE)
@click.option("--format", "kind", type=click.Choice(["text", "dot", "svg", "json"]), default="text", show_default=True)
@click.option("-o", "--output", type=FILE, help="Write to a file instead of standard output.")
def show(model: Path, kind: str, output: Path | None) -> None:
    """Show MODEL as a graph: text, Graphviz's language, an SVG picture, or JSON."""
    from tfpasses import api, view
    from tfpasses.graph import atomic_write

    with quiet():
        graph = api.load(model)
    if kind == "json":
        text = json.dumps(view.graph_json(graph), indent=1, allow_nan=False) + "\n"
    else:
        text = {"text": graph.to_text, "dot": lambda: view.to_dot(graph), "svg": lambda: view.to_svg(graph)}[kind]() or ""
    if output is None:
        sys.stdout.write(text)
        return
    with atomic_write(output) as beside:
        beside.write_text(text)


@main.command("diff")
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def diff_models(a: Path, b: Path, as_json: bool) -> None:
    """Compare the graphs of A and B as text; exit 1 where they differ."""
    from tfpasses import api
    from tfpasses.graph import diff

    with quiet():
        text = diff(api.load(a), api.load(b))
    if as_json:
        print(json.dumps({"format": "tfpasses-diff", "version": 1, "equal": not text, "diff": text.splitlines()}, indent=1))
    else:
        sys.stdout.write(text)
    raise click.exceptions.Exit(1 if text else 0)


@main.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--data", type=FILE, help="An .npz with an array by input name of A. Without: seeded random inputs.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random inputs.")
@click.option("--tolerance", type=click.FloatRange(min=0), help="Allowed difference relative to an output's scale. Without: what A's own rounding explains.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def verify(a: Path, b: Path, data: Path | None, seed: int, tolerance: float | None, as_json: bool) -> None:
    """Call A and B on the same inputs and compare their outputs; exit 1 beyond tolerance."""
    from rich.console import Console
    from rich.table import Table

    from tfpasses import api

    with quiet():
        found = api.compare_models(api.read_model(a), api.read_model(b), read_arrays(data), tolerance=tolerance, seed=seed)
    if as_json:
        rows = [{"output": d.output, "max": d.maximum, "mean": d.mean, "scale": d.scale, "allowed": d.allowed, "ok": d.ok} for d in found]
        print(json.dumps({"format": "tfpasses-verify", "version": 1, "ok": all(d.ok for d in found), "outputs": rows}, indent=1))
    else:
        table = Table("output", "max difference", "mean difference", "output's scale", "allowed", "")
        for d in found:
            table.add_row(d.output, *(f"{value:.3g}" for value in (d.maximum, d.mean, d.scale, d.allowed)), "ok" if d.ok else "DIFFERS")
        Console(width=None if sys.stdout.isatty() else 120).print(table)
    raise click.exceptions.Exit(0 if all(d.ok for d in found) else 1)


def check_writable(*paths: Path | None) -> None:
    """Refuse an output that cannot be written before any work is done."""
    from tfpasses.graph import WriteError

    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise WriteError(f"{path}: is a directory; name a file")
        if not path.parent.is_dir():
            raise WriteError(f"{path}: cannot be written: there is no folder {path.parent}")
        if not os.access(path.parent, os.W_OK):
            raise WriteError(f"{path}: cannot be written: no permission to write in {path.parent}")


def read_arrays(path: Path | None) -> Mapping[str, Any] | None:
    """The arrays of an .npz by name."""
    if path is None:
        return None
    import numpy as np

    from tfpasses.graph import TfpassesError

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise TfpassesError(f"{path}: not an .npz file of arrays: {error}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence TensorFlow's start-up chatter and Keras's warnings: what a user reads here is ours."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "tensorflow" not in sys.modules:
            sys.stderr.flush()
            saved = os.dup(2)
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            try:
                import tensorflow  # noqa: F401  # its first lines go to the file descriptor, whatever the log level
            finally:
                os.dup2(saved, 2)
                os.close(saved)
        yield


if __name__ == "__main__":
    main()
