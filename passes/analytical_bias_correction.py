"""Analytical bias correction: what quantized kernels will add to each layer's output on average is taken from its bias, without data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import attrs
import numpy as np

from tfpasses.graph import ChannelStats, Edit
from tfpasses.manager import Context, Contract, Effect, Pass, PassError, Remark, register
from tfpasses.passes.correction.analytical import Shift, shifts
from tfpasses.passes.correction.biases import biased, chosen, corrected
from tfpasses.passes.correction.inputs import input_layouts, read_means
from tfpasses.passes.quantization.quantizer import Quantizer

__all__ = ["AnalyticalBiasCorrection"]


@register
@attrs.frozen
class AnalyticalBiasCorrection(Pass):
    """Take from each bias what quantized kernels will add to the layer's output on average: b' = b - (sum over the taps of Wq - W)·E[x].

    Wq is W as `quantize-weights` with the same options makes it; E[x] are the means of what the layer reads, from the statistics that
    folded batch norms left behind (`ChannelStats`): behind a normal variable of mean m and deviation s, m itself; of a ReLU
    m·Phi(m/s) + s·phi(m/s); and so for limits, leaky ReLUs and the rest that `Expectations` names. Zero padding counts: each tap by the
    share of the output's places where it sees the input. Source: Nagel et al., "Data-Free Quantization through Weight Equalization and
    Bias Correction", arXiv 1906.04721, section 4.2.

    The kernels stay: what comes out is a float model for `quantize-weights` with the same options to follow (the manager puts it behind),
    or for another program that quantizes as they say. By itself it is off by what is corrected. The statistics stay, too: they are those
    of the network with quantized kernels. It is to be run once: on biases that are corrected already it would correct again.

    `bits`, `scheme`, `symmetric`, `per_channel`, `rounding`, `seed`: as for `quantize-weights`. `only="conv1 conv2"` corrects these layers;
    one that cannot be corrected is an error. `input_mean="0"` says what the inputs are on average, with a number for each channel
    `"0.1,-0.2,0.3"`, for one of several inputs `"image:0 mask:0.5"`; without it, what reads an input is left as it is.

    A layer without a bias gets one. One bias that several calls of a layer share is corrected by the mean over all of them, and not at all
    in a channel where that of one is not known. Each layer that is not corrected, or not in all channels, has a remark that says why.
    """

    name = "analytical-bias-correction"
    contract = Contract(
        Effect.APPROXIMATES,
        requires={ChannelStats},
        after=("fold-batch-norms", "fold-constant-channels", "relu6-to-relu", "cross-layer-scaling", "high-bias-fold"),
    )

    bits: int = 8
    scheme: Literal["tf", "tf_enhanced"] = "tf"
    symmetric: bool = False
    per_channel: bool = False
    rounding: Literal["nearest", "stochastic"] = "nearest"
    seed: int = 0
    only: str = ""
    input_mean: str = ""

    def __attrs_post_init__(self) -> None:
        _ = self.quantizer  # which refuses what is no choice
        read_means(self.input_mean)

    @property
    def quantizer(self) -> Quantizer:
        """What the kernels will be quantized with."""
        return Quantizer(self.bits, self.scheme, self.symmetric, self.per_channel, self.rounding, self.seed)

    def apply(self, edit: Edit, context: Context) -> Iterable[Remark]:
        """Correct layer by layer; a remark for each that is not, and one that says how far the others change."""
        layers = chosen(biased(edit), self.only, edit)
        found = shifts(edit, self.quantizer, input_layouts(read_means(self.input_mean), edit), layers)
        done: list[Shift] = []
        for shift in found:
            name, known = shift.layer.name, shift.known
            values = np.where(known, shift.values, 0.0)
            bias = corrected(shift.layer, values, edit) if known.any() else None
            idle = not values.any()
            if bias is None or (idle and not known.all()):
                reason = shift.reason or "its corrected bias would not be finite in its dtype"
                if self.only:
                    raise PassError(f"only={self.only!r}: {name} cannot be corrected: {reason}")
                yield Remark(self.name, "missed", name, reason, remedy(reason))
                continue
            if idle:
                yield Remark(
                    self.name, "note", name, "its kernel is on the grid already" if shift.on_grid else "what it reads is 0 on average"
                )
                continue
            if not known.all():
                missing = f"{int((~known).sum())} of its {known.size} channels are not corrected: {shift.reason}"
                yield Remark(self.name, "missed", name, missing, remedy(shift.reason))
            if shift.borderless:
                yield Remark(
                    self.name, "note", name, "the size of the image that it reads is not known: what zeros do at its border is left out"
                )
            edit.savepoint()
            edit.set_params([edit.nodes[node.name] for node in shift.layer.nodes], {"bias": bias})
            edit.note(channels=int(known.sum()), largest=float(np.abs(values).max()))
            if shift.assumes:
                edit.note(assumes=tuple(sorted(shift.assumes)))
            context.on_rewrite(edit.commit("correct", name))
            done.append(shift)
        if done:
            yield Remark(self.name, "note", edit.source.name, summary(done, len(found)))


def remedy(reason: str) -> str:
    """What would help."""
    return "input-mean= tells it" if reason.startswith("the mean of the input") else ""


def summary(done: Sequence[Shift], count: int) -> str:
    """What was corrected, and how far, in a line."""
    largest = max(done, key=lambda shift: float(np.nanmax(np.abs(shift.values))))
    text = f"{len(done)} of {count} layers corrected, by up to {np.nanmax(np.abs(largest.values)):.3g} ({largest.layer.name})"
    assumed = [shift for shift in done if shift.assumes]
    sums = sorted({name for shift in assumed for name in shift.assumes})
    if not assumed:
        return text
    said = ", ".join(sums[:3]) + " .." * (len(sums) > 3)
    return f"{text}; {len(assumed)} of them take for independent what {said} adds, and the sum for normal"
