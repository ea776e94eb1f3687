import pytest

from graphs import node
from tfpasses.graph import GraphError
from tfpasses.graph.order import sort_nodes


def mapping(*nodes):
    return {n.name: n for n in nodes}


def test_an_order_that_is_topological_is_kept():
    nodes = mapping(node("y", "Input"), node("x", "Input"), node("b", "Relu", "x"), node("a", "Relu", "y"))
    assert list(sort_nodes(nodes, nodes)) == ["y", "x", "b", "a"]


def test_only_what_a_node_waits_for_comes_before_it():
    nodes = mapping(node("a", "Add", "c", "b"), node("d", "Input"), node("b", "Relu", "d"), node("c", "Relu", "d"))
    assert list(sort_nodes(nodes, nodes)) == ["d", "c", "b", "a"]


def test_a_node_that_takes_one_value_twice_is_sorted_once():
    assert list(sort_nodes(mapping(node("s", "Add", "x", "x"), node("x", "Input")), [])) == ["x", "s"]


def test_a_diamond_is_not_a_cycle():
    nodes = mapping(node("s", "Add", "a", "b"), node("a", "Relu", "b"), node("b", "Relu", "x"), node("x", "Input"))
    assert list(sort_nodes(nodes, nodes)) == ["x", "b", "a", "s"]


def test_a_cycle_is_an_error_that_names_a_node_on_it():
    nodes = mapping(node("x", "Input"), node("a", "Add", "x", "b"), node("b", "Relu", "a"))
    with pytest.raises(GraphError, match=r"cycle through node [ab]$"):
        sort_nodes(nodes, nodes)


def test_a_node_that_feeds_itself_is_a_cycle():
    with pytest.raises(GraphError, match="cycle through node a"):
        sort_nodes(mapping(node("a", "Relu", "a")), [])


def test_no_nodes_are_sorted():
    assert sort_nodes({}, []) == {}


class Counting(dict):
    """Counts how often a node is looked at."""

    looks = 0

    def __getitem__(self, name):
        self.looks += 1
        return super().__getitem__(name)


def looks(size):
    """A ladder, upside down: every rung takes the two below it."""
    rungs = [node("r0", "Input"), node("r1", "Input")] + [node(f"r{i}", "Add", f"r{i - 1}", f"r{i - 2}") for i in range(2, size)]
    nodes = Counting(mapping(*reversed(rungs)))
    sort_nodes(nodes, nodes)
    return nodes.looks


def test_sorting_looks_at_each_node_a_constant_number_of_times():
    assert looks(2000) <= 2.1 * looks(1000)


def test_a_chain_deeper_than_the_interpreters_stack_is_sorted():
    nodes = mapping(*[node(f"n{i}", "Relu", f"n{i - 1}") for i in range(5000, 0, -1)], node("n0", "Input"))
    assert list(sort_nodes(nodes, nodes)) == [f"n{i}" for i in range(5001)]
