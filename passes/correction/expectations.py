"""The mean of every channel of every value in a graph, from what folded batch norms left behind (`ChannelStats`) and what is told of the
inputs, without data.

Pre-activations with statistics are taken for normally distributed, channel by channel, as Nagel et al. do (arXiv 1906.04721, section
4.2.1); what lies between them is followed from there. See `Expectations`.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np

from tfpasses.graph import Array, ChannelStats, Edit, Graph, LinearView, Node, Ref, channel_axis, has_trait
from tfpasses.passes.correction.elementwise import BENDS, ELEMENTWISE, JOINS
from tfpasses.passes.correction.moments import Moments
from tfpasses.passes.correction.regions import REGIONS, linear
from tfpasses.passes.equalization.constants import constant_value, is_number
from tfpasses.passes.equalization.layouts import along

__all__ = ["Expectations"]


@attrs.frozen(eq=False)
class Expectations:
    """What is known of the values of a graph, of those whose rank is known.

    - A value with `ChannelStats`, and what a batch norm gives, is normal with that mean and deviation; a channel whose kernel is zero is
      its bias.
    - Behind it, exactly: ReLUs, leaky and PReLUs, limits, sums and products with constants; and by quadrature sigmoid, tanh, SiLU, hard
      SiLU, softplus.
    - The mean goes on, exactly but for what happens at borders, through linear layers without statistics, pools that average, pads (place
      by place), crops, upsampling, Flatten, Reshape, Concatenate, and sums. The deviation does not go through what mixes
      neighbours: an activation behind is where knowledge ends.
    - A sum has the mean of its parts' sum. Where an activation follows it, the parts are taken to be independent and the sum to be
      normal (`Moments.sums`, `Moments.assumes`); parts that depend on one value with statistics are not independent, and end it.
    - The mean of a maximum over several elements depends on how like they are, which nothing says: it ends there, but for constants.
    """

    values: Mapping[Ref, Moments]
    reasons: Mapping[Ref, str]
    """For each value of which a mean is not known: why."""

    @classmethod
    def of(cls, graph: Graph | Edit, inputs: Mapping[str, Array] | None = None) -> Expectations:
        """What is known; `inputs` are the means of inputs, as layouts."""
        survey = Survey(graph, inputs or {})
        for node in graph.nodes.values():
            survey.visit(node)
        return cls(survey.values, survey.reasons)

    def reason(self, ref: Ref) -> str:
        """Why the mean of a value is not known."""
        return self.reasons.get(ref, f"nothing is known of {ref}")


class Survey:
    """One walk over a graph in topological order."""

    def __init__(self, graph: Graph | Edit, inputs: Mapping[str, Array]) -> None:
        self.graph = graph
        self.inputs = inputs
        self.values: dict[Ref, Moments] = {}
        self.reasons: dict[Ref, str] = {}

    def visit(self, node: Node) -> None:
        """Find what is known of a node's first output."""
        ref = Ref(node.name)
        if node.op == "Const" or not node.specs or node.specs[0].shape is None:
            return
        rank = len(node.specs[0].shape)
        found = self.stated(node, rank) or self.followed(node)
        found = found if found is not None and "float" in node.specs[0].dtype else Moments.unknown(rank)
        self.values[ref] = found
        if not found.known:
            self.reasons[ref] = self.why(node)

    def stated(self, node: Node, rank: int) -> Moments | None:
        """What a fact says of a value, or a batch norm of what it gives; None where none does."""
        ref = Ref(node.name)
        fact = self.graph.facts.get((ref, ChannelStats.kind))
        axis = self.axis(node, rank)
        if isinstance(fact, ChannelStats) and fact.mean.size in (1, node.specs[0].dims[axis]) and fact.std.size == fact.mean.size:
            mean, std = fact.mean, fact.std
        elif node.op == "BatchNorm":
            params = {slot: np.asarray(array, np.float64) for slot, array in self.graph.params(node).items()}
            std = np.abs(params["gamma"]) if "gamma" in params else np.ones_like(params["mean"])
            mean = params.get("beta", np.zeros_like(params["mean"]))
        else:
            return None
        good = np.isfinite(mean) & np.isfinite(std) & (std >= 0)
        mean, std = (along(np.where(good, part, np.nan), axis, rank) for part in (mean, std))
        if has_trait(node, "linear"):
            view = LinearView.of(node, self.graph)
            sure = along(view.kernels[-1].magnitudes.max(axis=0, initial=0.0).reshape(-1) == 0, axis, rank)  # whatever the statistics say
            bias = np.zeros(view.out_channels) if view.bias is None else np.asarray(view.bias, np.float64)
            mean, std = np.where(sure, along(bias, axis, rank), mean), np.where(sure, 0.0, std)
        return Moments.normal(mean, std, ref)

    def axis(self, node: Node, rank: int) -> int:
        """The axis of a node's channels in what it gives."""
        if node.op == "BatchNorm":
            return int(node.config["axis"]) % rank
        while not has_trait(node, "linear") and "data_format" not in node.config:
            below = [ref for ref in node.inputs if self.graph.nodes[ref.node].op != "Const"]
            if not below or not has_trait(node, "elementwise") or len(self.graph.spec(below[0]).shape or ()) != rank:
                return rank - 1
            node = self.graph.nodes[below[0].node]
        return channel_axis(node, rank)

    def followed(self, node: Node) -> Moments | None:
        """What follows from what is known of a node's inputs; None where nothing does."""
        if node.op == "Input":
            told = self.inputs.get(node.name)
            return None if told is None else Moments(told, np.full(told.shape, np.nan), sources=frozenset({Ref(node.name)}))
        if any(self.graph.nodes[ref.node].op != "Const" and ref not in self.values for ref in node.inputs):
            return None
        if has_trait(node, "linear"):
            return linear(self.graph, node, [self.values[node.inputs[0]]])
        rule = RULES.get(node.op)
        return None if rule is None else rule(self.graph, node, [self.read(ref, node) for ref in node.inputs])

    def read(self, ref: Ref, node: Node | None = None) -> Moments:
        """What is known of what a node reads, laid out for the rank of what it gives where it is broadcast."""
        source = self.graph.nodes[ref.node]
        rank = len(self.graph.spec(ref).shape or ())
        wanted = len(node.specs[0].dims) if node is not None and node.op in JOINS else rank
        if source.op == "Const":
            if not is_number(source):
                return Moments.unknown(wanted)
            whole = constant_value(source, self.graph)
            if not wanted:
                return Moments.constant(whole)
            whole = whole.reshape((1,) * (wanted - whole.ndim) + whole.shape)
            return Moments.constant(np.where((whole == whole[:1]).all(axis=0), whole[0], np.nan))
        found = self.values.get(ref)
        if found is None:
            return Moments.unknown(wanted)
        if wanted == rank:
            return found
        return found.each(lambda layout: layout.reshape((1,) * (wanted - rank) + layout.shape)) or Moments.unknown(wanted)

    def why(self, node: Node) -> str:
        """Why a mean of what a node gives is not known: what its inputs' reasons are, or its own."""
        if node.op == "Input":
            return f"the mean of the input {node.name} is not known"
        for ref in node.inputs:
            if ref in self.reasons:
                return self.reasons[ref]
        alone = sum(self.graph.nodes[ref.node].op != "Const" for ref in node.inputs) == 1
        if node.op in BENDS or (node.op in ("Maximum", "Minimum") and alone):
            below = next(ref for ref in node.inputs if self.graph.nodes[ref.node].op != "Const")
            return f"{node.name}: it is {node.op}, and how {below.node} spreads around its mean is not known"
        return f"{node.name}: {WHY.get(node.op, f'it is {node.op}, through which no mean is followed')}"


RULES = {**ELEMENTWISE, **REGIONS}

LARGEST = "the mean of the largest of several elements depends on how like they are, which is not known"
WHY: Mapping[str, str] = {
    "MaxPool": LARGEST,
    "GlobalMaxPool": LARGEST,
    "Multiply": "the mean of a product of values depends on how they go together, which is not known",
    "Maximum": "the mean of the larger of two values depends on how they go together, which is not known",
    "Minimum": "the mean of the smaller of two values depends on how they go together, which is not known",
    "Flatten": "the sizes of what it flattens are not known",
    "Reshape": "the sizes of what it reshapes are not known",
    "Concat": "the sizes of what it joins are not known",
}
