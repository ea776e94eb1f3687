"""Which nested models leave as nested models, and which are flattened."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from tfpasses.graph import Graph, Node, Ref
from tfpasses.graph.text import format_value

__all__ = ["IntactScopes", "intact_scopes", "nodes_by_scope"]


@attrs.frozen
class IntactScopes:
    """The uses of nested models that leave as such."""

    paths: frozenset[str]

    def outermost(self, name: str, inside: str) -> str | None:
        """The outermost intact use, below the scope `inside`, that a node lies in."""
        start = len(inside)
        while (slash := name.find("/", start)) >= 0:
            if name[:slash] in self.paths:
                return name[:slash]
            start = slash + 1
        return None


def intact_scopes(graph: Graph, note: Callable[[str], None]) -> IntactScopes:
    """A nested model leaves as one if no rewrite straddles its border, its border is where it was, and all its uses look alike.

    `note` is told, with the reason, of each that is flattened.
    """
    uses: dict[str, list[str]] = {}
    for path, scope in graph.scopes.items():
        uses.setdefault(scope.layer, []).append(path)
    members = nodes_by_scope(graph)
    intact: set[str] = set()
    for layer, paths in uses.items():
        reason = next((why for path in paths if (why := broken_border(graph, path, members[path]))), "")
        if not reason and not alike(graph, paths, members):
            reason = "its uses were not changed alike"
        if reason:
            note(f"nested model {layer} is flattened: {reason}")
        else:
            intact.update(paths)
    return IntactScopes(frozenset(intact))


def nodes_by_scope(graph: Graph) -> dict[str, list[Node]]:
    """The nodes in each use of a nested model, those of models nested deeper among them, in the graph's order; all under the empty path."""
    members: dict[str, list[Node]] = {path: [] for path in ("", *graph.scopes)}
    for node in graph.nodes.values():
        members[""].append(node)
        path = node.scope
        while path:
            if path in members:
                members[path].append(node)
            path = path.rpartition("/")[0]
    return members


def broken_border(graph: Graph, path: str, nodes: list[Node]) -> str:
    """Why a use of a nested model cannot leave as one, or nothing."""
    scope = graph.scopes[path]
    if scope.straddled:
        return "a rewrite straddles its border"
    inside = {node.name for node in nodes}
    entering = {ref for node in nodes for ref in node.inputs if ref.node not in inside and graph.nodes[ref.node].op != "Const"}
    if not entering <= set(scope.inputs):
        return "it takes another value than it did"
    leaving = {Ref(name, index) for name in inside for (user, _), index in graph.users[name].items() if user not in inside}
    if not leaving <= set(scope.outputs) or any(ref.node not in graph.nodes for ref in scope.outputs):
        return "it gives another value than it did"
    if any(ref.node not in inside and ref not in scope.inputs for ref in scope.outputs):
        return "one of its outputs comes from outside"
    return ""


def alike(graph: Graph, paths: list[str], members: dict[str, list[Node]]) -> bool:
    """Whether all uses of a nested model look alike. Uses that nothing changed do, whatever they were called with."""
    if len(paths) == 1 or not any(node.made_by for path in paths for node in members[path]):
        return len({len(members[path]) for path in paths}) == 1
    return len({tuple(relative(graph, path, node) for node in members[path]) for path in paths}) == 1


def relative(graph: Graph, path: str, node: Node) -> str:
    """A node in words that do not name the use it lies in."""
    scope = graph.scopes[path]

    def place(ref: Ref) -> str:
        if ref in scope.inputs:
            return f"input {scope.inputs.index(ref)}"
        return str(ref).removeprefix(path)

    inputs = [place(ref) for ref in node.inputs]
    gives = [number for number, ref in enumerate(scope.outputs) if ref.node == node.name]
    return f"{node.name.removeprefix(path)} {node.op} {inputs} {format_value(dict(node.config))} {dict(node.params)} {gives}"
