"""Pipelines as text, which round-trips: `Pipeline.parse(str(p)) == p`. The same thing as TOML, for files.

fold-batch-norms,cross-layer-scaling{sweeps=20 relu6=clip only="a,b c,d"}
"""

from __future__ import annotations

import math
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import attrs

from tfpasses.manager.errors import PipelineError
from tfpasses.manager.named_pipelines import NamedPipeline, find_named_pipeline, pipeline_names
from tfpasses.manager.passes import Pass
from tfpasses.manager.registry import find_pass

__all__ = ["Pipeline", "options_of", "type_name"]

NAME = r"[A-Za-z_][\w.-]*"
ITEM = re.compile(rf"\s*(?P<name>{NAME})\s*(?P<brace>\{{)?")
OPTION = re.compile(rf'\s*(?P<key>{NAME})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s{{}}",=]+))')
CLOSE, COMMA = re.compile(r"\s*\}"), re.compile(r"\s*(?:,|$)")
NONE = "none"
M = TypeVar("M", bound=Pass | NamedPipeline)
Options = dict[str, str | None]
"""Option -> its text; None for the bare word `none`."""
BARE = re.compile(r'[^\s{}",=\\]+')


def _as_tuple(passes: Iterable[Pass]) -> tuple[Pass, ...]:
    return tuple(passes)


@attrs.frozen
class Pipeline:
    """Passes in the order of writing."""

    passes: tuple[Pass, ...] = attrs.field(converter=_as_tuple)

    @classmethod
    def of(cls, value: Pipeline | Pass | str | Iterable[Pass | str]) -> Pipeline:
        """A pipeline from a text, a pass, or several of them. Raises `PipelineError` for anything else."""
        if isinstance(value, Pipeline):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        if isinstance(value, Pass):
            return cls((value,))
        if isinstance(value, type) and issubclass(value, Pass):
            raise PipelineError(f"{value.__name__} is a class, not a pass; call it: {value.__name__}()")
        if not isinstance(value, Iterable):
            raise PipelineError(f"{value!r} is no pass; give a pipeline as text, a pass, or a list of passes (a file: Pipeline.read(path))")
        return cls(item for part in value for item in cls.of(part).passes)

    @classmethod
    def parse(cls, text: str) -> Pipeline:
        """Read the text form. Raises `PipelineError` with the column for bad grammar, with name, type and default for a bad option."""
        passes: list[Pass] = []
        position = 0
        while True:
            item = ITEM.match(text, position)
            if item is None:
                raise PipelineError(f"pipeline {text!r}: a pass name is expected at column {_column(text, position)}")
            position = item.end()
            options: Options = {}
            if item["brace"]:
                options, position = _options(text, position)
            end = COMMA.match(text, position)
            if end is None:
                raise PipelineError(f"pipeline {text!r}: a comma or the end is expected at column {_column(text, position)}")
            passes += _build(item["name"], options)
            position = end.end()
            if not end[0].strip():
                return cls(tuple(passes))

    @classmethod
    def read(cls, path: str | Path) -> Pipeline:
        """Read a TOML file: a table `[[pass]]` a pass, with its `name` and its options."""
        try:
            content = tomllib.loads(Path(path).read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise PipelineError(f"{path}: cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise PipelineError(f"{path}: not TOML: {error}") from error
        tables = content.get("pass")
        if not isinstance(tables, list) or not tables or any(not isinstance(t, dict) or not isinstance(t.get("name"), str) for t in tables):
            raise PipelineError(f"{path}: a pipeline file has a table [[pass]] with a name for every pass")
        return cls(item for t in tables for item in _build(t["name"], {k: _toml_text(v) for k, v in t.items() if k != "name"}))

    def __str__(self) -> str:
        return ",".join(map(_format, self.passes))


def options_of(cls: type[Any]) -> Mapping[str, tuple[Any, Any]]:
    """The options of a pass, or of a named pipeline: name -> (type, default)."""
    hints = typing.get_type_hints(cls)
    return {_key(field): (hints[field.name], field.default) for field in attrs.fields(cls) if field.init}


def type_name(kind: Any) -> str:
    """An option's type, as a user reads it: `int`, `a|b|c`, `float, optional`."""
    if typing.get_origin(kind) is Literal:
        return "|".join(map(_plain, typing.get_args(kind)))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        parts = typing.get_args(kind)
        return " or ".join(type_name(part) for part in parts if part is not types.NoneType) + ", optional" * (types.NoneType in parts)
    return str(getattr(kind, "__name__", kind))


def _key(field: attrs.Attribute[Any]) -> str:
    """What a pipeline calls the field: the name that the constructor takes, with dashes."""
    return (field.alias or field.name).replace("_", "-")


def _column(text: str, position: int) -> int:
    """The column, counted from 1, of the next thing that is no space."""
    return len(text) - len(text[position:].lstrip()) + 1


def _options(text: str, position: int) -> tuple[Options, int]:
    options: Options = {}
    while (close := CLOSE.match(text, position)) is None:
        option = OPTION.match(text, position)
        if option is None:
            raise PipelineError(f"pipeline {text!r}: key=value or a closing brace is expected at column {_column(text, position)}")
        if option["key"] in options:
            raise PipelineError(f"pipeline {text!r}: option {option['key']} is given twice")
        quoted = option["quoted"]
        bare = None if option["bare"] == NONE else option["bare"]
        options[option["key"]] = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        position = option.end()
    return options, close.end()


def _build(name: str, options: Options) -> tuple[Pass, ...]:
    """The pass of that name, or the passes that a named pipeline stands for."""
    named = find_named_pipeline(name)
    if named is not None:
        return Pipeline.parse(_made(named, f"pipeline {name}", options).text).passes
    return (_made(find_pass(name, pipeline_names()), f"pass {name}", options),)


def _made(cls: type[M], what: str, options: Options) -> M:
    known = options_of(cls)
    values = {}
    for key, text in options.items():
        if key not in known:
            raise PipelineError(f"{what} has no option {key!r}; it has {', '.join(map(repr, known)) or 'none'}")
        kind, default = known[key]
        try:
            values[key.replace("-", "_")] = _value(text, kind)
        except PipelineError:
            raise
        except ValueError:
            raise PipelineError(
                f"{what}, option {key}: {NONE if text is None else text!r} is not {type_name(kind)} (default {_plain(default)})"
            ) from None
    missing = [key for key, (_, default) in known.items() if default is attrs.NOTHING and key not in options]
    if missing:
        raise PipelineError(f"{what} needs option {missing[0]} ({type_name(known[missing[0]][0])})")
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:
        raise PipelineError(f"{what}: {error}") from error


def _value(text: str | None, kind: Any) -> Any:
    """A text as a value of a type, the first that takes it of several; `ValueError` where it is none.

    The bare word `none`, which comes as None, is None for an optional type and a text like others for any other.
    """
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        parts = typing.get_args(kind)
        if types.NoneType in parts and text is None:
            return None
        for part in parts:
            if part is not types.NoneType:
                with suppress(ValueError):
                    return _value(text, part)
        return None if types.NoneType in parts and text == NONE else _refuse()
    text = NONE if text is None else text
    if typing.get_origin(kind) is Literal:
        for choice in typing.get_args(kind):
            if text == _plain(choice):
                return choice
        _refuse()
    if kind is bool:
        return {"true": True, "false": False}[text] if text in ("true", "false") else _refuse()
    if kind in (int, float, str):
        value = kind(text)
        return value if kind is not float or math.isfinite(value) else _refuse()
    raise PipelineError(f"options of type {kind} cannot be written in a pipeline")


def _refuse() -> NoReturn:
    raise ValueError


def _plain(value: Any) -> str:
    if value is attrs.NOTHING or value is None:
        return NONE
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _toml_text(value: Any) -> str:
    return _plain(value) if isinstance(value, str | bool | int | float) else repr(value)


def _format(item: Pass) -> str:
    options = []
    for field in attrs.fields(type(item)):  # type: ignore[arg-type]  # a pass is an attrs class
        value = getattr(item, field.name)
        if field.init and value != field.default:
            text = repr(value) if isinstance(value, float) else _plain(value)
            bare = BARE.fullmatch(text) and (value is None or text != NONE)
            options.append(f"{_key(field)}={text if bare else _quote(text)}")
    return item.name + (f"{{{' '.join(options)}}}" if options else "")


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
