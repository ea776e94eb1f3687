"""Layers that a user names in pairs: `only="conv1:bn1 conv2:bn2"`."""

from __future__ import annotations

from tfpasses.graph import Edit, Node, has_trait
from tfpasses.manager import PassError

__all__ = ["find_pair", "layer_of", "read_pairs"]


def read_pairs(text: str) -> tuple[tuple[str, str], ...]:
    """`a:b c:d` as pairs of names."""
    pairs = [tuple(pair.split(":")) for pair in text.split()]
    for pair in pairs:
        if len(pair) != 2 or not all(pair):
            raise ValueError(f"only={text!r}: write pairs as layer:batch_norm, with spaces between the pairs")
    return tuple((a, b) for a, b in pairs)


def layer_of(node: Node) -> str:
    """The path of the layer that a node came from, or its own name."""
    return node.owner.layer if node.owner is not None else node.name


def find_pair(a: str, b: str, edit: Edit) -> tuple[str, str]:
    """A named pair as (linear layer, batch norm). Raises `PassError` where there is none such."""
    kinds: dict[str, str] = {}
    for node in edit.nodes.values():
        kind = "batch norm" if node.op == "BatchNorm" else "linear layer" if has_trait(node, "linear") else ""
        if kind:
            kinds[layer_of(node)] = kind
        else:
            kinds.setdefault(layer_of(node), "neither")
    for name in (a, b):
        if name not in kinds:
            raise PassError(f"only={a}:{b}: there is no layer {name!r}")
    if {kinds[a], kinds[b]} != {"batch norm", "linear layer"}:
        raise PassError(f"only={a}:{b}: a pair is a linear layer and a batch norm; {a} is {named(kinds[a])}, {b} is {named(kinds[b])}")
    return (a, b) if kinds[b] == "batch norm" else (b, a)


def named(kind: str) -> str:
    return kind if kind == "neither" else f"a {kind}"
