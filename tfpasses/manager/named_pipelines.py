"""Pipelines that have a name: written where a pass could be, with options, they stand for several passes.

Distributions announce them by an entry point of the group `tfpasses.pipelines`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import ClassVar

from tfpasses.manager.errors import RegistryError
from tfpasses.manager.registry import without_clashes

__all__ = ["GROUP", "NamedPipeline", "find_named_pipeline", "named_pipelines", "pipeline_names"]

GROUP = "tfpasses.pipelines"


class NamedPipeline:
    """Base of all named pipelines. A subclass is `@attrs.frozen`; its fields are its options."""

    name: ClassVar[str]

    @property
    def text(self) -> str:
        """The pipeline that it stands for, as text."""
        raise NotImplementedError


@cache
def announced() -> Mapping[str, EntryPoint]:
    """The entry points of the group. Raises `RegistryError` where two distributions announce one name."""
    return without_clashes(entry_points(group=GROUP))


def pipeline_names() -> list[str]:
    """The names of all of them, sorted."""
    return sorted(announced())


def find_named_pipeline(name: str) -> type[NamedPipeline] | None:
    """The named pipeline of that name, if there is one. Raises `RegistryError` where it cannot be imported, or is none."""
    entry = announced().get(name)
    if entry is None:
        return None
    try:
        cls = entry.load()
    except Exception as error:  # another's module may raise anything
        raise RegistryError(f"pipeline {name} ({entry.value}) cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, NamedPipeline) and cls.name == name):
        raise RegistryError(f"entry point {name}: {entry.value} is no NamedPipeline of that name")
    return cls


def named_pipelines() -> Mapping[str, type[NamedPipeline]]:
    """All of them by name, imported."""
    return {name: cls for name in pipeline_names() if (cls := find_named_pipeline(name)) is not None}
