"""Cross-layer scaling: the ranges of consecutive layers' kernels made equal, channel by channel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import attrs
import numpy as np

from tfpasses.graph import Array, ChannelStats, Edit, Graph, LinearView, Node, Ref, has_trait
from tfpasses.manager import Context, Contract, Effect, Pass, Remark, register
from tfpasses.passes.equalization.arithmetic import REACH, scaled, to_power_of_two
from tfpasses.passes.equalization.channels import Channels, Kernel
from tfpasses.passes.equalization.clips import clipped, set_limits
from tfpasses.passes.equalization.constants import add_constant, constant_value, in_dtype, takes_any_dtype
from tfpasses.passes.equalization.intervals import Intervals
from tfpasses.passes.equalization.named_sets import read_sets, units_of_sets
from tfpasses.passes.equalization.scaling import Scales, Unit, equalize, units

__all__ = ["CrossLayerScaling"]


@register
@attrs.frozen
class CrossLayerScaling(Pass):
    """Scale channels between layers so that the ranges of the kernels that give them and of those that read them are equal.

    With r the largest magnitude of a kernel for a channel, a pair of layers is scaled by s = r1/sqrt(r1·r2): W1/s, b1/s, W2·s; a
    depthwise layer between two by s12 = r1/cbrt(r1·r2·r3) and s23 = cbrt(r1·r2·r3)/r3; what an Add or a Concat ties together has one
    scale a channel, with r1 the largest range of all that give it and r2 of all that read it. Swept until it stays. Exact in real
    arithmetic: between may lie what f(s·x) = s·f(x) holds of (ReLU, leaky ReLU, PReLU, pools, zero padding, crops, Flatten, sums, ..).
    Source: Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction", arXiv 1906.04721, section 4.1.

    `sweeps` at most, until the two ranges of a channel differ by `tolerance` (relative). `max_scale` bounds every scale, and its inverse.
    `scales=pow2` rounds them to powers of two, by which nothing is rounded (where no number becomes so small that it loses digits).
    `relu6=clip` scales the limit of an activation along, as a Minimum of the ReLU and 6/s; `skip` leaves such channels alone; `bound`
    scales those whose values stay below the limit, before and after, by what is known of their bounds. `only="conv1,conv2
    conv2,depthwise3,conv4"` scales these sets of layers in this order.

    A channel of which one kernel has nothing has no two ranges to make equal: it keeps its scale, or, where the range that it has exceeds
    those of all other channels, takes the one by which it no longer does. `ChannelStats` are divided by the scales.
    """

    name = "cross-layer-scaling"
    contract = Contract(Effect.REASSOCIATES, after=("fold-batch-norms", "fold-constant-channels", "relu6-to-relu"))

    sweeps: int = attrs.field(default=20, validator=attrs.validators.ge(1))
    tolerance: float = attrs.field(default=0.1, validator=attrs.validators.ge(0))
    max_scale: float = attrs.field(default=REACH, validator=attrs.validators.ge(1))
    scales: Literal["real", "pow2"] = "real"
    relu6: Literal["clip", "skip", "bound"] = "clip"
    only: str = ""

    def __attrs_post_init__(self) -> None:
        read_sets(self.only)

    @property
    def effect(self) -> Effect:
        """Powers of two round nothing."""
        return Effect.EXACT if self.scales == "pow2" else self.contract.effect

    def apply(self, edit: Edit, context: Context) -> Iterable[Remark]:
        """Scale all at once; a remark for each layer whose channels keep their scales, with the reason why."""
        channels = Channels.of(edit, self.relu6 != "skip")
        least = None
        if self.relu6 == "bound":
            channels, least = bounded(channels, edit)
        chosen = units_of_sets(read_sets(self.only), channels, edit) if self.only else units(channels)
        found = equalize(channels, chosen, self.sweeps, self.tolerance, self.max_scale, least)
        scale = found.scale
        if self.scales == "pow2":
            scale = to_power_of_two(scale, 1 / self.max_scale if least is None else np.maximum(least, 1 / self.max_scale), self.max_scale)
        scale = keeps_finite(channels, scale, edit)
        if (scale != 1).any():
            edit.savepoint()
            write(channels, scale, self.relu6 == "clip", edit)
            edit.note(sets=tuple(described(unit, channels, scale) for unit in chosen), sweeps=found.sweeps)
            root = channels.kernels[min(unit.producers[0] for unit in chosen)].nodes[0]
            context.on_rewrite(edit.commit("scale", root))
            remedy = f"they differ by up to {100 * np.expm1(found.apart):.2g} % still; more sweeps make them equal"
            yield Remark(self.name, "note", edit.source.name, summary(found, scale, chosen), remedy * (found.apart > self.tolerance))
        yield from self.left_alone(channels, chosen, found, edit)

    def left_alone(self, channels: Channels, chosen: Sequence[Unit], found: Scales, edit: Edit) -> Iterator[Remark]:
        """What keeps its scale, and why."""
        followed = before_linear(edit.source)
        for kernel in channels.kernels if not self.only else ():
            if followed.isdisjoint(kernel.nodes):
                continue
            fixed = kernel.outs[channels.fixed[kernel.outs] >= 0]
            for place in np.unique(channels.fixed[fixed]):
                node, why = channels.reasons[place]
                count = int((channels.fixed[fixed] == place).sum())
                who = "its channels keep" if count == kernel.outs.size else f"{count} of its {kernel.outs.size} channels keep"
                yield Remark(self.name, "missed", kernel.nodes[0], f"{who} their scale: {node}: {why}")
        gives, reads = found.ranges
        for unit in chosen:
            name = channels.kernels[unit.producers[0]].nodes[0]
            idle = sum(int(((gives[region] == 0) | (reads[region] == 0)).sum()) for region in unit.regions)
            if idle:
                yield Remark(self.name, "note", name, f"{idle} channels behind it have a range of 0, which no scale makes equal to another")
            far = sum(int((np.abs(np.log(found.scale[region])) > (1 - 1e-9) * np.log(self.max_scale)).sum()) for region in unit.regions)
            if far and self.max_scale > 1:
                yield Remark(self.name, "note", name, f"the scales of {far} channels behind it are bounded by max-scale={self.max_scale:g}")


def bounded(channels: Channels, edit: Edit) -> tuple[Channels, Array]:
    """The same where a clip takes part that never acts, with the least scale of each class for which it still does not."""
    highest = Intervals.of(edit)
    fixed, least = channels.fixed.copy(), np.zeros(channels.count)
    reasons = list(channels.reasons)
    for clip in channels.clips:
        above = highest.above(clipped(edit.nodes[clip.node], edit), clip.channels)
        classes, limits, high = (one.reshape(-1) for one in np.broadcast_arrays(clip.channels, clip.limits, above))
        acts = classes[high > limits]
        fixed[acts[fixed[acts] < 0]] = len(reasons)
        reasons.append((clip.node, f"it clips at {clip.limits.min(initial=np.inf):g}, which its values may exceed"))
        np.maximum.at(least, classes, np.divide(high, limits, out=np.zeros(high.size), where=(high <= limits) & (limits > 0)))
    return attrs.evolve(channels, fixed=fixed, reasons=tuple(reasons)), least


def keeps_finite(channels: Channels, scale: Array, edit: Edit) -> Array:
    """The scales, but 1 where a bias, a constant or a limit would not be finite in the dtype that is computed in."""
    scale = scale.copy()

    def check(values: Array, dtype: str, classes: Array) -> None:
        whole, places = np.broadcast_arrays(in_dtype(np.asarray(values, np.float64) / scale[classes], dtype), classes)
        scale[places[~np.isfinite(whole)]] = 1.0

    for kernel in channels.kernels:
        if kernel.last:
            bias = LinearView.of(edit.nodes[kernel.nodes[0]], edit).bias
            if bias is not None:
                check(bias, edit.spec(Ref(kernel.nodes[0])).dtype, kernel.outs)
    for name, ref in channels.constants.items():
        check(constant_value(edit.nodes[name], edit), edit.spec(ref).dtype, channels.values[ref])
    for clip in channels.clips:
        check(clip.limits, edit.spec(Ref(clip.node)).dtype, clip.channels)
    return scale


def before_linear(graph: Graph) -> set[str]:
    """The nodes that have a linear one somewhere behind them."""
    found: set[str] = set()
    for node in reversed(list(graph.nodes.values())):
        if has_trait(node, "linear") or node.name in found:
            found.update(ref.node for ref in node.inputs)
    return found


# writing


def write(channels: Channels, scale: Array, limits: bool, edit: Edit) -> None:
    """Scale kernels, biases, constants, limits and facts."""
    by_layer: dict[tuple[str, ...], list[Kernel]] = {}
    for kernel in channels.kernels:
        by_layer.setdefault(kernel.nodes, []).append(kernel)
    for names, kernels in by_layer.items():
        changed: dict[str, Array] = {}
        for kernel in kernels:
            ins, outs = scale[kernel.ins], scale[kernel.outs]
            if (ins != 1).any() or (outs != 1).any():
                changed[kernel.view.slot] = scaled(kernel.view, kernel.view.per_in(ins) / kernel.view.per_out(outs))
            if kernel.last and (outs != 1).any():
                bias = LinearView.of(edit.nodes[names[0]], edit).bias
                if bias is not None:
                    changed["bias"] = (np.asarray(bias, np.float64) / outs).astype(bias.dtype)
        if changed:
            edit.set_params([edit.nodes[name] for name in names], changed)
    for name, ref in channels.constants.items():
        divide_constant(edit.nodes[name], ref, scale[channels.values[ref]], edit)
    for clip in channels.clips if limits else ():
        each = scale[clip.channels]
        if (each != 1).any():
            set_limits(edit.nodes[clip.node], clip.limits / each, edit)
    for (ref, kind), fact in list(edit.facts.items()):
        if kind == ChannelStats.kind and isinstance(fact, ChannelStats) and ref in channels.values:
            each = scale[channels.values[ref]].reshape(-1)
            if (each != 1).any() and each.size in (1, fact.mean.size):
                edit.add_fact(ref, ChannelStats(fact.mean / each, fact.std / each))


def divide_constant(node: Node, ref: Ref, scale: Array, edit: Edit) -> None:
    """Divide a constant by the scale (without the batch) of the value that it meets. One that becomes larger is made anew."""
    before = constant_value(node, edit)
    if not before.any() or (scale == 1).all():
        return
    after, stored = before / scale, edit.weights[node.params["value"]]
    if after.shape == before.shape and not takes_any_dtype(node):
        edit.set_params(node, {"value": in_dtype(after, stored.dtype.name).reshape(stored.shape)})
        return
    new = add_constant(f"{node.name}.scaled", after, edit.spec(ref), [node], edit)
    ((user, place),) = edit.users[node.name]
    reader = edit.set_input(edit.nodes[user], place, new)
    if reader.op == "Add" and len(reader.inputs) == 2:  # keras.ops.add takes a second one that looks like a vector for a bias, as BiasAdd
        edit.change(reader, inputs=(new, reader.inputs[1 - place]), owner=None, call=None)  # does, which this may have been read from
    edit.remove(edit.nodes[node.name])


# telling


def described(unit: Unit, channels: Channels, scale: Array) -> str:
    """A set of layers and its scales, for the journal."""

    def names(numbers: Iterable[int]) -> str:
        return "+".join(channels.kernels[number].nodes[0] for number in numbers)

    layers = [names(unit.producers), *(names([number]) for number in unit.middles), names(unit.consumers)]
    each = np.concatenate([scale[region] for region in unit.regions])
    return f"{','.join(layers)}: {each.size} channels, {each.min(initial=np.inf):.3g} to {each.max(initial=0.0):.3g}"


def summary(found: Scales, scale: Array, chosen: Sequence[Unit]) -> str:
    """What was done, in a line."""
    each = np.concatenate([scale[region] for unit in chosen for region in unit.regions])
    return f"{len(chosen)} sets of layers scaled in {found.sweeps} sweeps, {each.size} channels, by {each.min():.3g} to {each.max():.3g}"
