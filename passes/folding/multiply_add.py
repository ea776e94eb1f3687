"""A batch norm, or what is left of it, as ordinary operations per channel."""

from __future__ import annotations

import attrs
import numpy as np

from tfpasses.graph import Array, Edit, Node, Ref
from tfpasses.passes.folding.arithmetic import Affine
from tfpasses.pattern import Match, Miss

__all__ = ["WIDE", "can_stand_alone", "per_channel", "shift_alone", "standalone"]

WIDE = ("float32", "float64")
"""The dtypes in which a batch norm rounds as a multiply-add does."""


def standalone(match: Match, edit: Edit) -> Miss | None:
    """A batch norm as x·scale + shift."""
    bn = match.root
    affine = Affine.of(bn, edit)
    if not can_stand_alone(bn, affine, edit):
        return match.miss("")
    scaled = per_channel(bn, "Multiply", "scale", affine.scale, bn.inputs[0], edit)
    edit.replace(bn, per_channel(bn, "Add", "shift", affine.shift, scaled, edit))
    return None


def can_stand_alone(bn: Node, affine: Affine, edit: Edit) -> bool:
    """Whether a batch norm can be a multiply-add: in half precision it computes in float32 and rounds once, a multiply-add does not;
    and a mask that it hands on would be lost.
    """
    if bn.config.get("masked"):
        return False
    dtypes = {edit.spec(ref).dtype for ref in (bn.inputs[0], Ref(bn.name))}
    return len(dtypes) == 1 and dtypes <= set(WIDE) and affine.finite and not bn.config.get("training")


def shift_alone(affine: Affine) -> Array:
    """shift/scale, 0 where both are."""
    return np.divide(affine.shift, affine.scale, out=np.zeros_like(affine.shift), where=affine.scale != 0)


def per_channel(bn: Node, operation: str, what: str, vector: Array, ref: Ref, edit: Edit) -> Ref:
    """A new node that adds or multiplies a constant per channel of a batch norm."""
    spec = edit.spec(ref)
    places = [1] * len(spec.dims)
    places[bn.config["axis"]] = -1
    array = vector.astype(spec.dtype).reshape(places[bn.config["axis"] % len(places) :])
    constant = edit.add(Node(edit.fresh_name(f"{bn.name}.{what}.value"), "Const", specs=(attrs.evolve(spec, shape=array.shape),)), [bn])
    edit.set_params(constant, {"value": array})
    # the constant first: keras.ops.add takes a second one that looks like a vector for a bias over the last axis (or the first)
    return Ref(edit.add(Node(edit.fresh_name(f"{bn.name}.{what}"), operation, (Ref(constant.name), ref)), [bn]).name)
