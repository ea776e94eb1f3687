"""Where passes are found: those registered by decorator in this process, and those that installed distributions announce
by an entry point of the group `tfpasses.passes`. The framework knows no technique by name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from tfpasses.manager.contract import Contract
from tfpasses.manager.errors import RegistryError
from tfpasses.manager.passes import Pass

__all__ = ["GROUP", "find_pass", "pass_names", "register", "registered_passes"]

GROUP = "tfpasses.passes"
P = TypeVar("P", bound=type[Pass])

_registered: dict[str, type[Pass]] = {}


def register(cls: P) -> P:
    """Make a pass known by its name. Raises `RegistryError` where the class is no complete pass, or its name is taken by another."""
    if not is_pass(cls):
        raise RegistryError(f"{_origin(cls)}: a pass is a subclass of Pass, an attrs class with a `name` and a `contract`")
    name = cls.name
    other = _registered.get(name)
    if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise RegistryError(f"two passes are named {name}: {_origin(other)} and {_origin(cls)}; rename one")
    _registered[name] = cls
    return cls


def is_pass(cls: object) -> bool:
    """Whether something is a complete pass class."""
    whole = isinstance(cls, type) and issubclass(cls, Pass) and "__attrs_attrs__" in vars(cls)
    return whole and isinstance(getattr(cls, "name", None), str) and isinstance(getattr(cls, "contract", None), Contract)


def pass_names() -> list[str]:
    """The names of all passes that can be found, sorted."""
    return sorted({*announced(), *_registered})


def find_pass(name: str, others: Iterable[str] = ()) -> type[Pass]:
    """The pass of that name. Raises `RegistryError` where there is none, it cannot be imported, or two have the name. `others` are names
    of what could stand in its place, for the message.
    """
    entry = announced().get(name)
    if entry is None and name not in _registered:
        names = [*pass_names(), *others]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names) or 'none'}"
        raise RegistryError(f"unknown pass {name!r}; {hint}")
    if entry is None:
        return _registered[name]
    try:
        cls: type[Pass] = entry.load()
    except Exception as error:  # another's module may raise anything
        raise RegistryError(
            f"pass {name} of distribution {_distribution(entry)} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not is_pass(cls):
        raise RegistryError(
            f"entry point {name} of distribution {_distribution(entry)}: {entry.value} is no pass with a `name` and a `contract`"
        )
    other = _registered.get(name, cls)
    if other is not cls:
        raise RegistryError(
            f"two passes are named {name}: {_origin(other)} and {entry.value} of distribution {_distribution(entry)}; rename one"
        )
    if cls.name != name:
        raise RegistryError(f"entry point {name} of distribution {_distribution(entry)} leads to a pass named {cls.name}")
    return cls


def registered_passes() -> Mapping[str, type[Pass]]:
    """All passes by name, imported."""
    return {name: find_pass(name) for name in pass_names()}


@cache
def announced() -> Mapping[str, EntryPoint]:
    """The entry points of the group. Raises `RegistryError` where two distributions announce one name."""
    return without_clashes(entry_points(group=GROUP))


def without_clashes(entries: Iterable[EntryPoint]) -> dict[str, EntryPoint]:
    """Entry points by name; one name from two distributions is an error that names both."""
    found: dict[str, EntryPoint] = {}
    for entry in entries:
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value or _distribution(other) != _distribution(entry):
            raise RegistryError(
                f"pass {entry.name} is announced by two distributions, {_distribution(other)} and {_distribution(entry)}; uninstall one"
            )
    return found


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "unknown"


def _origin(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"
