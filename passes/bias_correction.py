"""Bias correction of both kinds: analytical where statistics are known, empirical elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import attrs

from tfpasses.graph import Edit
from tfpasses.manager import Context, Contract, Effect, Remark, register
from tfpasses.passes.correction.analytical import shifts
from tfpasses.passes.correction.biases import biased, chosen
from tfpasses.passes.correction.empirical import Measuring, measured_shifts
from tfpasses.passes.correction.live import read_size
from tfpasses.passes.correction.shifts import take
from tfpasses.passes.quantization.options import Quantizing

__all__ = ["BiasCorrection"]


@register
@attrs.frozen
class BiasCorrection(Quantizing):
    """Correct biases as `analytical-bias-correction` does wherever it knows all channels of what a layer reads, and the others as
    `empirical-bias-correction` does: one after the other, on data, with all others corrected that come before.

    It is what AIMET does with `perform_only_empirical_bias_corr=False`; what the analytical correction knows reaches further here. The
    options are those of the two passes.
    """

    name = "bias-correction"
    contract = Contract(
        Effect.NEEDS_DATA,
        after=("fold-batch-norms", "fold-constant-channels", "relu6-to-relu", "cross-layer-scaling", "high-bias-fold"),
        reads_data=True,
    )

    method: Literal["hybrid"] = "hybrid"
    samples: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    memory_limit: str = "2GB"

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        read_size(self.memory_limit)  # which refuses what is none

    def apply(self, edit: Edit, context: Context) -> Iterable[Remark]:
        """Correct layer by layer; a remark for each that is not, one that says how far the others are, and one that says how many are
        measured.
        """
        layers = chosen(biased(edit), self.only, edit)
        known = [shift for shift in shifts(edit, self.quantizer, layers=layers) if shift.known.all()]
        measuring = Measuring.of(edit.source, self.quantizer, layers, context, self.samples, limit=read_size(self.memory_limit))
        found = measured_shifts(measuring, layers, "sequential", known)
        yield from measuring.remarks(self.name)
        yield from take(found, self.name, self.only, edit, context)
        yield Remark(self.name, "note", edit.source.name, f"{len(known)} of {len(layers)} layers by statistics, the others on data")
