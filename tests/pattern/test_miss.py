"""Why a pattern did not match: in words, at the node, as deep as it came, and not before somebody asks."""

import sys

import pytest

from graphs import chain, graph, node
from tfpasses.pattern import Matcher, anything, const, find, op, repeated, roots

X = node("x", "Input")


def explain(graph, pattern, root):
    return Matcher(pattern).explain(graph.nodes[root], graph)


def reason(graph, pattern, root):
    return explain(graph, pattern, root).reason


def test_a_match_is_no_miss():
    assert explain(chain("Relu"), op("Relu"), "n1") is None


def test_another_root_op_is_not_even_a_miss():
    assert explain(chain("Tanh"), op("Relu"), "n1") is None


def test_another_op_is_named():
    assert reason(chain("Exp", "Tanh"), op("Tanh")(op("Relu", "Silu")), "n2") == "n1: it is Exp, not Relu or Silu"


def test_a_trait_is_asked_for_in_words():
    assert reason(chain("Exp", "Tanh"), op("Tanh")(op(trait="inference_identity")), "n2") == "n1: it is Exp, not an inference identity op"


def test_a_trait_lost_by_configuration_is_named():
    source = graph(X, node("r", "Relu", "x", config={"max_value": 6.0, "threshold": 0}), outputs=["r"])
    assert reason(source, op(trait="positively_homogeneous"), "r") == "as configured it is not positively homogeneous"


def test_another_number_of_inputs_is_counted():
    assert reason(chain("Add"), op("Add")(anything(), anything()), "n1") == "it has 1 inputs, not 2"


def test_a_condition_gives_its_reason():
    assert reason(chain("Relu"), op("Relu").when("it is blue", lambda n, g: False), "n1") == "it is blue"


def test_a_condition_may_explain_itself():
    pattern = op("Relu").when("x", lambda n, g: False, lambda n, g: f"{len(g.nodes)} nodes are too many")
    assert reason(chain("Relu"), pattern, "n1") == "2 nodes are too many"


def test_every_use_is_named():
    source = graph(X, node("r", "Relu", "x"), node("s", "Add", "r", "r"), outputs=["s", "r"])
    assert reason(source, op("Relu").only_use(), "r") == "it has 3 uses: s, s, a graph output"


def test_many_uses_are_counted():
    source = graph(X, node("r", "Relu", "x"), *[node(f"t{i}", "Tanh", "r") for i in range(5)], outputs=["t0", "r"])
    assert reason(source, op("Relu").only_use(), "r") == "it has 6 uses: t0, t1, t2 and 3 more"


def test_a_constant_gives_its_reason():
    nodes = [X, node("k", "Const", params={"value": "v"}), node("m", "Multiply", "x", "k")]
    source = graph(*nodes, outputs=["m"], weights={"v": 2})
    assert reason(source, op("Multiply")(anything(), const("it is not one", lambda array: array == 1)), "m") == "k: it is not one"


def test_two_nodes_under_one_name_are_told_apart():
    source = graph(X, node("r", "Relu", "x"), node("s", "Add", "x", "r"), outputs=["s"])
    assert reason(source, op("Add")(anything()["a"], anything()["a"]), "s") == "it is not the same node as the other 'a'"


def test_a_further_root_that_is_the_first_is_told():
    pattern = roots(op("Relu")(anything()["v"]), op("Relu")(anything()["v"]))
    assert reason(chain("Relu"), pattern, "n1") == "it is a root already"


def test_a_miss_names_the_root_it_was_tried_at_and_the_node_it_failed_at():
    miss = explain(chain("Exp", "Relu", "Tanh"), op("Tanh")(op("Relu")(op("Silu"))), "n3")
    assert (miss.root, miss.node) == ("n3", "n1")


def test_what_lies_behind_a_repeated_node_is_named():
    assert reason(chain("Exp", "Identity", "Tanh"), op("Tanh")(repeated(op("Identity"), op("Relu"))), "n3") == "n1: it is Exp, not Relu"


@pytest.mark.parametrize(
    ("ops", "depth"),
    [(("Exp", "Exp", "Tanh"), 2), (("Exp", "Relu", "Tanh"), 4)],  # an op and a count of inputs a level, the root's op being given
)
def test_depth_counts_the_checks_up_to_the_one_that_failed(ops, depth):
    assert explain(chain(*ops), op("Tanh")(op("Relu")(op("Silu"))), "n3").depth == depth


def test_the_deepest_of_several_tries_is_told():
    source = graph(X, node("e", "Exp", "x"), node("r", "Relu", "e"), node("s", "Add", "x", "r"), outputs=["s"])
    pattern = op("Add")(op("Relu")(op("Silu")), anything()).commutative()
    assert reason(source, pattern, "s") == "e: it is Exp, not Silu"


def test_the_deepest_alternative_is_told():
    pattern = op("Tanh")(op("Silu") | op("Relu")(op("Relu")))
    assert reason(chain("Exp", "Relu", "Tanh"), pattern, "n3") == "n1: it is Exp, not Relu"


def test_the_deepest_alternative_at_the_root_is_told():
    pattern = op("Tanh")(op("Silu")) | op("Tanh")(op("Relu")(op("Relu")))
    assert reason(chain("Exp", "Relu", "Tanh"), pattern, "n3") == "n1: it is Exp, not Relu"


def test_a_miss_inside_each_names_the_input():
    source = graph(X, node("r", "Relu", "x"), node("c", "my.Join", "r", "x"), outputs=["c"])
    assert reason(source, op("my.Join").each(op("Relu")), "c") == "x: it is Input, not Relu"


def test_nothing_is_formatted_before_the_reason_is_read():
    asked = []
    miss = explain(chain("Relu"), op("Relu").when("x", lambda n, g: False, lambda n, g: f"{asked.append(n.name)}"), "n1")
    before = list(asked)
    str(miss.reason)
    assert (before, asked) == ([], ["n1"])


def test_matching_asks_for_no_explanation():
    asked = []
    list(find(chain("Relu"), op("Relu").when("x", lambda n, g: False, lambda n, g: asked.append(n.name))))
    assert asked == []


def test_a_miss_prints_as_its_reason():
    miss = explain(chain("Exp", "Tanh"), op("Tanh")(op("Relu")), "n2")
    assert str(miss) == "n1: it is Exp, not Relu"


def test_a_miss_knows_the_line_of_the_pattern_that_failed():
    below = op("Relu")
    line = sys._getframe().f_lineno - 1
    assert explain(chain("Exp", "Tanh"), op("Tanh")(below), "n2").pattern == f"{__file__}:{line}"


@pytest.mark.parametrize(
    "make", [lambda: op("Relu"), lambda: anything()["a"], lambda: op("A") | op("B"), lambda: repeated(op("A"), op("B"))]
)
def test_a_pattern_knows_the_line_it_was_written_on(make):
    assert make().where == f"{__file__}:{make.__code__.co_firstlineno}"


def test_a_pattern_refined_elsewhere_keeps_its_line():
    first = op("Relu")
    assert first.only_use()["r"](anything()).where == first.where


def test_a_rule_that_declines_gives_its_own_reason():
    (match,) = find(chain("Relu", "Tanh"), op("Tanh")(op("Relu")["r"]))
    miss = match.miss("it is too small", match["r"], remedy="grow it")
    assert (miss.root, miss.node, miss.reason, miss.remedy) == ("n2", "n1", "it is too small", "grow it")


def test_a_rule_that_declines_without_a_node_means_the_root():
    (match,) = find(chain("Relu"), op("Relu"))
    assert match.miss("no").node == "n1"
