"""Activations with an upper limit made activations without one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs
import numpy as np

from tfpasses.graph import Array, ChannelStats, Edit, Ref
from tfpasses.manager import Context, Contract, Effect, Pass, PassError, Remark, all_batches, register
from tfpasses.passes.equalization.arithmetic import share_above
from tfpasses.passes.equalization.clips import clipped, is_rectified, limits_of, remove_limits
from tfpasses.passes.named_pairs import layer_of

__all__ = ["Relu6ToRelu"]


@register
@attrs.frozen
class Relu6ToRelu(Pass):
    """Take the upper limit out of activations: max(0, x) for min(max(0, x), 6), in every spelling.

    It changes the function where a value exceeds the limit. A remark for each activation tells how often that is: the share of its
    elements that the limit touches on the data that are given, or, where there are none, under the normal distribution that a folded
    batch norm left behind (`ChannelStats`). `only="relu_1 conv1"` takes these layers alone.

    Spellings are ReLU layers with a `max_value`, the `relu6` activation and operation, a clip between 0 and a number, and a Minimum with a
    constant, be it behind an activation, as `cross-layer-scaling` leaves it, or before one.
    """

    name = "relu6-to-relu"
    contract = Contract(Effect.APPROXIMATES, after=("fold-batch-norms",), reads_data=True)

    only: str = ""

    def apply(self, edit: Edit, context: Context) -> Iterable[Remark]:
        """Take out the limits; say of each how often it was reached."""
        wanted = set(self.only.split())
        found = {node.name: limits for node in edit.nodes.values() if (limits := limits_of(node, edit)) is not None}
        unknown = wanted - {name for node in found for name in (node, layer_of(edit.nodes[node]))}
        if unknown:
            first = min(unknown)
            known = any(first in (node.name, layer_of(node)) for node in edit.nodes.values())
            why = f"{first} is no activation with an upper limit" if known else f"there is no layer {first!r}"
            raise PassError(f"only={self.only!r}: {why}")
        chosen = {name: limits for name, limits in found.items() if not wanted or wanted & {name, layer_of(edit.nodes[name])}}
        reached = measured(chosen, edit, context)
        for name, limits in chosen.items():
            node = edit.nodes[name]
            share = reached[name] if name in reached else expected(clipped(node, edit), limits, edit)
            edit.savepoint()
            remove_limits(node, edit)
            edit.note(share=share)
            context.on_rewrite(edit.commit("unclip", name))
            yield self.said(name, share, name in reached)

    def said(self, name: str, share: float | None, on_data: bool) -> Remark:
        """What taking out one limit means."""
        if share is None:
            remedy = "give data, or fold batch norms first, to know how many"
            return Remark(self.name, "note", name, "the limit is gone; how many of its values it touched is not known", remedy)
        source = "on the given data" if on_data else "by the statistics of the batch norm before it"
        return Remark(self.name, "note", name, f"the limit is gone; it touched {100 * share:.3g} % of its values {source}")


BATCH = 32
"""So many samples are run at once."""


def measured(chosen: Mapping[str, Array], edit: Edit, context: Context) -> dict[str, float]:
    """Which share of each activation's values is above its limit on the given data; nothing where there are none."""
    if context.data is None or context.evaluator is None or not chosen:
        return {}
    refs = {name: clipped(edit.nodes[name], edit) for name in chosen}
    run = context.evaluator.compile(edit.source, [Ref(name) for name in edit.source.inputs], list(refs.values()))
    counts = np.zeros((len(chosen), 2))  # above the limit, and in all
    done = 0
    for part in all_batches(context.data, BATCH):
        values = run({Ref(name): array for name, array in part.items()})
        found = zip(chosen.values(), values, strict=True)
        counts += [((np.asarray(value, np.float64) > limits).sum(), value.size) for limits, value in found]
        done += np.atleast_1d(next(iter(part.values()))).shape[0]
        context.on_progress(done, context.data.count)
    if context.workers is not None:
        counts = np.sum(context.workers.gathered(counts), axis=0)
    return {name: float(above / max(seen, 1)) for name, (above, seen) in zip(chosen, counts, strict=True)}


def expected(ref: Ref, limits: Array, edit: Edit) -> float | None:
    """The same of normally distributed values; None where their statistics are not known."""
    node = edit.nodes[ref.node]
    while (ref, ChannelStats.kind) not in edit.facts and (node.op in ("Relu", "PRelu", "Identity", "Dropout") or is_rectified(node, edit)):
        ref = clipped(node, edit)  # a limit above zero is exceeded before an activation as often as behind it
        node = edit.nodes[ref.node]
    stats = edit.facts.get((ref, ChannelStats.kind))
    if not isinstance(stats, ChannelStats) or limits.size not in (1, stats.mean.size):
        return None
    return float(np.mean(share_above(limits.reshape(-1), stats.mean, stats.std)))
