"""Graphs as pictures, by Graphviz."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

import graphviz

from tfpasses.graph import Graph, Node, TfpassesError, has_trait
from tfpasses.graph.text import format_value

__all__ = ["DotMissingError", "to_dot", "to_svg"]

COLOURS: Mapping[str, str] = {
    "linear": "#cfe2f3",
    "inference_identity": "#eeeeee",
    "activation": "#fff2cc",
    "shape_only": "#eeeeee",
}
BATCH_NORM, OPAQUE, BORDER = "#f4cccc", "#ffffff", "#d9ead3"
SHOWN = ("strides", "padding", "dilation", "groups", "axis", "max_value", "negative_slope", "pool_size", "target_shape")
CHANGED = "#cc0000"


class DotMissingError(TfpassesError, RuntimeError):
    """Graphviz's program is not installed."""


def to_dot(graph: Graph) -> str:
    """The graph in Graphviz's language: a box a node, nested models as clusters, what a pass made or changed in red."""
    drawing = graphviz.Digraph(graph.name, node_attr={"shape": "box", "style": "filled,rounded", "fontname": "Helvetica", "fontsize": "10"})
    drawing.attr("edge", fontname="Helvetica", fontsize="8", color="#666666")
    for path, members in by_scope(graph).items():
        if not path:
            for node in members:
                draw_node(drawing, node)
            continue
        with drawing.subgraph(name=f"cluster_{path}") as cluster:
            cluster.attr(label=path, style="rounded", color="#999999", fontname="Helvetica", fontsize="10")
            for node in members:
                draw_node(cluster, node)
    for node in graph.nodes.values():
        for ref in node.inputs:
            drawing.edge(quoted(ref.node), quoted(node.name), label=str(graph.spec(ref)))
    for number, ref in enumerate(graph.outputs):
        name = graph.output_names[number] if graph.output_names else str(number)
        drawing.node(f"output {number}", f"output {name}", shape="ellipse", fillcolor=BORDER)
        drawing.edge(quoted(ref.node), f"output {number}", label=str(graph.spec(ref)))
    return str(drawing.source)


def to_svg(graph: Graph, missing_ok: bool = False) -> str | None:
    """The picture as SVG. Without Graphviz's `dot`: None if `missing_ok`, else `DotMissingError` with the command that installs it."""
    if shutil.which("dot") is None:
        if missing_ok:
            return None
        raise DotMissingError("Graphviz's program dot is not installed; install it (apt-get install graphviz), or use --format dot or text")
    return str(graphviz.Source(to_dot(graph)).pipe(format="svg", encoding="utf-8"))


def by_scope(graph: Graph) -> dict[str, list[Node]]:
    """The nodes by the nested model they lie in."""
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes.values():
        groups.setdefault(node.scope if node.scope in graph.scopes else "", []).append(node)
    return groups


def draw_node(drawing: graphviz.Digraph, node: Node) -> None:
    config = ", ".join(f"{key}={format_value(node.config[key])}" for key in SHOWN if node.config.get(key) not in (None, 0, 0.0))
    label = "\n".join(filter(None, (f"{node.op}", node.name, config)))
    changed = {"color": CHANGED, "penwidth": "2", "tooltip": f"{node.made_by}, from {', '.join(node.origin)}"} if node.made_by else {}
    drawing.node(quoted(node.name), graphviz.escape(label), fillcolor=colour(node), **changed)


def colour(node: Node) -> str:
    if node.op == "Input":
        return BORDER
    if node.op == "BatchNorm":
        return BATCH_NORM
    return next((value for trait, value in COLOURS.items() if has_trait(node, trait)), OPAQUE)


def quoted(name: str) -> str:
    """A node name that Graphviz does not take for a port."""
    return name.replace(":", "&#58;")
