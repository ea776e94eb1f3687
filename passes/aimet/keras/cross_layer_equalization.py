"""AIMET's `aimet_tensorflow.keras.cross_layer_equalization`: layers of Keras scaled, and their biases moved, in place."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfpasses.graph import Array, Graph
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
from tfpasses.passes.aimet.keras.batch_norm_fold import Pair, fold_all_batch_norms, read
from tfpasses.passes.aimet.keras.layers import statistics_of, surroundings, view_of, without_identities
from tfpasses.passes.aimet.keras.utils.model_transform_utils import replace_relu6_with_relu
from tfpasses.passes.aimet.keras.write_back import write

__all__ = ["ClsSetInfo", "CrossLayerScaling", "HighBiasFold", "equalize_bn_folded_model", "equalize_model"]

ClsSet = Sequence[Any]
"""Two layers in a row, or three with a depthwise one in the middle."""
CALLER = 3


class CrossLayerScaling:
    """The ranges of kernels of layers in a row made equal, channel by channel."""

    @staticmethod
    def scale_model(model: Any, input_shape: Any = None) -> list[ClsSetInfo]:
        """Scale all sets of a Keras model once, in the order of the model, in place; they are given with their scales and ReLU flags.

        Those are scaled for which the function stays: where a value between goes elsewhere too, is clipped, or is tied to others by an Add
        or a Concatenate, a set is left alone. `input_shape`, which older versions of AIMET asked for, is not needed.

        Raises `UnsupportedModelError` for a model that is no Functional or Sequential one, or whose optimizer has a state.
        """
        graph = without_identities(read(model))
        found = find_cls_sets(graph)
        owners = {node.name: node.owner for node in graph.nodes.values()}
        cls_sets = [tuple(owner.source for name in one.nodes if (owner := owners[name]) is not None) for one in found]
        scales = [scale(layers) for layers in cls_sets]
        return create_cls_set_info_list(cls_sets, scales, [one.rectified if len(one.nodes) > 2 else one.rectified[0] for one in found])

    @staticmethod
    def scale_cls_sets(cls_sets: Iterable[ClsSet]) -> list[ScaleFactor]:
        """Scale given sets of layers in place, in this order; gives the scales of each: one array, or two of three layers.

        What would change the function of a model that the layers are part of is done all the same, with a warning. Raises `ValueError` for
        layers that cannot be scaled.
        """
        given = cls_sets_of(cls_sets)
        warn_of_unsafe(given)
        return [scale(one) for one in given]

    @staticmethod
    def scale_cls_set_with_conv_layers(cls_set: ClsSet) -> Array:
        """Scale two layers in place; gives the scales. Warns and raises as `scale_cls_sets` does."""
        warn_of_unsafe([counted(cls_set, 2)])
        factor = scale(cls_set)
        assert not isinstance(factor, tuple)
        return factor

    @staticmethod
    def scale_cls_set_with_depthwise_conv_layers(cls_set: ClsSet) -> tuple[Array, Array]:
        """Scale three layers in place, the second of which is depthwise; gives the scales between the first two and the last two. Another
        layer in the middle has no closed form: then the first two are scaled, and then the last two. Warns and raises as
        `scale_cls_sets` does.
        """
        warn_of_unsafe([counted(cls_set, 3)])
        factor = scale(cls_set)
        assert isinstance(factor, tuple)
        return factor

    @staticmethod
    def create_cls_set_info_list(
        cls_sets: Sequence[ClsSet], scale_factors: Sequence[ScaleFactor], is_relu_activation_in_cls_sets: Sequence[ReluFlag]
    ) -> list[ClsSetInfo]:
        """Sets, their scales and their ReLU flags as one list; see `tfpasses.passes.aimet.cls_sets`."""
        return create_cls_set_info_list(cls_sets, scale_factors, is_relu_activation_in_cls_sets)


def scale(layers: ClsSet) -> ScaleFactor:
    """Scale a set in place."""
    scales, changed = scaled_set([view_of(layer) for layer in layers])
    for layer, params in zip(layers, changed, strict=True):
        write(layer, params)
    return scales[0] if len(scales) == 1 else (scales[0], scales[1])


def counted(cls_set: ClsSet, count: int) -> ClsSet:
    """The set, where it has so many layers; else a `ValueError`."""
    (one,) = cls_sets_of([cls_set])
    if len(one) != count:
        raise ValueError(f"a set of {len(one)} layers was given where one of {count} is asked for")
    return one


def warn_of_unsafe(cls_sets: Sequence[ClsSet]) -> None:
    """Warn of the sets whose scaling would change what a model computes, as far as their layers tell."""
    for layers in cls_sets:
        for layer in layers:
            view_of(layer)
    around = [(graph, names_in(graph)) for graph in surroundings([layer for layers in cls_sets for layer in layers])]
    for layers in cls_sets:
        places = [(graph, [names[id(layer)] for layer in layers]) for graph, names in around if all(id(layer) in names for layer in layers)]
        reasons = [reason for graph, names in places if (reason := why_unsafe(names, graph))]
        if not places:
            reasons = ["they are together in no model that can be looked into, so that it is not known what this changes"]
        if reasons:
            warnings.warn(f"scaling {', '.join(layer.name for layer in layers)}: {reasons[0]}", stacklevel=CALLER)


def names_in(graph: Graph) -> dict[int, str]:
    """Layer, by id -> the name of its first node."""
    nodes = [(node.owner, node.name) for node in graph.nodes.values()]
    return {id(owner.source): name for owner, name in reversed(nodes) if owner is not None and not owner.part}


class HighBiasFold:
    """What biases have beyond what their activations need moved into the next layer's."""

    @staticmethod
    def bias_fold(cls_set_info_list: Iterable[ClsSetInfo], bn_layers: Mapping[Any, Any] | Iterable[Pair]) -> None:
        """Move the part of biases that all but a few values exceed (beta - 3·|gamma|; all of beta where nothing lies between) from the
        first layer of each pair of a set into the second, in place.

        `bn_layers` are the batch norms that were folded, by layer, or the pairs that folding gave or was given. A pair of layers is left
        alone where either has no bias, or where nothing is known of the first's output: no batch norm was folded into it, or that was
        folded forward.
        Raises `ValueError` for what is no such pair or no `ClsSetInfo`, and for scales that are not those of the two layers.
        """
        pairs = [in_order(pair) for pair in (bn_layers.items() if isinstance(bn_layers, Mapping) else bn_layers)]
        for info in infos_of(cls_set_info_list):
            for one in info.cls_pair_info_list:
                first, second = one.layer1, one.layer2
                known = next((found for layer, bn in pairs if layer is first and (found := statistics_of(bn, layer)) is not None), None)
                views = view_of(first), view_of(second)
                if known is None or any(view.bias is None for view in views):
                    continue
                moved = moved_bias(*views, *known, one.scale_factor, one.relu_activation_between_layers)
                if moved is not None:
                    write(first, moved[0])
                    write(second, moved[1])


def in_order(pair: Sequence[Any]) -> Pair:
    """A given pair as (layer, batch norm)."""
    import keras

    norms = [isinstance(layer, keras.layers.BatchNormalization) for layer in pair[:2]] if isinstance(pair, tuple | list) else []
    if sorted(norms) != [False, True]:
        raise ValueError(f"{pair!r} is no pair of a layer and a batch norm")
    return (pair[0], pair[1]) if norms[1] else (pair[1], pair[0])


def equalize_model(model: Any, input_shape: Any = None) -> Any:
    """Cross-layer equalization: a new Keras model, with ReLU for ReLU6, batch norms folded, layers scaled, and high biases moved.

    The given model is as it was. `input_shape`, which older versions of AIMET asked for, is not needed. Raises `UnsupportedModelError` for
    a model that is no Functional or Sequential one.
    """
    without_limits, _ = replace_relu6_with_relu(model)
    pairs, folded = fold_all_batch_norms(without_limits)
    equalize_bn_folded_model(folded, pairs)
    return folded


def equalize_bn_folded_model(model: Any, folded_pairs: Iterable[Pair]) -> None:
    """Scale a model whose batch norms are folded, and move its high biases, in place. `folded_pairs` is what folding gave."""
    HighBiasFold.bias_fold(CrossLayerScaling.scale_model(model), folded_pairs)
