"""The compiled matcher against a tiny recursive one, on random graphs and patterns."""

import itertools

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import graph, node
from tfpasses.graph import Ref
from tfpasses.pattern import Matcher, Rule, RuleSet, anything, op, optional, repeated, roots
from tfpasses.pattern.dispatch import may_match, ops_around
from tfpasses.pattern.language import Alternatives, Anything, OpPattern, Optional, Repeated

OPS = ["A", "B", "C"]
NAMES = ["p", "q"]


def bind(name, ref, found):
    if name is None:
        yield found
    elif found.get(name) is None or found[name] == ref:
        yield {**found, name: ref}


def values(pattern, ref, graph, found):
    """Every way in which the pattern matches the value, as captures on top of those found so far."""
    this = graph.nodes[ref.node]
    match pattern:
        case Anything():
            yield from bind(pattern.capture, ref, found)
        case Alternatives():
            for option in pattern.options:
                yield from values(option, ref, graph, found)
        case Optional():
            yield from values(pattern.wrapper(pattern.inner) | pattern.inner, ref, graph, found)
        case Repeated():
            while holds(pattern.wrapper, this, graph) and len(this.inputs) == 1:
                ref = this.inputs[0]
                this = graph.nodes[ref.node]
            yield from values(pattern.inner, ref, graph, found)
        case OpPattern() if holds(pattern, this, graph):
            for bound in bind(pattern.capture, ref, found):
                yield from inputs(pattern, this.inputs, graph, bound)


def uses(this, graph):
    readers = sum(ref.node == this.name for other in graph.nodes.values() for ref in other.inputs)
    return readers + sum(ref.node == this.name for ref in graph.outputs)


def holds(pattern, this, graph):
    return this.op in pattern.ops and all(
        uses(this, graph) == 1 if isinstance(condition.holds, str) else condition.holds(this, graph) for condition in pattern.conditions
    )


def inputs(pattern, refs, graph, found):
    if pattern.inputs is None:
        yield found
    elif len(pattern.inputs) == len(refs):
        for order in itertools.permutations(refs) if pattern.commutes else [refs]:
            yield from sequence(pattern.inputs, order, graph, found)


def sequence(patterns, refs, graph, found):
    if not patterns:
        yield found
    else:
        for bound in values(patterns[0], refs[0], graph, found):
            yield from sequence(patterns[1:], refs[1:], graph, bound)


def reference(pattern, root, graph):
    return next(values(pattern, Ref(root.name), graph, {}), None)


def reference_pair(first, second, root, graph):
    for found in values(first, Ref(root.name), graph, {}):
        for other in graph.nodes.values():
            if other is not root:
                for both in values(second, Ref(other.name), graph, found):
                    return both
    return None


@st.composite
def graphs(draw):
    nodes = [node("x", "A")]
    for number in range(draw(st.integers(2, 9))):
        values = st.sampled_from([Ref(n.name, i) for n in nodes for i in range(len(n.specs))])
        refs = draw(st.lists(values, min_size=1, max_size=3))
        nodes.append(node(f"n{number}", draw(st.sampled_from(OPS)), *refs, outputs=draw(st.sampled_from([1, 1, 2]))))
    outputs = draw(st.lists(st.sampled_from([n.name for n in nodes]), max_size=2))
    return graph(*nodes, outputs=outputs)


def op_heads():
    def build(names, capture, condition):
        pattern = op(*names)
        if capture:
            pattern = pattern[capture]
        if condition == "only use":
            pattern = pattern.only_use()
        if condition == "even":
            pattern = pattern.when("its uses are not even", lambda n, g: uses(n, g) % 2 == 0)
        return pattern

    names = st.lists(st.sampled_from(OPS), min_size=1, max_size=2, unique=True)
    return st.builds(build, names, st.sampled_from([None, None, *NAMES]), st.sampled_from([None, None, "only use", "even"]))


def bare(pattern):
    """Without a capture, as a repeated wrapper must be."""
    return attrs.evolve(pattern, capture=None)


def op_patterns(children):
    def build(head, inputs, commutes):
        pattern = head(*inputs) if inputs is not None else head
        return pattern.commutative() if commutes else pattern

    return st.builds(build, op_heads(), st.none() | st.lists(children, min_size=1, max_size=3), st.booleans())


def compound(children):
    return st.one_of(
        op_patterns(children),
        st.builds(lambda a, b: a | b, children, children),
        st.builds(optional, op_heads(), children),
        st.builds(lambda wrapper, inner: repeated(bare(wrapper), inner), op_heads(), children),
    )


LEAVES = st.one_of(st.builds(lambda name: anything()[name] if name else anything(), st.sampled_from([None, *NAMES])), op_heads())
VALUES = st.recursive(LEAVES, compound, max_leaves=6)


def agree(refs, expected):
    found = None if refs is None else {name: ref for name, ref in refs.items() if ref is not None}
    assert found == expected


@settings(max_examples=200, deadline=None)
@given(graphs(), op_patterns(VALUES))
def test_the_compiled_matcher_finds_what_a_recursive_one_finds(graph, pattern):
    matcher = Matcher(pattern)
    for root in graph.nodes.values():
        match = matcher.match(root, graph)
        agree(match and match.refs, reference(pattern, root, graph))


def variadic(children):
    return st.one_of(compound(children), st.builds(lambda head, inner: head.each(inner), op_heads(), children))


WITH_EACH = st.recursive(LEAVES, variadic, max_leaves=6)
ROOTS = st.one_of(op_patterns(WITH_EACH), st.builds(lambda head, inner: head.each(inner), op_heads(), WITH_EACH))


@settings(max_examples=300, deadline=None)
@given(graphs(), ROOTS, ROOTS)
def test_the_operations_around_a_node_rule_out_no_pattern_that_matches_there(graph, first, second):
    pattern = first | second
    matcher = Matcher(pattern)
    expected = {name for name, root in graph.nodes.items() if matcher.match(root, graph) is not None}
    rules = RuleSet([Rule.of("rule", pattern, lambda match, edit: None)])
    assert {match.root.name for _, match in rules.matches(graph)} == expected


def test_the_operations_around_a_node_rule_out_what_they_can():
    net = graph(node("a", "A"), node("b", "B", "a"), node("c", "C", "b"), node("two", "A", "c", "b"), outputs=["two"])

    def tried(pattern, name="two"):
        return may_match(pattern, ops_around(net.nodes[name], net.nodes))

    assert ops_around(net.nodes["two"], net.nodes) == ("A", "C", "B", "B")
    assert ops_around(net.nodes["b"], net.nodes) == ("B", "A", "", "")
    x = anything()
    assert tried(op("A")(x, x)) and not tried(op("B")(x, x))
    assert tried(op("A")(op("C")(op("B")), x)) and not tried(op("A")(op("C")(op("A")), x))
    assert tried(op("A")(op("B"), op("C")).commutative()) and not tried(op("A")(op("B"), op("C")))
    assert not tried(op("A")(op("B"), op("A")).commutative())
    assert tried(op("A").each(op("B", "C"))) and not tried(op("A").each(op("C")))
    assert tried(op("A")(repeated(op("C"), op("B")), x)) and not tried(op("A")(repeated(op("C"), op("A")), x))
    assert tried(op("A")(optional(op("C"), op("B")), x)) and not tried(op("A")(optional(op("C"), op("A")), x))
    assert tried(op("A")(op("A") | op("C"), x)) and not tried(op("A")(op("A") | op("B"), x))


@settings(max_examples=100, deadline=None)
@given(graphs(), op_patterns(VALUES))
def test_a_node_of_the_roots_op_matches_or_has_a_miss(graph, pattern):
    matcher = Matcher(pattern)
    for root in graph.nodes.values():
        if root.op in pattern.ops:
            assert (matcher.match(root, graph) is None) == (matcher.explain(root, graph) is not None)


PLAIN = st.recursive(LEAVES, op_patterns, max_leaves=3)
SHARING = st.builds(lambda head, inner: head(inner), op_heads(), st.just(anything()["s"]))


@settings(max_examples=200, deadline=None)
@given(graphs(), st.builds(lambda head, rest: head(anything()["s"], *rest), op_heads(), st.lists(PLAIN, max_size=1)), SHARING)
def test_two_roots_are_found_exactly_where_a_search_over_all_nodes_finds_them(graph, first, second):
    matcher = Matcher(roots(first, second))
    for root in graph.nodes.values():
        found = matcher.match(root, graph)
        assert (found is None) == (reference_pair(first, second, root, graph) is None)
