"""High-bias fold: the part of a bias that all but a few values exceed moves into the next layers' biases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import attrs
import numpy as np

from tfpasses.graph import OUTPUT, Array, ChannelStats, Edit, LinearView, Node, Ref, channel_axis, has_trait
from tfpasses.manager import Context, Contract, Effect, Pass, Remark, register
from tfpasses.passes.equalization.arithmetic import absorbable, expected_shortfall
from tfpasses.passes.equalization.borders import add_map, border_map, no_map
from tfpasses.passes.equalization.clips import is_rectified, limits_of, set_limits
from tfpasses.passes.equalization.layouts import along, flattened, of_channels, reshaped
from tfpasses.passes.folding.paths import misplaces_bias, pads_zeros

__all__ = ["HighBiasFold"]


@register
@attrs.frozen
class HighBiasFold(Pass):
    """Move what a layer's channels have in common from its bias into the biases of the layers that read it.

    With z the layer's output, of mean m and standard deviation s (`ChannelStats`, as a folded batch norm leaves them): behind a ReLU
    c = max(0, m - sigmas·s), which all but a few values of z exceed; c = m where nothing lies between. Then b1' = b1 - c and
    b2' = b2 + (sum over the taps of W2)·c; the statistics become m - c and s, a limit B of a clipped ReLU in between B - c (where
    m + sigmas·s < B; a channel for which that does not hold stays). Source: Nagel et al., "Data-Free Quantization through Weight
    Equalization and Bias Correction", arXiv 1906.04721, section 4.1.3.

    Where nothing lies between it is exact in real arithmetic; behind a ReLU it errs where z < c, and a remark tells by how much on
    average. Where zero padding meets the next kernel, `padding=refuse` leaves the layer, `border-map` adds what is right at each place of
    the image (whose size must be known), `approximate` errs at the border.

    Between may lie pools, crops, Flatten and Reshape that keep the channels apart; several layers may read it.
    """

    name = "high-bias-fold"
    contract = Contract(Effect.APPROXIMATES, requires={ChannelStats}, after=("fold-batch-norms", "cross-layer-scaling"))

    sigmas: float = attrs.field(default=3.0, validator=attrs.validators.ge(0))
    padding: Literal["refuse", "border-map", "approximate"] = "refuse"

    def apply(self, edit: Edit, context: Context) -> Iterable[Remark]:
        """Layer by layer; a remark for each that was folded says how far it is off, for each that stays why."""
        told: set[Ref] = set()
        for node in list(edit.nodes.values()):
            known = statistics(node, edit) if has_trait(node, "linear") else None
            if known is not None:
                told.update((known[0], Ref(node.name)))
                yield self.fold(edit.nodes[node.name], *known, edit, context)
        for ref, _ in list(edit.source.facts_of(ChannelStats)):
            if ref.node in edit.nodes and ref not in told:
                yield Remark(self.name, "missed", ref.node, f"it is {edit.nodes[ref.node].op}, which has no bias")

    def fold(self, node: Node, ref: Ref, stats: ChannelStats, edit: Edit, context: Context) -> Remark:
        """One layer; `ref` is the value that the statistics are of."""
        found = Below.of(node, ref, edit)
        if isinstance(found, str):
            return Remark(self.name, "missed", node.name, found)
        view = LinearView.of(node, edit)
        if misplaced := misplaces_bias(node, edit):
            return Remark(self.name, "missed", node.name, misplaced)
        if view.bias is None or stats.mean.size != view.out_channels:
            return Remark(self.name, "missed", node.name, "it has no bias, or its statistics are of other channels")
        shift = absorbable(stats.mean, stats.std, found.rectified, self.sigmas)
        fits = np.isfinite(shift)
        for clip in found.clips:
            fits[clip.channels[stats.mean[clip.channels] + self.sigmas * stats.std[clip.channels] >= clip.limits]] = False
        shift = np.where(fits, shift, 0.0)
        if not shift.any():
            return Remark(self.name, "missed", node.name, "no channel is so far above zero that a part of its bias could move")
        refused = self.refusal(found, shift, edit)
        if refused:
            return Remark(self.name, "missed", node.name, *refused)
        edit.savepoint()
        moved = np.asarray(view.bias, np.float64) - shift
        edit.set_params(node, {"bias": moved.astype(view.bias.dtype)})
        for clip in found.clips:
            if shift[clip.channels].any():
                set_limits(edit.nodes[clip.node], clip.limits - shift[clip.channels], edit)
        for reader, channels in found.readers:
            absorb(edit.nodes[reader.name], shift[channels], self.padding, edit)
        for each in {ref, Ref(node.name)}:
            before = edit.facts[each, ChannelStats.kind]
            assert isinstance(before, ChannelStats)
            edit.add_fact(each, ChannelStats(before.mean - shift, before.std))
        edit.note(channels=int((shift != 0).sum()), largest=float(np.abs(shift).max()))
        context.on_rewrite(edit.commit("move bias", node.name))
        return Remark(self.name, "note", node.name, told(node, found, shift, stats))

    def refusal(self, found: Below, shift: Array, edit: Edit) -> tuple[str, str] | None:
        """Why what reads a layer cannot take its shift, and what would help; None where it can."""
        for reader, channels in found.readers:
            if reason := misplaces_bias(reader, edit):
                return reason, ""
            if not shift[channels].any() or not pads_zeros(reader, edit) or self.padding == "approximate":
                continue
            if self.padding == "refuse":
                return f"{reader.name} pads with zeros, which are not shifted", "padding=border-map corrects the border"
            unknown = no_map(reader, edit)
            if unknown:
                return unknown, "padding=approximate errs at the border"
        return None


def statistics(node: Node, edit: Edit) -> tuple[Ref, ChannelStats] | None:
    """What is known of a linear node's value, or of its sum with a constant (see `add_map`); None where nothing is."""
    ref, uses = Ref(node.name), list(edit.users[node.name])
    own = edit.facts.get((ref, ChannelStats.kind))
    if not isinstance(own, ChannelStats):
        return None
    if len(uses) == 1 and uses[0][0] != OUTPUT and adds_constant(edit.nodes[uses[0][0]], edit):
        summed = edit.facts.get((Ref(uses[0][0]), ChannelStats.kind))
        if isinstance(summed, ChannelStats):
            return Ref(uses[0][0]), summed
    return ref, own


SHIFTED = ("MaxPool", "AvgPool", "GlobalMaxPool", "GlobalAvgPool", "Crop", "UpSample")


@attrs.frozen(eq=False)
class Clip:
    """An activation with upper limits."""

    node: str
    channels: Array
    """The channel of the layer below that lies at each place of its value."""
    limits: Array
    """The limit there."""


@attrs.frozen(eq=False)
class Below:
    """What lies between a layer and those that read it."""

    rectified: bool
    """Whether activations do."""
    slope: float
    """The least slope below zero that one of them has."""
    clips: tuple[Clip, ...]
    readers: tuple[tuple[Node, Array], ...]
    """The linear nodes, with the channel of the layer that each of their input channels is."""

    @classmethod
    def of(cls, node: Node, known: Ref, edit: Edit) -> Below | str:
        """All ways from a node to linear ones; or why a shift cannot take them. `known` is the value whose statistics are known: that of
        the node, or of its sum with a constant.
        """
        shared = [name for key in node.params.values() for name in edit.weight_users[key] if name != node.name]
        if shared:
            return f"it shares a weight with {shared[0]}"
        rank = len(edit.spec(Ref(node.name)).dims)
        view = LinearView.of(node, edit)
        start = along(np.arange(view.out_channels, dtype=np.float64), view.channel_axis(rank), rank)
        clips: list[Clip] = []
        readers: list[tuple[Node, Array]] = []
        stack = [(Ref(node.name), start)]
        ways: set[bool] = set()
        slopes = [1.0]
        plain = {Ref(node.name): True}
        moved: dict[Ref, str] = {}
        """What came to be another number since its statistics were known, and by which node."""
        while stack:
            ref, layout = stack.pop()
            if not edit.users[ref.node]:
                return f"{ref.node} is used by nothing"
            for user, _ in edit.users[ref.node]:
                if user == OUTPUT:
                    return f"{ref.node} is an output"
                other = edit.nodes[user]
                if edit.spec(Ref(user)).dtype != edit.spec(ref).dtype:
                    return f"{user} computes in another dtype"
                if has_trait(other, "linear"):
                    found = reader_of(other, ref, layout, edit)
                    if isinstance(found, str):
                        return found
                    readers.append((other, found))
                    ways.add(plain[ref])
                    continue
                passed = passes(other, layout, edit)
                if isinstance(passed, str):
                    return passed
                bends = other.op in ("Relu", "Minimum", "Maximum")
                if ref in moved and bends:
                    return f"{moved[ref]} adds a constant to it, so that its statistics are not those of what {user} reads"
                if ref in moved or (adds_constant(other, edit) and Ref(user) != known and not is_zero(other, edit)):
                    moved[Ref(user)] = moved.get(ref, user)
                slopes.append(slope_of(other))
                plain[Ref(user)] = plain[ref] and not bends
                limits = limits_of(other, edit)
                if limits is not None:
                    channels, limits = np.broadcast_arrays(layout.astype(np.intp), limits)
                    clips.append(Clip(user, channels, limits))
                stack.append((Ref(user), passed))
        if len(ways) > 1:
            return "some of what reads it lies behind an activation, and some does not"
        return cls(ways == {False}, min(slopes), tuple(clips), tuple(readers))


def reader_of(node: Node, ref: Ref, layout: Array, edit: Edit) -> Array | str:
    """The channel of the layer below that each input channel of a linear node is; or why it cannot take a shift."""
    shared = [name for key in node.params.values() for name in edit.weight_users[key] if name != node.name]
    if shared:
        return f"{node.name} reads it and shares a weight with {shared[0]}"
    view = LinearView.of(node, edit)
    channels = of_channels(layout, channel_axis(node, len(edit.spec(ref).dims)), view.in_channels)
    return f"an input channel of {node.name} holds several of its channels" if channels is None else channels.astype(np.intp)


def passes(node: Node, layout: Array, edit: Edit) -> Array | str:
    """What of the layer below lies where, behind a node that a shift passes through; or why none does."""
    after = edit.spec(Ref(node.name)).shape
    if (node.op == "Relu" and node.config["threshold"] == 0) or is_rectified(node, edit) or limits_of(node, edit) is not None:
        return layout
    if has_trait(node, "inference_identity") or adds_constant(node, edit):
        return layout
    if node.op in SHIFTED:
        axis = channel_axis(node, layout.ndim + 1)
        kept = of_channels(layout, axis, layout.shape[axis - 1])
        if kept is None or after is None:
            return f"{node.name} takes channels together"
        return along(kept, channel_axis(node, len(after)), len(after))
    if node.op in ("Flatten", "Reshape") and after is not None:
        before = edit.spec(node.inputs[0]).dims
        found = flattened(layout, before) if node.op == "Flatten" else reshaped(layout, before, after)
        return f"the sizes of what {node.name} reshapes are not known" if found is None else found
    return f"{node.name} reads it: it is {node.op}, which no shift passes through"


def slope_of(node: Node) -> float:
    """The slope below zero of an activation that a shift passes through; 1 of what is none."""
    return float(node.config["negative_slope"]) if node.op == "Relu" else float(node.op != "Maximum")


def adds_constant(node: Node, edit: Edit) -> bool:
    """Whether a node adds a constant to a value of its own shape."""
    others = [ref for ref in node.inputs if edit.nodes[ref.node].op != "Const"]
    return node.op == "Add" and len(others) == 1 and edit.spec(others[0]).shape == edit.spec(Ref(node.name)).shape


def is_zero(node: Node, edit: Edit) -> bool:
    """Whether the constants that a node adds are 0."""
    consts = [edit.nodes[ref.node] for ref in node.inputs if edit.nodes[ref.node].op == "Const"]
    return not any(edit.weights[const.params["value"]].any() for const in consts)


def absorb(node: Node, shift: Array, padding: str, edit: Edit) -> None:
    """Let a linear node give of x what it gave of x + shift."""
    if not shift.any():
        return
    if padding == "border-map" and pads_zeros(node, edit):
        add_map(node, border_map(node, shift, edit), edit)
        return
    view = LinearView.of(node, edit)
    bias = view.response(shift) + (0.0 if view.bias is None else np.asarray(view.bias, np.float64))
    edit.set_params(node, {"bias": bias.astype(view.kernel.dtype if view.bias is None else view.bias.dtype)})


def told(node: Node, found: Below, shift: Array, stats: ChannelStats) -> str:
    """What was moved, and how far it is off."""
    text = f"{int((shift != 0).sum())} of its channels gave up to {np.abs(shift).max():.3g} to {', '.join(names(found))}"
    if not found.rectified:
        return f"{text}; nothing lies between, so that it is exact"
    some = shift != 0
    off = (1 - found.slope) * expected_shortfall(shift[some], stats.mean[some], stats.std[some])
    return f"{text}; behind the ReLU they are {float(off.max()):.2g} too high on average at most"


def names(found: Below) -> Iterator[str]:
    """The readers' names."""
    yield from (reader.name for reader, _ in found.readers)
