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

    The kernel that produces the output channels is the pointwise one of a separable convolution, the only one of the others.
    """

    node: Node
    kernel: Array
    bias: Array | None

    @classmethod
    def of(cls, node: Node, graph: Any) -> LinearView:
        """The view of a node that has the `linear` trait; `graph` is a `Graph` or an `Edit`."""
        if not has_trait(node, "linear"):
            raise ValueError(f"node {node.name}: {node.op} is not linear")
        bias = node.params.get("bias")
        return cls(node, graph.weights[node.params[kernel_slot(node)]], None if bias is None else graph.weights[bias])

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


OUT_AXES: Mapping[str, tuple[int, ...]] = {"DepthwiseConv": (-2, -1), "ConvTranspose": (-2,)}


def kernel_slot(node: Node) -> str:
    """The parameter slot of the kernel that produces the output channels."""
    return "pointwise_kernel" if node.op == "SeparableConv" else "kernel"
