"""The worklist: every rule until none fires, each match used at once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import chain, graph, node
from tfpasses.graph import Edit, GraphError, Ref, check_structure
from tfpasses.pattern import RewriteError, RewriteLoopError, Rule, RuleSet, anything, op, repeated, roots

X = node("x", "Input")


def becomes(name, pattern, new):
    """A rule that turns the root into another op."""

    def action(m, edit):
        edit.change(m.root, op=new)

    return Rule.of(name, pattern, action)


def drop(m, edit):
    edit.replace(m.root, m.root.inputs[0])


DROP_IDENTITY = Rule.of("drop", op("Identity")(anything()), drop)


def run(graph, *rules):
    edit = Edit(graph, "pass")
    RuleSet(rules).rewrite(edit)
    frozen = edit.freeze()
    check_structure(frozen)
    return frozen


def ops(graph):
    return {name: n.op for name, n in graph.nodes.items() if n.op != "Input"}


# fixpoint


def test_a_rule_fires_wherever_its_pattern_matches():
    assert ops(run(chain("Relu", "Tanh", "Relu"), becomes("r", op("Relu"), "Exp"))) == {"n1": "Exp", "n2": "Tanh", "n3": "Exp"}


def test_a_graph_without_matches_is_the_same_graph_afterwards():
    source = chain("Relu")
    assert run(source, DROP_IDENTITY) is source


def test_the_source_graph_is_not_changed():
    source = chain("Identity", "Relu")
    run(source, DROP_IDENTITY)
    assert ops(source) == {"n1": "Identity", "n2": "Relu"}


def test_what_was_edited_by_hand_before_the_rules_is_kept_in_order():
    edit = Edit(chain("Relu", "Relu"))
    edit.set_input(edit.nodes["n1"], 0, Ref(edit.add(node("m", "Tanh", "x")).name))
    RuleSet([becomes("r", op("Tanh"), "Exp")]).rewrite(edit)
    assert list(ops(edit.freeze()).items()) == [("m", "Exp"), ("n1", "Relu"), ("n2", "Relu")]


def test_what_one_rewrite_makes_is_rewritten_by_the_next():
    rules = becomes("ab", op("A"), "B"), becomes("bc", op("B"), "C")
    assert ops(run(chain("A"), *rules)) == {"n1": "C"}


def test_a_rule_that_is_listed_first_has_its_turn_first():
    assert ops(run(chain("A"), becomes("b", op("A"), "B"), becomes("c", op("A"), "C"))) == {"n1": "B"}


def test_a_chain_of_identities_is_dropped_whole():
    assert ops(run(chain(*["Identity"] * 50, "Relu"), DROP_IDENTITY)) == {"n51": "Relu"}


def test_an_identity_that_is_a_graph_output_is_dropped_too():
    assert run(chain("Relu", "Identity"), DROP_IDENTITY).outputs == (Ref("n1"),)


def test_a_match_is_found_that_the_rewrite_of_an_input_makes_possible():
    below = becomes("below", op("A"), "B")
    above = becomes("above", op("Top")(op("B")), "Found")
    assert ops(run(chain("A", "Top"), above, below))["n2"] == "Found"


def test_a_match_is_found_that_a_rewrite_several_levels_below_makes_possible():
    above = becomes("above", op("Top")(op("M")(op("M")(op("B")))), "Found")
    assert ops(run(chain("A", "M", "M", "Top"), above, becomes("below", op("A"), "B")))["n4"] == "Found"


def test_a_match_is_found_behind_a_long_chain_of_repeated_nodes():
    above = becomes("above", op("Top")(repeated(op("Identity"), op("B"))), "Found")
    assert ops(run(chain("A", *["Identity"] * 20, "Top"), above, becomes("below", op("A"), "B")))["n22"] == "Found"


def test_a_match_is_found_behind_a_repeated_node_that_has_still_to_take_its_turn():
    """`last` lets Top have its turn first, then Z, which turns n1 into B, then the identity between the two."""

    def last(m, edit):
        edit.change(m.root, op="Done")
        edit.change(edit.nodes["top"], config={"touched": True})
        edit.change(edit.nodes["z"], op="Go")
        edit.change(edit.nodes["i"], config={"touched": True})

    def go(m, edit):
        edit.change(m.root, op="Done")
        edit.change(edit.nodes["n1"], op="B")

    nodes = [node("n1", "A", "x"), node("i", "Identity", "n1"), node("top", "Top", "i"), node("z", "Z", "x"), node("last", "Last", "z")]
    rules = [
        becomes("above", op("Top")(repeated(op("Identity"), op("B"))), "Found"),
        becomes("never", op("Identity")(op("Never")), "Never"),
        Rule.of("go", op("Go"), go),
        Rule.of("last", op("Last"), last),
    ]
    assert ops(run(graph(X, *nodes, outputs=["top", "last"]), *rules))["top"] == "Found"


def tapped():
    """A whose only other use than Top is by a dead Relu."""
    return graph(X, node("a", "A", "x"), node("top", "Top", "a"), node("dead", "Relu", "a"), outputs=["top"])


REMOVE_DEAD = Rule.of("dead", op("Relu").when("it is used", lambda n, g: not g.users.get(n.name)), lambda m, edit: edit.remove(m.root))
TOP_OF_ONE_USE = becomes("above", op("Top")(op("A").only_use()), "Found")


def test_a_match_is_found_that_a_use_count_coming_down_makes_possible():
    assert ops(run(tapped(), TOP_OF_ONE_USE, REMOVE_DEAD))["top"] == "Found"


def test_a_match_is_not_found_while_the_second_use_is_there():
    assert ops(run(tapped(), TOP_OF_ONE_USE))["top"] == "Top"


def test_a_chain_of_nodes_that_nobody_uses_is_removed_whole():
    nodes = chain("A", "Relu", "Relu", "Relu").nodes.values()
    assert ops(run(graph(*nodes, outputs=["n1"]), REMOVE_DEAD)) == {"n1": "A"}


def test_a_match_is_found_that_a_graph_output_moving_away_makes_possible():
    source = graph(X, node("a", "my.Split", "x", outputs=2), node("top", "Top", "a:1"), node("m", "Move", "x"), outputs=["a", "top", "m"])
    move = Rule.of("move", op("Move"), lambda m, edit: (edit.redirect(Ref("a"), Ref("x")), edit.change(m.root, op="Moved"), None)[-1])
    assert ops(run(source, becomes("above", op("Top")(op("my.Split").only_use()), "Found"), move))["top"] == "Found"


def test_a_match_is_found_that_a_graph_output_moving_to_a_new_user_makes_possible():
    def wrap(m, edit):
        edit.redirect(Ref("a"), Ref(edit.add(node("w", "Wrapper", "a")).name))
        edit.change(m.root, op="Wrapped")

    inner = op("A").when("it is a graph output", lambda n, g: all(user for user, _ in g.users[n.name]))
    source = graph(X, node("a", "A", "x"), node("m", "Wrap", "x"), outputs=["a", "m"])
    assert ops(run(source, becomes("inner", inner, "Found"), Rule.of("wrap", op("Wrap"), wrap)))["a"] == "Found"


def test_a_match_is_found_that_the_last_use_of_one_output_moving_to_another_makes_possible():
    def join(m, edit):
        edit.redirect(Ref("a", 1), Ref("a"))
        edit.change(m.root, op="Joined")

    second = op("my.Split").when("its second output is used", lambda n, g: 1 not in g.users[n.name].values())
    source = graph(X, node("a", "my.Split", "x", outputs=2), node("s", "Add", "a", "a:1"), node("m", "Join", "x"), outputs=["s", "m"])
    assert ops(run(source, becomes("second", second, "Found"), Rule.of("join", op("Join"), join)))["a"] == "Found"


def test_a_match_is_found_that_a_weight_no_longer_shared_makes_possible():
    source = graph(
        X,
        node("a", "my.Dense", "x", params={"kernel": "k"}),
        node("y", "Input"),
        node("b", "my.Dense", "y", params={"kernel": "k"}),
        node("dead", "Relu", "b"),
        outputs=["a"],
        weights={"k": 1},
    )
    unshared = op("my.Dense").when("its kernel is shared", lambda n, g: len(g.weight_users["k"]) == 1)
    dead = op("my.Dense").when("it is used", lambda n, g: not g.users.get(n.name))
    remove = Rule.of("dead dense", dead, lambda m, edit: edit.remove(m.root))
    assert ops(run(source, becomes("alone", unshared, "Found"), remove, REMOVE_DEAD)) == {"a": "Found"}


def test_a_match_of_two_roots_is_found_that_the_rewrite_of_the_second_makes_possible():
    source = graph(X, node("a", "A", "x"), node("b", "B", "x"), outputs=["a", "b"])
    pair = becomes("pair", roots(op("A")(anything()["v"]), op("C")(anything()["v"])), "Found")
    assert ops(run(source, pair, becomes("bc", op("B"), "C")))["a"] == "Found"


def test_a_match_of_three_roots_in_a_row_is_found_that_the_rewrite_of_the_third_makes_possible():
    source = graph(X, node("y", "Input"), node("a", "A", "x"), node("b", "B", "x", "y"), node("d", "D", "y"), outputs=["a", "b", "d"])
    row = roots(op("A")(anything()["v"]), op("B")(anything()["v"], anything()["w"]), op("C")(anything()["w"]))
    assert ops(run(source, becomes("row", row, "Found"), becomes("dc", op("D"), "C")))["a"] == "Found"


def test_a_match_is_found_of_a_root_without_inputs_that_the_rewrite_of_its_user_makes_possible():
    source = graph(node("c", "my.Const"), node("d", "D", "c"), outputs=["c", "d"])
    pair = roots(op("my.Const")["v"], op("B")(anything()["v"]))
    assert ops(run(source, becomes("pair", pair, "Found"), becomes("db", op("D"), "B")))["c"] == "Found"


def test_a_rule_that_leaves_its_root_alone_does_not_keep_the_next_rule_from_it():
    seen = []
    note = Rule.of("note", op("A"), lambda m, edit: seen.append(m.root.name))
    assert (ops(run(chain("A"), note, becomes("ab", op("A"), "B"))), seen) == ({"n1": "B"}, ["n1"])


@st.composite
def graphs(draw):
    nodes = [X]
    for number in range(draw(st.integers(1, 14))):
        inputs = draw(st.lists(st.sampled_from([n.name for n in nodes[-4:]]), min_size=1, max_size=2))
        nodes.append(node(f"n{number}", draw(st.sampled_from(["A", "B", "C", "Identity", "Identity"])), *inputs))
    return graph(*nodes, outputs=draw(st.lists(st.sampled_from([n.name for n in nodes]), min_size=1, max_size=2)))


UNUSED = op("A", "B", "C", "Identity").when("it is used", lambda n, g: not g.users.get(n.name))
RULES = [
    Rule.of("unused", UNUSED, lambda m, edit: edit.remove(m.root)),
    Rule.of("pair", roots(op("A")(anything()["v"]), op("B")(anything()["v"])), lambda m, edit: (edit.change(m.root, op="C"), None)[-1]),
    becomes("behind", op("B")(repeated(op("Identity"), op("C").only_use())), "D"),
    becomes("deep", op("C")(op("D")(op("A", "C").only_use())), "Identity"),
    Rule.of("join", op("C")(op("Identity").only_use()(op("A"))), drop),
    becomes("late", op("Identity")(op("C").only_use()), "A"),
]


@settings(max_examples=200, deadline=None)
@given(graphs(), st.permutations(RULES))
def test_no_rule_matches_anywhere_once_the_worklist_is_empty(graph, rules):
    edit = Edit(graph)
    RuleSet(rules).rewrite(edit)
    assert [(rule.name, match.root.name) for rule, match in RuleSet(rules).matches(edit)] == []


# stale matches


def test_a_node_that_an_earlier_rewrite_removed_is_not_matched():
    def take_next(m, edit):
        fired.append(m.root.name)
        edit.change(m.root, op="Done")
        if m.root.name == "n1":
            edit.replace(edit.nodes["n2"], m.root)

    fired = []
    run(chain("A", "A", "A"), Rule.of("r", op("A"), take_next))
    assert fired == ["n1", "n3"]


def test_a_node_that_an_earlier_rewrite_changed_is_matched_as_it_is_now():
    """Firing at n1 turns n2 into an op that no rule has as its root."""

    def change_next(m, edit):
        edit.change(m.root, op="Done")
        if "n2" in edit.nodes:
            edit.change(edit.nodes["n2"], op="Other")

    assert ops(run(chain("A", "A"), Rule.of("r", op("A"), change_next))) == {"n1": "Done", "n2": "Other"}


def test_a_match_that_an_earlier_rewrite_broke_is_not_used():
    source = graph(X, node("a", "A", "x"), node("p", "P", "a"), node("q", "Q", "a"), outputs=["p", "q"])
    first = Rule.of("p", op("P")(op("A")["a"]), lambda m, edit: (edit.change(m["a"], op="B"), None)[-1])
    second = becomes("q", op("Q")(op("A")), "Found")
    assert ops(run(source, first, second)) == {"a": "B", "p": "P", "q": "Q"}


# order


def roots_fired(graph, *rules):
    edit, fired = Edit(graph), []
    RuleSet(rules).rewrite(edit, lambda rewrite: fired.append(rewrite.root))
    return fired


def test_rewrites_go_in_topological_order():
    source = graph(X, node("b", "A", "x"), node("a", "A", "x"), node("c", "A", "b"), outputs=["a", "c"])
    assert roots_fired(source, becomes("r", op("A"), "B")) == ["b", "a", "c"]


def test_what_a_rewrite_touched_comes_before_the_rest():
    source = graph(X, node("a", "A", "x"), node("z", "A", "x"), outputs=["a", "z"])
    assert roots_fired(source, becomes("ab", op("A"), "B"), becomes("bc", op("B"), "C")) == ["a", "a", "z", "z"]


def test_two_runs_give_the_same_journal():
    def journal():
        edit = Edit(chain(*["Identity", "A"] * 10), "p")
        RuleSet([DROP_IDENTITY, becomes("r", op("A")(op("A")), "B")]).rewrite(edit)
        return list(map(str, edit.journal))

    assert journal() == journal()


def test_the_journal_names_pass_rule_and_root():
    edit = Edit(chain("Identity", "Relu"), "pass")
    RuleSet([DROP_IDENTITY]).rewrite(edit)
    assert [(r.pass_name, r.rule, r.root, r.removed) for r in edit.journal] == [("pass", "drop", "n1", ("n1",))]


def test_matches_gives_the_first_rule_that_matches_at_each_node():
    rules = RuleSet([becomes("b", op("A")(op("A")), "B"), becomes("c", op("A"), "C")])
    assert [(rule.name, match.root.name) for rule, match in rules.matches(chain("A", "A", "Relu"))] == [("c", "n1"), ("b", "n2")]


# rules that decline, raise or do not end


def decline(m, edit):
    edit.replace(m.root, m.root.inputs[0])
    return m.miss("not today")


def test_what_a_rule_did_before_it_declined_is_undone():
    source = chain("Identity", "Relu")
    assert run(source, Rule.of("no", op("Identity"), decline)) is source


def test_where_one_rule_declines_the_next_has_its_turn():
    assert ops(run(chain("Identity", "Relu"), Rule.of("no", op("Identity"), decline), DROP_IDENTITY)) == {"n2": "Relu"}


def half_then_raise(m, edit):
    edit.replace(edit.nodes["n1"], Ref("x"))
    raise ValueError("bad kernel")


def raising():
    edit = Edit(chain("Identity", "Relu"), "fold")
    with pytest.raises(RewriteError) as caught:
        RuleSet([Rule.of("halve", op("Relu"), half_then_raise)]).rewrite(edit)
    return edit, caught.value


def test_a_rule_that_raises_is_named_with_its_pass_and_node():
    assert str(raising()[1]) == "fold: rule halve failed at node n2: bad kernel"


def test_a_rule_that_raises_is_the_cause():
    assert isinstance(raising()[1].__cause__, ValueError)


def test_a_rewrite_error_is_a_graph_error():
    assert isinstance(raising()[1], GraphError)


def test_what_a_rule_did_before_it_raised_is_undone():
    edit, _ = raising()
    assert edit.freeze() is edit.source


def test_rewrites_before_the_one_that_raised_are_kept():
    edit = Edit(chain("Identity", "A", "Relu"))
    with pytest.raises(RewriteError):
        RuleSet([becomes("ab", op("A"), "B"), Rule.of("halve", op("Relu"), half_then_raise)]).rewrite(edit)
    assert {name: n.op for name, n in edit.nodes.items()} == {"x": "Input", "n1": "Identity", "n2": "B", "n3": "Relu"}


def test_rules_that_undo_one_another_are_a_loop_error():
    with pytest.raises(RewriteLoopError, match=r"^pass: after \d+ rewrites the rules still fire, last (ab|ba) at n1$"):
        run(chain("A"), becomes("ab", op("A"), "B"), becomes("ba", op("B"), "A"))


def test_what_other_rules_did_before_is_no_loop():
    edit = Edit(chain(*["Identity"] * 3000, "A"), "pass")
    RuleSet([DROP_IDENTITY]).rewrite(edit)
    RuleSet([becomes("ab", op("A"), "B")]).rewrite(edit)
    assert ops(edit.freeze()) == {"n3001": "B"}


def test_a_rule_that_feeds_itself_is_a_loop_error():
    def grow(m, edit):
        edit.set_input(m.root, 0, Ref(edit.add(node(edit.fresh_name("a"), "A", m.root.inputs[0])).name))

    with pytest.raises(RewriteLoopError):
        run(chain("A"), Rule.of("grow", op("A"), grow))


def test_many_rewrites_of_a_small_graph_that_end_are_no_loop():
    def count_down(m, edit):
        edit.change(m.root, config={"left": m.root.config["left"] - 1})

    source = graph(X, node("a", "A", "x", config={"left": 500}), outputs=["a"])
    left = op("A").when("it is at nought", lambda n, g: n.config["left"] > 0)
    assert run(source, Rule.of("count", left, count_down)).nodes["a"].config == {"left": 0}


# misses


def misses(graph, *rules):
    edit = Edit(graph)
    declared = RuleSet(rules)
    declined = declared.rewrite(edit)
    return [(rule.name, miss.root, miss.reason) for rule, miss in declared.misses(edit, declined)]


def test_a_near_miss_is_told():
    assert misses(chain("Exp", "Tanh"), becomes("r", op("Tanh")(op("Relu")), "B")) == [("r", "n2", "n1: it is Exp, not Relu")]


def test_a_match_that_was_used_is_no_miss():
    assert misses(chain("Relu", "Tanh"), becomes("r", op("Tanh")(op("Relu")), "B")) == []


def test_misses_are_of_nodes_that_are_left_only():
    rules = becomes("no", op("Identity")(op("Silu")), "B"), DROP_IDENTITY
    assert misses(chain("Relu", "Identity", "Exp"), *rules) == []


def test_misses_speak_of_the_graph_that_is_left():
    rules = becomes("r", op("Tanh")(op("Silu")), "B"), DROP_IDENTITY
    assert misses(chain("Exp", "Identity", "Tanh"), *rules) == [("r", "n3", "n1: it is Exp, not Silu")]


def test_a_match_that_a_rule_declined_is_told_in_its_words():
    assert misses(chain("Identity", "Relu"), Rule.of("no", op("Identity"), decline)) == [("no", "n1", "not today")]


def test_a_match_declined_before_it_was_gone_is_not_told_in_its_words():
    """`no` declines at n2 while n1 is A; then n1 becomes B, and what keeps `no` from n2 is another reason."""
    no = Rule.of("no", op("Top")(op("A")), lambda m, edit: m.miss("not today"))
    late = Rule.of("late", op("Last"), lambda m, edit: (edit.change(edit.nodes["n1"], op="B"), edit.change(m.root, op="Done"), None)[-1])
    assert misses(chain("A", "Top", "Last"), no, late) == [("no", "n2", "n1: it is B, not A")]


# growth, in calls of the matching functions


def calls(graph, *patterns_and_actions):
    """How often a matching function is called: each asks its first condition at once."""
    count = 0

    def note(n, g):
        nonlocal count
        count += 1
        return True

    rules = [Rule.of(str(i), pattern.when("counted", note), action) for i, (pattern, action) in enumerate(patterns_and_actions)]
    edit = Edit(graph)
    RuleSet(rules).rewrite(edit)
    return count, len(edit.journal)


def fold(m, edit):
    edit.change(m["lin"], config={"folded": True})
    edit.replace(m.root, m["lin"])


FOLD = op("BatchNorm")(repeated(op("Identity"), op("Conv").only_use()["lin"])), fold
DROP = op("Identity")(anything()), drop


def convolutions(size):
    return chain(*["Conv", "BatchNorm", "Identity", "Relu"] * size)


@pytest.mark.parametrize(("rule", "name"), [(FOLD, "fold"), (DROP, "drop")], ids=lambda value: value if isinstance(value, str) else "")
def test_calls_grow_with_the_graph(rule, name):
    (few, _), (many, rewrites) = calls(convolutions(100), rule), calls(convolutions(1000), rule)
    assert (rewrites, many <= 10.1 * few) == (1000, True)


def test_calls_grow_with_a_chain_of_nodes_that_all_leave():
    (few, _), (many, rewrites) = calls(chain(*["Identity"] * 100), DROP), calls(chain(*["Identity"] * 1000), DROP)
    assert (rewrites, many <= 10.1 * few) == (1000, True)


def visits(size):
    """How often the driver asks who uses a node, with a chain of identities that leave, and a pattern that steps over them."""

    class Counting(dict):
        count = 0

        def get(self, *arguments):
            Counting.count += 1
            return super().get(*arguments)

    edit = Edit(chain("Conv", *["Identity"] * size, "BatchNorm"))
    edit._users = Counting(edit._users)
    RuleSet([Rule.of("drop", *DROP), Rule.of("fold", *FOLD)]).rewrite(edit)
    assert ops(edit) == {"n1": "Conv"}
    return Counting.count


def test_the_walk_to_what_may_match_now_grows_with_a_chain_that_a_pattern_steps_over():
    assert visits(1000) <= 10.1 * visits(100)


def hub(size, op_):
    """One node with `size` users, each followed by another node."""
    nodes = [X, node("hub", "Conv", "x")]
    for i in range(size):
        nodes += [node(f"a{i}", op_, "hub"), node(f"b{i}", "Relu", f"a{i}")]
    return graph(*nodes, outputs=[f"b{i}" for i in range(size)])


def test_calls_grow_with_the_users_of_a_hub_whose_users_leave():
    rewritten, rewrites = calls(hub(10_000, "Identity"), DROP, (op("Relu")(op("Tanh")), drop), (op("Conv"), lambda m, e: m.miss("no")))
    assert (rewrites, rewritten <= 6 * 10_000) == (10_000, True)


def test_calls_grow_with_the_users_of_a_hub_that_miss_because_of_its_use_count():
    tried, rewrites = calls(hub(10_000, "BatchNorm"), FOLD)
    assert (rewrites, tried) == (0, 10_000)
