"""Graphs as pictures, by Graphviz."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from html import escape

import graphviz

from tfpasses.graph import Array, Graph, Node, Ref, TfpassesError, has_trait
from tfpasses.graph.text import format_value

__all__ = ["DotFailedError", "DotMissingError", "to_dot", "to_svg"]

SECONDS, SECONDS_IN_NOTEBOOK = 60.0, 10.0
"""What dot may take. Its layout time is not bounded by the size of the graph."""
FONT = "Helvetica"
COLOURS: Mapping[str, str] = {"linear": "#cfe2f3", "inference_identity": "#eeeeee", "activation": "#fff2cc", "shape_only": "#eeeeee"}
"""By trait; the first that a node has counts."""
BATCH_NORM, OTHER, INPUT, OUTPUT = "#f4cccc", "#ffffff", "#d9ead3", "#d9d2e9"
CHANGED = "#cc0000"
PLAIN: Mapping[str, object] = {
    "strides": 1,
    "dilation": 1,
    "groups": 1,
    "padding": None,
    "pool_size": None,
    "axis": None,
    "max_value": None,
    "negative_slope": 0.0,
    "target_shape": None,
    "training": None,
}
"""The configuration that is shown, each with the value that goes without saying."""

ENTITIES = {ord(sign): f"&#{ord(sign)};" for sign in '&:"<%\\'}
"""Signs that mean something in a Graphviz name or at its beginning."""


class DotMissingError(TfpassesError, RuntimeError):
    """Graphviz's program is not installed."""


class DotFailedError(TfpassesError, RuntimeError):
    """Graphviz's program fails, or takes too long."""


def to_dot(graph: Graph) -> str:
    """The graph in Graphviz's language: a box a node, nested models as clusters, what a pass made or changed in red."""
    drawing = graphviz.Digraph(
        quoted(graph.name), node_attr={"shape": "box", "style": "filled,rounded", "fontname": FONT, "fontsize": "11", "margin": "0.15,0.08"}
    )
    drawing.attr("graph", fontname=FONT, ranksep="0.35", nodesep="0.3")
    drawing.attr("edge", fontname=FONT, fontsize="8", fontcolor="#555555", color="#777777", arrowsize="0.7")
    draw_scope(drawing, graph, by_scope(graph), "")
    for node in graph.nodes.values():
        for ref in node.inputs:
            draw_edge(drawing, graph, ref, quoted(node.name))
    for number, ref in enumerate(graph.outputs):
        name = graph.output_names[number] if graph.output_names else str(ref)
        end = quoted(f"output:{number}")
        drawing.node(end, f"<<B>Output</B><BR/>{text(name)}>", shape="ellipse", style="filled", fillcolor=OUTPUT)
        draw_edge(drawing, graph, ref, end)
    return str(drawing.source)


def to_svg(graph: Graph, missing_ok: bool = False) -> str | None:
    """The picture as SVG. Where Graphviz's `dot` is missing, fails or takes too long (10 s with `missing_ok`, else 60 s): None if
    `missing_ok`, else `DotMissingError` with the command that installs it, or `DotFailedError`.
    """
    if shutil.which("dot") is None:
        if missing_ok:
            return None
        raise DotMissingError("Graphviz's program dot is not installed; install it (apt-get install graphviz), or use --format dot or text")
    limit = SECONDS_IN_NOTEBOOK if missing_ok else SECONDS
    try:
        return subprocess.run(
            ["dot", "-Tsvg"], input=to_dot(graph), capture_output=True, encoding="utf-8", check=True, timeout=limit
        ).stdout
    except subprocess.TimeoutExpired:
        reason = f"needs more than {limit:g} s to draw {len(graph.nodes)} nodes"
    except subprocess.CalledProcessError as error:
        reason = f"fails: {' '.join(error.stderr.split()) or f'exit code {error.returncode}'}"
    if missing_ok:
        return None
    raise DotFailedError(f"Graphviz's program dot {reason}; use --format dot or text")


def by_scope(graph: Graph) -> dict[str, list[Node]]:
    """The nodes by the nested model they lie in."""
    groups: dict[str, list[Node]] = {path: [] for path in graph.scopes}
    for node in graph.nodes.values():
        groups.setdefault(node.scope if node.scope in graph.scopes else "", []).append(node)
    return groups


def draw_scope(drawing: graphviz.Digraph, graph: Graph, groups: Mapping[str, list[Node]], path: str) -> None:
    """The nodes of a model, and the models nested in it as clusters."""
    prefix = f"{path}/" if path else ""
    for node in groups.get(path, ()):
        draw_node(drawing, graph, node, prefix)
    for inner in graph.scopes:
        if inner.rpartition("/")[0] == path:
            with drawing.subgraph(name=quoted(f"cluster_{inner}")) as cluster:
                cluster.attr(label=f"<{text(inner)}>", style="rounded", color="#999999", fontcolor="#555555", fontsize="10", labeljust="l")
                draw_scope(cluster, graph, groups, inner)


def draw_node(drawing: graphviz.Digraph, graph: Graph, node: Node, prefix: str) -> None:
    """Operation, name (without that of the model around it), key attributes, and who changed it."""
    label = f"<B>{text(node.op)}</B><BR/>{text(node.name.removeprefix(prefix))}"
    about = [f"{key} {value}" for key, value in attributes(graph, node).items()]
    if about:
        label += f'<BR/><FONT POINT-SIZE="9" COLOR="#555555">{text(", ".join(about))}</FONT>'
    marks = {"tooltip": quoted(node.name)}
    if node.made_by:
        label += f'<BR/><FONT POINT-SIZE="9" COLOR="{CHANGED}">{text(node.made_by)}</FONT>'
        marks |= {"color": CHANGED, "penwidth": "2", "tooltip": quoted(f"{node.made_by}, from {', '.join(node.origin) or 'nothing'}")}
    if node.op == "Input":
        marks |= {"shape": "ellipse", "style": "filled"}
    drawing.node(quoted(node.name), f"<{label}>", fillcolor=colour(node), **marks)


def attributes(graph: Graph, node: Node) -> dict[str, str]:
    """The kernel's extent and what configuration does not go without saying."""
    shown = {}
    for slot in ("kernel", "depthwise_kernel"):
        kernel: Array | None = graph.weights.get(node.params.get(slot, ""))
        if kernel is not None and kernel.ndim > 2:
            shown["kernel"] = "×".join(map(str, kernel.shape[:-2]))
    for key, usual in PLAIN.items():
        value = node.config.get(key)
        sizes = value if isinstance(value, tuple | list) else (value,)
        if value is not None and any(size != usual for size in sizes):
            alike = len(set(map(str, sizes))) == 1 and key != "target_shape"
            shown[key] = format_value(sizes[0] if alike else value)
    return shown


def draw_edge(drawing: graphviz.Digraph, graph: Graph, ref: Ref, head: str) -> None:
    """From a value to its user, with the value's spec; outputs after the first are numbered at the tail."""
    tail = {"taillabel": f" {ref.index} "} if ref.index else {}
    drawing.edge(quoted(ref.node), head, label=f"  {graph.spec(ref)}", **tail)


def colour(node: Node) -> str:
    """What kind of operation it is."""
    if node.op == "Input":
        return INPUT
    if node.op == "BatchNorm":
        return BATCH_NORM
    return next((value for trait, value in COLOURS.items() if has_trait(node, trait)), OTHER)


def quoted(name: str) -> str:
    """A text that Graphviz takes for neither a port, nor markup, nor an escape, nor a name of its own."""
    return name.translate(ENTITIES)


def text(value: str) -> str:
    """A text inside an HTML-like label."""
    return escape(value, quote=False)
