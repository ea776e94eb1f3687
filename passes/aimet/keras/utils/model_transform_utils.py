"""AIMET's `aimet_tensorflow.keras.utils.model_transform_utils`: ReLU6 made ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfpasses.passes.aimet.relu6 import without_relu6
from tfpasses.passes.named_pairs import layer_of

__all__ = ["replace_relu6_with_relu"]


def replace_relu6_with_relu(model: Any, remain_fusing: bool = False, custom_objects: Any = None) -> tuple[Any, dict[str, Any]]:
    """A new Keras model with max(0, x) for min(max(0, x), 6), in every spelling, and the layers that changed, by name, each with an empty
    dictionary.

    The given model is as it was; the new one has layers of its own. What was the `activation=` of a layer becomes one of its own, or stays
    in it with `remain_fusing`. `custom_objects`, which AIMET needed to make layers anew, are not needed.

    Raises `UnsupportedModelError` for a model that is no Functional or Sequential one.
    """
    from tfpasses.frontends.keras import from_keras, write

    before = from_keras(model)
    graph, changed = without_relu6(before)
    new, names = write(graph)
    if remain_fusing:
        parts = [name for name in changed if (owner := before.nodes[name].owner) is not None and owner.part == "activation"]
        new = with_activations(new, [names.get(name, name) for name in parts])
    return new, {layer_of(before.nodes[name]): {} for name in changed}


def with_activations(model: Any, names: Sequence[str]) -> Any:
    """A model of the same layers, but that a ReLU of its own, at the nodes of these names, is the activation of the layer before it."""
    import keras

    from tfpasses.frontends.keras import from_keras
    from tfpasses.frontends.keras.same_layers import without_layers

    graph = from_keras(model)
    gone = []
    for name in names:
        node = graph.nodes[name]
        owner, below = node.owner, graph.nodes[node.inputs[0].node].owner
        assert owner is not None and below is not None
        below.source.activation = keras.activations.relu
        gone.append(owner.source)
    return without_layers(model, gone)
