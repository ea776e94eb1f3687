"""The order of passes, and what is refused before anything runs."""

from __future__ import annotations

import attrs
import pytest

from graphs import chain
from small_passes import make
from tfpasses.graph import ChannelStats, Fact, Ref
from tfpasses.manager import Effect, Pipeline, PipelineError, Property, register, run_passes
from tfpasses.manager.plan import plan

GRAPH = chain("Relu")
TIDY = Property("tidy", "it is tidy", lambda graph: "Tanh" in {node.op for node in graph.nodes.values()})


class Bounds(Fact):
    kind = "Bounds"


def names(*passes, graph=GRAPH):
    return [item.name for item in plan(passes, graph)]


def with_facts(graph):
    return attrs.evolve(graph, facts={(Ref("n1"), "ChannelStats"): ChannelStats([0.0], [1.0])})


def test_free_passes_stay_in_the_order_of_writing():
    assert names(*map(make, "dacb")) == ["d", "a", "c", "b"]


def test_a_pass_that_goes_after_another_is_moved_behind_it():
    assert names(make("late", after=("early",)), make("x"), make("early"), make("y")) == ["x", "early", "late", "y"]


def test_a_pass_that_is_after_the_other_already_is_not_moved():
    assert names(make("early"), make("x"), make("late", after=("early",))) == ["early", "x", "late"]


def test_after_a_pass_that_is_not_there_asks_nothing():
    assert names(make("late", after=("early",)), make("x")) == ["late", "x"]


def test_a_pass_that_is_repeated_on_purpose_stays_where_it_is():
    early, late = make("early"), make("late", after=("early",))
    assert names(early, late, early) == ["early", "late", "early"]


def test_a_pass_may_be_repeated_although_it_goes_after_itself():
    item = make("again", after=("again",))
    assert names(item, item) == ["again", "again"]


def test_a_required_fact_moves_its_provider_before():
    needy, giver = make("needy", requires={ChannelStats}), make("giver", provides={ChannelStats})
    assert names(needy, make("x"), giver) == ["x", "giver", "needy"]


def test_a_required_fact_that_the_graph_has_moves_nothing():
    needy, giver = make("needy", requires={ChannelStats}), make("giver", provides={ChannelStats})
    assert names(needy, giver, graph=with_facts(GRAPH)) == ["needy", "giver"]


def test_the_nearest_provider_before_serves():
    giver, other, needy = make("giver", provides={Bounds}), make("other", provides={Bounds}), make("needy", requires={Bounds})
    assert names(giver, other, needy) == ["giver", "other", "needy"]


def test_a_required_property_that_holds_is_fine():
    assert names(make("needy", requires={TIDY}), graph=chain("Tanh")) == ["needy"]


def test_a_required_property_may_be_provided():
    assert names(make("needy", requires={TIDY}), make("giver", provides={TIDY})) == ["giver", "needy"]


def refusal(*passes, graph=GRAPH):
    with pytest.raises(PipelineError) as caught:
        plan(passes, graph)
    return str(caught.value)


def test_a_requirement_that_nobody_provides_is_refused():
    assert refusal(make("needy", requires={Bounds})) == (
        "pass needy requires Bounds, which the graph does not have and no pass before it provides; no known pass provides it, "
        "or load facts saved by an earlier run"
    )


def test_a_property_that_nobody_provides_is_refused_without_talk_of_facts():
    assert refusal(make("needy", requires={TIDY})) == (
        "pass needy requires tidy, which the graph does not have and no pass before it provides; no known pass provides it"
    )


def test_the_remedy_names_the_passes_that_provide_it():
    register(type(make("giver", provides={Bounds})))
    assert "; put giver before it, or load facts" in refusal(make("needy", requires={Bounds}))


def test_the_shipped_provider_is_named():
    assert "; put fold-batch-norms before it" in refusal(make("needy", requires={ChannelStats}))


def test_a_requirement_that_an_earlier_pass_breaks_is_refused():
    text = refusal(make("breaker", breaks={ChannelStats}), make("needy", requires={ChannelStats}), graph=with_facts(GRAPH))
    assert text == "pass needy requires ChannelStats, which breaker before it breaks; put needy first"


def test_a_requirement_that_is_broken_and_provided_again_is_fine():
    passes = make("breaker", breaks={Bounds}), make("giver", provides={Bounds}), make("needy", requires={Bounds})
    assert names(*passes) == ["breaker", "giver", "needy"]


def test_a_pass_that_renews_what_it_breaks_provides_it():
    both, needy = make("both", breaks={Bounds}, provides={Bounds}), make("needy", requires={Bounds})
    assert names(both, needy) == ["both", "needy"]


def test_the_same_requirement_of_an_earlier_pass_is_not_remembered_as_broken():
    passes = make("first", requires={ChannelStats}), make("breaker", breaks={ChannelStats})
    assert names(*passes, graph=with_facts(GRAPH)) == ["first", "breaker"]


def test_passes_that_each_go_after_the_other_are_refused():
    text = refusal(make("a", after=("b",)), make("x"), make("b", after=("a",)))
    # a asks for b behind it; b has its a before it
    assert text == "the order of a, b is circular: each must go after another; run them in two pipelines"


def test_passes_that_each_require_what_the_other_gives_are_refused():
    a, b = make("a", requires={Bounds}, provides={TIDY}), make("b", requires={TIDY}, provides={Bounds})
    assert "the order of a, b is circular" in refusal(a, b)


def test_nothing_runs_before_the_refusal():
    ran = []
    with pytest.raises(PipelineError):
        run_passes(GRAPH, Pipeline([make("x", ran.append), make("needy", requires={Bounds})]))
    assert ran == []


def test_a_pass_that_needs_data_is_refused_without_before_anything_runs():
    ran = []
    first, needy = make("first", lambda edit: ran.append("first")), make("measured", effect=Effect.NEEDS_DATA)
    with pytest.raises(PipelineError, match=r"pass measured needs data: samples of the model's inputs \(data=\.\., --data\)"):
        run_passes(chain("Tanh"), Pipeline.of([first, needy]))
    assert ran == []
