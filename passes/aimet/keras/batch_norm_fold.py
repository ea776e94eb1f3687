"""AIMET's `aimet_tensorflow.keras.batch_norm_fold`: batch norms folded into the layers that the caller holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tfpasses.graph import Graph, TfpassesError
from tfpasses.passes.aimet.keras.write_back import convert, make_identity, refuse_optimizer, reset_functions, write
from tfpasses.passes.aimet.whole_folds import FoldRecord, fold_whole
from tfpasses.passes.folding.arithmetic import Affine
from tfpasses.passes.folding.sites import finite_in
from tfpasses.passes.named_pairs import layer_of

__all__ = ["fold_all_batch_norms", "fold_given_batch_norms"]

Pair = tuple[Any, Any]
"""(linear layer, batch norm)."""


def fold_all_batch_norms(model: Any) -> tuple[list[Pair], Any]:
    """Fold the batch norms of a Keras model into its linear layers, in place, and convert the rest.

    Gives the pairs (layer, batch norm), those folded backward first, in the order of the model, and a new model without the batch norms.
    Its layers are those of `model`, which still computes what it did: its batch norms that were folded have become identities, and remember
    what they were as `original_gamma` and `original_beta`; the others have become gamma·x + beta (mean 0, variance 1, epsilon 0), but for
    those that are called with training=True, or whose gamma or beta would not be finite. Neither kind trains any more.

    A batch norm whose layer is used at several places is folded where all of them fold alike. Raises `UnsupportedModelError` for a model
    that is no Functional or Sequential one, or whose optimizer has a state.
    """
    graph = read(model)
    record = fold_whole(graph)
    new = apply(model, record)
    standing = [node for node in record.after.nodes.values() if node.op == "BatchNorm"]
    training = {id(node.owner.source) for node in standing if node.config.get("training") and node.owner is not None}
    for node in {layer_of(node): node for node in standing}.values():
        affine = Affine.of(node, record.after)
        dtype = record.after.params(node)["mean"].dtype.name
        stored = finite_in(dtype, affine.scale) and finite_in(dtype, affine.shift)
        if node.owner is not None and id(node.owner.source) not in training and stored:
            convert(node.owner.source, affine.scale, affine.shift)
    return pairs_of(record), new


def fold_given_batch_norms(model: Any, layer_pairs: Iterable[Sequence[Any]]) -> Any:
    """Fold given batch norms of a Keras model in place, as `fold_all_batch_norms` does, and nothing else. Gives the new model.

    A pair is (layer, batch norm) or (batch norm, layer); it folds in the direction in which the two lie in the model, so that AIMET's third
    member, a flag that says whether the batch norm comes second, may be there or not. Raises `TfpassesError`, one line, where a pair does
    not fold, or is no such pair of the model's; nothing has changed then.
    """
    graph = read(model)
    paths = {id(node.owner.source): layer_of(node) for node in graph.nodes.values() if node.owner is not None}
    record = fold_whole(graph, frozenset(named(pair, paths, model) for pair in layer_pairs))
    return apply(model, record)


def read(model: Any) -> Graph:
    """A model as a graph, where its layers may be changed."""
    from tfpasses.frontends.keras import from_keras

    graph = from_keras(model)
    refuse_optimizer(model)
    return graph


def named(pair: Sequence[Any], paths: dict[int, str], model: Any) -> tuple[str, str]:
    """A given pair as the paths of its linear layer and its batch norm in the model."""
    import keras

    if not isinstance(pair, tuple | list) or len(pair) not in (2, 3) or not all(isinstance(layer, keras.Layer) for layer in pair[:2]):
        raise TfpassesError(f"{pair!r} is no pair of layers; give (layer, batch norm) or (batch norm, layer)")
    layers = sorted(pair[:2], key=lambda layer: isinstance(layer, keras.layers.BatchNormalization))
    if [isinstance(layer, keras.layers.BatchNormalization) for layer in layers] != [False, True]:
        raise TfpassesError(f"{pair[0].name} and {pair[1].name} are no pair of a linear layer and a batch norm")
    for layer in layers:
        if id(layer) not in paths:
            raise TfpassesError(f"{layer.name} is no layer of model {model.name}, or lies where it is not looked into")
    return paths[id(layers[0])], paths[id(layers[1])]


def apply(model: Any, record: FoldRecord) -> Any:
    """Change the layers as a fold says; gives the new model, without the batch norms that were folded."""
    from tfpasses.frontends.keras.same_layers import without_layers

    gone = {id(bn): bn for _, bn in pairs_of(record)}
    new = without_layers(model, list(gone.values()))
    for before, after in record.changed:
        assert before.owner is not None
        write(before.owner.source, {slot: record.after.weights[key] for slot, key in after.params.items()})
    told = [(linear.owner, bn.owner) for linear, bn in record.pairs if record.tells_of(linear, bn)]
    layers = {id(bn.source): linear.source.name for linear, bn in told if linear is not None and bn is not None}
    for key, bn in gone.items():
        make_identity(bn, layers.get(key))
    reset_functions(model)
    return new


def pairs_of(record: FoldRecord) -> list[Pair]:
    """The layers that were folded together, each pair once."""
    pairs = [(linear.owner.source, bn.owner.source) for linear, bn in record.pairs if linear.owner is not None and bn.owner is not None]
    return list({(id(layer), id(bn)): (layer, bn) for layer, bn in pairs}.values())
