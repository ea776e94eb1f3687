"""Where a batch norm meets a linear layer, and why the two cannot become one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import numpy as np

from tfpasses.graph import Array, Edit, LinearView, Node, Ref, channel_axis
from tfpasses.manager.rounding import smallest, unit
from tfpasses.passes.folding.arithmetic import Affine
from tfpasses.passes.folding.paths import KEEP_CHANNELS, blocks, loses_shift, misplaces_bias

__all__ = [
    "NOT_FINITE",
    "Fold",
    "casts",
    "differs",
    "finite_in",
    "kernel_sharers",
    "loses_digits",
    "not_below",
    "same_layer",
    "unstorable",
    "unsuitable",
]

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
    if fold is first:
        return ""
    if not same_layer(fold.linear, first.linear):
        return f"{fold.linear.name} shares a weight with {first.linear.name}, which uses it in another way"
    if np.array_equal(fold.affine.scale, first.affine.scale) and np.array_equal(fold.affine.shift, first.affine.shift):
        return ""
    return f"{fold.linear.name} shares a weight with {first.linear.name}, but {fold.bn.name} scales it in another way"


def unsuitable(fold: Fold, edit: Edit) -> str:
    """Why this pair cannot fold in either direction, or nothing."""
    dtype = edit.spec(Ref(fold.bn.name)).dtype
    for node in (fold.linear, *fold.path):
        other = edit.spec(Ref(node.name)).dtype
        if other != dtype:
            return f"it computes in {dtype}, {node.name} in {other}"
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
    for node in fold.path:
        rank = len(edit.spec(node.inputs[0]).dims)
        if node.op in KEEP_CHANNELS and channel_axis(node, rank) != view.channel_axis(rank):
            return f"{node.name} takes another axis for the channels than {fold.linear.name}"
    return blocks(fold.path, fold.affine) or loses_shift(fold.path, fold.affine, edit) or misplaces_bias(fold.linear, edit)


def casts(fold: Fold, edit: Edit) -> str:
    """Why what a batch norm reads cannot be read by the next node in its place, or nothing: the batch norm casts it."""
    read, given = (edit.spec(ref).dtype for ref in (fold.bn.inputs[0], Ref(fold.bn.name)))
    if read == given or ("float" in read and not fold.path):  # a linear layer casts as the batch norm did
        return ""
    return f"it reads {read} and gives {given}, a cast that nothing else would do"


def unstorable(folds: Sequence[Fold], folded: dict[str, Array], edit: Edit) -> str:
    """Why new weights cannot be stored, or computed with in the dtypes of their layers, or nothing."""
    for dtype in sorted({edit.spec(Ref(fold.linear.name)).dtype for fold in folds}):
        if not all(finite_in(dtype, array) for array in folded.values()):
            return f"the folded weights of {folds[0].linear.name} would not be finite in {dtype}"
    return ""


def loses_digits(linear: Node, affine: Affine, edit: Edit) -> str:
    """Why a kernel cannot take a scale whose inverse is applied before it, or nothing: what it loses by underflow comes back large."""
    spec = edit.spec(Ref(linear.name))
    least = float(np.abs(affine.scale[affine.scale != 0]).min(initial=np.inf))
    largest = float(np.abs(LinearView.of(linear, edit).in_kernel).max(initial=0.0))
    if 0 < least * largest < smallest(spec) / unit(spec):
        return f"the folded weights of {linear.name} would be too small for {spec.dtype}: the smallest scale is {least:.2g}"
    return ""


def finite_in(dtype: str, array: Array) -> bool:
    """Whether all elements are numbers, as stored and in the dtype that the layer computes in (bfloat16 reaches as far as float32)."""
    if dtype == "bfloat16" or array.dtype == dtype:  # noqa: PLR1714  # a tuple of them would be compared by another rule
        return finite(array)
    with np.errstate(over="ignore"):
        return finite(array) and finite(array.astype(dtype, copy=False))


def finite(array: Array) -> bool:
    """Whether all elements are numbers."""
    return bool(np.isfinite(array).all())
