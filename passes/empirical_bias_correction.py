"""Empirical bias correction: what quantized kernels add to each layer's output on average, on data, is taken from its bias."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from tfpasses.graph import Edit
from tfpasses.manager import Context, Contract, Effect, Remark, register
from tfpasses.passes.correction.biases import biased, chosen
from tfpasses.passes.correction.empirical import Measuring, Method, measured_shifts
from tfpasses.passes.correction.live import read_size
from tfpasses.passes.correction.shifts import take
from tfpasses.passes.quantization.options import Quantizing

__all__ = ["EmpiricalBiasCorrection"]


@register
@attrs.frozen
class EmpiricalBiasCorrection(Quantizing):
    """Take from each bias what quantized kernels add to the layer's output on average on data: b' = b - mean(y_quantized - y_float).

    The mean is over samples and places, before the activation; the kernels are quantized as `quantize-weights` with the same options does
    it, activations are not. Source: Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction", arXiv
    1906.04721, section 4.2.

    `method=sequential`, as published: layer by layer in the order of the network, each with all those before it corrected. The network is
    run twice in all: once as it is, and once with quantized kernels, level by level; what a level gives waits for the next, in files where
    the pass would take more memory than `memory_limit` ("2GB", "512MiB"). `method=fast`: one run, of the network as it is; each layer is
    corrected for what its own kernels change, sum over taps of (Wq - W)·(mean of what the tap reads).

    The kernels stay: what comes out is a float model for `quantize-weights` with the same options to follow (the manager puts it behind),
    or for another program that quantizes as they say. By itself it is off by what is corrected, and to be corrected once.

    `bits`, `scheme`, `symmetric`, `per_channel`, `rounding`, `seed`: as for `quantize-weights`. `samples` are as many as are read of the
    data, 0 for all. `only="conv1 conv2"` corrects these layers; one that cannot be corrected is an error.

    A layer without a bias gets one. One bias that several calls of a layer share is corrected once, by the mean over all of them. Each
    layer that is not corrected, or not in all channels, has a remark that says why: those that no output needs, for one.
    """

    name = "empirical-bias-correction"
    contract = Contract(
        Effect.NEEDS_DATA,
        after=("fold-batch-norms", "fold-constant-channels", "relu6-to-relu", "cross-layer-scaling", "high-bias-fold"),
        reads_data=True,
    )

    method: Method = "sequential"
    samples: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    memory_limit: str = "2GB"

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        read_size(self.memory_limit)  # which refuses what is none

    def apply(self, edit: Edit, context: Context) -> Iterable[Remark]:
        """Measure, then correct layer by layer; a remark for each that is not, and one that says how far the others are."""
        layers = chosen(biased(edit), self.only, edit)
        measuring = Measuring.of(edit.source, self.quantizer, layers, context, self.samples, limit=read_size(self.memory_limit))
        found = measured_shifts(measuring, layers, self.method)
        yield from measuring.remarks(self.name)
        yield from take(found, self.name, self.only, edit, context)
