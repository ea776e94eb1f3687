"""Analytical bias correction: what quantized kernels will add to each layer's output on average is taken from its bias, without data."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from tfpasses.graph import ChannelStats, Edit
from tfpasses.manager import Context, Contract, Effect, Remark, register
from tfpasses.passes.correction.analytical import shifts
from tfpasses.passes.correction.biases import biased, chosen
from tfpasses.passes.correction.inputs import input_layouts, read_means
from tfpasses.passes.correction.shifts import take
from tfpasses.passes.quantization.options import Quantizing

__all__ = ["AnalyticalBiasCorrection"]


@register
@attrs.frozen
class AnalyticalBiasCorrection(Quantizing):
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

    input_mean: str = ""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        read_means(self.input_mean)  # which refuses what is none

    def apply(self, edit: Edit, context: Context) -> Iterable[Remark]:
        """Correct layer by layer; a remark for each that is not, and one that says how far the others are."""
        layers = chosen(biased(edit), self.only, edit)
        found = shifts(edit, self.quantizer, input_layouts(read_means(self.input_mean), edit), layers)
        yield from take(found, self.name, self.only, edit, context, remedy)


def remedy(reason: str) -> str:
    """What would help."""
    return "input-mean= tells it" if reason.startswith("the mean of the input") else ""
