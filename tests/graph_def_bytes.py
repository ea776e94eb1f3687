"""Bytes and texts with something wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["SIZES", "changed_bytes", "changed_lines", "pick"]

SIZES = [-5, -1, 0, 1, 2, 3, 255, 1 << 16, 1 << 24, 1 << 31, 1 << 40, 1 << 62, (1 << 63) - 1, -(1 << 63)]
"""Numbers of which most are no size."""


def pick(rng: np.random.Generator, entries: Any) -> Any:
    """One of the entries."""
    return entries[int(rng.integers(len(entries)))]


def changed_bytes(data: bytes, rng: np.random.Generator) -> tuple[bytes, list[str]]:
    """Bytes with a few of them changed, cut out, doubled, or the end cut off."""
    changed, changes = bytearray(data), []
    for _ in range(pick(rng, (1, 1, 1, 2, 3))):
        start = int(rng.integers(len(changed)))
        length = int(rng.integers(1, 2 ** rng.integers(1, 8)))
        what = pick(rng, ("a bit", "a byte", "a byte", "random bytes", "bytes cut out", "bytes doubled", "bytes moved", "the end cut off"))
        changes.append(f"{what} at {start}, {length}")
        if what == "a bit":
            changed[start] ^= 1 << int(rng.integers(8))
        elif what == "a byte":
            changed[start] = int(rng.integers(256))
        elif what == "random bytes":
            changed[start : start + length] = rng.bytes(len(changed[start : start + length]))
        elif what == "bytes cut out":
            del changed[start : start + length]
        elif what == "bytes doubled":
            changed[start:start] = changed[start : start + length]
        elif what == "bytes moved":
            moved = changed[start : start + length]
            del changed[start : start + length]
            start = int(rng.integers(len(changed) + 1))
            changed[start:start] = moved
        else:
            del changed[start:]
        if not changed:
            break
    return bytes(changed), changes


def changed_lines(text: str, rng: np.random.Generator) -> tuple[bytes, list[str]]:
    """A text with a few of its lines changed."""
    lines, changes = text.splitlines(), []
    for _ in range(pick(rng, (1, 1, 2, 3))):
        told = [place for place, line in enumerate(lines) if ": " in line]
        what = pick(
            rng, ("a number", "a number", "another's value", "another's value", "lost", "twice", "a word", "moved", "the end cut off")
        )
        if what in ("a word", "the end cut off") and rng.integers(4):  # which leave no text of a GraphDef
            what = "a number"
        place = int(pick(rng, [place for place in told if what != "a number" or lines[place][-1:].isdigit()]))
        key, _, _ = lines[place].partition(": ")
        changes.append(f"{what} at {place}: {lines[place].strip()[:60]}")
        if what == "a number":
            lines[place] = f"{key}: {pick(rng, SIZES)}"
        elif what == "another's value":
            lines[place] = lines[int(pick(rng, [place for place in told if lines[place].strip().startswith(key.strip() + ": ")]))]
        elif what == "lost":
            del lines[place]
        elif what == "twice":
            lines.insert(place, lines[place])
        elif what == "a word":
            lines[place] = f"{key}: {pick(rng, WORDS)}"
        elif what == "moved":
            lines.insert(place + int(rng.integers(-3, 4)), lines.pop(place))
        else:
            return "\n".join(lines[:place]).encode(), changes
    return "\n".join(lines).encode(), changes


WORDS = ["true", "DT_FLOAT", "DT_STRING", "DT_NONE", "-1", "1e400", "nan", "{ }", '""', '"x"', '"\\377"', "[1, 2]"]
