"""The arithmetic of batch-norm folding, as pure functions: used by every pass and interface that folds."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from tfpasses.graph import Array, ChannelStats, LinearView, Node

__all__ = ["Affine", "fold_backward"]


@attrs.frozen(eq=False)
class Affine:
    """A batch norm at inference: y = scale·x + shift per channel, float64, with the statistics of its output."""

    scale: Array
    shift: Array
    stats: ChannelStats
    finite: bool
    """Whether every parameter, and every channel's scale and shift, is a number."""

    @classmethod
    def of(cls, node: Node, graph: Any) -> Affine:
        """scale = gamma / sqrt(variance + epsilon), shift = beta - mean·scale; absent gamma is 1, absent beta 0."""
        params = {slot: np.asarray(array, np.float64) for slot, array in graph.params(node).items()}
        mean, variance = params["mean"], params["variance"]
        gamma, beta = params.get("gamma", np.ones_like(mean)), params.get("beta", np.zeros_like(mean))
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            scale = gamma / np.sqrt(variance + float(node.config["epsilon"]))
            shift = beta - mean * scale
            finite = bool(np.isfinite(scale + shift + variance).all())  # gamma, beta and mean show in the first two
        return cls(scale, shift, ChannelStats(beta, np.abs(gamma)), finite)


def fold_backward(linear: LinearView, affine: Affine) -> dict[str, Array]:
    """New parameters of a linear node such that it gives `affine` of what it gave.

    W' = W·scale over the output channels, b' = b·scale + shift (Nagel et al., arXiv 1906.04721, appendix A). The scale and the bias
    are computed in float64; the product is taken in the kernel's dtype (float32 for half precision), where it is two roundings
    from the truth, the scale's and its own.
    """
    kernel = linear.kernel
    dtype = np.promote_types(kernel.dtype, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        folded = (kernel * linear.per_out_channel(affine.scale.astype(dtype))).astype(kernel.dtype, copy=False)
        bias = affine.shift if linear.bias is None else np.asarray(linear.bias, np.float64) * affine.scale + affine.shift
        stored = bias.astype(kernel.dtype if linear.bias is None else linear.bias.dtype)
    return {linear.kernel_slot: folded, "bias": stored}
