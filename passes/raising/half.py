"""Operations that are computed in float32 where half precision is before and behind: one operation with the casts around it."""

from __future__ import annotations

from collections.abc import Sequence

from tfpasses.graph import Edit
from tfpasses.passes.raising.cluster import Raising
from tfpasses.pattern import Match, Miss, Rule, anything, op

__all__ = ["half_rules"]

HALF = ("float16", "bfloat16")
SUMS_UP = ("BatchNorm", "GlobalAvgPool")
"""What Keras computes so."""


def half_rules(raising: Raising) -> Sequence[Rule]:
    """The rule for canonical operations between two casts."""

    def between_casts(match: Match, edit: Edit) -> Miss | None:
        x, inner = match.ref("x"), match["inner"]
        dtypes = (edit.spec(x).dtype, inner.specs[0].dtype, match.root.specs[0].dtype)
        if dtypes[0] not in HALF or dtypes != (dtypes[0], "float32", dtypes[0]):
            return match.miss(f"it reads {dtypes[0]}, computes in {dtypes[1]} and gives {dtypes[2]}")
        return raising.absorb(match, edit, inner.op, (x,), inner, inner.config)

    return [Rule.of("half precision", op("tf.Cast")(op(*SUMS_UP)["inner"](op("tf.Cast")(anything()["x"]))), between_casts)]
