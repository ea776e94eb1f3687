import os
import re
import subprocess
import time
import xml.etree.ElementTree as ET

import pytest

import model_files
import tfpasses
import zoo
from graphs import chain, graph, node
from tfpasses.graph import Ref, Scope, Spec
from tfpasses.view import dot, to_dot, to_svg

SVG = "{http://www.w3.org/2000/svg}"


def drawn(value):
    """The picture's groups by class: title -> all its text."""
    groups = {"node": {}, "cluster": {}, "edge": {}}
    for group in ET.fromstring(to_svg(value)).iter(f"{SVG}g"):
        if group.get("class") in groups:
            groups[group.get("class")][group.find(f"{SVG}title").text] = [text.text.strip() for text in group.iter(f"{SVG}text")]
    return groups


@pytest.fixture(scope="module")
def nested():
    return tfpasses.run(tfpasses.from_keras(model_files.nested()), "fold-batch-norms").graph


def test_every_node_input_and_output_is_drawn(nested):
    assert set(drawn(nested)["node"]) == {*nested.nodes, "output:0", "output:1"}


def test_every_edge_is_drawn_once(nested):
    edges = [(one.node, node.name) for node in nested.nodes.values() for one in node.inputs]
    ends = [(one.node, f"output:{number}") for number, one in enumerate(nested.outputs)]
    assert sorted(drawn(nested)["edge"]) == sorted(f"{tail}->{head}" for tail, head in edges + ends)


def test_an_edge_shows_the_shape_that_goes_along_it(nested):
    assert drawn(nested)["edge"]["add->down"] == ["float32[?,8,8,4]"]


def test_a_node_shows_its_operation_its_name_and_what_does_not_go_without_saying(nested):
    assert drawn(nested)["node"]["down"] == ["Conv", "down", "kernel 3×3, strides 2, padding same"]


def test_a_node_in_a_nested_model_shows_its_own_name_only(nested):
    assert drawn(nested)["node"]["block/relu6"][:2] == ["Relu", "relu6"]


def test_nested_models_are_clusters(nested):
    assert drawn(nested)["cluster"] == {"cluster_block": ["block"], "cluster_block/core": ["block/core"]}


def test_a_cluster_lies_in_the_cluster_of_the_model_around_it(nested):
    outer, inner = (re.search(rf'subgraph "?cluster_{path}"? ', to_dot(nested)) for path in ("block", "block/core"))
    depth = to_dot(nested)[outer.start() : inner.start()]
    assert depth.count("{") - depth.count("}") == 1


def test_what_a_pass_changed_is_marked_with_the_pass(nested):
    marked = [name for name, texts in drawn(nested)["node"].items() if "fold-batch-norms" in texts]
    assert marked == ["block/core/conv"]


def test_inputs_and_outputs_look_unlike_operations(nested):
    shapes = {re.match(r'\s*"?([^"\[]*?)"? \[', line)[1]: "ellipse" in line for line in to_dot(nested).splitlines() if "fillcolor" in line}
    assert {name for name, ellipse in shapes.items() if ellipse} == {"image", "skip", "output&#58;0", "output&#58;1"}


def test_an_output_after_the_first_is_numbered():
    split = graph(node("x", "Input"), node("s", "keras.ops.Split", "x", outputs=2), node("y", "Relu", "s:1"), outputs=["y", "s"])
    assert "1" in drawn(split)["edge"]["s->y"]


ODD = [
    "a b",
    'quo"te',
    "<b>",
    "a&amp;b",
    "back\\slash",
    "new\\n",
    "colon:1",
    "ünï→",
    "{brace|bar}",
    "node",
    "#1",
    "output 0",
    "a;b",
    "%s",
    "'",
]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_is_drawn_as_it_is(name):
    odd = graph(node("x", "Input"), node(name, "Relu", "x"), node("y", "Relu", Ref(name)), outputs=["y"])
    assert drawn(odd)["node"][name] == ["Relu", name]
    assert f"{name}->y" in drawn(odd)["edge"]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_of_a_scope_and_of_the_graph_is_drawn_as_it_is(name):
    inside = graph(node("x", "Input"), node(f"{name}/n", "Relu", "x"), outputs=["x"], scopes={name: Scope("m", None, (), ())}, name=name)
    assert drawn(inside)["cluster"] == {f"cluster_{name}": [name]}


def test_an_unknown_shape_and_a_scalar_are_drawn():
    value = graph(node("x", "Input", spec=Spec((), "int64")), outputs=["x"])
    assert drawn(value)["edge"]["x->output:0"] == ["int64[]"]


def test_an_empty_graph_is_a_picture():
    assert drawn(graph(outputs=[]))["node"] == {}


def seconds_to_write(value):
    start = time.process_time()
    text = to_dot(value)
    taken = time.process_time() - start
    drawn = subprocess.run(["dot", "-Tcanon"], input=text, capture_output=True, text=True, check=True).stdout
    assert drawn.count(" -> ") == text.count(" -> ") == sum(len(node.inputs) for node in value.nodes.values()) + len(value.outputs)
    return taken


def test_five_thousand_nodes_are_written_in_a_moment():
    assert seconds_to_write(chain(*["Relu"] * 5000)) < 3.0


@pytest.mark.slow
def test_a_large_model_is_written_in_a_moment():
    assert seconds_to_write(tfpasses.from_keras(zoo.architecture("NASNetMobile"))) < 3.0


def test_without_dot_there_is_no_picture_but_a_remedy(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert to_svg(chain("Relu"), missing_ok=True) is None
    with pytest.raises(RuntimeError, match="apt-get install graphviz"):
        to_svg(chain("Relu"))


@pytest.mark.parametrize(
    ("program", "message"), [("exec sleep 60", "needs more than 0.2 s to draw 2 nodes"), ("echo no >&2; exit 3", "dot fails: no;")]
)
def test_a_dot_that_hangs_or_fails_gives_no_picture_but_a_remedy(monkeypatch, tmp_path, program, message):
    (tmp_path / "dot").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(dot, "SECONDS", 0.2)
    monkeypatch.setattr(dot, "SECONDS_IN_NOTEBOOK", 0.2)
    assert to_svg(chain("Relu"), missing_ok=True) is None
    with pytest.raises(tfpasses.TfpassesError, match=f"{message}.*use --format dot or text"):
        to_svg(chain("Relu"))
