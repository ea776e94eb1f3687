"""AIMET's `aimet_tensorflow.batch_norm_fold`: batch norms folded in sessions of TensorFlow 1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tfpasses.graph import Graph, Node, has_trait
from tfpasses.manager import Journal, Pipeline, run_passes
from tfpasses.passes.aimet.sessions import Names, linear_node, linear_operation, new_session, norm_node, norm_operation, read
from tfpasses.passes.aimet.statistics import remember
from tfpasses.passes.fold_batch_norms import FoldBatchNorms

__all__ = ["fold_all_batch_norms", "fold_given_batch_norms"]

Pair = tuple[Any, Any]
"""(convolution or matrix product, batch norm), as operations."""


def fold_all_batch_norms(sess: Any, input_op_names: Names, output_op_names: Names) -> tuple[Any, list[Pair]]:
    """Fold the batch norms between some operations of a session, at inference.

    Gives a new session, and the pairs (convolution or matrix product, batch norm) that were folded, as operations of the given session,
    which is as it was. The new one remembers the statistics of what was folded backward. Raises `TfpassesError`, one line, where there are
    no operations of these names, or a variable is not initialized.
    """
    graph = read(sess, input_op_names, output_op_names)
    after, pairs = folded(graph, FoldBatchNorms())
    operations = [(linear_operation(linear, sess.graph), norm_operation(bn, sess.graph)) for linear, bn in pairs]
    return remember(new_session(after), after), operations


def fold_given_batch_norms(sess: Any, input_op_names: Names, output_op_names: Names, layer_pairs: Iterable[Sequence[Any]]) -> Any:
    """Fold given batch norms of a session, and nothing else; gives a new session, as `fold_all_batch_norms` does.

    A pair is (convolution or matrix product, batch norm), or the other way around, as operations of the session: any of those that the
    layer consists of. It folds in the direction in which the two lie, so that AIMET's third member, a flag that says whether the batch norm
    comes second, may be there or not. Raises `ValueError` for what is no such operation, `TfpassesError`, one line, for a pair that does
    not fold.
    """
    graph = read(sess, input_op_names, output_op_names)
    named = [named_pair(pair, graph) for pair in layer_pairs]
    after = folded(graph, FoldBatchNorms(only=" ".join(named)))[0] if named else graph
    return remember(new_session(after), after)


def named_pair(pair: Sequence[Any], graph: Graph) -> str:
    """A pair of operations as `only=` names it."""
    if not isinstance(pair, tuple | list) or len(pair) not in (2, 3) or not all(hasattr(one, "type") for one in pair[:2]):
        raise ValueError(f"{pair!r} is no pair of operations; give (convolution or matrix product, batch norm), or the other way around")
    first, second = pair[:2]
    try:
        linear, norm = linear_node(first, graph), norm_node(second, graph)
    except ValueError:
        try:
            linear, norm = linear_node(second, graph), norm_node(first, graph)
        except ValueError:
            raise ValueError(f"{first.name} and {second.name} are no pair of a convolution or matrix product and a batch norm") from None
    return f"{linear.name}:{norm.name}"


def folded(graph: Graph, folding: FoldBatchNorms) -> tuple[Graph, list[tuple[Node, Node]]]:
    """A graph with batch norms folded, and the nodes that were folded together, as they were."""
    journal = Journal()
    after = run_passes(graph, Pipeline((folding,)), [journal])
    pairs = []
    for rewrite in journal.records[0].journal:
        linears = [graph.nodes[name] for name in rewrite.changed if name in graph.nodes and has_trait(graph.nodes[name], "linear")]
        norms = [graph.nodes[name] for name in rewrite.removed if graph.nodes[name].op == "BatchNorm"]
        pairs += [(linear, norm) for linear in linears for norm in norms]
    return after, pairs
