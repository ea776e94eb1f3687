"""Batch-norm folding where layers are changed in place: a batch norm layer is folded whole, or not at all."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import numpy as np

from tfpasses.graph import ChannelStats, Graph, Node, Ref, TfpassesError, has_trait
from tfpasses.manager import Journal, PassRecord, Pipeline, RemarkLog, run_passes
from tfpasses.passes.fold_batch_norms import FoldBatchNorms
from tfpasses.passes.folding.arithmetic import Affine
from tfpasses.passes.named_pairs import layer_of
from tfpasses.pattern import Rule

__all__ = ["FoldRecord", "fold_whole"]

FORWARD = "forward"
RULES = ("backward", "concat", FORWARD)
"""What leaves nothing of a batch norm behind."""


@attrs.frozen
class FoldWholeBatchNorms(FoldBatchNorms):
    """`fold-batch-norms` by those of its rules that leave nothing behind; not for the layers of batch norm in `kept`; and where there are
    `pairs` (linear layer, batch norm), for those alone.
    """

    kept: frozenset[str] = frozenset()
    pairs: frozenset[tuple[str, str]] | None = None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Those of its rules."""
        return tuple([item for item in super().rules if item.name in RULES])

    def refused(self, linear: Node, bn: Node) -> str:
        """Why a pair of nodes is left alone, or nothing."""
        if layer_of(bn) in self.kept:
            return f"{layer_of(bn)} is used at several places, and does not fold at all of them"
        if self.pairs is not None and (layer_of(linear), layer_of(bn)) not in self.pairs:
            return f"{layer_of(linear)} and {layer_of(bn)} are not among the given pairs"
        return ""


@attrs.frozen(eq=False)
class FoldRecord:
    """What was folded, and why the rest was not."""

    before: Graph
    after: Graph
    pairs: tuple[tuple[Node, Node], ...]
    """(linear node, batch norm) as they were, those folded backward first."""
    reasons: dict[str, str]
    """Layer of batch norm -> why it stays."""

    def tells_of(self, linear: Node, bn: Node) -> bool:
        """Whether the output of a linear node now has the mean and the deviation that a batch norm gave it."""
        known = self.after.facts.get((Ref(linear.name), ChannelStats.kind))
        stats = Affine.of(bn, self.before).stats
        return isinstance(known, ChannelStats) and np.array_equal(known.mean, stats.mean) and np.array_equal(known.std, stats.std)

    @property
    def changed(self) -> Iterator[tuple[Node, Node]]:
        """The linear nodes that have new parameters, as they were and as they are."""
        for name in dict.fromkeys(linear.name for linear, _ in self.pairs):
            yield self.before.nodes[name], self.after.nodes[name]


def fold_whole(graph: Graph, pairs: frozenset[tuple[str, str]] | None = None) -> FoldRecord:
    """Fold the batch norms of a graph, all or those of some pairs of layers (linear layer, batch norm).

    Raises `TfpassesError` where one of the given pairs does not fold.
    """
    kept: frozenset[str] = frozenset()
    while True:
        journal, remarks = Journal(), RemarkLog()
        folding = FoldWholeBatchNorms(kept=kept, pairs=pairs)
        after = run_passes(graph, Pipeline((folding,)), [journal, remarks])
        partial = used_still(graph, after)
        if not partial:
            break
        kept |= partial
    record = recorded(graph, after, journal.records[0], {layer_of(graph.nodes[one.node]): one.reason for one in remarks.remarks})
    done = {(layer_of(linear), layer_of(bn)) for linear, bn in record.pairs}
    for linear, bn in sorted((pairs or frozenset()) - done):
        raise TfpassesError(f"{bn} cannot fold into {linear}: {record.reasons.get(bn, 'it folds into another layer')}")
    return record


def used_still(before: Graph, after: Graph) -> frozenset[str]:
    """The layers of batch norms that were folded at one place while something reads their weights at another."""
    gone = [node for node in before.nodes.values() if node.op == "BatchNorm" and node.name not in after.nodes]
    return frozenset(layer_of(node) for node in gone if any(after.weight_users.get(key) for key in node.params.values()))


def recorded(before: Graph, after: Graph, record: PassRecord, reasons: dict[str, str]) -> FoldRecord:
    """What a run did."""
    found: dict[str, list[tuple[Node, Node]]] = {rule: [] for rule in RULES}
    for rewrite in record.journal:
        linears = [before.nodes[name] for name in rewrite.changed if name in before.nodes and has_trait(before.nodes[name], "linear")]
        norms = [before.nodes[name] for name in rewrite.removed if before.nodes[name].op == "BatchNorm"]
        found[rewrite.rule] += [(linear, norm) for linear in linears for norm in norms]
    place = {name: number for number, name in enumerate(before.nodes)}
    ordered = [sorted(pairs, key=lambda pair: place[pair[0].name]) for pairs in (found["backward"] + found["concat"], found[FORWARD])]
    return FoldRecord(before, after, tuple(ordered[0] + ordered[1]), reasons)
