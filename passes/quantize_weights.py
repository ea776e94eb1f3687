"""Weight quantization, simulated: kernels whose elements lie on a grid of few numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
import numpy as np

from tfpasses.graph import Array, Edit, Node, has_trait
from tfpasses.manager import Context, Contract, Effect, PassError, Remark, register
from tfpasses.passes.named_pairs import layer_of
from tfpasses.passes.quantization.kernels import Kernel, kernels
from tfpasses.passes.quantization.options import Quantizing

__all__ = ["QuantizeWeights"]


@register
@attrs.frozen
class QuantizeWeights(Quantizing):
    """Replace the kernels of linear layers by what integers of a few bits can say of them: W' = delta·round(W/delta), within a range.

    The model stays one of floating-point numbers, so that it can be run to see what quantization costs. Both kernels of a separable
    convolution are quantized, biases never. A kernel that several nodes share is quantized once.

    `bits`: 2 to 16. `scheme=tf` spans the range of the values and 0, `tf_enhanced` the range of least error (AIMET's schemes of these
    names). `symmetric` puts 0 in the middle. `per_channel` gives each output channel a grid of its own. `rounding=nearest`, of two that
    are equally near to the even one; `stochastic`, to the one above or below so that the mean is right, drawn from `seed` and the
    weight's key. `only="conv1 conv2"` quantizes the kernels of these layers; one that cannot be is an error.

    A kernel stays, with a remark, where it is not finite, where something other than linear layers reads it, or where nodes that share
    it do not agree, per channel, which of its axes are the channels.
    """

    name = "quantize-weights"
    contract = Contract(
        Effect.APPROXIMATES,
        after=(
            "fold-batch-norms",
            "fold-constant-channels",
            "relu6-to-relu",
            "cross-layer-scaling",
            "high-bias-fold",
            "analytical-bias-correction",
            "empirical-bias-correction",
            "bias-correction",
        ),
    )

    def apply(self, edit: Edit, context: Context) -> Iterable[Remark]:
        """Quantize kernel by kernel; a remark for each that stays as it is, with the reason why."""
        quantizer = self.quantizer
        for kernel in self.chosen(kernels(edit, quantizer), edit):
            name = kernel.nodes[0].name
            if kernel.reason:
                yield Remark(self.name, "missed", name, kernel.reason)
                continue
            grid = quantizer.grid(kernel.array, kernel.axes)
            new = quantizer.quantized(kernel.array, kernel.axes, kernel.key, grid)
            change = largest_change(kernel.array, new)
            if not change:
                yield Remark(self.name, "note", name, f"its {kernel.slot} is on the grid already")
                continue
            edit.savepoint()
            edit.set_params([edit.nodes[node.name] for node in kernel.nodes], {kernel.slot: new})
            edit.note(weight=kernel.key, bits=self.bits, min=float(grid.min.min()), max=float(grid.max.max()), largest_change=change)
            if self.per_channel:
                edit.note(channels=grid.delta.size)
            context.on_rewrite(edit.commit("quantize", name))

    def chosen(self, found: Sequence[Kernel], edit: Edit) -> Sequence[Kernel]:
        """The kernels of the layers that `only` names, or all. Raises `PassError` where one of them cannot be quantized, or not alone."""
        names = dict.fromkeys(self.only.split())
        if not names:
            return found
        for name in names:
            nodes = [node for node in edit.nodes.values() if name in called(node)]
            if not any(has_trait(node, "linear") for node in nodes):
                reason = f"{name} is no linear layer" if nodes else f"there is no layer {name!r}"
                raise PassError(f"only={self.only!r}: {reason}")
        chosen = [kernel for kernel in found if any(names.keys() & called(node) for node in kernel.nodes)]
        for kernel in chosen:
            named = [node for node in kernel.nodes if names.keys() & called(node)]
            others = [node for node in kernel.nodes if node not in named]
            if kernel.reason:
                raise PassError(f"only={self.only!r}: {layer_of(named[0])} cannot be quantized: {kernel.reason}")
            if others:
                raise PassError(
                    f"only={self.only!r}: {layer_of(named[0])} shares its kernel with {layer_of(others[0])}; name both or neither"
                )
        return chosen


def called(node: Node) -> set[str]:
    """What a user may call a node by: its layer's name or its own."""
    return {layer_of(node), node.name}


def largest_change(old: Array, new: Array) -> float:
    """The largest absolute difference between two kernels."""
    return float(np.abs(np.subtract(new, old, dtype=np.promote_types(old.dtype, np.float32))).max(initial=0.0))
