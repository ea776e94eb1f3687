"""GraphDefs with something wrong: real ones, changed at random in their bytes or in what they say.

A mutant is made from (source, kind, seed) alone, so that these three repeat it anywhere: `mutant("layers", "structure", 17)`.
"""

from __future__ import annotations

from functools import cache
from itertools import count
from typing import Any

import attrs
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError

from graph_def_bytes import changed_bytes, changed_lines, pick
from graph_def_changes import CHANGES
from graph_def_sources import SOURCES, source

__all__ = ["KINDS", "SOURCES", "Mutant", "changed_file", "mutant"]


@attrs.frozen
class Mutant:
    """A definition with something wrong."""

    definition: Any
    outputs: list[str]
    """The source's outputs, as far as there still are nodes of their names."""
    changes: list[str]
    """What was done to it, in words."""


def mutant(name: str, kind: str, seed: int) -> Mutant:
    """A source with something wrong; the same for the same arguments."""
    definition, changes = tf.compat.v1.GraphDef(), []
    if kind == "structure":
        rng = np.random.default_rng([seed, list(SOURCES).index(name)])
        definition.CopyFrom(source(name))
        for _ in range(pick(rng, (1, 1, 1, 2, 3))):
            change = pick(rng, CHANGES)
            changes.append(f"{change.__name__}: {change(definition, rng)}")
    else:
        for place in count():  # until it is a protocol buffer still
            data, changes = changed_file(name, kind, seed + (place << 32))
            definition.Clear()
            try:
                if kind == ".pb":
                    definition.ParseFromString(data)
                else:
                    text_format.Parse(data, definition)
                break
            except (DecodeError, text_format.ParseError, ValueError):
                continue
    names = {node.name for node in definition.node}
    results = [node.name for node in source(name).node if node.op == "Identity" and node.name.startswith("Identity")]
    return Mutant(definition, [result for result in results if result in names], changes)


def changed_file(name: str, suffix: str, seed: int) -> tuple[bytes, list[str]]:
    """A source's `.pb` or `.pbtxt` file with something wrong, and what."""
    rng = np.random.default_rng([seed, list(SOURCES).index(name)])
    if suffix == ".pb":
        return changed_bytes(source(name).SerializeToString(deterministic=True), rng)
    return changed_lines(text_of(name), rng)


@cache
def text_of(name: str) -> str:
    """A source as text."""
    return str(text_format.MessageToString(source(name)))


KINDS = ("structure", ".pb", ".pbtxt")
