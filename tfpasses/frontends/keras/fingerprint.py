"""What an opaque layer computes by, besides its configuration and weights: Python code and vocabularies. A digest must know of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from types import CodeType
from typing import Any

import keras

__all__ = ["code_fingerprint", "vocabulary_fingerprint"]


def code_fingerprint(function: Any) -> str:
    """A hash of a Python function: its code, constants, defaults and what it closes over, where those are plain values."""
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return _hash([*code_parts(code), *map(plain, (function.__defaults__, *cells))])


def code_parts(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr((code.co_names, code.co_freevars))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from code_parts(constant)
        else:
            yield plain(constant)


def plain(value: Any) -> str:
    """A value as text, by its type alone where its text may hold an address."""
    return repr(value) if value is None or isinstance(value, str | int | float | bytes | tuple | frozenset) else type(value).__qualname__


def vocabulary_fingerprint(layer: Any) -> str:
    """A hash of the vocabularies that a layer and the layers inside have learned; empty where there are none."""
    learned = [part for part in layer._flatten_layers() if hasattr(part, "get_vocabulary") and isinstance(part, keras.Layer)]
    return _hash([repr(list(map(str, part.get_vocabulary()))) for part in learned]) if learned else ""


def _hash(parts: list[str]) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=6).hexdigest()
