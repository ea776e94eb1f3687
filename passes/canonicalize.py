"""Raising the operations of a `tf.Graph` to the canonical vocabulary, so that every other pass knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import NamedTuple

import attrs

from tfpasses.graph import Edit, Rewrite
from tfpasses.manager import Context, Contract, Effect, Pass, Remark, register
from tfpasses.passes.raising.batch_norms import batch_norm_rules
from tfpasses.passes.raising.calls import call_rules
from tfpasses.passes.raising.cluster import Raising
from tfpasses.passes.raising.compiled import compiled_rules
from tfpasses.passes.raising.constants import constant_rules
from tfpasses.passes.raising.elementwise import composed_rules, one_for_one_rules
from tfpasses.passes.raising.half import half_rules
from tfpasses.passes.raising.handed_on import hand_on_shapes
from tfpasses.passes.raising.linear import linear_rules
from tfpasses.passes.raising.shapes import reshape_rules, shape_rules
from tfpasses.passes.raising.unread import alive, remove_training, remove_unread
from tfpasses.pattern import Miss, RuleSet

__all__ = ["Canonicalize"]


@register
@attrs.frozen
class Canonicalize(Pass):
    """Let canonical operations stand for those of a `tf.Graph`: `Conv` for Conv2D and BiasAdd, `BatchNorm` for Rsqrt, Mul, Sub, AddV2.

    A raised node is a view of the nodes it stands for: as long as no other pass changes it, it is written out as those, verbatim. In
    four steps: calls are inlined, and branches whose predicate is a constant resolved; constants are found through reshapes, casts and
    reads of variables; operations of several nodes are raised (linear ones with their biases, dilations and single axes; batch norms;
    activations; reshapes); then one for one. A cluster is left alone where an inner value is used from outside, or a node waits for another
    by a control input. Graphs that were read from Keras are canonical already.

    `training=false` (or `true`) takes the learning phase for that: a scalar boolean placeholder of the name `keras_learning_phase`,
    `learning_phase`, `is_training` or `training`. With `training=false`, nodes that no output needs and that read what the network
    computes (losses, gradients, updates of moving averages) are left out, and a remark says how many: as uses, they would keep every
    batch norm where it is.
    """

    name = "canonicalize"
    contract = Contract(Effect.REASSOCIATES)

    training: bool | None = None

    def apply(self, edit: Edit, context: Context) -> Iterable[Remark]:
        """Raise what can be raised; remarks for batch norms in training mode."""
        if not any(node.op.startswith("tf.") for node in edit.nodes.values()):
            return
        RuleSet(call_rules(self.training, edit.source.functions)).rewrite(edit, context.on_rewrite)
        hand_on_shapes(edit)
        remove_unread(edit)
        if self.training is False:
            gone = remove_training(edit, alive(edit))
            if gone:
                kinds = ", ".join(op.removeprefix("tf.") for op, _ in gone.most_common(3))
                text = f"{gone.total()} nodes that no output needs read what the network computes ({kinds}, ..): training's, and left out"
                yield Remark(self.name, "note", edit.source.name, text)
        declined = raise_operations(edit, context.on_rewrite)
        rule_sets().one_for_one.rewrite(edit, context.on_rewrite)
        for (rule, name), miss in declined.items():
            if rule in EXPLAINED and name in edit.nodes:
                yield remark(self.name, name, miss)


EXPLAINED = ("fused batch norm", "batch norm")
"""The rules whose refusals a user is told."""


class RuleSets(NamedTuple):
    """The rules that raise, in the order of their turns."""

    constants: RuleSet
    several: RuleSet
    """What several nodes are together."""
    one_for_one: RuleSet


@cache
def rule_sets() -> RuleSets:
    """Made once: to compile their patterns takes as long as to raise a network."""
    raising = Raising()
    several = [*batch_norm_rules(raising), *linear_rules(raising), *composed_rules(raising), *shape_rules(raising), *half_rules(raising)]
    several += compiled_rules(raising, raise_operations)
    one_for_one = [*one_for_one_rules(raising), *reshape_rules(raising)]
    return RuleSets(RuleSet(constant_rules(raising)), RuleSet(several), RuleSet(one_for_one))


def raise_operations(edit: Edit, on_rewrite: Callable[[Rewrite], None] | None = None) -> Mapping[tuple[str, str], Miss]:
    """Find the constants, then raise what several nodes are together. Gives what rules declined, by rule and node."""
    rules = rule_sets()
    rules.constants.rewrite(edit, on_rewrite)
    return rules.several.rewrite(edit, on_rewrite)


def remark(pass_name: str, name: str, miss: Miss) -> Remark:
    return Remark(pass_name, "missed", name, miss.reason, miss.remedy)
