import attrs
import pytest

from graphs import VECTOR, chain, graph, node
from tfpasses.graph import Call, ChannelStats, Graph, GraphError, Ref, ShapeError, Slot, Spec, check_shapes, check_structure

WIDE = Spec((None, 8), "float32")


def structure_error(graph):
    with pytest.raises(GraphError) as caught:
        check_structure(graph)
    return str(caught.value)


def test_a_plain_chain_is_well_formed():
    check_structure(chain("Relu", "Relu"))


def test_a_node_filed_under_another_name_is_an_error():
    assert structure_error(Graph({"y": node("x", "Input")})) == "node x is filed under the name y"


def test_an_input_that_is_not_there_is_an_error():
    assert structure_error(graph(node("a", "Relu", "gone"), outputs=["a"])) == "node a: input gone is not in the graph"


def test_an_input_that_comes_later_is_an_error():
    broken = graph(node("a", "Relu", "b"), node("b", "Input"), outputs=["a"])
    assert structure_error(broken) == "node a: input b comes later in the order (or on a cycle)"


@pytest.mark.parametrize("index", [1, -1])
def test_an_output_index_that_is_not_there_is_an_error(index):
    broken = graph(node("x", "Input"), node("a", "Relu", Ref("x", index)), outputs=["a"])
    assert structure_error(broken) == f"node a: input x:{index} does not exist, x has 1 outputs"


def called(*args, inputs=("x",), **kwargs):
    return graph(node("x", "Input"), node("a", "my.Op", *inputs, call=Call(args, kwargs)), outputs=["a"])


def test_a_call_that_uses_every_input_is_well_formed():
    check_structure(called([Slot(1), 3], key={"k": Slot(0)}, inputs=("x", "x")))


def test_a_call_may_use_an_input_twice():
    check_structure(called(Slot(0), Slot(0)))


@pytest.mark.parametrize("args", [(), (Slot(0), Slot(1)), (Slot(1),)])
def test_a_call_that_does_not_use_the_inputs_one_for_one_is_an_error(args):
    assert structure_error(called(*args)) == "node a: its call does not use its 1 inputs one for one"


def test_a_weight_that_is_not_there_is_an_error():
    broken = graph(node("x", "Input"), node("a", "my.Op", "x", params={"kernel": "k"}), outputs=["a"])
    assert structure_error(broken) == "node a: its kernel is weight k, which is not in the graph"


@pytest.mark.parametrize(("params", "has"), [({}, "none"), ({"kernel": "k", "extra": "k"}, "kernel, extra"), ({"bias": "k"}, "bias")])
def test_parameters_that_a_canonical_op_does_not_take_are_an_error(params, has):
    broken = graph(node("x", "Input"), node("a", "Dense", "x", params=params), outputs=["a"], weights={"k": [0]})
    assert structure_error(broken) == f"node a: Dense takes parameters kernel, bias?, it has {has}"


def test_an_optional_parameter_may_be_absent():
    check_structure(graph(node("x", "Input"), node("a", "Dense", "x", params={"kernel": "k"}), outputs=["a"], weights={"k": [0]}))


def test_a_parameter_of_an_op_without_any_is_an_error():
    broken = graph(node("x", "Input"), node("a", "Relu", "x", params={"kernel": "k"}), outputs=["a"], weights={"k": [0]})
    assert structure_error(broken) == "node a: Relu takes parameters none, it has kernel"


@pytest.mark.parametrize("output", ["gone", "x:1"])
def test_a_graph_output_that_is_not_there_is_an_error(output):
    assert structure_error(graph(node("x", "Input"), outputs=[output])) == f"graph output {output} is not in the graph"


@pytest.mark.parametrize("name", ["gone", "n1"])
def test_a_graph_input_must_be_an_input_node(name):
    assert structure_error(attrs.evolve(chain("Relu"), inputs=(name,))) == f"graph input {name} is not an Input node"


def test_a_fact_about_a_node_that_is_gone_is_an_error():
    broken = attrs.evolve(chain("Relu"), facts={(Ref("gone"), "ChannelStats"): ChannelStats(0, 1)})
    assert structure_error(broken) == "fact ChannelStats is about gone, which is not in the graph"


# shapes


def test_a_recorded_shape_that_is_inferred_passes():
    check_shapes(chain("Relu", "Tanh"))


@pytest.mark.parametrize("shape", [(None, 8), (None, 4, 1)])
def test_a_recorded_shape_that_the_op_does_not_give_is_an_error(shape):
    broken = graph(node("x", "Input"), node("a", "Relu", "x", spec=Spec(shape, "float32")), outputs=["a"])
    with pytest.raises(ShapeError) as caught:
        check_shapes(broken)
    assert str(caught.value) == f"node a: Relu gives shape (None, 4), {shape} is recorded"


def test_an_unknown_dimension_fits_any():
    check_shapes(graph(node("x", "Input"), node("a", "Relu", "x", spec=Spec((32, None), "float32")), outputs=["a"]))


def opaque(fed=VECTOR, given=VECTOR, op="my.Op"):
    return graph(node("x", "Input", spec=fed), node("a", op, "x", spec=given), outputs=["a"])


def test_an_opaque_node_may_record_what_it_likes():
    check_shapes(opaque(given=WIDE))


@pytest.mark.parametrize("now", [WIDE, Spec((None, 4), "float16")])
def test_an_opaque_node_fed_with_another_spec_than_before_is_an_error(now):
    with pytest.raises(ShapeError) as caught:
        check_shapes(opaque(fed=now), before=opaque())
    assert str(caught.value) == f"node a: my.Op was fed float32[?,4], now {now}"


def test_an_opaque_node_that_became_another_op_may_be_fed_otherwise():
    check_shapes(opaque(fed=WIDE, op="my.Other"), before=opaque())


@pytest.mark.parametrize("now", [WIDE, Spec((None, 4), "float16")])
def test_an_output_given_with_another_spec_than_before_is_an_error(now):
    with pytest.raises(ShapeError) as caught:
        check_shapes(opaque(given=now), before=opaque())
    assert str(caught.value) == f"the outputs were float32[?,4], now {now}"


@pytest.mark.parametrize("was", [Spec((None, None), "float32"), Spec(None, "float32")])
def test_a_shape_may_be_known_better_than_before(was):
    check_shapes(opaque(), before=opaque(fed=was, given=was))


@pytest.mark.parametrize("now", [Spec((None, None), "float32"), Spec(None, "float32")])
def test_a_shape_that_is_known_less_than_before_is_an_error(now):
    with pytest.raises(ShapeError, match=r"^the outputs were float32\[\?,4\], now"):
        check_shapes(opaque(given=now), before=opaque())


def test_equal_graphs_keep_their_shapes():
    check_shapes(opaque(), before=opaque())
