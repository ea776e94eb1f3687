"""The options that passes have in common which quantize, or reckon with it."""

from __future__ import annotations

from typing import Literal

import attrs

from tfpasses.manager import Pass
from tfpasses.passes.quantization.quantizer import Quantizer

__all__ = ["Quantizing"]


@attrs.frozen
class Quantizing(Pass):
    """Base of passes with a quantizer. See `quantize-weights` for what the options mean."""

    bits: int = 8
    scheme: Literal["tf", "tf_enhanced"] = "tf"
    symmetric: bool = False
    per_channel: bool = False
    rounding: Literal["nearest", "stochastic"] = "nearest"
    seed: int = 0
    only: str = ""

    def __attrs_post_init__(self) -> None:
        _ = self.quantizer  # which refuses what is no choice

    @property
    def quantizer(self) -> Quantizer:
        """What it quantizes with, which graphs are no part of."""
        return Quantizer(self.bits, self.scheme, self.symmetric, self.per_channel, self.rounding, self.seed)
