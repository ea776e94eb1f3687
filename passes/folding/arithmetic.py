"""The arithmetic of batch-norm folding, as pure functions: used by every pass and interface that folds."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from tfpasses.graph import Array, ChannelStats, LinearView, Node

__all__ = ["Affine", "fold_backward", "fold_forward", "merged_params", "scale_forward"]


@attrs.frozen(eq=False)
class Affine:
    """A batch norm at inference: y = scale·x + shift per channel, float64."""

    scale: Array
    shift: Array
    gamma: Array
    beta: Array
    finite: bool
    """Whether every parameter, and every channel's scale and shift, is a number."""

    @property
    def stats(self) -> ChannelStats:
        """The statistics of the batch norm's output, on the data that it was trained on."""
        return ChannelStats(self.beta, np.abs(self.gamma))

    @classmethod
    def of(cls, node: Node, graph: Any) -> Affine:
        """scale = gamma / sqrt(variance + epsilon), shift = beta - mean·scale; absent gamma is 1, absent beta 0."""
        params = {slot: np.asarray(array, np.float64) for slot, array in graph.params(node).items()}
        mean, variance = params["mean"], params["variance"]
        gamma = params["gamma"] if "gamma" in params else np.ones_like(mean)
        beta = params["beta"] if "beta" in params else np.zeros_like(mean)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            scale = gamma / np.sqrt(variance + float(node.config["epsilon"]))
            shift = beta - mean * scale
            finite = bool(np.isfinite(scale + shift + variance).all())  # gamma, beta and mean show in the first two
        return cls(scale, shift, gamma, beta, finite)

    def of_channels(self, channels: slice | Array) -> Affine:
        """The same for some of the channels, in the order given."""
        return Affine(self.scale[channels], self.shift[channels], self.gamma[channels], self.beta[channels], self.finite)


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


def fold_forward(linear: LinearView, affine: Affine) -> dict[str, Array]:
    """New parameters of a linear node such that it gives of x what it gave of `affine` of x, where its whole kernel meets the shift.

    W' = W·scale over the input channels, b' = b + the sum over taps and input channels of W·shift. `affine` is over the node's
    input channels. The sum is taken in float64.
    """
    bias = linear.response(affine.shift) + (0.0 if linear.bias is None else np.asarray(linear.bias, np.float64))
    with np.errstate(over="ignore", invalid="ignore"):
        stored = bias.astype(linear.kernel.dtype if linear.bias is None else linear.bias.dtype)
    return {**scale_forward(linear, affine), "bias": stored}


def scale_forward(linear: LinearView, affine: Affine) -> dict[str, Array]:
    """New parameters of a linear node such that it gives of x what it gave of scale·x: W' = W·scale over the input channels."""
    kernel = linear.in_kernel
    dtype = np.promote_types(kernel.dtype, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        folded = (kernel * linear.per_in_channel(affine.scale.astype(dtype))).astype(kernel.dtype, copy=False)
    return {linear.in_kernel_slot: folded}


def merged_params(inner: Node, outer: Affine, graph: Any) -> dict[str, Array]:
    """The parameters of one batch norm, with the inner one's epsilon, that does what `outer` does of what the inner one gives.

    The inner one's statistics stay: gamma' = gamma·scale, beta' = beta·scale + shift.
    """
    params = graph.params(inner)
    dtype = params["mean"].dtype
    gamma, beta = (np.asarray(params.get(slot, absent), np.float64) for slot, absent in (("gamma", 1.0), ("beta", 0.0)))
    with np.errstate(over="ignore", invalid="ignore"):
        new = {"gamma": (gamma * outer.scale).astype(dtype), "beta": (beta * outer.scale + outer.shift).astype(dtype)}
    return {**new, "mean": params["mean"], "variance": params["variance"]}
