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

__all__ = ["KernelView", "LinearView"]


@attrs.frozen(eq=False)
class KernelView:
    """One kernel, its last two axes seen as [input channels of a group, groups, output channels of a group], whatever the layout.

    An input channel is group·inputs + i, an output channel group·outputs + o. A depthwise kernel has a group for each input channel.
    """

    slot: str
    """Its parameter slot."""
    kernel: Array
    """As it is stored."""
    groups: int = 1
    transposed: bool = False
    """Whether it is stored as [k.., out, in]."""
    depthwise: bool = False
    """Whether it is stored as [k.., in, multiplier]."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Input channels of a group, groups, output channels of a group."""
        a, b = self.kernel.shape[-2:]
        if self.depthwise:
            return 1, a, b
        inputs, outputs = (b, a) if self.transposed else (a, b)
        return inputs, self.groups, outputs // self.groups

    @property
    def in_channels(self) -> int:
        """How many input channels it reads."""
        return self.shape[0] * self.shape[1]

    @property
    def out_channels(self) -> int:
        """How many output channels it gives."""
        return self.shape[1] * self.shape[2]

    @property
    def out_axes(self) -> tuple[int, ...]:
        """The kernel's axes that together count the output channels: two of a depthwise one (channel = in·multiplier + m)."""
        return (-2, -1) if self.depthwise else (-2,) if self.transposed else (-1,)

    @property
    def magnitudes(self) -> Array:
        """The largest magnitude over the taps, [in, groups, out], in the kernel's dtype (float32 for half precision); not to be written to
        where the kernel is not.
        """
        taps = np.abs(self.kernel).max(axis=tuple(range(self.kernel.ndim - 2)), initial=0.0)
        wide = taps.astype(np.promote_types(taps.dtype, np.float32), copy=False)
        return np.asarray((wide.T if self.transposed else wide).reshape(self.shape))

    def per_in(self, vector: Array) -> Array:
        """A vector over the input channels, to broadcast against [in, groups, out]."""
        inputs, groups, _ = self.shape
        return np.asarray(vector.reshape(groups, inputs).T[:, :, None])

    def per_out(self, vector: Array) -> Array:
        """A vector over the output channels, to broadcast against [in, groups, out]."""
        _, groups, outputs = self.shape
        return np.asarray(vector.reshape(1, groups, outputs))

    def of_in(self, largest: Array) -> Array:
        """[in, groups] as a vector over the input channels."""
        return np.asarray(largest.T.reshape(-1))

    def as_stored(self, factors: Array) -> Array:
        """[in, groups, out] as it lies in the kernel's last two axes."""
        inputs, groups, outputs = self.shape
        if self.depthwise:
            return np.asarray(factors.reshape(groups, outputs))
        matrix = factors.reshape(inputs, groups * outputs)
        return np.asarray(matrix.T if self.transposed else matrix)


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
    def kernels(self) -> tuple[KernelView, ...]:
        """Its kernels in the order of computing: two of a separable convolution, else one."""
        depthwise = self.node.op in ("DepthwiseConv", "SeparableConv")
        first = KernelView(self.in_kernel_slot, self.in_kernel, self.groups, self.node.op == "ConvTranspose", depthwise)
        return (first, KernelView(self.kernel_slot, self.kernel)) if self.node.op == "SeparableConv" else (first,)

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
