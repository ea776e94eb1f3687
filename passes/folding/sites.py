"""Where a batch norm meets a linear layer, and why the two cannot become one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import numpy as np

from tfpasses.graph import Array, Edit, LinearView, Node, Ref
from tfpasses.passes.folding.arithmetic import Affine
from tfpasses.passes.folding.paths import blocks, misplaces_bias

__all__ = ["NOT_FINITE", "Fold", "differs", "finite_in", "kernel_sharers", "not_below", "same_layer", "stores", "unsuitable"]

NOT_FINITE = "its weights, or the scale or shift they give, are not finite (NaN, infinity, or a negative variance)"


@attrs.frozen(eq=False)
class Fold:
    """One batch norm and one linear layer that are to become one; several go together where a kernel is shared."""

    linear: Node
    bn: Node
    path: list[Node]
    """The nodes between the two, the lower first."""
    affine: Affine
    """Over the channels that the linear layer gives (backward), or takes (forward)."""


def kernel_sharers(linears: Sequence[Node], edit: Edit) -> Iterator[str]:
    """The other nodes that use a weight of these."""
    names = {linear.name for linear in linears}
    keys = dict.fromkeys(key for linear in linears for key in linear.params.values())
    return iter(dict.fromkeys(name for key in keys for name in edit.weight_users[key] if name not in names))


def same_layer(a: Node, b: Node) -> bool:
    """Whether two nodes are the same operation with the same weights, so that a fold of one is a fold of the other."""
    return a.op == b.op and dict(a.params) == dict(b.params)


def differs(fold: Fold, first: Fold) -> str:
    """Why two uses of one kernel do not fold alike, or nothing."""
    if not same_layer(fold.linear, first.linear):
        return f"{fold.linear.name} shares a weight with {first.linear.name}, which uses it in another way"
    if np.array_equal(fold.affine.scale, first.affine.scale) and np.array_equal(fold.affine.shift, first.affine.shift):
        return ""
    return f"{fold.linear.name} shares a weight with {first.linear.name}, but {fold.bn.name} scales it in another way"


def unsuitable(fold: Fold, edit: Edit) -> str:
    """Why this pair cannot fold in either direction, or nothing."""
    dtypes = [edit.spec(Ref(node.name)).dtype for node in (fold.bn, fold.linear)]
    if dtypes[0] != dtypes[1]:
        return f"it computes in {dtypes[0]}, {fold.linear.name} in {dtypes[1]}"
    if not fold.affine.finite:
        return NOT_FINITE
    if not all(finite(array) for array in edit.params(fold.linear).values()):
        return f"the weights of {fold.linear.name} are not finite (NaN or infinity)"
    return ""


def not_below(fold: Fold, edit: Edit) -> str:
    """Why a batch norm cannot act on the channels that the linear layer below it gives, or nothing."""
    view, rank = LinearView.of(fold.linear, edit), len(edit.spec(Ref(fold.bn.name)).dims)
    if fold.bn.config["axis"] % rank != view.channel_axis(rank):
        return f"it normalises axis {fold.bn.config['axis']}; the channels of {fold.linear.name} are on axis {view.channel_axis(rank)}"
    return blocks(fold.path, fold.linear, fold.affine, edit) or misplaces_bias(fold.linear, edit)


def stores(folds: Sequence[Fold], folded: dict[str, Array], edit: Edit) -> bool:
    """Whether new weights are numbers, as stored and in the dtypes that their layers compute in."""
    dtypes = {edit.spec(Ref(fold.linear.name)).dtype for fold in folds}
    return all(finite_in(dtype, array) for dtype in dtypes for array in folded.values())


def finite_in(dtype: str, array: Array) -> bool:
    """Whether all elements are numbers, as stored and in the dtype that the layer computes in (bfloat16 reaches as far as float32)."""
    with np.errstate(over="ignore"):
        return finite(array) and (dtype == "bfloat16" or finite(array.astype(dtype, copy=False)))


def finite(array: Array) -> bool:
    """Whether all elements are numbers."""
    return bool(np.isfinite(array).all())
