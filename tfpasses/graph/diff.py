"""What differs between two graphs: a unified diff of their text forms."""

from __future__ import annotations

import difflib

from tfpasses.graph.graph import Graph

__all__ = ["diff"]


def diff(a: Graph, b: Graph, context: int = 2) -> str:
    """A unified diff of the two text forms, empty where they are equal. Exact about nodes and wiring; weights differ where
    their dtype, shape or summary to four digits does, and, where those are equal but the bytes are not, by a closing line each.
    """
    before, after = a.to_text().splitlines(), b.to_text().splitlines()
    lines = list(difflib.unified_diff(before, after, a.name, b.name, lineterm="", n=context))
    lines += [f"~ weight {key}: same summary, other values" for key in hidden_changes(a, b)]
    return "\n".join(lines) + "\n" if lines else ""


def hidden_changes(a: Graph, b: Graph) -> list[str]:
    """Keys of weights that differ although their lines do not."""
    from tfpasses.graph.text import weight_line

    both = [key for key in a.weights if key in b.weights and a.weights[key] is not b.weights[key]]
    return [
        key
        for key in both
        if a.weights[key].tobytes() != b.weights[key].tobytes() and weight_line(key, a.weights[key]) == weight_line(key, b.weights[key])
    ]
