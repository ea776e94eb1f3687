import subprocess
import sys

import attrs
import numpy as np
import pytest

from graphs import chain, graph, node
from tfpasses.graph import Call, ChannelStats, Owner, Ref, Slot, Spec, diff
from tfpasses.graph.text import format_value, node_line, summary


def dense(kernel=((1.0, 2.0), (3.0, 4.0)), **fields):
    return graph(
        node("x", "Input", spec=Spec((None, 2), "float32")),
        node("d", "Dense", "x", spec=Spec((None, 2), "float32"), **{"params": {"kernel": "d/kernel"}, **fields}),
        outputs=["d"],
        weights={"d/kernel": kernel},
        facts={(Ref("d"), "ChannelStats"): ChannelStats([0.0, 1.0], [1.0, 1.0])},
        name="m",
    )


def test_the_text_form_is_a_line_a_node_a_weight_and_a_fact():
    assert dense().to_text() == (
        "graph m\n"
        "inputs [x]\n"
        "  x = Input() : float32[?,2]\n"
        "  d = Dense(x) <kernel=d/kernel> : float32[?,2]\n"
        "outputs [d]\n"
        "weights\n"
        "  d/kernel float32[2,2] 1/4/2.5\n"
        "facts\n"
        "  d ChannelStats mean=0/1/0.5 std=1/1/1\n"
    )


def test_a_node_line_shows_the_call_as_it_was_written():
    call = Call(([Slot(1), 2.0],), {"mask": None, "other": Slot(0)})
    line = node_line(node("n", "my.Op", "a", "b:1", call=call, config={"z": 1, "a": "same"}, outputs=2))
    assert line == "n = my.Op([b:1,2.0], mask=None, other=a) {a=same z=1} : float32[?,4], float32[?,4]"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1 / 3, 2 / 3], "0.3333/0.6667/0.5"),
        ([], "empty"),
        ([np.nan, 1.0, 3.0], "1/3/2 and 1 not finite"),
        ([np.inf, np.nan], "2 not finite"),
        ([True, False], "0/1/0.5"),
        (["a"], "<U1"),
    ],
)
def test_an_array_is_summed_up_to_four_digits(values, expected):
    assert summary(np.array(values)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, None), "(1,None)"),
        ([True, "a"], "[True,a]"),
        ({"k": 0.1}, "{k=0.1}"),
        (np.float64(0.5), "0.5"),
        (np.int64(3), "3"),
        (b"raw", "b'raw'"),
        (Slot(2), "$2"),
        (Ref("a", 1), "a:1"),
        (np.dtype("float32"), "<float32>"),
        (format_value, "<format_value>"),
        (object(), "<object>"),
    ],
)
def test_a_value_is_written_without_addresses(value, expected):
    assert format_value(value) == expected


def test_the_text_form_does_not_depend_on_the_hash_seed():
    program = (
        "from tfpasses.graph import *; n = Node('n', 'my.Op', config={'b': 1, 'a': 'x'}); print(Graph({'n': n}).digest, Graph({'n': n}))"
    )
    texts = {
        subprocess.run([sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in "123"
    }
    assert len(texts) == 1


def two_inputs(first="x", second="y", outputs=("s",), **fields):
    return graph(
        node("x", "Input"), node("y", "Input"), node("s", "Subtract", first, second, config={"axis": 1}, **fields), outputs=list(outputs)
    )


# digest: the same for what does not matter


def test_equal_graphs_have_equal_digests():
    assert dense().digest == dense().digest


@pytest.mark.parametrize(
    "fields",
    [
        {"facts": {}},
        {"name": "other"},
        {"source": object()},
        {"weights": {**dense().weights, "unread": np.zeros(3)}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_the_digest_stays_when_only_what_is_not_computed_with_changes(fields):
    assert attrs.evolve(dense(), **fields).digest == dense().digest


@pytest.mark.parametrize(
    "fields", [{"origin": ("a",)}, {"made_by": "fold"}, {"owner": Owner("l", 0, None)}], ids=lambda fields: next(iter(fields))
)
def test_the_digest_stays_when_only_a_nodes_history_changes(fields):
    assert dense(**fields).digest == dense().digest


def test_the_digest_stays_when_a_weight_is_filed_under_another_key():
    renamed = graph(*dense(params={"kernel": "w"}).nodes.values(), outputs=["d"], weights={"w": dense().weights["d/kernel"]})
    assert renamed.digest == dense().digest


def biased(params):
    return graph(node("x", "Input"), node("d", "Dense", "x", params=params), outputs=["d"], weights={"k": np.eye(4), "b": np.ones((4, 4))})


def test_the_digest_stays_when_the_slots_are_written_in_another_order():
    assert biased({"kernel": "k", "bias": "b"}).digest == biased({"bias": "b", "kernel": "k"}).digest


def test_the_digest_stays_when_the_array_lies_otherwise_in_memory():
    source = dense()
    turned = attrs.evolve(source, weights={"d/kernel": np.asfortranarray(source.weights["d/kernel"])})
    assert turned.digest == source.digest


# digest: another one for what matters


def test_the_digest_changes_with_one_bit_of_a_weight():
    assert dense([[1, 2], [3, np.nextafter(np.float32(4), np.float32(5))]]).digest != dense().digest


def test_the_digest_tells_minus_zero_from_zero():
    assert dense([[0.0, 0.0]]).digest != dense([[-0.0, 0.0]]).digest


def test_the_digest_changes_with_a_weights_shape():
    assert dense([[1.0, 2.0, 3.0, 4.0]]).digest != dense().digest


def test_the_digest_changes_with_a_weights_dtype():
    source = dense()
    assert attrs.evolve(source, weights={"d/kernel": source.weights["d/kernel"].view(np.int32)}).digest != source.digest


@pytest.mark.parametrize(
    "fields",
    [{"op": "Add"}, {"config": {"axis": 2}}, {"config": {}}, {"specs": (Spec((1, 4), "float32"),)}, {"call": Call((Slot(1), Slot(0)))}],
    ids=lambda fields: next(iter(fields)),
)
def test_the_digest_changes_with_a_node(fields):
    source = two_inputs()
    changed = attrs.evolve(source, nodes={**source.nodes, "s": attrs.evolve(source.nodes["s"], **fields)})
    assert changed.digest != source.digest


def test_the_digest_changes_with_the_order_of_the_inputs():
    assert two_inputs("y", "x").digest != two_inputs().digest


def test_the_digest_changes_with_the_outputs():
    assert two_inputs(outputs=("s", "x")).digest != two_inputs(outputs=("x", "s")).digest


def test_the_digest_changes_when_a_slot_reads_another_weight():
    assert biased({"kernel": "k", "bias": "b"}).digest != biased({"kernel": "b", "bias": "k"}).digest


def test_the_digest_tells_a_shared_weight_from_an_equal_one():
    def pair(second):
        nodes = [node("x", "Input"), node("a", "my.Op", "x", params={"w": "k"}), node("b", "my.Op", "a", params={"w": second})]
        return graph(*nodes, outputs=["b"], weights={"k": np.ones(4), "l": np.ones(4)})

    assert pair("k").digest != pair("l").digest


def test_a_scalar_and_an_empty_weight_have_digests():
    assert dense(3.0).digest != dense(np.zeros((0, 2))).digest


# diff


def test_equal_graphs_do_not_differ():
    assert diff(dense(), dense()) == ""


def test_a_diff_shows_the_lines_that_changed():
    lines = diff(chain("Relu", "Tanh"), chain("Relu", "Exp")).splitlines()
    changed = [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]
    assert changed == ["-  n2 = Tanh(n1) : float32[?,4]", "+  n2 = Exp(n1) : float32[?,4]"]


def test_a_diff_tells_of_a_weight_whose_summary_hides_the_change():
    assert diff(dense([[1, 2], [3, 4]]), dense([[1, 3], [2, 4]])) == "~ weight d/kernel: same summary, other values\n"


def test_a_diff_does_not_name_a_weight_twice():
    assert "~ weight" not in diff(dense([[1, 2], [3, 4]]), dense([[1, 2], [3, 5]]))
