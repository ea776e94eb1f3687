"""How the layers of a model hang together, read from `get_config()` alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Call", "ConfigGraph", "Tensor"]

Tensor = tuple[str, int]
"""A layer's name and the number of the call that made the tensor."""


@dataclass(frozen=True)
class Call:
    """What one call of a layer reads."""

    reads: tuple[Tensor, ...]
    training: bool


@dataclass(frozen=True)
class ConfigGraph:
    """The connectivity of one model's configuration; what a nested model holds is a graph of its own."""

    layers: dict[str, dict[str, Any]]
    calls: dict[str, list[Call]]
    readers: dict[Tensor, list[Tensor]]
    """The calls that read a tensor, each as often as it does, named by what they make."""
    outputs: frozenset[Tensor]

    @classmethod
    def read(cls, config: dict[str, Any]) -> ConfigGraph:
        """The graph of a Functional or Sequential model's configuration."""
        layers = {layer["config"]["name"]: layer for layer in config["layers"]}
        if "output_layers" in config:
            calls = {name: [_call(node) for node in layer["inbound_nodes"]] for name, layer in layers.items()}
            outputs = frozenset(_output_tensors(config["output_layers"]))
        else:
            calls, outputs = _chain([name for name, layer in layers.items() if layer["class_name"] != "InputLayer"])
        readers: dict[Tensor, list[Tensor]] = defaultdict(list)
        for name, nodes in calls.items():
            for number, call in enumerate(nodes, _first_call(layers[name])):
                for tensor in call.reads:
                    readers[tensor].append((name, number))
        return cls(layers, calls, dict(readers), outputs)

    def maker(self, tensor: Tensor) -> tuple[dict[str, Any], Call]:
        """The layer, and the call of it, that made a tensor."""
        name, number = tensor
        return self.layers[name], self.calls[name][number - _first_call(self.layers[name])]

    def is_private(self, tensor: Tensor) -> bool:
        """Whether one call alone reads the tensor, once, and it is not an input or output of the model."""
        name, number = tensor
        made_here = name in self.calls and number - _first_call(self.layers[name]) < len(self.calls[name])
        return made_here and len(self.readers.get(tensor, [])) == 1 and tensor not in self.outputs


def _first_call(layer: dict[str, Any]) -> int:
    return 1 if "layers" in layer["config"] else 0  # a model's calls count from 1


def _call(node: dict[str, Any]) -> Call:
    return Call(tuple(_tensors([node["args"], node["kwargs"]])), bool(node["kwargs"].get("training")))


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


def _chain(names: list[str]) -> tuple[dict[str, list[Call]], frozenset[Tensor]]:
    """Connectivity of a Sequential model, which its configuration leaves unsaid."""
    before = ["", *names]
    calls = {name: [Call(((source, 0),), False)] for source, name in zip(before, names, strict=False)}
    return calls, frozenset({(name, 0) for name in names[-1:]})
