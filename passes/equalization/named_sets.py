"""Sets of layers that a user names: `only="conv1,conv2 conv2,depthwise3,conv4"`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfpasses.graph import OUTPUT, Array, Edit, has_trait
from tfpasses.manager import PassError
from tfpasses.passes.equalization.channels import Channels, Kernel
from tfpasses.passes.equalization.scaling import Unit
from tfpasses.passes.named_pairs import layer_of

__all__ = ["read_sets", "units_of_sets"]

FEWEST, MOST = 2, 3


def read_sets(text: str) -> tuple[tuple[str, ...], ...]:
    """`a,b b,c,d` as sets of names. Raises `ValueError` for anything else."""
    sets = [tuple(part.split(",")) for part in text.split()]
    for one in sets:
        if not FEWEST <= len(one) <= MOST or not all(one):
            raise ValueError(f"only={text!r}: write sets as layer,layer or layer,depthwise,layer, with spaces between the sets")
    return tuple(sets)


def units_of_sets(sets: Sequence[Sequence[str]], channels: Channels, edit: Edit) -> list[Unit]:
    """What the named sets scale. Raises `PassError` where there is no such layer, or to scale a set would change the function, with why."""
    layers: dict[str, list[int]] = {}
    for number, kernel in enumerate(channels.kernels):
        for name in dict.fromkeys(name for node in kernel.nodes for name in (layer_of(edit.nodes[node]), node)):
            if number not in layers.setdefault(name, []):
                layers[name].append(number)
    found = []
    for one in sets:
        title = f"only={','.join(one)}"
        for name in one:
            if name not in layers:
                known = any(name in (layer_of(node), node.name) for node in edit.nodes.values())
                raise PassError(f"{title}: {f'{name} is no linear layer' if known else f'there is no layer {name!r}'}")
        first, *middles, last = one
        numbers = [layers[first][-1], *(layers[name][0] for name in middles), layers[last][0]]
        found.append(unit_of(numbers, one, title, channels, edit))
    return found


def read_by(kernel: Kernel, edit: Edit) -> set[str]:
    """The linear nodes that read what a layer gives, whatever lies between."""
    found: set[str] = set()
    stack, seen = list(kernel.nodes), set(kernel.nodes)
    while stack:
        for user, _ in edit.users[stack.pop()]:
            if user != OUTPUT and has_trait(edit.nodes[user], "linear"):
                found.add(user)
            elif user != OUTPUT and user not in seen:
                seen.add(user)
                stack.append(user)
    return found


def unit_of(numbers: Sequence[int], names: Sequence[str], title: str, channels: Channels, edit: Edit) -> Unit:
    """The unit of kernels in a row."""
    regions: list[Array] = []
    for before, after, name, other in zip(numbers[:-1], numbers[1:], names[:-1], names[1:], strict=True):
        gives = channels.kernels[before].outs
        free = np.unique(gives)[channels.fixed[np.unique(gives)] < 0]
        if read_by(channels.kernels[before], edit).isdisjoint(channels.kernels[after].nodes):
            raise PassError(f"{title}: {other} does not read what {name} gives")
        if not free.size:
            node, why = channels.reasons[int(channels.fixed[gives[0]])]
            raise PassError(f"{title}: to scale it would change the function: {node}: {why}")
        for number, kernel in enumerate(channels.kernels):
            if number != before and np.isin(kernel.outs, free).any():
                raise PassError(f"{title}: to scale it would change the function: {kernel.nodes[0]} gives to the same channels as {name}")
            if number != after and np.isin(kernel.ins, free).any():
                raise PassError(f"{title}: to scale it would change the function: {kernel.nodes[0]} reads what {name} gives, too")
        regions.append(free)
    for number, name in zip(numbers[1:-1], names[1:-1], strict=True):
        kernel = channels.kernels[number]
        if kernel.view.shape[::2] != (1, 1):
            raise PassError(f"{title}: {name} is no depthwise layer that gives as many channels as it reads")
    row = [regions[0]]
    for number, behind in zip(numbers[1:-1], regions[1:], strict=True):
        kernel = channels.kernels[number]
        both = np.isin(kernel.ins, row[-1]) & np.isin(kernel.outs, behind)
        kept = np.isin(row[-1], kernel.ins[both])
        row = [one[kept] for one in row]
        order = np.argsort(kernel.ins, kind="stable")
        row.append(kernel.outs[order[np.searchsorted(kernel.ins[order], row[-1])]])
    return Unit(tuple(row), (numbers[0],), tuple(numbers[1:-1]), (numbers[-1],))
