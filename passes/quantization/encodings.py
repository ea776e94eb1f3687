"""Encodings: how one tensor, or one channel of it, is written in integers; and the file in which AIMET exchanges them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from tfpasses.graph import atomic_write

__all__ = ["Encoding", "as_aimet", "save_encodings"]

VERSION = "0.6.1"
"""Of AIMET's format, as its TensorFlow releases wrote it last (1.34)."""


@attrs.frozen
class Encoding:
    """A grid of 2**bits numbers, 0 among them: a value x is stored as the integer x/delta - offset.

    The names, and the sign of the offset, are AIMET's: min = delta·offset and max = delta·(offset + 2**bits - 1).
    """

    min: float
    max: float
    delta: float
    """From one number of the grid to the next."""
    offset: int
    """min in steps of delta: 0 where no number of the grid is negative, else less than 0."""
    bits: int
    symmetric: bool


Encodings = Mapping[str, Sequence[Encoding]]
"""A parameter's name -> its encodings: one of the whole tensor, or one for each of its channels."""


def as_aimet(encodings: Encodings) -> dict[str, Any]:
    """Encodings of parameters in AIMET's form ("Quantization Encoding Specification", version 0.6.1), as plain values for JSON."""
    parameters = {
        name: [
            {
                "bitwidth": one.bits,
                "dtype": "int",
                "is_symmetric": str(one.symmetric),
                "max": one.max,
                "min": one.min,
                "offset": one.offset,
                "scale": one.delta,
            }
            for one in channels
        ]
        for name, channels in encodings.items()
    }
    return {"version": VERSION, "activation_encodings": {}, "param_encodings": parameters}


def save_encodings(path: str | Path, encodings: Encodings) -> None:
    """Write encodings of parameters to a file in AIMET's form. Raises `WriteError` where the file cannot be written."""
    text = json.dumps(as_aimet(encodings), indent=4, sort_keys=True, allow_nan=False)
    with atomic_write(Path(path)) as beside:
        beside.write_text(text + "\n")
