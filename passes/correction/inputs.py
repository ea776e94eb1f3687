"""What a user tells of the means of a model's inputs: `input-mean="0"`, `"0.1,-0.2,0.3"`, `"image:0 mask:0.5"`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tfpasses.graph import OUTPUT, Array, Edit, Graph, Ref, channel_axis, has_trait
from tfpasses.manager import PassError
from tfpasses.passes.equalization.layouts import along

__all__ = ["input_layouts", "read_means"]

ANY = ""
"""Stands for all inputs that are not named."""


def read_means(text: str) -> Mapping[str, tuple[float, ...]]:
    """Numbers by input, one for all of its channels or one for each, as written. Raises `ValueError` for another text."""
    found: dict[str, tuple[float, ...]] = {}
    for item in text.split():
        name, _, numbers = item.rpartition(":")
        try:
            means = tuple(float(number) for number in numbers.split(","))
        except ValueError:
            means = (math.nan,)
        if not all(map(math.isfinite, means)):
            raise ValueError(
                f"input-mean={text!r}: write one number, or one for each channel with commas between, as 0.1,-0.2,0.3; "
                "for one input of several as image:0 mask:0.5"
            )
        if name in found:
            raise ValueError(f"input-mean={text!r}: {f'input {name} is' if name else 'all inputs are'} given twice")
        found[name] = means
    return found


def input_layouts(means: Mapping[str, tuple[float, ...]], graph: Graph | Edit) -> dict[str, Array]:
    """The mean of each input that is told, laid out as `equalization.layouts` says.

    Raises `PassError` where there is no input of a name, or an input has another number of channels.
    """
    inputs = [node for node in graph.nodes.values() if node.op == "Input"]
    for name in means:
        if name != ANY and name not in {node.name for node in inputs}:
            raise PassError(f"input-mean: there is no input {name!r}; there are {', '.join(node.name for node in inputs) or 'none'}")
    found: dict[str, Array] = {}
    for node in inputs:
        numbers, shape = means.get(node.name, means.get(ANY)), node.specs[0].shape
        if numbers is None or shape is None:
            continue
        rank = len(shape)
        if len(numbers) == 1:
            found[node.name] = np.full((1,) * max(rank - 1, 0), numbers[0])
            continue
        axis = channels_of(Ref(node.name), graph)
        if rank < 2 or shape[axis] not in (None, len(numbers)):
            raise PassError(
                f"input-mean: {len(numbers)} numbers are given for {node.name}, which has {shape[axis] if shape else 0} channels"
            )
        found[node.name] = along(np.array(numbers), axis, rank)
    return found


def channels_of(ref: Ref, graph: Graph | Edit) -> int:
    """The axis of a value's channels, as the first node says that reads it, or what was made of it, and knows; else the last."""
    rank, wave, met = len(graph.spec(ref).dims), [ref.node], {ref.node}
    while wave:
        users = [graph.nodes[name] for one in wave for name, _ in graph.users[one] if name != OUTPUT]
        for user in users:
            if "data_format" in user.config and len(graph.spec(user.inputs[0]).dims) == rank:
                return channel_axis(user, rank)
        same = [user.name for user in users if user.name not in met and has_trait(user, "elementwise")]
        wave = [name for name in dict.fromkeys(same) if len(graph.spec(Ref(name)).dims) == rank]
        met.update(wave)
    return rank - 1
