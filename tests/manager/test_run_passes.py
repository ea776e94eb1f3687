"""Running passes: what is kept, what observers see, and what an exception leaves."""

from __future__ import annotations

import attrs
import pytest

from graphs import chain, graph, node
from small_passes import make
from tfpasses.graph import ChannelStats, GraphError, Ref
from tfpasses.manager import (
    Contract,
    Effect,
    Journal,
    Observer,
    Pass,
    PassError,
    Pipeline,
    RemarkLog,
    ShapeCheck,
    StructureCheck,
    Timing,
    VerificationError,
    rule,
    run_passes,
)
from tfpasses.pattern import anything, op


@attrs.frozen
class DropIdentities(Pass):
    name = "drop-identities"
    contract = Contract(Effect.EXACT)

    @rule(op("Identity")(anything()))
    def drop(self, match, edit):
        edit.replace(match.root, match.root.inputs[0])


@attrs.frozen
class Stumbles(Pass):
    """Drops identities until it comes to n3."""

    name = "stumbles"
    contract = Contract(Effect.EXACT)

    @rule(op("Identity")(anything()))
    def drop(self, match, edit):
        edit.change(match.root, op="Relu")
        if match.root.name == "n3":
            raise KeyError("oh")


@attrs.frozen
class Declines(Pass):
    name = "declines"
    contract = Contract(Effect.EXACT)

    @rule(op("Relu")["r"])
    def decline(self, match, edit):
        return match.miss("I would rather not", remedy="ask again")


def run(source, *passes, observers=()):
    return run_passes(source, Pipeline(passes), observers)


def test_a_pass_gives_a_new_graph_and_leaves_the_old_one():
    source = chain("Identity", "Relu")
    text = source.to_text()
    assert list(run(source, DropIdentities()).nodes) == ["x", "n2"]
    assert source.to_text() == text


def test_what_was_not_touched_is_shared():
    source = chain("Tanh", "Identity", "Relu")
    assert run(source, DropIdentities()).nodes["n1"] is source.nodes["n1"]


def test_a_pass_that_does_nothing_gives_the_same_graph():
    source = chain("Relu")
    assert run(source, DropIdentities()) is source


def test_passes_run_one_after_the_other():
    order = []
    run(chain("Relu"), *(make(name, lambda _, name=name: order.append(name)) for name in "cab"))
    assert order == ["c", "a", "b"]


def test_a_pass_without_rules_does_nothing():
    @attrs.frozen
    class Idle(Pass):
        name = "idle"
        contract = Contract(Effect.EXACT)

    source = chain("Relu")
    assert Idle().rules == ()
    assert run(source, Idle()) is source


def test_rules_are_those_of_base_classes_first():
    class More(DropIdentities):
        @rule(op("Relu"))
        def another(self, match, edit):
            return match.miss("no")

    assert [item.name for item in More().rules] == ["drop", "another"]


class Tape(Observer):
    def __init__(self):
        self.seen = []

    def run_started(self, passes, graph):
        self.seen.append(("run started", [item.name for item in passes]))

    def pass_started(self, pass_, graph):
        self.seen.append(("pass started", pass_.name, len(graph.nodes)))

    def rewritten(self, pass_, rewrite):
        self.seen.append(("rewritten", pass_.name, rewrite.root))

    def pass_ended(self, record):
        self.seen.append(("pass ended", record.pass_.name, len(record.after.nodes)))

    def run_ended(self, graph):
        self.seen.append(("run ended", len(graph.nodes)))


def test_observers_are_called_in_order():
    tape = Tape()
    run(chain("Identity", "Relu", "Identity"), DropIdentities(), make("idle"), observers=[tape])
    assert tape.seen == [
        ("run started", ["drop-identities", "idle"]),
        ("pass started", "drop-identities", 4),
        ("rewritten", "drop-identities", "n1"),
        ("rewritten", "drop-identities", "n3"),
        ("pass ended", "drop-identities", 2),
        ("pass started", "idle", 2),
        ("pass ended", "idle", 2),
        ("run ended", 2),
    ]


def test_the_journal_keeps_before_after_and_rewrites():
    source, journal = chain("Identity", "Relu"), Journal()
    result = run(source, DropIdentities(), observers=[journal])
    (record,) = journal.records
    assert record.before is source
    assert record.after is result
    assert [rewrite.root for rewrite in record.journal] == ["n1"]


def test_a_near_miss_becomes_a_remark():
    log = RemarkLog()
    run(chain("Relu"), Declines(), observers=[log])
    (remark,) = log.remarks
    assert (remark.pass_name, remark.kind, remark.node, remark.reason) == ("declines", "missed", "n1", "I would rather not")
    assert str(remark) == "declines: n1: I would rather not (ask again)"


def test_time_is_kept_for_each_pass():
    timing = Timing()
    run(chain("Relu"), make("a"), make("b"), observers=[timing])
    assert [name for name, _ in timing.seconds] == ["a", "b"]
    assert all(seconds >= 0 for _, seconds in timing.seconds)


def test_an_exception_in_a_rule_names_pass_rule_and_node_with_its_cause():
    source, tape = chain("Identity", "Identity", "Identity", "Relu"), Tape()
    text = source.to_text()
    with pytest.raises(PassError, match=r"^pass stumbles: rule drop failed at node n3: 'oh'$") as caught:
        run(source, Stumbles(), make("next"), observers=[tape])
    assert isinstance(caught.value.__cause__.__cause__, KeyError)
    assert source.to_text() == text
    assert [event[0] for event in tape.seen] == ["run started", "pass started", "rewritten", "rewritten"]


def fail(edit):
    edit.change(edit.nodes["n1"], op="Tanh")
    edit.commit("by hand", "n1")
    raise ZeroDivisionError("by nothing")


def test_an_exception_in_apply_names_the_pass_with_its_cause():
    source = chain("Relu")
    with pytest.raises(PassError, match=r"^pass odd failed after 1 rewrites: ZeroDivisionError: by nothing$") as caught:
        run(source, make("odd", fail))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert source.nodes["n1"].op == "Relu"


def test_an_error_of_the_graph_keeps_its_own_words():
    with pytest.raises(PassError, match=r"^pass odd: node x cannot be removed: it is a graph input$") as caught:
        run(chain("Relu"), make("odd", lambda edit: edit.remove(edit.nodes["x"])))
    assert isinstance(caught.value.__cause__, GraphError)


def test_a_cycle_is_an_error_of_the_pass():
    def tie(edit):
        edit.set_input(edit.nodes["n1"], 0, Ref("n2"))

    with pytest.raises(PassError, match=r"^pass odd: .*cycle"):
        run(chain("Relu", "Tanh"), make("odd", tie))


@pytest.mark.parametrize("moment", ["run_started", "pass_started", "rewritten", "pass_ended", "run_ended"])
def test_an_observer_that_raises_stops_the_run_with_its_own_exception(moment):
    error = RuntimeError("seen enough")

    def stop(*_):
        raise error

    observer = Observer()
    setattr(observer, moment, stop)
    with pytest.raises(RuntimeError) as caught:
        run(chain("Identity", "Relu"), DropIdentities(), observers=[observer])
    assert caught.value is error


def test_an_interrupt_is_not_taken_for_a_failure():
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(chain("Relu"), make("slow", interrupt))


# facts

STATS = ChannelStats([0.0] * 4, [1.0] * 4)


def known():
    return attrs.evolve(chain("Relu", "Tanh"), facts={(Ref("n1"), "ChannelStats"): STATS})


def test_facts_that_no_pass_breaks_are_kept():
    assert run(known(), make("x")).facts == {(Ref("n1"), "ChannelStats"): STATS}


def test_facts_of_a_kind_that_a_pass_breaks_are_dropped():
    assert run(known(), make("x", breaks={ChannelStats})).facts == {}


def test_facts_that_the_pass_renewed_are_kept():
    new = ChannelStats([1.0] * 4, [2.0] * 4)
    renew = make("x", lambda edit: edit.add_fact(Ref("n1"), new), breaks={ChannelStats})
    assert run(known(), renew).facts == {(Ref("n1"), "ChannelStats"): new}


# checks of structure and shape


def test_a_node_without_its_parameter_is_caught():
    source = graph(node("x", "Input"), node("d", "Dense", "x", params={"kernel": "k"}), outputs=["d"], weights={"k": [[1.0] * 4] * 4})
    broken = make("odd", lambda edit: edit.change(edit.nodes["d"], params={}))
    with pytest.raises(VerificationError, match=r"^pass odd left a graph that is not well-formed: node d: Dense takes parameters"):
        run(source, broken, observers=[StructureCheck()])


def test_a_parameter_of_a_wrong_shape_is_caught():
    source = graph(node("x", "Input"), node("d", "Dense", "x", params={"kernel": "k"}), outputs=["d"], weights={"k": [[1.0] * 4] * 4})
    broken = make("odd", lambda edit: edit.set_params(edit.nodes["d"], {"kernel": edit.weights["k"][:, :3]}))
    with pytest.raises(VerificationError, match=r"^pass odd left shapes that do not fit: node d: Dense gives shape \(None, 3\)"):
        run(source, broken, observers=[ShapeCheck()])


def test_an_output_of_another_shape_is_caught():
    from tfpasses.graph import Spec

    source = graph(node("x", "Input"), node("f", "my.Op", "x", spec=Spec((None, 7), "float32")), outputs=["f"])
    broken = make("odd", lambda edit: edit.redirect(Ref("f"), Ref("x")))
    with pytest.raises(VerificationError, match=r"^pass odd left shapes that do not fit: the outputs were"):
        run(source, broken, observers=[ShapeCheck()])


def test_a_call_that_lost_an_input_is_caught():
    from tfpasses.graph import Call

    source = chain("my.Op")
    broken = make("odd", lambda edit: edit.change(edit.nodes["n1"], call=Call(())))
    with pytest.raises(VerificationError, match=r"not well-formed: node n1: its call"):
        run(source, broken, observers=[StructureCheck()])


def test_a_sound_pass_passes_the_checks():
    result = run(chain("Identity", "Relu"), DropIdentities(), observers=[StructureCheck(), ShapeCheck()])
    assert list(result.nodes) == ["x", "n2"]
