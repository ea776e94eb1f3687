"""What the nodes of a graph will be called when the model written from it is read again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfpasses.graph import Graph, Node

__all__ = ["FinalNames"]


class FinalNames:
    """Collects names while a model is written, level by level. `inside` is the path of a level in the graph, with a slash at its end."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.final: dict[str, str] = {}
        self.calls: dict[tuple[str, int], int] = {}
        self.prefixes: dict[str, str] = {"": ""}
        """Path of a level in the graph -> in the model."""

    @property
    def renamed(self) -> dict[str, str]:
        """Node -> its new name, where that differs."""
        return {name: new for name, new in self.final.items() if new != name}

    def called(self, layer: Any, inside: str) -> str:
        """The name of the next call of a layer."""
        number = self.calls.get((inside, id(layer)), 0)
        self.calls[inside, id(layer)] = number + 1
        return f"{self.prefixes[inside]}{layer.name}" + (f"#{number}" if number else "")

    def add(self, nodes: Sequence[Node], layer: Any, inside: str) -> None:
        """Note that a node, and with it perhaps its activation, leaves as a call of the layer."""
        name = self.called(layer, inside)
        for node in nodes:
            self.final[node.name] = name + node.name.removeprefix(nodes[0].name)

    def open_scope(self, path: str, name: str, inside: str) -> None:
        """Note that a nested model is about to be written, under a name."""
        self.prefixes[f"{path}/"] = f"{self.prefixes[inside]}{name}/"

    def call_scope(self, path: str, first: str, model: Any, inside: str) -> None:
        """Note that a nested model, written from its use `first`, is called in the place of its use `path`."""
        name = self.called(model, inside)
        if path != first:
            source, target = self.prefixes[f"{first}/"], f"{name}/"
            for old in [old for old in self.graph.nodes if old.startswith(f"{path}/")]:
                like = self.final.get(first + old.removeprefix(path))
                if like is not None:
                    self.final[old] = target + like.removeprefix(source)
