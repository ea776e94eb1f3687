"""The options that say what data are and how they are read."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import click

__all__ = ["DataOptions", "check_data", "taking_data"]

SIZE = re.compile(r"(\d+)(?:x(\d+))?")


@attrs.frozen
class DataOptions:
    """Data that a command names."""

    path: str
    features: tuple[str, ...]
    preset: str | None
    resize: int | tuple[int, int] | None
    crop: int | tuple[int, int] | None

    def read(self) -> Any:
        """The data. Raises `DataError`."""
        from tfpasses.data import read_data

        return read_data(self.path, features=self.features, preset=self.preset, resize=self.resize, crop=self.crop)


def check_data(data: DataOptions | None) -> None:
    """Refuse data that are not there before TensorFlow is loaded."""
    import glob

    if data is not None and not os.path.exists(data.path) and not glob.glob(data.path, recursive=True):
        raise click.ClickException(f"{data.path}: {'no file matches' if glob.has_magic(data.path) else 'no such file'}")


def size_of(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | tuple[int, int] | None:
    """`224`, or `224x192`: height and width."""
    if value is None:
        return None
    match = SIZE.fullmatch(value)
    if match is None or "0" in (match[1].lstrip("0") or "0", (match[2] or "1").lstrip("0") or "0"):
        raise click.BadParameter(f"{value!r} is no size in pixels, such as 224 or 224x192 (height x width).")
    return int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))


def taking_data(about: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command `data`: `DataOptions`, or None where `--data` is not given. `about` is what its help says before the kinds."""
    options = (
        click.option(
            "--preset", help="Images: how pixels are normalized. none, unit, tf, torch, caffe, or a family of keras.applications."
        ),
        click.option("--crop", metavar="N|HxW", callback=size_of, help="Images: what is cut out of the middle. Without: what MODEL takes."),
        click.option(
            "--resize", metavar="N|HxW", callback=size_of, help="Images: the shorter side, or both, before. Without: what the crop needs."
        ),
        click.option(
            "--data-features",
            metavar="FEATURE",
            multiple=True,
            help="TFRecords: a feature that feeds MODEL, `[INPUT=]NAME[:float32[H,W,C]|:image]`. May be given several times.",
        ),
        click.option("--data", "path", help=f"{about} .npz (arrays by input name), .npy, TFRecords, or a folder of images."),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_data(
            *arguments: Any, path: str | None, data_features: Sequence[str], preset: str | None, resize: Any, crop: Any, **others: Any
        ) -> Any:
            if path is not None:
                return command(*arguments, data=DataOptions(path, tuple(data_features), preset, resize, crop), **others)
            given = {"--data-features": data_features or None, "--preset": preset, "--resize": resize, "--crop": crop}
            for name, value in given.items():
                if value is not None:
                    raise click.UsageError(f"{name} says how --data are read; name them, too.", click.get_current_context())
            return command(*arguments, data=None, **others)

        for option in options:
            with_data = option(with_data)
        return with_data

    return decorate
