"""Which batch norms can be folded into the layer before them, read from `get_config()` alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

__all__ = ["fold_count", "foldable"]

Tensor = tuple[str, int]
"""A layer's name and the number of the call that made the tensor."""

LINEAR_LAYERS = frozenset(
    {f"{kind}{rank}D" for rank in (1, 2, 3) for kind in ("Conv",)}
    | {f"Conv{rank}DTranspose" for rank in (1, 2, 3)}
    | {f"{kind}{rank}D" for rank in (1, 2) for kind in ("DepthwiseConv", "SeparableConv")}
    | {"Dense"}
)
INFERENCE_NO_OPS = frozenset(
    {"Identity", "Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization"}
    | {f"SpatialDropout{rank}D" for rank in (1, 2, 3)}
)


def fold_count(model: keras.Model) -> int:
    """How many batch norms of `model` fold backward."""
    return len(foldable(model))


def foldable(model: keras.Model) -> list[tuple[str, str]]:
    """(layer, batch norm) name pairs of `model`, in the configuration's order, where the norm folds into the layer.

    The layer is a convolution or Dense, linear, called once, its output read by the norm alone (at most through layers
    that do nothing at inference) and no output of the model; the norm is on the channel axis and not forced to train.
    Nested models are scanned each for itself, their names in front: ``"inner/conv"``; no pair spans a model's border.
    """
    return list(_pairs(model.get_config(), ""))


def _pairs(config: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    graph = _Graph.read(config)
    for name, layer in graph.layers.items():
        if "layers" in layer["config"]:
            yield from _pairs(layer["config"], f"{prefix}{name}/")
        elif layer["class_name"] == "BatchNormalization":
            for call in graph.calls[name]:
                producer = graph.folds_into(layer, call)
                if producer is not None:
                    yield prefix + producer, prefix + name


@dataclass(frozen=True)
class _Call:
    reads: tuple[Tensor, ...]
    training: bool


@dataclass(frozen=True)
class _Graph:
    """The connectivity of one model's configuration."""

    layers: dict[str, dict[str, Any]]
    calls: dict[str, list[_Call]]
    readers: Counter[Tensor]
    outputs: frozenset[Tensor]

    @classmethod
    def read(cls, config: dict[str, Any]) -> _Graph:
        layers = {layer["config"]["name"]: layer for layer in config["layers"]}
        if "output_layers" in config:
            calls = {name: [_call(node) for node in layer["inbound_nodes"]] for name, layer in layers.items()}
            outputs = frozenset(_output_tensors(config["output_layers"]))
        else:
            calls, outputs = _chain([name for name, layer in layers.items() if layer["class_name"] != "InputLayer"])
        readers = Counter(tensor for nodes in calls.values() for call in nodes for tensor in call.reads)
        return cls(layers, calls, readers, outputs)

    def folds_into(self, norm: dict[str, Any], call: _Call) -> str | None:
        """Name of the layer that `norm` at `call` folds into."""
        if call.training or len(call.reads) != 1:
            return None
        tensor = call.reads[0]
        while self._is_private(tensor):
            name, number = tensor
            producer = self.layers[name]
            if producer["class_name"] in LINEAR_LAYERS:
                single = len(self.calls[name]) == 1
                return name if single and _is_linear(producer) and _same_axis(producer, norm) else None
            if producer["class_name"] not in INFERENCE_NO_OPS or self.calls[name][number].training:
                return None
            tensor = self.calls[name][number].reads[0]
        return None

    def _is_private(self, tensor: Tensor) -> bool:
        """Whether one call alone reads the tensor, once, and it is not an input or output of the model."""
        name, number = tensor
        made_here = name in self.calls and self._number_of_calls(name) > number
        return made_here and self.readers[tensor] == 1 and tensor not in self.outputs

    def _number_of_calls(self, name: str) -> int:
        nested = 1 if "layers" in self.layers[name]["config"] else 0  # a model's calls count from 1
        return len(self.calls[name]) + nested


def _call(node: dict[str, Any]) -> _Call:
    return _Call(tuple(_tensors([node["args"], node["kwargs"]])), bool(node["kwargs"].get("training")))


def _tensors(arguments: Any) -> Iterator[Tensor]:
    if isinstance(arguments, dict):
        if arguments.get("class_name") == "__keras_tensor__":
            name, number, _ = arguments["config"]["keras_history"]
            yield name, number
        else:
            yield from _tensors(list(arguments.values()))
    elif isinstance(arguments, (list, tuple)):
        for argument in arguments:
            yield from _tensors(argument)


def _output_tensors(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if len(outputs) == 3 and isinstance(outputs[0], str):
        yield outputs[0], outputs[1]
    else:
        for output in outputs:
            yield from _output_tensors(output)


def _chain(names: list[str]) -> tuple[dict[str, list[_Call]], frozenset[Tensor]]:
    """Connectivity of a Sequential model, which its configuration leaves unsaid."""
    before = ["", *names]
    calls = {name: [_Call(((source, 0),), False)] for source, name in zip(before, names, strict=False)}
    return calls, frozenset({(name, 0) for name in names[-1:]})


def _is_linear(layer: dict[str, Any]) -> bool:
    return layer["config"]["activation"] in (None, "linear")


def _same_axis(producer: dict[str, Any], norm: dict[str, Any]) -> bool:
    rank = len(norm["build_config"]["input_shape"])
    channel = 1 if producer["config"].get("data_format") == "channels_first" else rank - 1
    return norm["config"]["axis"] % rank == channel
