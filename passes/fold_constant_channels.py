"""Channels that are the same for every input: their part in the next layer goes into its bias."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import attrs
import numpy as np

from tfpasses.graph import Array, Edit, Graph, LinearView, Node, channel_axis, has_trait
from tfpasses.manager import Context, Contract, Effect, Pass, Remark, register
from tfpasses.passes.equalization.arithmetic import in_ranges
from tfpasses.passes.equalization.borders import add_map, border_map, no_map
from tfpasses.passes.equalization.intervals import UNKNOWN, Intervals
from tfpasses.passes.equalization.layouts import of_channels
from tfpasses.passes.folding.paths import misplaces_bias, pads_zeros

__all__ = ["FoldConstantChannels"]


@register
@attrs.frozen
class FoldConstantChannels(Pass):
    """Fold channels that are constant into the bias of the layer that reads them, and clear what that layer's kernel has for them.

    A channel whose kernel is zero is b for every input, and k = act(b) behind what follows: b2' = b2 + k·sum W2(in = channel) over the
    taps, and W2(in = channel)' = 0. It computes the same, but the cleared weights no longer set the range by which the kernel is
    quantized. Found by interval arithmetic from the inputs on, through activations, pools, sums and joins; of a depthwise layer the
    whole output channel becomes constant in turn.

    Where zero padding meets the kernel this holds for k = 0 alone. Else `padding=refuse` leaves the channel, `border-map` adds what is
    right at each place of the image (whose size must be known), `approximate` errs at the border. `input_range="-1:1"` says between which
    numbers the inputs lie: with it, channels whose kernel is too small to change their bias by a rounding are constant, too, and so are
    those that no such input lifts above zero. The function is kept for such inputs alone: verify it on data that are some.
    """

    name = "fold-constant-channels"
    contract = Contract(Effect.REASSOCIATES, after=("fold-batch-norms",))

    padding: Literal["refuse", "border-map", "approximate"] = "refuse"
    input_range: str = ""

    def __attrs_post_init__(self) -> None:
        read_range(self.input_range)

    @property
    def effect(self) -> Effect:
        """At a border, `padding=approximate` changes the function."""
        return Effect.APPROXIMATES if self.padding == "approximate" else self.contract.effect

    def apply(self, edit: Edit, context: Context) -> Iterable[Remark]:
        """Clear what is constant; a remark for each layer says how much, and how large it was.

        All is one rewrite, which begins where the first constant comes from: what a layer computes of constants is rounded at every step,
        what is put into a bias once, so that a layer looked at by itself seems to read other numbers than it does.
        """
        found = Intervals.of(edit, read_range(self.input_range))
        done: set[str] = set()
        sizes: dict[str, tuple[int, float]] = {}
        edit.savepoint()
        for node in list(edit.nodes.values()):
            if node.name in done or not has_trait(node, "linear"):
                continue
            layer = [edit.nodes[name] for name in dict.fromkeys(name for key in node.params.values() for name in edit.weight_users[key])]
            done.update(one.name for one in layer)
            yield from self.clear(layer, found, edit, sizes)
        if sizes:
            edit.note(
                layers=tuple(sizes), channels=sum(count for count, _ in sizes.values()), cleared=max(most for _, most in sizes.values())
            )
            context.on_rewrite(edit.commit("clear", origin(next(iter(sizes)), edit.source)))
        for name, parts in found.small.items():
            count, most = int((parts > 0).sum()), float(parts.max())
            text = f"{count} channels are their bias but for {most:.2g} at most, which is rounded away"
            yield Remark(self.name, "note", name, text)

    def clear(self, layer: Sequence[Node], found: Intervals, edit: Edit, sizes: dict[str, tuple[int, float]]) -> Iterable[Remark]:
        """One layer, at all its uses. `sizes` gets how many channels were cleared, and their largest weight."""
        view, node, blocked = LinearView.of(layer[0], edit), layer[0], blocks(layer, edit)
        constant = constants(layer[:1] if blocked else layer, view, found, edit)
        ranges = in_ranges(view)
        wanted = np.isfinite(constant) & (ranges > 0)
        if blocked and wanted.any():
            yield Remark(self.name, "missed", node.name, f"{int(wanted.sum())} constant channels stay: {blocked}")
        if blocked:
            return
        maps: list[Array] = []
        kept = wanted & (constant != 0) & any(pads_zeros(one, edit) for one in layer)
        reason = self.refusal(layer, kept, edit)
        if kept.any() and self.padding == "border-map" and not reason:
            maps = [border_map(one, np.where(kept, constant, 0.0), edit) for one in layer]
        if reason:
            wanted &= ~kept
            yield Remark(self.name, "missed", node.name, f"{int(kept.sum())} constant channels stay: {reason[0]}", reason[1])
        inside = wanted & (constant != 0) if not maps else wanted & (constant != 0) & ~kept
        if inside.any() and any(misplaces_bias(one, edit) for one in layer):
            why = next(text for one in layer if (text := misplaces_bias(one, edit)))
            yield Remark(self.name, "missed", node.name, f"{int(inside.sum())} constant channels stay: {why}")
            wanted, inside = wanted & ~inside, np.zeros_like(inside)
        changed = cleared(view, wanted)
        if not changed:
            return
        if inside.any():
            bias = view.response(np.where(inside, constant, 0.0)) + (0.0 if view.bias is None else np.asarray(view.bias, np.float64))
            changed["bias"] = bias.astype(view.kernel.dtype if view.bias is None else view.bias.dtype)
        edit.set_params(layer, changed)
        for one, values in zip(layer, maps if (wanted & kept).any() else [], strict=False):
            add_map(edit.nodes[one.name], values, edit)
        sizes[node.name] = int(wanted.sum()), float(ranges[wanted].max(initial=0.0))
        if wanted.any():
            yield Remark(self.name, "note", node.name, told(wanted, constant, ranges))
        if set(changed) - {view.in_kernel_slot, "bias"}:
            yield Remark(
                self.name, "note", node.name, "weights of its pointwise kernel cleared for channels that its depthwise kernel has none of"
            )

    def refusal(self, layer: Sequence[Node], kept: Array, edit: Edit) -> tuple[str, str] | None:
        """Why channels of constants other than 0 stay where zeros meet the kernel, and what would help; None where they do not."""
        if not kept.any() or self.padding == "approximate":
            return None
        if self.padding == "refuse":
            return f"{layer[0].name} pads with zeros, which they are not", "padding=border-map corrects the border"
        why = next(filter(None, [no_map(node, edit) for node in layer]), "")
        return (why, "padding=approximate errs at the border") if why else None


def origin(name: str, graph: Graph) -> str:
    """The first linear layer from which a layer reads constants, or its own name."""
    found = [name]
    stack, seen = [ref.node for ref in graph.nodes[name].inputs], {name}
    while stack:
        node = graph.nodes[stack.pop()]
        if node.name in seen:
            continue
        seen.add(node.name)
        if has_trait(node, "linear"):
            found.append(node.name)
        else:
            stack += [ref.node for ref in node.inputs]
    order = {one: place for place, one in enumerate(graph.nodes)}
    return min(found, key=order.__getitem__)


def blocks(layer: Sequence[Node], edit: Edit) -> str:
    """Why nothing is folded into a layer, or nothing."""
    first = layer[0]
    for one in layer[1:]:
        if one.op != first.op or dict(one.params) != dict(first.params):
            return f"{first.name} shares a weight with {one.name}, which uses it in another way"
    slots = [slot for slot, array in edit.params(first).items() if not np.isfinite(array).all()]
    return f"its {slots[0]} is not finite (NaN or infinity)" if slots else ""


def read_range(text: str) -> tuple[float, float]:
    """`low:high` as numbers; nothing is anything. Raises `ValueError` for another text."""
    if not text:
        return UNKNOWN
    low, colon, high = text.partition(":")
    try:
        bounds = float(low), float(high)
    except ValueError:
        bounds = (0.0, -1.0)
    if not colon or not bounds[0] <= bounds[1]:
        raise ValueError(f"input-range={text!r}: write the least and the largest number that the inputs hold, as -1:1")
    return bounds


def constants(layer: Sequence[Node], view: LinearView, found: Intervals, edit: Edit) -> Array:
    """The number that each input channel always is, at every use of a layer; NaN where it is not one."""
    whole = np.full(view.in_channels, np.nan)
    for place, node in enumerate(layer):
        bounds = found.values.get(node.inputs[0])
        if bounds is None:
            return np.full(view.in_channels, np.nan)
        axis = channel_axis(node, len(edit.spec(node.inputs[0]).dims))
        each = of_channels(np.nan_to_num(bounds.constant, nan=np.inf), axis, view.in_channels)
        each = np.full(view.in_channels, np.nan) if each is None else np.where(np.isinf(each), np.nan, each)
        whole = each if place == 0 else np.where(whole == each, whole, np.nan)
    return whole


def cleared(view: LinearView, channels: Array) -> dict[str, Array]:
    """The kernels that change where there are zeros for some input channels; a pointwise kernel behind reads nothing of theirs either."""
    changed: dict[str, Array] = {}
    for kernel in view.kernels:
        gone = kernel.as_stored(np.broadcast_to(kernel.per_in(channels), kernel.shape)) & (kernel.kernel != 0)
        new = np.where(gone, np.zeros((), kernel.kernel.dtype), kernel.kernel)
        if gone.any():
            changed[kernel.slot] = new
        channels = attrs.evolve(kernel, kernel=new).magnitudes.max(axis=0, initial=0.0).reshape(-1) == 0
    return changed


def told(wanted: Array, constant: Array, ranges: Array) -> str:
    """What was cleared, in a line."""
    zero = int((wanted & (constant == 0)).sum())
    others = np.unique(constant[wanted & (constant != 0)])
    said = ", ".join(f"{number:.3g}" for number in others[:3]) + (", .." if len(others) > 3 else "")
    parts = [f"{zero} are always 0"] * bool(zero) + [f"{int(wanted.sum()) - zero} always {said}"] * bool(len(others))
    rest = ranges[~wanted]
    largest = f"weights of up to {float(ranges[wanted].max()):.3g} cleared for them; the largest that stays is "
    return f"of the channels it reads {' and '.join(parts)}: {largest}{float(rest.max(initial=0.0)):.3g}"
