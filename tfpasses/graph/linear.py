"""`LinearView`: the one place that knows where the channels of a kernel are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from tfpasses.graph.graph import Array
from tfpasses.graph.node import Node
from tfpasses.graph.ops import has_trait
from tfpasses.graph.shapes import channel_axis

__all__ = ["LinearView"]


@attrs.frozen(eq=False)
class LinearView:
    """A linear node seen through its kernel and bias, whatever the layout.

    The kernel that produces the output channels is the pointwise one of a separable convolution, the one that reads the input
    channels its depthwise one; the others have one kernel.
    """

    node: Node
    kernel: Array
    bias: Array | None
    in_kernel: Array

    @classmethod
    def of(cls, node: Node, graph: Any) -> LinearView:
        """The view of a node that has the `linear` trait; `graph` is a `Graph` or an `Edit`."""
        if not has_trait(node, "linear"):
            raise ValueError(f"node {node.name}: {node.op} is not linear")
        bias = node.params.get("bias")
        kernel, in_kernel = (graph.weights[node.params[slot]] for slot in (kernel_slot(node), in_kernel_slot(node)))
        return cls(node, kernel, None if bias is None else graph.weights[bias], in_kernel)

    @property
    def in_kernel_slot(self) -> str:
        """The parameter slot of `in_kernel`."""
        return in_kernel_slot(self.node)

    @property
    def groups(self) -> int:
        """Into how many groups of channels a convolution divides its input; 1 for depthwise kernels, which have an axis of their own."""
        return int(self.node.config["groups"]) if self.node.op == "Conv" else 1

    @property
    def in_axis(self) -> int:
        """The axis of `in_kernel` that counts the input channels (of a group)."""
        return IN_AXIS.get(self.node.op, -2)

    @property
    def in_channels(self) -> int:
        """How many input channels the node reads."""
        return int(self.in_kernel.shape[self.in_axis]) * self.groups

    def per_in_channel(self, vector: Array) -> Array:
        """A vector over the input channels, shaped to broadcast against `in_kernel`; of a grouped convolution, each output channel
        sees the part of its group.
        """
        axis, shape = self.in_axis, [1] * self.in_kernel.ndim
        shape[axis] = self.in_kernel.shape[axis]
        if self.groups == 1:
            whole: Array = np.reshape(vector, shape)
            return whole
        shape[-1] = self.in_kernel.shape[-1]
        parts = np.repeat(np.reshape(vector, (self.groups, -1)), shape[-1] // self.groups, axis=0)
        reshaped: Array = np.reshape(parts.T, shape)
        return reshaped

    def response(self, vector: Array) -> Array:
        """What the node gives, less its bias, for a constant value per input channel, where the whole kernel meets it: float64 per
        output channel.
        """
        weighted = np.asarray(self.in_kernel, np.float64) * self.per_in_channel(vector)
        taps = weighted.sum(axis=tuple(range(weighted.ndim - 2)))  # for Dense, whose kernel has two axes, the kernel itself
        match self.node.op:
            case "DepthwiseConv":
                return np.asarray(taps.reshape(-1))
            case "SeparableConv":
                return np.asarray(taps.reshape(-1) @ np.asarray(self.kernel, np.float64).reshape(taps.size, -1))
            case "ConvTranspose":
                return np.asarray(taps.sum(axis=-1))
            case _:
                return np.asarray(taps.sum(axis=-2))

    @property
    def kernel_slot(self) -> str:
        """The parameter slot of `kernel`."""
        return kernel_slot(self.node)

    @property
    def out_channels(self) -> int:
        """How many output channels the kernel has."""
        return int(np.prod([self.kernel.shape[axis] for axis in self.out_axes]))

    @property
    def out_axes(self) -> tuple[int, ...]:
        """The kernel's axes that together count the output channels: two for depthwise kernels (channel = in·multiplier + m)."""
        return OUT_AXES.get(self.node.op, (-1,))

    def per_out_channel(self, vector: Array) -> Array:
        """A vector over the output channels, reshaped to broadcast against the kernel."""
        shape = [1] * self.kernel.ndim
        for axis in self.out_axes:
            shape[axis] = self.kernel.shape[axis]
        return np.reshape(vector, shape)

    def channel_axis(self, rank: int) -> int:
        """The axis of the output channels in an output of `rank` axes."""
        return channel_axis(self.node, rank)


IN_AXIS: Mapping[str, int] = {"ConvTranspose": -1}
OUT_AXES: Mapping[str, tuple[int, ...]] = {"DepthwiseConv": (-2, -1), "ConvTranspose": (-2,)}


def in_kernel_slot(node: Node) -> str:
    """The parameter slot of the kernel that reads the input channels."""
    return "depthwise_kernel" if node.op == "SeparableConv" else "kernel"


def kernel_slot(node: Node) -> str:
    """The parameter slot of the kernel that produces the output channels."""
    return "pointwise_kernel" if node.op == "SeparableConv" else "kernel"
