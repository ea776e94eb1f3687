"""Every combinator, where it must match and where it must not, because .."""

import pytest

from graphs import chain, graph, node
from tfpasses.graph import Edit, Ref
from tfpasses.pattern import Matcher, anything, const, find, op, optional, repeated, roots

X = node("x", "Input")


def found(graph, pattern):
    """The names of the root nodes at which the pattern matches."""
    return [match.root.name for match in find(graph, pattern)]


def captured(graph, pattern):
    """What the only match captures: name -> text of the value(s)."""
    (match,) = find(graph, pattern)
    return {name: ref and str(ref) if ref is None or isinstance(ref, Ref) else list(map(str, ref)) for name, ref in match.refs.items()}


# operations


def test_an_op_matches_every_node_of_that_op_in_topological_order():
    assert found(chain("Relu", "Tanh", "Relu"), op("Relu")) == ["n1", "n3"]


def test_an_op_does_not_match_another_op():
    assert found(chain("Tanh"), op("Relu")) == []


def test_one_of_several_ops_matches():
    assert found(chain("Relu", "Tanh", "Exp"), op("Exp", "Relu")) == ["n1", "n3"]


def test_an_op_whose_input_is_another_op_does_not_match():
    assert found(chain("Relu", "Tanh", "Tanh"), op("Tanh")(op("Relu"))) == ["n2"]


def test_an_op_with_more_inputs_than_asked_for_does_not_match():
    assert found(graph(X, node("s", "Add", "x", "x"), outputs=["s"]), op("Add")(anything())) == []


def test_an_op_with_fewer_inputs_than_asked_for_does_not_match():
    assert found(chain("Add"), op("Add")(anything(), anything())) == []


def test_an_op_asked_for_no_inputs_matches_only_without_any():
    source = graph(node("a", "my.Source"), node("b", "my.Source", "a"), outputs=["b"])
    assert found(source, op("my.Source")()) == ["a"]


def test_an_op_not_asked_for_its_inputs_matches_with_any():
    source = graph(node("a", "my.Source"), node("b", "my.Source", "a"), outputs=["b"])
    assert found(source, op("my.Source")) == ["a", "b"]


def test_the_inputs_keep_their_order():
    source = graph(X, node("r", "Relu", "x"), node("s", "Subtract", "x", "r"), node("t", "Subtract", "r", "x"), outputs=["s", "t"])
    assert found(source, op("Subtract")(op("Relu"), anything())) == ["t"]


@pytest.mark.parametrize("arguments", [((), {}), (("Relu",), {"trait": "linear"})])
def test_op_takes_names_or_a_trait_one_of_the_two(arguments):
    with pytest.raises(ValueError, match="one of the two"):
        op(*arguments[0], **arguments[1])


def test_anything_alone_is_no_root():
    with pytest.raises(ValueError, match="the root of a pattern must be an operation"):
        Matcher(anything())


def test_a_pattern_with_more_choices_than_python_nests_is_refused_in_words():
    pattern = op("Input")
    for _ in range(30):
        pattern = op("Add")(pattern, anything()).commutative()
    with pytest.raises(ValueError, match=r"more choices .* than one pattern can hold; split it"):
        list(find(chain("Add"), pattern))


# captures


def test_a_capture_is_the_node_and_the_value():
    source = graph(X, node("p", "my.Split", "x", outputs=2), node("r", "Relu", "p:1"), outputs=["r"])
    (match,) = find(source, op("Relu")["r"](op("my.Split")["p"]))
    assert (match["p"], match.ref("p"), match["r"]) == (source.nodes["p"], Ref("p", 1), match.root)


def test_a_name_twice_is_the_same_value():
    source = graph(X, node("r", "Relu", "x"), node("s", "Add", "r", "x"), node("t", "Add", "x", "x"), outputs=["s", "t"])
    assert found(source, op("Add")(anything()["a"], anything()["a"])) == ["t"]


def test_a_name_twice_is_not_two_outputs_of_one_node():
    source = graph(X, node("p", "my.Split", "x", outputs=2), node("s", "Add", "p", "p:1"), outputs=["s"])
    assert found(source, op("Add")(anything()["a"], anything()["a"])) == []


def test_a_name_at_two_depths_is_the_same_node():
    source = graph(X, node("g", "Sigmoid", "x"), node("m", "Multiply", "x", "g"), node("w", "Multiply", "g", "g"), outputs=["m", "w"])
    assert found(source, op("Multiply")(anything()["a"], op("Sigmoid")(anything()["a"]))) == ["m"]


def test_a_captured_op_twice_asks_both_patterns_of_one_node():
    source = graph(
        X, node("a", "Relu", "x"), node("b", "Relu", "x"), node("s", "Add", "a", "b"), node("t", "Add", "a", "a"), outputs=["s", "t"]
    )
    assert found(source, op("Add")(op("Relu")["r"], op("Relu")["r"])) == ["t"]


# conditions


def test_a_condition_that_holds_lets_the_node_match():
    assert found(chain("Relu", "Relu"), op("Relu").when("not last", lambda n, g: n.name != "n2")) == ["n1"]


def test_all_conditions_must_hold():
    pattern = op("Relu").when("a", lambda n, g: n.name != "n1").when("b", lambda n, g: n.name != "n2")
    assert found(chain("Relu", "Relu", "Relu"), pattern) == ["n3"]


def test_a_condition_sees_the_graph():
    source = graph(X, node("c", "Dense", "x", params={"kernel": "k"}), outputs=["c"], weights={"k": [[2.0]]})
    assert found(source, op("Dense").when("is two", lambda n, g: g.params(n)["kernel"] == 2)) == ["c"]


def test_a_condition_is_not_asked_of_another_op():
    asked = []
    found(chain("Relu", "Tanh"), op("Relu").when("note", lambda n, g: asked.append(n.name)))
    assert asked == ["n1"]


def relu(name, source, max_value=None):
    return node(name, "Relu", source, config={"max_value": max_value, "threshold": 0, "negative_slope": 0})


def test_a_trait_matches_every_op_that_declares_it():
    source = graph(X, node("a", "MaxPool", "x"), node("b", "Tanh", "a"), node("c", "Add", "b", "b"), outputs=["c"])
    assert found(source, op(trait="positively_homogeneous")) == ["a", "c"]


def test_a_trait_that_hangs_on_the_configuration_does_not_match_where_it_is_lost():
    source = graph(X, relu("a", "x"), relu("b", "a", max_value=6), outputs=["b"])
    assert found(source, op(trait="positively_homogeneous")) == ["a"]


def test_a_trait_may_be_asked_of_an_input():
    source = graph(X, relu("a", "x", max_value=6), node("s", "Tanh", "a"), relu("b", "x"), node("t", "Tanh", "b"), outputs=["s", "t"])
    assert found(source, op("Tanh")(op(trait="positively_homogeneous"))) == ["t"]


# use counts


ONLY_USE = op("Tanh")(op("Relu").only_use())


def test_only_use_matches_a_node_with_one_consumer():
    assert found(chain("Relu", "Tanh"), ONLY_USE) == ["n2"]


def test_only_use_does_not_match_because_of_a_second_consumer():
    source = graph(X, node("r", "Relu", "x"), node("t", "Tanh", "r"), node("u", "Exp", "r"), outputs=["t", "u"])
    assert found(source, ONLY_USE) == []


def test_only_use_does_not_match_because_one_consumer_takes_it_twice():
    source = graph(X, node("r", "Relu", "x"), node("s", "Add", "r", "r"), outputs=["s"])
    assert found(source, op("Add")(op("Relu").only_use(), anything())) == []


def test_only_use_does_not_match_because_of_a_graph_output():
    source = graph(X, node("r", "Relu", "x"), node("t", "Tanh", "r"), outputs=["t", "r"])
    assert found(source, ONLY_USE) == []


def test_only_use_does_not_match_because_another_output_of_the_node_is_used():
    source = graph(X, node("p", "my.Split", "x", outputs=2), node("t", "Tanh", "p"), node("u", "Exp", "p:1"), outputs=["t", "u"])
    assert found(source, op("Tanh")(op("my.Split").only_use())) == []


def test_only_use_matches_a_lone_graph_output():
    assert found(chain("Relu"), op("Relu").only_use()) == ["n1"]


def test_only_use_does_not_match_a_node_given_as_two_graph_outputs():
    assert found(graph(X, node("r", "Relu", "x"), outputs=["r", "r"]), op("Relu").only_use()) == []


def test_only_use_does_not_match_a_node_that_nobody_uses():
    assert found(graph(X, node("r", "Relu", "x"), outputs=["x"]), op("Relu").only_use()) == []


# commutative inputs


def test_commutative_inputs_match_in_either_order():
    source = graph(X, node("r", "Relu", "x"), node("s", "Add", "x", "r"), node("t", "Add", "r", "x"), outputs=["s", "t"])
    assert found(source, op("Add")(op("Relu"), op("Input")).commutative()) == ["s", "t"]


def test_commutative_inputs_do_not_match_one_input_twice():
    source = graph(X, node("r", "Relu", "x"), node("s", "Add", "r", "x"), outputs=["s"])
    assert found(source, op("Add")(op("Relu"), op("Relu")).commutative()) == []


def test_another_order_is_tried_where_the_first_fails_only_later():
    """Both orders fit the inner Add as such; only r2, taken second, is the one that the outer Multiply asks for."""
    source = graph(
        X,
        node("r1", "Relu", "x"),
        node("r2", "Relu", "x"),
        node("s", "Add", "r1", "r2"),
        node("m", "Multiply", "s", "r2"),
        outputs=["m"],
    )
    pattern = op("Multiply")(op("Add")(op("Relu")["a"], op("Relu")["b"]).commutative(), op("Relu")["a"])
    assert captured(source, pattern) == {"a": "r2", "b": "r1"}


def test_no_order_is_a_match_where_all_fail_later():
    source = graph(
        X, node("r1", "Relu", "x"), node("r2", "Relu", "x"), node("s", "Add", "r1", "r2"), node("m", "Multiply", "s", "x"), outputs=["m"]
    )
    pattern = op("Multiply")(op("Add")(op("Relu")["a"], op("Relu")["b"]).commutative(), anything()["a"])
    assert found(source, pattern) == []


def test_three_commutative_inputs_match_in_any_order():
    source = graph(X, node("t", "Tanh", "x"), node("r", "Relu", "x"), node("s", "my.Add", "r", "x", "t"), outputs=["s"])
    assert captured(source, op("my.Add")(op("Input")["i"], op("Tanh")["t"], op("Relu")["r"]).commutative()) == {
        "i": "x",
        "t": "t",
        "r": "r",
    }


# alternatives


def test_alternatives_match_each():
    assert found(chain("Relu", "Tanh", "Exp", "Tanh"), op("Tanh")(op("Relu") | op("Exp"))) == ["n2", "n4"]


def test_alternatives_do_not_match_anything_else():
    assert found(chain("Silu", "Tanh"), op("Tanh")(op("Relu") | op("Exp"))) == []


def test_alternatives_at_the_root_match_each():
    assert found(chain("Relu", "Tanh", "Exp"), op("Exp") | op("Relu")) == ["n1", "n3"]


def test_the_first_alternative_that_matches_is_taken():
    assert captured(chain("Relu", "Tanh"), op("Tanh")(op("Relu")["a"] | op("Relu")["b"])) == {"a": "n1", "b": None}


def test_an_alternative_captures_only_its_own():
    source = chain("Relu", "Tanh", "Exp")
    assert captured(source, op("Exp")(op("Relu")["a"] | op("Tanh")["b"](op("Relu")["c"]))) == {"a": None, "b": "n2", "c": "n1"}


def test_the_next_alternative_is_tried_where_the_first_fails_only_later():
    source = graph(X, node("r", "Relu", "x"), node("s", "Add", "r", "x"), outputs=["s"])
    pattern = op("Add")(op("Relu")["a"] | op("Relu")(anything()["a"]), anything()["a"])
    assert captured(source, pattern) == {"a": "x"}


def test_a_name_that_the_alternative_taken_lacks_is_free_for_another_value():
    source = graph(X, node("t", "Tanh", "x"), node("r", "Relu", "x"), node("s", "Add", "t", "r"), outputs=["s"])
    assert captured(source, op("Add")(op("Relu")["a"] | op("Tanh"), op("Relu")["a"])) == {"a": "r"}


def test_a_name_that_the_alternative_taken_has_is_bound_to_it():
    source = graph(X, node("q", "Relu", "x"), node("r", "Relu", "x"), node("s", "Add", "q", "r"), outputs=["s"])
    assert found(source, op("Add")(op("Relu")["a"] | op("Tanh"), op("Relu")["a"])) == []


def test_a_root_and_its_alternative_share_no_captures():
    assert captured(chain("Relu"), op("Tanh")["a"] | op("Relu")["b"]) == {"a": None, "b": "n1"}


# optional


def test_an_optional_node_that_is_there_is_captured():
    assert captured(chain("Relu", "Identity", "Tanh"), op("Tanh")(optional(op("Identity")["i"], op("Relu")["r"]))) == {"i": "n2", "r": "n1"}


def test_an_optional_node_that_is_not_there_captures_nothing():
    assert captured(chain("Relu", "Tanh"), op("Tanh")(optional(op("Identity")["i"], op("Relu")["r"]))) == {"i": None, "r": "n1"}


def test_an_optional_node_is_there_once_only():
    assert found(chain("Relu", "Identity", "Identity", "Tanh"), op("Tanh")(optional(op("Identity"), op("Relu")))) == []


def test_an_optional_node_is_left_out_where_the_inner_pattern_is_its_like():
    assert captured(chain("Identity", "Tanh"), op("Tanh")(optional(op("Identity")["i"], op("Identity")["r"]))) == {"i": None, "r": "n1"}


def test_an_optional_node_whose_condition_fails_does_not_count():
    pattern = op("Tanh")(optional(op("Identity").when("never", lambda n, g: False), op("Relu")))
    assert found(chain("Relu", "Identity", "Tanh"), pattern) == []


def test_an_optional_node_at_the_root_is_the_root_where_it_is_there():
    assert found(chain("Relu", "Identity"), optional(op("Identity"), op("Relu"))) == ["n1", "n2"]


def test_get_gives_none_for_an_optional_node_that_is_not_there():
    (match,) = find(chain("Relu", "Tanh"), op("Tanh")(optional(op("Identity")["i"], op("Relu"))))
    assert match.get("i") is None


def test_a_capture_of_nothing_is_a_key_error():
    (match,) = find(chain("Relu", "Tanh"), op("Tanh")(optional(op("Identity")["i"], op("Relu"))))
    with pytest.raises(KeyError, match="i captured nothing"):
        match["i"]


def test_an_optional_wrapper_takes_no_inputs_of_its_own():
    with pytest.raises(ValueError, match="no input patterns of its own"):
        optional(op("Identity")(op("Relu")), anything())


def test_optional_nodes_in_a_row_do_not_double_the_code():
    def size(count):
        pattern = op("Relu")
        for _ in range(count):
            pattern = optional(op("Identity"), pattern)
        (function,) = Matcher(op("Tanh")(pattern)).functions(("Tanh", "Relu", "", ""))
        return len(function.__code__.co_code) + sum(len(c.co_code) for c in function.__code__.co_consts if hasattr(c, "co_code"))

    assert size(12) < 2.5 * size(6)


# repeated


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_repeated_node_may_follow_any_number_of_times(count):
    assert found(chain("Relu", *["Identity"] * count, "Tanh"), op("Tanh")(repeated(op("Identity"), op("Relu")))) == [f"n{count + 2}"]


def test_a_repeated_node_does_not_match_across_another_op():
    assert found(chain("Relu", "Identity", "Exp", "Identity", "Tanh"), op("Tanh")(repeated(op("Identity"), op("Relu")))) == []


REPEATED_ONCE_USED = op("Tanh")(repeated(op("Identity").only_use(), op("Relu")))


def test_a_repeated_node_with_a_use_count_matches_where_every_one_is_used_once():
    assert found(chain("Relu", "Identity", "Identity", "Tanh"), REPEATED_ONCE_USED) == ["n4"]


@pytest.mark.parametrize("tapped", ["n2", "n3"])
def test_a_repeated_node_with_a_use_count_does_not_match_because_one_is_a_graph_output(tapped):
    nodes = chain("Relu", "Identity", "Identity", "Tanh").nodes.values()
    assert found(graph(*nodes, outputs=["n4", tapped]), REPEATED_ONCE_USED) == []


def test_a_repeated_node_has_one_input():
    source = graph(X, node("r", "Relu", "x"), node("i", "my.Identity", "r", "x"), node("t", "Tanh", "i"), outputs=["t"])
    assert found(source, op("Tanh")(repeated(op("my.Identity"), op("Relu")))) == []


@pytest.mark.parametrize("wrapper", [op("Identity")["i"], op("Identity")(anything())])
def test_a_repeated_wrapper_takes_neither_inputs_nor_a_capture(wrapper):
    with pytest.raises(ValueError, match="neither input patterns nor a capture"):
        repeated(wrapper, anything())


# variadic


def joined(*inputs):
    return graph(X, node("a", "Relu", "x"), node("b", "Relu", "a"), node("t", "Tanh", "x"), node("c", "my.Join", *inputs), outputs=["c"])


def test_each_asks_the_same_of_every_input():
    assert captured(joined("b", "a", "b"), op("my.Join").each(op("Relu")["r"](anything()["y"]))) == {
        "r": ["b", "a", "b"],
        "y": ["a", "x", "a"],
    }


@pytest.mark.parametrize("inputs", [("t", "a"), ("a", "t"), ("a", "t", "b")])
def test_each_does_not_match_because_one_input_is_another_op(inputs):
    assert found(joined(*inputs), op("my.Join").each(op("Relu"))) == []


def test_each_holds_for_no_inputs_at_all():
    assert captured(joined(), op("my.Join").each(op("Relu")["r"])) == {"r": []}


def test_all_gives_the_nodes_in_the_order_of_the_inputs():
    source = joined("b", "a")
    (match,) = find(source, op("my.Join").each(op("Relu")["r"]))
    assert match.all("r") == (source.nodes["b"], source.nodes["a"])


def test_all_of_an_optional_inside_each_leaves_out_what_is_not_there():
    source = joined("t", "a")
    (match,) = find(source, op("my.Join").each(optional(op("Relu")["r"], op("Input") | op("Tanh"))))
    assert (match.refs["r"], match.all("r")) == ((None, Ref("a")), (source.nodes["a"],))


def test_all_of_a_single_capture_is_that_node():
    (match,) = find(chain("Relu"), op("Relu")["r"])
    assert match.all("r") == (match.root,)


def test_several_nodes_are_not_one_value():
    (match,) = find(joined("a", "b"), op("my.Join").each(op("Relu")["r"]))
    with pytest.raises(KeyError, match="did not capture one value"):
        match.ref("r")


def test_each_agrees_with_what_was_captured_before():
    source = graph(X, node("c", "my.Join", "x", "x"), node("s", "Add", "x", "c"), outputs=["s"])
    assert captured(source, op("Add")(anything()["v"], op("my.Join").each(anything()["v"]))) == {"v": "x"}


def test_each_does_not_match_because_one_input_is_not_what_was_captured_before():
    source = graph(X, node("r", "Relu", "x"), node("c", "my.Join", "x", "r"), node("s", "Add", "x", "c"), outputs=["s"])
    assert found(source, op("Add")(anything()["v"], op("my.Join").each(anything()["v"]))) == []


# constants


def constant(value):
    nodes = [X, node("k", "Const", params={"value": "v"}), node("m", "Multiply", "x", "k")]
    return graph(*nodes, outputs=["m"], weights={"v": value})


ONE = op("Multiply")(anything(), const("it is not one", lambda array: (array == 1).all()))


def test_a_constant_with_the_value_asked_for_matches():
    assert found(constant([1, 1]), ONE) == ["m"]


def test_a_constant_with_another_value_does_not_match():
    assert found(constant([1, 2]), ONE) == []


def test_a_constant_of_any_value_matches():
    assert found(constant([1, 2]), op("Multiply")(anything(), const())) == ["m"]


def test_a_value_that_is_computed_is_no_constant():
    assert found(graph(X, node("m", "Multiply", "x", "x"), outputs=["m"]), op("Multiply")(anything(), const())) == []


# several roots


SIBLINGS = roots(op("Relu")["r"](anything()["v"]), op("Tanh")["t"](anything()["v"]))


def test_roots_are_found_through_what_they_share():
    source = graph(X, node("a", "Exp", "x"), node("r", "Relu", "a"), node("t", "Tanh", "a"), outputs=["r", "t"])
    assert captured(source, SIBLINGS) == {"r": "r", "v": "a", "t": "t"}


def test_roots_do_not_match_because_they_share_nothing():
    source = graph(X, node("a", "Exp", "x"), node("r", "Relu", "a"), node("t", "Tanh", "x"), outputs=["r", "t"])
    assert found(source, SIBLINGS) == []


def test_roots_do_not_match_because_they_share_the_node_but_not_the_value():
    source = graph(X, node("p", "my.Split", "x", outputs=2), node("r", "Relu", "p"), node("t", "Tanh", "p:1"), outputs=["r", "t"])
    assert found(source, SIBLINGS) == []


def siblings(count):
    nodes = [node(f"r{i}", "Relu", "x") for i in range(count)]
    return graph(X, *nodes, outputs=[n.name for n in nodes])


@pytest.mark.parametrize("count", [2, 3])
def test_roots_are_different_nodes(count):
    pattern = roots(*[op("Relu")(anything()["v"]) for _ in range(count)])
    assert found(siblings(count - 1), pattern) == []


def test_three_roots_of_one_op_are_found():
    pattern = roots(*[op("Relu")[name](anything()["v"]) for name in "abc"])
    matches = list(find(siblings(3), pattern))
    assert [{m["a"].name, m["b"].name, m["c"].name} for m in matches] == [{"r0", "r1", "r2"}] * 3


def test_a_further_root_is_found_some_uses_above_what_is_shared():
    source = graph(X, node("r", "Relu", "x"), node("e", "Exp", "x"), node("t", "Tanh", "e"), outputs=["r", "t"])
    pattern = roots(op("Relu")(anything()["v"]), op("Tanh")["t"](op("Exp")(anything()["v"])))
    assert captured(source, pattern)["t"] == "t"


def test_the_next_candidate_for_a_further_root_is_tried_where_the_first_fails_later():
    source = graph(
        X, node("r", "Relu", "x"), node("s", "Tanh", "x"), node("t", "Tanh", "x"), node("u", "Exp", "t"), outputs=["r", "s", "u"]
    )
    pattern = roots(op("Relu")(anything()["v"]), op("Tanh")["t"](anything()["v"]), op("Exp")(op("Tanh")["t"]))
    assert captured(source, pattern) == {"v": "x", "t": "t"}


def test_roots_that_can_share_nothing_are_refused():
    with pytest.raises(ValueError, match="root 2 shares no capture"):
        roots(op("Relu")(anything()["a"]), op("Tanh")(anything()["b"]))


def test_roots_do_not_match_because_what_they_share_is_an_optional_that_is_not_there():
    source = graph(X, node("t", "Tanh", "x"), node("e", "Exp", "x"), outputs=["t", "e"])
    assert found(source, roots(op("Tanh")(optional(op("Relu")["r"], anything())), op("Exp")(op("Relu")["r"]))) == []


# graphs under change


def test_an_edit_is_matched_as_it_is_now():
    edit = Edit(chain("Relu", "Tanh"))
    edit.replace(edit.nodes["n1"], Ref("x"))
    assert found(edit, op("Tanh")(op("Input"))) == ["n2"]


def test_an_edit_is_not_matched_as_it_was():
    edit = Edit(chain("Relu", "Tanh"))
    edit.replace(edit.nodes["n1"], Ref("x"))
    assert found(edit, op("Tanh")(op("Relu"))) == []
