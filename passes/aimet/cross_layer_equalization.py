"""AIMET's `aimet_tensorflow.cross_layer_equalization`: layers scaled, and their biases moved, in sessions of TensorFlow 1."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from tfpasses.graph import Array, Graph, LinearView, Node, Ref
from tfpasses.passes.aimet.batch_norm_fold import Pair, fold_all_batch_norms
from tfpasses.passes.aimet.cls_sets import (
    ClsSetInfo,
    ReluFlag,
    ScaleFactor,
    cls_sets_of,
    create_cls_set_info_list,
    find_cls_sets,
    infos_of,
    moved_bias,
    scaled_set,
    why_unsafe,
)
from tfpasses.passes.aimet.relu6 import without_relu6
from tfpasses.passes.aimet.sessions import (
    Names,
    linear_node,
    linear_operation,
    load,
    new_session,
    read,
    read_around,
    read_elsewhere,
    sources,
)
from tfpasses.passes.aimet.statistics import folded_operations, folded_statistics, remember_moved, remember_scaled
from tfpasses.passes.aimet.utils.graph_saver import save_and_load_graph

__all__ = ["ClsSetInfo", "CrossLayerScaling", "GraphSearchUtils", "HighBiasFold", "equalize_model"]

ClsSet = Sequence[Any]
"""Two operations in a row (convolutions, matrix products), or three with a depthwise one in the middle."""
CALLER = 3


class GraphSearchUtils:
    """What is looked for in a graph between some operations."""

    def __init__(self, model: Any, start_op_names: Names, output_op_names: Names) -> None:
        self.start_op_names = start_op_names
        self.output_op_names = output_op_names

    def find_and_replace_relu6_with_relu(self, sess: Any) -> Any:
        """A new session with max(0, x) for min(max(0, x), 6), in every spelling; the given one is as it was.

        Raises `TfpassesError`, one line, where there are no operations of the names.
        """
        graph, _ = without_relu6(read(sess, self.start_op_names, self.output_op_names))
        return new_session(graph)


class CrossLayerScaling:
    """The ranges of kernels of layers in a row made equal, channel by channel."""

    @staticmethod
    def scale_model(sess: Any, input_op_names: Names, output_op_names: Names) -> tuple[Any, list[ClsSetInfo]]:
        """Scale all sets between some operations once, in the order of the graph. Gives a new session, and the sets, as operations of that
        one, with their scales and ReLU flags; the given session is as it was.

        Those are scaled for which the function stays: where a value between goes elsewhere too, is clipped, or is tied to others by an
        addition or a concatenation, a set is left alone. Raises `TfpassesError`, one line, where there are no operations of these names.
        """
        graph = read(sess, input_op_names, output_op_names)
        found = find_cls_sets(graph)
        after, scales = scaled(graph, [one.nodes for one in found])
        new = new_session(after)
        remember_scales(new, graph, [one.nodes for one in found], scales)
        cls_sets = [tuple(linear_operation(graph.nodes[name], new.graph) for name in one.nodes) for one in found]
        flags = [one.rectified if len(one.nodes) > 2 else one.rectified[0] for one in found]
        return new, create_cls_set_info_list(cls_sets, scales, flags)

    @staticmethod
    def scale_cls_sets(sess: Any, cls_sets: Iterable[ClsSet]) -> list[ScaleFactor]:
        """Scale given sets of layers in the session itself, in this order; gives the scales of each: one array, or two of three layers.

        What would change the function is done all the same, with a warning. Raises `ValueError` for operations that cannot be scaled,
        `TfpassesError` where a kernel or a bias is no variable.
        """
        return scale_in_place(sess, cls_sets_of(cls_sets))

    @staticmethod
    def scale_cls_set(sess: Any, cls_set: ClsSet) -> ScaleFactor:
        """Scale one set; as `scale_cls_sets`."""
        return scale_in_place(sess, cls_sets_of([cls_set]))[0]

    @staticmethod
    def scale_cls_set_with_conv_layers(model: Any, cls_set: ClsSet) -> Array:
        """Scale two layers in a session (`model`); gives the scales. As `scale_cls_sets`."""
        (factor,) = scale_in_place(model, [counted(cls_set, 2)])
        assert not isinstance(factor, tuple)
        return factor

    @staticmethod
    def scale_cls_set_with_depthwise_layers(model: Any, cls_set: ClsSet) -> tuple[Array, Array]:
        """Scale three layers in a session (`model`), the second of which is depthwise; gives the scales between the first two and the
        last two. Another layer in the middle has no closed form: then the first two are scaled, and then the last two. As `scale_cls_sets`.
        """
        (factor,) = scale_in_place(model, [counted(cls_set, 3)])
        assert isinstance(factor, tuple)
        return factor

    @staticmethod
    def create_cls_set_info_list(
        cls_sets: Sequence[ClsSet], scale_factors: Sequence[ScaleFactor], is_relu_activation_in_cls_sets: Sequence[ReluFlag]
    ) -> list[ClsSetInfo]:
        """Sets, their scales and their ReLU flags as one list; see `tfpasses.passes.aimet.cls_sets`."""
        return create_cls_set_info_list(cls_sets, scale_factors, is_relu_activation_in_cls_sets)


def scaled(graph: Graph, sets: Iterable[Sequence[str]]) -> tuple[Graph, list[ScaleFactor]]:
    """A graph with sets of linear nodes scaled, one after the other, and the scales of each. Whatever else reads their weights reads the
    new ones.
    """
    weights = dict(graph.weights)
    after = attrs.evolve(graph, weights=weights)
    factors: list[ScaleFactor] = []
    for names in sets:
        nodes = [graph.nodes[name] for name in names]
        scales, changed = scaled_set([LinearView.of(node, after) for node in nodes])
        for node, params in zip(nodes, changed, strict=True):
            weights.update({node.params[slot]: array for slot, array in params.items()})
        factors.append(scales[0] if len(scales) == 1 else (scales[0], scales[1]))
    return after, factors


def calls(node: Node, graph: Graph) -> list[str]:
    """The nodes that multiply with the kernel of one."""
    return list(graph.weight_users[node.params[LinearView.of(node, graph).kernel_slot]])


def remember_scales(session: Any, graph: Graph, sets: Iterable[Sequence[str]], factors: Iterable[ScaleFactor]) -> None:
    """Let a session know by what the outputs of the layers of some sets were divided."""
    for names, factor in zip(sets, factors, strict=True):
        for name, scale in zip(names, factor if isinstance(factor, tuple) else (factor,), strict=False):
            remember_scaled(session, calls(graph.nodes[name], graph), scale)


def scale_in_place(session: Any, cls_sets: Sequence[ClsSet]) -> list[ScaleFactor]:
    """Scale sets of operations in a session, with warnings."""
    if not cls_sets:
        return []
    graph = read_around(session, [operation for one in cls_sets for operation in one])
    sets = [[linear_node(operation, graph).name for operation in one] for one in cls_sets]
    reasons = [why_unsafe(names, graph) or other for names, other in zip(sets, read_elsewhere(sets, graph), strict=True)]
    after, factors = scaled(graph, sets)
    load(session, graph, after)
    remember_scales(session, graph, sets, factors)
    for one, reason in zip(cls_sets, reasons, strict=True):
        if reason:
            warnings.warn(f"scaling {', '.join(operation.name for operation in one)}: {reason}", stacklevel=CALLER)
    return factors


def counted(cls_set: ClsSet, count: int) -> ClsSet:
    """The set, where it has so many layers; else a `ValueError`."""
    (one,) = cls_sets_of([cls_set])
    if len(one) != count:
        raise ValueError(f"a set of {len(one)} layers was given where one of {count} is asked for")
    return one


def pairs_of(given: Mapping[Any, Any] | Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    """Given pairs of operations, without AIMET's flag. Raises `ValueError` for something else, such as arguments in another order."""
    pairs = list(given.items() if isinstance(given, Mapping) else given or ())
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) < 2 or not all(hasattr(operation, "name") for operation in pair[:2]):
            raise ValueError(f"{pair!r} is no pair of a convolution or matrix product and a batch norm, as operations")
    return [pair[:2] for pair in pairs]


class HighBiasFold:
    """What biases have beyond what their activations need moved into the next layer's."""

    @staticmethod
    def bias_fold(sess: Any, folded_pairs: Mapping[Any, Any] | Iterable[Pair], cls_set_info_list: Iterable[ClsSetInfo]) -> Any:
        """Move the part of biases that all but a few values exceed (beta - 3·|gamma|; all of beta where nothing lies between) from the
        first layer of each pair of a set into the second. Gives a new session; the given one is as it was.

        `folded_pairs` are what folding gave or was given: of their layers, the session knows the statistics. Operations count by their
        names, whatever session they are of, and in whatever order. A pair of layers is left alone where either has no bias, or where
        nothing is known of the first's output: no batch norm was folded into it, or that was folded forward. Raises `ValueError` for what
        is no such pair or no `ClsSetInfo`, and for scales that are not those of the two layers.
        """
        pairs = [one for info in infos_of(cls_set_info_list) for one in info.cls_pair_info_list]
        keys = [operation for pair in pairs_of(folded_pairs) for operation in pair]
        if not pairs:
            return save_and_load_graph("", sess)
        graph = read_around(sess, [operation for one in pairs for operation in (one.layer1, one.layer2)])
        weights = dict(graph.weights)
        after = attrs.evolve(graph, weights=weights)
        shifts: list[tuple[Node, Array]] = []
        known, before, named = folded_statistics(sess), folded_operations(sess), {operation.name for operation in keys}
        for one in pairs:
            nodes = [linear_node(operation, graph) for operation in (one.layer1, one.layer2)]
            first, second = (LinearView.of(node, after) for node in nodes)
            stats = known.get(Ref(nodes[0].name))
            folded = named & before.get(nodes[0].name, frozenset()).union([source.name for source in sources(nodes[0])])
            if stats is None or not folded or first.bias is None or second.bias is None:
                continue
            moved = moved_bias(first, second, stats.std, stats.mean, one.scale_factor, one.relu_activation_between_layers)
            for node, params in zip(nodes, moved or (), strict=False):
                weights[node.params["bias"]] = params["bias"]
            if moved is not None:
                shifts.append((nodes[0], np.asarray(first.bias, np.float64) - moved[0]["bias"]))
        new = new_session(after)
        for node, shift in shifts:
            remember_moved(new, calls(node, graph), shift)
        return new


def equalize_model(sess: Any, start_op_names: Names, output_op_names: Names) -> Any:
    """Cross-layer equalization between some operations of a session: batch norms folded, ReLU for ReLU6, layers scaled, high biases moved.

    Gives a new session; the given one is as it was. Raises `TfpassesError`, one line, where there are no operations of these names.
    """
    folded, pairs = fold_all_batch_norms(sess, start_op_names, output_op_names)
    without_limits = GraphSearchUtils(folded.graph, start_op_names, output_op_names).find_and_replace_relu6_with_relu(folded)
    scaled_, infos = CrossLayerScaling.scale_model(without_limits, start_op_names, output_op_names)
    new = HighBiasFold.bias_fold(scaled_, pairs, infos)
    for one in (folded, without_limits, scaled_):
        one.close()
    return new
