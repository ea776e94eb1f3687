"""Fold batch norms into the linear layer before them."""

from __future__ import annotations

import attrs
import numpy as np

from tfpasses.graph import OUTPUT, Array, ChannelStats, Edit, LinearView, Node, Ref, has_trait, ops_with_trait
from tfpasses.manager import Contract, Effect, Pass, register, rule
from tfpasses.passes.fold import Affine, fold_backward
from tfpasses.pattern import Match, Miss, op, repeated

__all__ = ["FoldBatchNorms"]

INFERENCE_BATCH_NORM = op("BatchNorm").when(
    "it is called with training=True, so it has no fixed scale and shift", lambda node, _: not node.config.get("training")
)
NO_OP = (
    op(*sorted(ops_with_trait("inference_identity")))
    .when("it is called with training=True, so it changes its input", lambda node, _: has_trait(node, "inference_identity"))
    .only_use()
)
LINEAR = op(trait="linear").only_use()


@register
@attrs.frozen
class FoldBatchNorms(Pass):
    """Fold batch norms backward, into the linear layer before them.

    With a = gamma / sqrt(variance + epsilon), over the output channels: W' = W·a, b' = beta + (b - mean)·a. Exact in real
    arithmetic. Source: Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction", arXiv 1906.04721.

    Folds into Conv1D/2D/3D (grouped, dilated), DepthwiseConv, ConvTranspose, SeparableConv (its pointwise kernel) and Dense, also
    through Dropout and Identity. A batch norm stays, with a remark that says why, where the linear layer's value is used elsewhere
    or is an output, where an activation lies between, where a shared kernel's uses would not all fold alike, where it normalises
    another axis than the channels, where it is called with training=True, where it computes in another dtype, or where a weight
    is not finite.

    Leaves `ChannelStats(beta, |gamma|)` on the folded layer's output.
    """

    name = "fold-batch-norms"
    contract = Contract(Effect.REASSOCIATES, provides={ChannelStats})

    @rule(INFERENCE_BATCH_NORM["bn"](repeated(NO_OP, LINEAR["linear"])))
    def backward(self, match: Match, edit: Edit) -> Miss | None:
        """BatchNorm(Dropout*(linear)), at every use of the kernel at once."""
        pairs = [(match["linear"], match["bn"])]
        for name in kernel_sharers(match["linear"], edit):
            if not same_layer(match["linear"], edit.nodes[name]):
                return match.miss(f"{match['linear'].name} shares a weight with {name}, which uses it in another way", match["linear"])
            bn = batch_norm_after(edit.nodes[name], edit)
            if bn is None:
                return match.miss(
                    f"{name} shares a weight with {match['linear'].name}, and no batch norm follows it that could fold with this one",
                    edit.nodes[name],
                )
            pairs.append((edit.nodes[name], bn))
        affines: list[Affine] = []
        for linear, bn in pairs:
            affine = Affine.of(bn, edit)
            affines.append(affine)
            reason = unsuitable(linear, bn, affine, edit)
            if reason:
                return match.miss(reason, bn)
            if not np.array_equal(affine.scale, affines[0].scale) or not np.array_equal(affine.shift, affines[0].shift):
                return match.miss(f"{linear.name} shares a weight with {match['linear'].name}, but {bn.name} scales it in another way", bn)
        folded = fold_backward(LinearView.of(pairs[0][0], edit), affines[0])
        dtypes = {edit.spec(Ref(linear.name)).dtype for linear, _ in pairs}
        for dtype in dtypes:
            if not all(finite_in(dtype, array) for array in folded.values()):
                return match.miss(f"the folded weights of {match['linear'].name} would not be finite in {dtype}")
        edit.set_params([linear for linear, _ in pairs], folded)
        edit.note(channels=affines[0].scale.size, **scale_range(affines[0]))
        for (linear, bn), affine in zip(pairs, affines, strict=True):
            edit.add_fact(linear, affine.stats)
            edit.replace(bn, bn.inputs[0])
        return None


def kernel_sharers(linear: Node, edit: Edit) -> list[str]:
    """The other nodes that use a weight of this one."""
    return list(dict.fromkeys(name for key in linear.params.values() for name in edit.weight_users[key] if name != linear.name))


def same_layer(a: Node, b: Node) -> bool:
    """Whether two nodes are the same operation with the same weights, so that a fold of one is a fold of the other."""
    return a.op == b.op and dict(a.params) == dict(b.params)


def batch_norm_after(linear: Node, edit: Edit) -> Node | None:
    """The batch norm that alone uses a linear node's output, through no-ops at most."""
    node = linear
    while has_trait(node, "linear") or has_trait(node, "inference_identity"):
        uses = list(edit.users[node.name])
        if len(uses) != 1 or uses[0][0] == OUTPUT:
            return None
        node = edit.nodes[uses[0][0]]
        if has_trait(node, "linear"):
            return None
    return node if node.op == "BatchNorm" and not node.config.get("training") else None


def unsuitable(linear: Node, bn: Node, affine: Affine, edit: Edit) -> str:
    """Why this pair cannot fold, or nothing."""
    view, spec = LinearView.of(linear, edit), edit.spec(Ref(linear.name))
    rank = len(spec.shape)
    if bn.config["axis"] % rank != view.channel_axis(rank):
        return f"it normalises axis {bn.config['axis']}; the channels of {linear.name} are on axis {view.channel_axis(rank)}"
    if edit.spec(Ref(bn.name)).dtype != spec.dtype:
        return f"it computes in {edit.spec(Ref(bn.name)).dtype}, {linear.name} in {spec.dtype}"
    if not affine.finite:
        return "its weights, or the scale or shift they give, are not finite (NaN, infinity, or a negative variance)"
    if not all(finite(array) for array in edit.params(linear).values()):
        return f"the weights of {linear.name} are not finite (NaN or infinity)"
    return ""


def scale_range(affine: Affine) -> dict[str, float]:
    """The smallest and largest scale by magnitude, for the journal."""
    sizes = np.abs(affine.scale)
    return {"min_scale": float(sizes.min()), "max_scale": float(sizes.max())} if sizes.size else {}


def finite_in(dtype: str, array: Array) -> bool:
    """Whether all elements are numbers, as stored and in the dtype that the layer computes in."""
    with np.errstate(over="ignore"):
        return finite(array) and (dtype != "float16" or finite(array.astype(np.float16)))


def finite(array: Array) -> bool:
    """Whether all elements are numbers."""
    return bool(np.isfinite(array).all())
