"""Batch-norm folding: backward, into the linear layers before, and forward, into the linear layer behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import attrs
import numpy as np

from tfpasses.graph import ChannelStats, Edit, LinearView, Node, Ref, has_trait
from tfpasses.manager import Context, Contract, Effect, Pass, PassError, Remark, register, rule
from tfpasses.passes.folding.arithmetic import Affine, fold_backward, fold_forward, merged_params, scale_forward
from tfpasses.passes.folding.multiply_add import WIDE, can_stand_alone, per_channel, shift_alone, standalone
from tfpasses.passes.folding.paths import (
    MOVES,
    MOVING,
    QUIET,
    THROUGH,
    Unclear,
    above,
    below,
    blocks,
    in_channels,
    is_passing,
    misplaces_bias,
    pads_zeros,
    scale_blocks,
)
from tfpasses.passes.folding.sites import (
    NOT_FINITE,
    Fold,
    casts,
    differs,
    finite_in,
    kernel_sharers,
    loses_digits,
    not_below,
    same_layer,
    unstorable,
    unsuitable,
)
from tfpasses.passes.named_pairs import find_pair, layer_of, read_pairs
from tfpasses.pattern import Match, Miss, Rule, RuleSet, op, repeated

__all__ = ["FoldBatchNorms"]

BATCH_NORM = op("BatchNorm").when(
    "it is called with training=True, so it has no fixed scale and shift", lambda node, _: not node.config.get("training")
)
LINEAR = op(trait="linear").only_use()
FED_BY_BATCH_NORM = op(trait="linear")["linear"](repeated(MOVING, op("BatchNorm").only_use()["bn"]))


@register
@attrs.frozen
class FoldBatchNorms(Pass):
    """Fold batch norms into the linear layers before and behind them.

    With a = gamma / sqrt(variance + epsilon) and c = beta - mean·a a batch norm is a·x + c. Backward, over the output channels:
    W' = W·a, b' = b·a + c. Forward, over the input channels: W' = W·a, b' = b + sum W·c. Exact in real arithmetic. Source: Nagel et
    al., "Data-Free Quantization through Weight Equalization and Bias Correction", arXiv 1906.04721.

    Linear layers are Conv1D/2D/3D (grouped, dilated), DepthwiseConv, ConvTranspose, SeparableConv and Dense. Between may lie what
    does nothing at inference, average pools, cropping, max pools (no channel's scale negative), zero padding (no shift), and, forward,
    Flatten and Reshape that keep the channels apart. Rules, in the order of trying: `backward`; `concat`, into all the branches of a
    Concatenate at once; `forward`; `scale`, forward where zero padding meets the kernel: the kernel takes the scale, and x + c/a
    stays, as an addition; `merge`, of two batch norms in a row into one.

    `direction` restricts the rules. `standalone=affine` turns what stays into a multiply-add per channel, as ordinary operations.
    `only="conv1:bn1 conv2:bn2"` folds these pairs of layers (in either order) and nothing else; one that cannot is an error.

    A batch norm stays, with a remark that says why, where a value between is used elsewhere or is an output, where an activation lies
    between, where a shared kernel's uses would not all fold alike, where it normalises another axis than the channels, where it is
    called with training=True, where it, or something on the way, computes in another dtype, where it alone makes floats of integers, or
    where a weight is not finite. One that hands a Keras mask on becomes no multiply-add.

    Leaves `ChannelStats(beta, |gamma|)` on the output of a layer folded into backward.
    """

    name = "fold-batch-norms"
    contract = Contract(Effect.REASSOCIATES, provides={ChannelStats})

    direction: Literal["both", "backward", "forward"] = "both"
    standalone: Literal["keep", "affine"] = "keep"
    only: str = ""

    def __attrs_post_init__(self) -> None:
        if read_pairs(self.only) and self.standalone != "keep":
            raise ValueError("only= folds the named pairs and leaves the rest alone: it does not go with standalone=affine")

    @rule(BATCH_NORM["bn"](repeated(THROUGH, LINEAR["linear"])))
    def backward(self, match: Match, edit: Edit) -> Miss | None:
        """BatchNorm(linear), at every use of the kernel at once."""
        linear, bn = match["linear"], match["bn"]
        uses = [(linear, bn, between(bn, linear, edit))]
        for name in kernel_sharers([linear], edit):
            other = edit.nodes[name]
            if not same_layer(linear, other):
                return match.miss(f"{linear.name} shares a weight with {name}, which uses it in another way", linear)
            path = list(above(other, edit))
            norm = path.pop() if path else other
            if norm.op != "BatchNorm" or norm.config.get("training") or any(node.op in MOVES for node in path):
                return match.miss(
                    f"{name} shares a weight with {linear.name}, and no batch norm follows it that could fold with this one", other
                )
            uses.append((other, norm, path))
        folds: list[Fold] = []
        for other, norm, path in uses:
            folds.append(Fold(other, norm, path, Affine.of(norm, edit)))
            reason = self.refused(other, norm) or unsuitable(folds[-1], edit) or not_below(folds[-1], edit) or differs(folds[-1], folds[0])
            if reason:
                return match.miss(reason, norm)
        return self.fold_into_kernels(match, folds, edit)

    @rule(BATCH_NORM["bn"](repeated(THROUGH, op("Concat").only_use()["concat"].each(repeated(THROUGH, LINEAR["branches"])))))
    def concat(self, match: Match, edit: Edit) -> Miss | None:
        """BatchNorm(Concat(linear, ..)): every branch takes its part of the channels."""
        bn, concat, branches = match["bn"], match["concat"], match.all("branches")
        whole, rank = Affine.of(bn, edit), len(edit.spec(Ref(concat.name)).dims)
        if any(concat.config["axis"] % rank != LinearView.of(linear, edit).channel_axis(rank) for linear in branches):
            return match.miss(f"it normalises axis {bn.config['axis']}; {concat.name} joins along axis {concat.config['axis']}")
        folds, start, upper = [], 0, between(bn, concat, edit)
        for ref, linear in zip(concat.inputs, branches, strict=True):
            width = LinearView.of(linear, edit).out_channels
            affine = whole.of_channels(slice(start, start + width))
            folds.append(Fold(linear, bn, [*between_ref(ref, linear, edit), concat, *upper], affine))
            start += width
        for name in kernel_sharers(branches, edit):
            return match.miss(f"{name}, which does not feed {concat.name}, shares a weight with a layer that does", edit.nodes[name])
        for fold in folds:
            first = next(other for other in folds if set(other.linear.params.values()) & set(fold.linear.params.values()))
            reason = self.refused(fold.linear, bn) or unsuitable(fold, edit) or not_below(fold, edit) or differs(fold, first)
            if reason:
                return match.miss(reason, bn)
        return self.fold_into_kernels(match, folds, edit)

    @rule(FED_BY_BATCH_NORM)
    def forward(self, match: Match, edit: Edit) -> Miss | None:
        """linear(BatchNorm), at every use of the kernel at once."""
        folds = self.feeding(match, edit)
        if isinstance(folds, Miss):
            return folds
        for fold in folds:
            if not fold.affine.shift.any():
                continue
            reason = blocks(fold.path, fold.affine) or misplaces_bias(fold.linear, edit)
            if reason or pads_zeros(fold.linear, edit):
                return match.miss(reason or f"{fold.linear.name} pads with zeros, which the batch norm would shift", fold.bn)
        view, affine = LinearView.of(folds[0].linear, edit), folds[0].affine
        folded = fold_forward(view, affine) if affine.shift.any() else scale_forward(view, affine)
        reason = unstorable(folds, folded, edit)
        if reason:
            return match.miss(reason, folds[0].bn)
        edit.set_params([fold.linear for fold in folds], folded)
        note(folds, edit)
        for fold in folds:
            take_out(fold.bn, edit, fold.bn.inputs[0])
        return None

    @rule(FED_BY_BATCH_NORM)
    def scale(self, match: Match, edit: Edit) -> Miss | None:
        """linear(BatchNorm) where the shift cannot go in (zeros meet the kernel): the kernel takes the scale, x + shift/scale stays."""
        folds = self.feeding(match, edit)
        if isinstance(folds, Miss):
            return folds
        for fold in folds:
            dead = (fold.affine.scale == 0) & (fold.affine.shift != 0)
            if dead.any():
                return match.miss(
                    f"{int(dead.sum())} of its channels have scale 0, and their shift cannot go into {fold.linear.name}", fold.bn
                )
            dtypes = {edit.spec(ref).dtype for ref in (fold.bn.inputs[0], Ref(fold.bn.name))}
            if len(dtypes) > 1 or not dtypes <= set(WIDE):
                said = " and ".join(sorted(dtypes))
                return match.miss(f"its shift cannot go into {fold.linear.name}; in {said} a shift apart would lose", fold.bn)
        folded = scale_forward(LinearView.of(folds[0].linear, edit), folds[0].affine)
        shifts = [shift_alone(Affine.of(fold.bn, edit)) for fold in folds]
        reason = unstorable(folds, folded, edit) or loses_digits(folds[0].linear, folds[0].affine, edit)
        for fold, shift in zip(folds, shifts, strict=True):
            if not finite_in(edit.spec(Ref(fold.bn.name)).dtype, shift):
                reason = reason or "its shift over its scale would not be finite"
        if reason:
            return match.miss(reason, folds[0].bn)
        edit.set_params([fold.linear for fold in folds], folded)
        note(folds, edit)
        for fold, shift in zip(folds, shifts, strict=True):
            take_out(fold.bn, edit, per_channel(fold.bn, "Add", "shift", shift, fold.bn.inputs[0], edit))
        return None

    @rule(BATCH_NORM["outer"](repeated(QUIET, op("BatchNorm").only_use()["inner"])))
    def merge(self, match: Match, edit: Edit) -> Miss | None:
        """BatchNorm(BatchNorm): the outer one does both."""
        outer, inner = match["outer"], match["inner"]
        affine = Affine.of(outer, edit)
        if inner.config.get("training"):
            return match.miss(f"{inner.name} is called with training=True, so it has no fixed scale and shift", inner)
        if self.only:
            return match.miss(f"only= takes pairs of a linear layer and a batch norm, and {inner.name} lies below {outer.name}")
        specs = [edit.spec(Ref(node.name)) for node in (inner, outer)]
        if specs[0].dtype != specs[1].dtype or (inner.config["axis"] - outer.config["axis"]) % len(specs[1].dims):
            return match.miss(f"{inner.name} normalises another axis than {outer.name}, or computes in another dtype")
        stored = [{array.dtype for array in edit.params(node).values()} for node in (inner, outer)]
        if len(stored[0] | stored[1]) > 1:
            return match.miss(f"{inner.name} stores its weights in another dtype than {outer.name}")
        shared = [name for key in outer.params.values() for name in edit.weight_users[key] if name != outer.name]
        if shared:
            return match.miss(f"{outer.name} shares its weights with {shared[0]}")
        if not affine.finite or not Affine.of(inner, edit).finite:
            return match.miss(NOT_FINITE)
        merged = merged_params(inner, affine, edit)
        if not all(finite_in(specs[1].dtype, array) for array in merged.values()):
            return match.miss("the merged weights would not be finite")
        outer = edit.change(outer, config={**outer.config, "epsilon": inner.config["epsilon"]})
        edit.set_params(outer, merged)
        take_out(inner, edit, inner.inputs[0])
        return None

    # what the rules share

    def refused(self, linear: Node, bn: Node) -> str:
        """Why the options leave this pair alone, or nothing."""
        if self.only and not any({layer_of(linear), layer_of(bn)} == set(pair) for pair in read_pairs(self.only)):
            return f"only= does not name {layer_of(linear)}:{layer_of(bn)}"
        return ""

    def fold_into_kernels(self, match: Match, folds: Sequence[Fold], edit: Edit) -> Miss | None:
        """The common end of the backward rules: new kernels, then the batch norms go."""
        groups: dict[str, list[Fold]] = {}
        for fold in folds:
            groups.setdefault(fold.linear.params[LinearView.of(fold.linear, edit).kernel_slot], []).append(fold)
        new = [fold_backward(LinearView.of(group[0].linear, edit), group[0].affine) for group in groups.values()]
        for group, folded in zip(groups.values(), new, strict=True):
            reason = unstorable(group, folded, edit)
            if reason:
                return match.miss(reason)
        for group, folded in zip(groups.values(), new, strict=True):
            edit.set_params([fold.linear for fold in group], folded)
        note(folds, edit)
        for fold in folds:
            if all(has_trait(node, "inference_identity") or node.op == "Concat" for node in fold.path):
                edit.add_fact(fold.linear, fold.affine.stats)
        for bn in dict.fromkeys(fold.bn.name for fold in folds):
            edit.replace(edit.nodes[bn], edit.nodes[bn].inputs[0])
        return None

    def feeding(self, match: Match, edit: Edit) -> list[Fold] | Miss:
        """The batch norms that feed all uses of a kernel, with their scales and shifts over its input channels."""
        folds: list[Fold] = []
        linear = match["linear"]
        for node in [linear, *(edit.nodes[name] for name in kernel_sharers([linear], edit))]:
            path = [*below(node, edit)]
            bn = path.pop() if path else node
            path.reverse()
            if (
                not same_layer(linear, node)
                or bn.op != "BatchNorm"
                or len(edit.users[bn.name]) != 1
                or any(len(edit.users[n.name]) != 1 for n in path)
            ):
                return match.miss(
                    f"{linear.name} shares a weight with {node.name}, and no batch norm feeds that one that could fold with this one",
                    match["bn"],
                )
            channels = in_channels(bn, path, node, edit)
            if isinstance(channels, Unclear):
                return match.miss(channels.reason, bn)
            fold = Fold(node, bn, path, Affine.of(bn, edit).of_channels(channels))
            reason = self.refused(node, bn) or unsuitable(fold, edit) or casts(fold, edit) or scale_blocks(path, fold.affine)
            if bn.config.get("training"):
                reason = "it is called with training=True, so it has no fixed scale and shift"
            reason = reason or differs(fold, folds[0] if folds else fold)
            if reason:
                return match.miss(reason, bn)
            folds.append(fold)
        return folds

    # running

    def apply(self, edit: Edit, context: Context) -> Iterable[Remark]:
        """Fold until nothing folds; then what stays, each with the reason why."""
        pairs = [find_pair(a, b, edit) for a, b in read_pairs(self.only)]
        wanted = {"both": (*BACKWARD, *FORWARD), "backward": BACKWARD, "forward": FORWARD}[self.direction]
        rules = RuleSet([item for item in self.rules if item.name in (*wanted, "merge")])
        declined = rules.rewrite(edit, context.on_rewrite)
        standing = [node for node in edit.nodes.values() if node.op == "BatchNorm"]
        reasons = {bn.name: self.why_it_stays(bn, rules, declined, edit) for bn in standing}
        for linear, norm in pairs:
            stay = [] if folded_somewhere(linear, norm, edit) else [bn for bn in standing if layer_of(bn) == norm]
            if stay:
                near = next((bn for bn in stay if linear in map(layer_of, [*below(bn, edit), *above(bn, edit)])), stay[0])
                raise PassError(f"only={self.only!r}: {linear}:{norm} cannot fold: {reasons[near.name]}")
        if self.standalone == "affine":
            RuleSet([Rule.of("standalone", BATCH_NORM, standalone)]).rewrite(edit, context.on_rewrite)
        for bn in standing:
            if bn.name in edit.nodes:
                yield Remark(
                    self.name, "missed", bn.name, reasons[bn.name], "" if self.only or self.standalone == "affine" else remedy(bn, edit)
                )

    def why_it_stays(self, bn: Node, rules: RuleSet, declined: dict[tuple[str, str], Miss], edit: Edit) -> str:
        """What keeps a batch norm from folding backward, and what from folding forward."""
        by_name = {item.name: item for item in rules.rules}

        def miss(name: str, node: Node) -> Miss | None:
            return declined.get((name, node.name)) or (by_name[name].matcher.explain(node, edit) if name in by_name else None)

        reasons = []
        if "backward" in by_name:
            misses = [found for found in (miss("backward", bn), miss("concat", bn)) if found is not None]
            reasons += [max(misses, key=lambda found: (found.pattern == "", found.depth)).reason] if misses else []
        if "forward" in by_name and not bn.config.get("training"):
            path = list(above(bn, edit))
            top = path[-1] if path else bn
            found = (miss("scale", top) or miss("forward", top)) if path and has_trait(top, "linear") else None
            if path and top.op == "BatchNorm":
                found = miss("merge", top)
            reasons.append(found.reason if found is not None else why_not_above(top, edit))
        elif "forward" in by_name and not reasons:
            reasons.append("it is called with training=True, so it has no fixed scale and shift")
        if len(set(reasons)) < 2:
            return reasons[0] if reasons else "no rule takes it"
        return f"not backward: {reasons[0]}; not forward: {reasons[1]}"


BACKWARD = ("backward", "concat")
FORWARD = ("forward", "scale")


def remedy(bn: Node, edit: Edit) -> str:
    """What would help with a batch norm that stays."""
    if bn.config.get("training"):
        return "leave training= to the model's call"
    return "standalone=affine makes it a multiply-add" if can_stand_alone(bn, Affine.of(bn, edit), edit) else ""


def folded_somewhere(linear: str, norm: str, edit: Edit) -> bool:
    """Whether a batch norm of one layer was folded together with a linear node of another."""
    before = edit.source.nodes
    return any(
        any(name in before and layer_of(before[name]) == linear for name in rewrite.changed)
        and any(name in before and layer_of(before[name]) == norm for name in rewrite.removed)
        for rewrite in edit.journal
    )


def why_not_above(top: Node, edit: Edit) -> str:
    """Why no linear layer is met on the way up; `top` is where the way ends."""
    if top.op != "BatchNorm" and not is_passing(top):
        return f"{top.name}: it is {top.op}, not a linear op"
    names = [name or "a graph output" for name, _ in edit.users[top.name]]
    return f"{top.name} goes to {', '.join(names[:3])}{' ..' * (len(names) > 3)}" if names else f"{top.name} is used by nothing"


def between(top: Node, bottom: Node, edit: Edit) -> list[Node]:
    """The nodes between two, the lower first."""
    return between_ref(top.inputs[0], bottom, edit)


def between_ref(ref: Ref, bottom: Node, edit: Edit) -> list[Node]:
    """The nodes from a value down to a node, the lower first, without that one."""
    path = []
    while ref.node != bottom.name:
        path.append(edit.nodes[ref.node])
        ref = path[-1].inputs[0]
    return path[::-1]


def take_out(bn: Node, edit: Edit, instead: Ref) -> None:
    """Feed the only use of a batch norm from another value, which does not stand for its own, and remove it."""
    ((consumer, position),) = edit.users[bn.name]
    edit.set_input(edit.nodes[consumer], position, instead)
    edit.remove(bn)


def note(folds: Sequence[Fold], edit: Edit) -> None:
    """The number of channels and the smallest and largest scale by magnitude, for the journal."""
    sizes = np.abs(np.concatenate([fold.affine.scale for fold in folds]))
    edit.note(
        channels=folds[0].affine.scale.size, **({"min_scale": float(sizes.min()), "max_scale": float(sizes.max())} if sizes.size else {})
    )
