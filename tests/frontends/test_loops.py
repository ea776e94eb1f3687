"""Loops as TensorFlow 1 writes them, and as TensorFlow 2 lowers its own: each is one node, which leaves as it came."""

from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import function as legacy
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

import tfpasses
from graph_defs import built, canonical, compute, draw, ops_of, passed
from tfpasses.frontends.graph_def import from_graph_def, from_session, graph_def_evaluator, to_graph_def
from tfpasses.frontends.graph_def.protos.node_defs import node_def
from tfpasses.graph import Edit, GraphError, Node, Ref, Spec, UnsupportedModelError, check_structure
from tfpasses.passes.raising.calls import call_rules
from tfpasses.pattern import RuleSet

V1 = tf.compat.v1
GraphDef = V1.GraphDef
ROW = (None, 4)
IMAGE = (None, 6, 6, 3)
X = draw(3, 4)
PICTURE = draw(2, 6, 6, 3)


@contextmanager
def as_in_tensorflow_1():
    """Let loops and branches be written as TensorFlow 1 wrote them."""
    V1.disable_control_flow_v2()
    try:
        yield
    finally:
        V1.enable_control_flow_v2()


def v1(call, **inputs):
    """A GraphDef of TensorFlow 1; its outputs are `out`, `out_1`, .."""
    with as_in_tensorflow_1():
        return built(call, **(inputs or {"x": ROW}))


def lowered(call, shape=ROW):
    """A GraphDef that TensorFlow freezes, which lowers the loops in it; its outputs are `Identity`, `Identity_1`, .."""
    function = tf.function(call).get_concrete_function(tf.TensorSpec(shape, tf.float32, name="x"))
    return convert_variables_to_constants_v2(function).graph.as_graph_def()


def times(number, body, x):
    """`x` after so many rounds, and their number."""
    count, value = tf.while_loop(lambda i, y: i < number, lambda i, y: (i + 1, body(y)), [0, x])
    return value, count


def outputs_of(definition):
    return [node.name for node in definition.node if node.name.partition("_")[0] in ("Identity", "out")]


def read(definition, outputs=None):
    graph = from_graph_def(definition, outputs=outputs or outputs_of(definition))
    check_structure(graph)
    return graph


def loops_of(graph):
    return [node for node in graph.nodes.values() if node.op == "tf.Loop"]


def names(definition):
    return {node.name: node for node in definition.node}


def inside(definition):
    """The NodeDefs of loops, which TensorFlow names for them."""
    return {name: node for name, node in names(definition).items() if "while" in name and node.op not in ("Placeholder", "NoOp")}


def evaluated(graph, feeds, fetches=None):
    feeds = {Ref(name): array for name, array in feeds.items()}
    return graph_def_evaluator(graph).compile(graph, list(feeds), fetches or graph.outputs)(feeds)


# what there is


def nested(x):
    return times(3, lambda y: times(2, lambda z: z * 1.5 + x, y)[0] - 1.0, x)[0]


def growing(x):
    shapes = [tf.TensorShape([]), tf.TensorShape([None, 4])]
    return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, tf.concat([y, x[:1]], 0)), [0, x], shapes)[1]


def deeper(x):
    shapes = [tf.TensorShape([]), tf.TensorShape(None)]
    return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y[None]), [0, x], shapes)[1]


def arrays(x):
    rows = tf.TensorArray(tf.float32, 3, name="rows").unstack(x)
    found = tf.TensorArray(tf.float32, 3, name="found")
    return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y.write(i, rows.read(i) * 2.0)), [0, found])[1].stack()


def branching(x):
    return times(3, lambda y: tf.cond(tf.reduce_sum(y) > 0, lambda: y - 1.0, lambda: y + 2.0), x)[0]


def in_a_branch(x):
    return tf.cond(tf.reduce_sum(x) > 0, lambda: nested(x), lambda: times(2, tf.exp, x)[0])


CASES = {
    "counting": lambda x: times(3, lambda y: y * 2.0 - 1.0, x),
    "nested": nested,
    "growing": growing,
    "of more axes each time": deeper,
    "over arrays": arrays,
    "mapped": lambda x: tf.map_fn(lambda row: row * tf.reduce_sum(row), x),
    "with a branch": branching,
    "in a branch": in_a_branch,
    "one after the other": lambda x: times(2, lambda y: y + times(2, tf.sin, x)[0], times(3, tf.cos, x)[0])[0],
    "of several values": lambda x: tf.while_loop(lambda a, b: tf.reduce_sum(a) < 50.0, lambda a, b: (b, a + b + 1.0), [x, x * x])[::-1],
}
LOOPS = {"in a branch": 2, "one after the other": 2}
"""How many lie in no other, where that is not one."""


def differentiated(x):
    y = times(3, lambda z: tf.sin(z) * x, x)[0]
    return y, tf.gradients(y, x)[0]


def differentiated_twice_nested(x):
    y = nested(x)
    return y, tf.gradients(y, x)[0]


GRADIENTS = {"differentiated": differentiated, "nested, differentiated": differentiated_twice_nested}
WRITTEN = [*[("v1", case) for case in CASES | GRADIENTS], *[("lowered", case) for case in CASES]]


@cache
def definition_of(kind, case):
    return {"v1": v1, "lowered": lowered}[kind]((CASES | GRADIENTS)[case])


@pytest.mark.parametrize(("kind", "case"), WRITTEN)
def test_each_loop_is_one_node_and_leaves_as_it_came(kind, case):
    definition = definition_of(kind, case)
    graph = read(definition)
    assert len(loops_of(graph)) == (2 if case in GRADIENTS else LOOPS.get(case, 1))
    assert not any(node.op in ("tf.Enter", "tf.Exit", "tf.NextIteration", "tf.LoopCond") for node in graph.nodes.values())
    assert names(to_graph_def(graph)) == names(definition)
    assert names(to_graph_def(canonical(definition, outputs_of(definition)))) == names(definition) or case == "over arrays"


@pytest.mark.parametrize(("kind", "case"), WRITTEN)
def test_loops_are_run_and_their_values_are_described_as_tensorflow_computes_them(kind, case):
    definition = definition_of(kind, case)
    graph = read(definition)
    for x in (X, -X):  # of a branch, either side
        wanted = compute(definition, {"x": x}, outputs_of(definition))
        fetches = [*graph.outputs, *[Ref(loop.name, index) for loop in loops_of(graph) for index in range(len(loop.specs))]]
        found = evaluated(graph, {"x": x}, [ref for ref in fetches if graph.spec(ref).dtype != "variant"])
        for mine, array in zip(found[: len(wanted)], wanted, strict=True):
            np.testing.assert_allclose(mine, array, 1e-5, 1e-5)
    for ref, array in zip(graph.outputs, wanted, strict=True):
        spec = graph.spec(ref)
        assert spec.dtype == array.dtype.name
        assert spec.shape is None or all(a in (None, b) for a, b in zip(spec.shape, array.shape, strict=True))


def test_a_loop_reads_what_enters_it_and_gives_what_leaves_it():
    definition = v1(lambda x, y: times(3, lambda z: z * y, tf.exp(x)), x=ROW, y=(4,))
    graph = read(definition)
    (loop,) = loops_of(graph)
    assert (loop.name, loop.inputs) == ("while/Exit", (Ref("while/Const"), Ref("Exp"), Ref("y")))
    assert loop.specs == (Spec((), "int32"), Spec((None, 4), "float32"))
    assert graph.nodes["out"].inputs == (Ref("while/Exit", 1),)
    assert loop.config["nodes"] == len([node for node in definition.node if node.name.startswith("while/")]) - 1  # the constant before it


def test_loops_are_alike_whatever_those_are_called_that_they_read():
    first, second = (loops_of(read(v1(lambda x, name=name: times(3, tf.sin, tf.exp(x, name=name)))))[0] for name in ("before", "ahead"))
    assert first.inputs != second.inputs
    assert dict(first.config) == dict(second.config)


def test_loops_that_differ_inside_differ():
    graphs = [read(v1(lambda x, by=by: times(3, lambda y: y * by, x))) for by in (2.0, 2.0, 3.0)]
    assert graphs[0].digest == graphs[1].digest != graphs[2].digest
    assert str(graphs[0]) == str(graphs[1]) != str(graphs[2])


# shapes


def swapped(x, y):
    return tf.while_loop(lambda a, b: tf.size(a) < 0, lambda a, b: (b, a), [x, y], [tf.TensorShape([None, 4])] * 2)


def widening(x):
    """A loop in which another adds columns."""
    shapes = [tf.TensorShape([]), tf.TensorShape([3, None])]

    def more(y):
        return tf.while_loop(lambda i, z: i < 2, lambda i, z: (i + 1, tf.concat([z, z], 1)), [0, y], shapes)[1]

    return tf.while_loop(lambda i, y: i < 2, lambda i, y: (i + 1, more(y)), [0, x], shapes)[1]


SHAPES = {
    "the same": (lambda x, y: times(3, lambda z: z + 1.0, x)[0], (3, 4)),
    "of no known size": (lambda x, y: times(3, lambda z: z + 1.0, x[:, :, None] * y[0, 0])[0], (3, 4, 1)),
    "more each time": (lambda x, y: growing(x), (None, 4)),
    "more axes each time": (lambda x, y: deeper(x), None),
    "one for the other": (lambda x, y: swapped(x, y)[0], (None, 4)),
    "in a loop": (lambda x, y: times(3, lambda z: times(3, lambda w: w * z, z)[0], x)[0], (3, 4)),
    "more in a loop": (lambda x, y: widening(x), (3, None)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_what_goes_round_has_the_shape_that_it_has_each_time(case):
    call, shape = SHAPES[case]
    graph = read(v1(call, x=(3, 4), y=(5, 4)))
    assert graph.spec(graph.outputs[0]) == Spec(shape, "float32")


def chain(links):
    """A loop of so many values, each of which is what the one before it was; the last is of another shape."""

    def call(x, y):
        values = [x] * links + [y]
        shapes = [tf.TensorShape([None, 4])] * links + [tf.TensorShape([None, 4])]
        return tf.while_loop(lambda *a: tf.size(a[0]) < 0, lambda *a: [*a[1:], a[-1]], values, shapes)[:1]

    return v1(call, x=(3, 4), y=(5, 4))


@pytest.mark.parametrize(("links", "shape"), [(1, (None, 4)), (5, (None, 4)), (40, None)])
def test_a_shape_that_is_long_in_coming_round_is_found_or_not_known(links, shape):
    graph = read(chain(links))
    assert graph.spec(graph.outputs[0]) == Spec(shape, "float32")


# names


def test_outputs_at_exits_keep_their_names():
    definition = v1(lambda x: times(3, tf.sin, x))
    graph = read(definition, ["while/Exit_1", "while/Exit:0", "out"])
    assert (graph.outputs[:2], graph.output_names) == ((Ref("while/Exit", 1), Ref("while/Exit")), ("while/Exit_1", "while/Exit", "out"))
    found = tfpasses.run(definition, "canonicalize", outputs=["while/Exit_1", "while/Exit"], verify="numeric")
    assert found.graph.output_names == ("while/Exit_1", "while/Exit")
    value, count = compute(found.model, {"x": X}, found.graph.output_names)
    np.testing.assert_allclose(value, np.sin(np.sin(np.sin(X))), 1e-5)
    assert count == 3


def test_what_leaves_a_loop_that_nothing_reads_are_the_outputs():
    definition = V1.graph_util.extract_sub_graph(v1(lambda x: times(3, tf.sin, x)), ["while/Exit_1"])
    assert from_graph_def(definition).output_names == ("while/Exit_1",)


def test_placeholders_that_tensorflow_leaves_behind_are_no_inputs():
    definition = lowered(CASES["counting"])
    assert any(node.name.startswith("unused_control_flow_input") for node in definition.node)
    assert from_graph_def(definition).inputs == ("x",)
    assert from_graph_def(definition, ["unused_control_flow_input", "x"]).inputs == ("unused_control_flow_input", "x")


def test_a_placeholder_of_such_a_name_that_is_read_is_an_input():
    definition = graph_of(node_def("unused_control_flow_input", "Placeholder", dtype="float32"), relu("y", "unused_control_flow_input"))
    assert from_graph_def(definition).inputs == ("x", "unused_control_flow_input")


def test_new_nodes_do_not_take_names_of_nodes_in_a_loop():
    graph = read(v1(lambda x: times(3, tf.sin, tf.exp(x))[0]))
    edit = Edit(graph, "add")
    edit.add_weight("while/Sin", np.ones((4, 4), "float32"))
    dense = edit.add(Node("dense", "Dense", (Ref("Exp"),), {}, {"kernel": "while/Sin"}))
    edit.set_input(edit.nodes["while/Exit"], 1, Ref(dense.name))
    new = to_graph_def(edit.freeze())
    assert (names(new)["while/Sin"].op, names(new)["while/Sin_1"].op) == ("Sin", "Const")
    edit = Edit(graph, "add")
    edit.add(Node("while/Sin", "Identity", (Ref("Exp"),)))
    with pytest.raises(UnsupportedModelError, match=r"^node while/Sin: two nodes would bear this name$"):
        to_graph_def(edit.freeze())


def test_a_loop_that_a_pass_made_something_else_of_is_neither_written_nor_run():
    graph = read(v1(lambda x: times(3, tf.sin, x)[0]))
    edit = Edit(graph, "change")
    edit.change(edit.nodes["while/Exit"], owner=None)
    with pytest.raises(UnsupportedModelError, match=r"^node while/Exit: tf.Loop cannot be written as TensorFlow operations$"):
        to_graph_def(edit.freeze())
    with pytest.raises(GraphError, match=r"^node while/Exit: tf.Loop is not as it was read, so it cannot be run"):
        evaluated(edit.freeze(), {"x": X})


# waiting


def waiting(x):
    """A product after a loop, whose sum waits for the second value of the loop; the loop waits for what is done before."""
    with tf.control_dependencies([tf.debugging.assert_all_finite(x, "not finite", name="checked")]):
        start = tf.identity(x, "start")
    value, count = times(3, tf.sin, start)
    product, bias = tf.matmul(x, draw(4, 4)), tf.constant(draw(4))
    with tf.control_dependencies([value]):
        return tf.nn.bias_add(product, bias, name="sum"), count


def test_who_waits_for_a_value_of_a_loop_waits_for_the_loop():
    definition = v1(waiting)
    assert list(names(definition)["sum"].input)[2:] == ["^while/Exit_1"]
    graph = read(definition)
    assert graph.nodes["sum"].config["_control"] == ["while/Exit"]
    assert set(graph.functions.waiting("while/Exit")) >= {"sum"}
    assert "tf.BiasAdd" in ops_of(canonical(definition)) and "Conv" not in ops_of(canonical(definition))
    assert names(to_graph_def(canonical(definition))) == names(definition)


def test_a_loop_waits_for_what_its_nodes_wait_for():
    def call(x):
        done = tf.no_op("done")
        with tf.control_dependencies([done]):
            return times(3, tf.sin, x)[0]

    definition = v1(call)
    for node in definition.node:
        if node.op == "Enter":
            node.input.append("^done")
    graph = read(definition)
    assert graph.nodes["while/Exit"].config["_control"] == ["done"]
    assert list(graph.functions.waiting("done")) == ["while/Const", "while/Exit"]
    assert names(to_graph_def(graph)) == names(definition)


def test_a_loop_does_what_its_nodes_do():
    printing = read(v1(lambda x: times(3, lambda y: V1.Print(y, [y]), x)[0]))
    quiet = read(v1(lambda x: times(3, tf.sin, x)[0]))
    assert [printing.functions.has_effects(loop) for loop in loops_of(printing)] == [True]
    assert [quiet.functions.has_effects(loop) for loop in loops_of(quiet)] == [False]


# passes beside loops


def normed(x, channels, seed):
    """A convolution and a batch norm."""
    y = tf.nn.conv2d(x, draw(3, 3, x.shape[-1], channels, seed=seed) / 6, 1, "SAME")
    mean, variance, scale, offset = (draw(channels, seed=seed + place, low=0.5, high=1.5) for place in range(4))
    return V1.nn.fused_batch_norm(y, scale, offset, mean, variance, is_training=False)[0]


def network(x):
    y = normed(x, 4, 1)  # the value at first
    y, count = times(2, lambda z: tf.sin(normed(z, 4, 2)), y)
    return normed(y, 5, 3), count


@pytest.mark.parametrize("kind", ["v1", "lowered"])
def test_batch_norms_before_and_after_a_loop_are_folded_and_those_inside_are_not(kind):
    definition = v1(network, x=IMAGE) if kind == "v1" else lowered(network, IMAGE)
    outputs = outputs_of(definition)
    result = tfpasses.run(definition, "fold-batch-norms", inputs=["x"], outputs=outputs, verify="numeric")
    assert ops_of(result.graph) == ["Conv", "tf.Loop", "Conv"]
    (loop,) = loops_of(result.graph)
    assert any(ref.node in result.graph.nodes and result.graph.nodes[ref.node].op == "Conv" for ref in loop.inputs)
    was, now = inside(definition), inside(result.model)
    assert any(node.op.startswith("FusedBatchNorm") for node in was.values())
    assert now.keys() == was.keys()
    assert [name for name in was if was[name] != now[name]] == [
        name for name, node in was.items() if node.op == "Enter" and node.input[0].startswith("FusedBatchNormV3")
    ]
    for mine, wanted in zip(compute(result.model, {"x": PICTURE}, outputs), compute(definition, {"x": PICTURE}, outputs), strict=True):
        np.testing.assert_allclose(mine, wanted, 1e-5, 1e-5)


def test_a_weight_that_a_loop_reads_too_keeps_its_value_there():
    kernel = draw(3, 3, 4, 4)

    def call(x):
        shared = tf.constant(kernel, name="shared")
        ones = [tf.ones(4), tf.ones(4), tf.zeros(4), tf.ones(4) * 3.0]
        y = V1.nn.fused_batch_norm(tf.nn.conv2d(x, shared, 1, "SAME"), *ones, is_training=False)[0]
        return times(2, lambda z: tf.sin(tf.nn.conv2d(z, shared, 1, "SAME")), y)[0]

    definition = v1(call, x=(None, 6, 6, 4))
    new = to_graph_def(passed(canonical(definition), "fold-batch-norms"))
    np.testing.assert_array_equal(tf.make_ndarray(names(new)["shared"].attr["value"].tensor), kernel)
    picture = draw(2, 6, 6, 4)
    np.testing.assert_allclose(compute(new, {"x": picture}, ["out"])[0], compute(definition, {"x": picture}, ["out"])[0], 1e-5, 1e-5)


def test_a_constant_branch_around_a_loop_is_resolved_and_the_loop_in_the_other_goes():
    def call(x):
        return V1.cond(tf.constant(True), lambda: times(2, tf.sin, x)[0], lambda: times(2, tf.cos, x)[0])

    definition = v1(call)
    assert len(loops_of(read(definition))) == 2
    graph = canonical(definition)
    assert ops_of(graph) == ["tf.Loop"]
    assert Ref("x") in loops_of(graph)[0].inputs
    new = to_graph_def(graph)
    assert not [node.name for node in new.node if node.op == "Cos"]
    np.testing.assert_allclose(compute(new, {"x": X}, ["out"])[0], np.sin(np.sin(X)), 1e-5)


def test_a_loop_stays_whole_and_says_so():
    graph = read(v1(nested))
    edit = Edit(graph, "canonicalize")
    rules = RuleSet(call_rules(None, graph.functions))
    said = {miss.root: miss.reason for _, miss in rules.misses(edit, rules.rewrite(edit))}
    assert said == {"while/Exit": "it is (a part of) a loop, which stays whole"}


# functions


@legacy.Defun(tf.float32, tf.int32)
def ended(value, count):
    return tf.nn.relu(value) + tf.cast(count, tf.float32), value[:1]


def test_a_call_that_reads_and_awaits_a_loop_is_inlined():
    def call(x):
        value, count = times(3, tf.sin, x)
        with tf.control_dependencies([value]):
            return ended(value, count)

    definition = v1(call)
    outputs = outputs_of(definition)
    graph = canonical(definition, outputs)
    assert not any(node.op == "tf.ended" for node in graph.nodes.values())
    new = to_graph_def(graph)
    assert all("while/Exit:1" not in text for node in new.node for text in node.input)
    for mine, wanted in zip(compute(new, {"x": X}, outputs), compute(definition, {"x": X}, outputs), strict=True):
        np.testing.assert_allclose(mine, wanted, 1e-6)


@legacy.Defun(tf.float32, tf.int32)
def looping(x, number):
    """Two loops, one of which reads the other, and waits for it; both values of the last."""
    value, count = times(number, lambda y: tf.sin(y) + 0.1, x)
    with tf.control_dependencies([count]):
        again, count = times(count, lambda y: times(2, tf.cos, y)[0] * value, tf.exp(x))
    return again, count, value


@legacy.Defun(tf.float32)
def printing(x):
    """A loop that does something, in a function that gives something else."""
    times(2, lambda y: V1.Print(y, [y]), x)
    return x + 1.0


def in_turn(x):
    value, count, _ = looping(x, 3)
    return looping(value, count)


def waiting_too(x):
    with tf.control_dependencies([tf.debugging.assert_all_finite(x, "not finite")]):
        value, count, first = looping(x, 3)
    with tf.control_dependencies([count]):
        return tf.nn.relu(value), first


def from_a_loop(x):
    value, count = times(2, tf.sin, x)
    return looping(value, count)


FUNCTIONS = {
    "once": lambda x: looping(x, 3),
    "one after the other": in_turn,
    "waiting and awaited": waiting_too,
    "on what a loop gives": from_a_loop,
    "before a loop": lambda x: times(2, tf.sin, looping(x, 2)[2]),
    "in a branch": lambda x: V1.cond(tf.constant(False), lambda: x, lambda: looping(x, 2)[0]),
    "that does something": lambda x: -printing(x),
}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_functions_with_loops_are_inlined(case):
    definition = v1(FUNCTIONS[case])
    outputs = outputs_of(definition)
    graph = canonical(definition, outputs)
    assert not any(node.op in ("tf.looping", "tf.printing") for node in graph.nodes.values())
    check_structure(graph)
    assert all(waited in graph.nodes for loop in loops_of(graph) for waited in loop.config["_control"])
    new = to_graph_def(graph)
    frames = {node.attr["frame_name"].s for node in new.node if node.op == "Enter"}
    assert len(frames) >= len(loops_of(graph)) >= 1
    wanted = compute(definition, {"x": X}, outputs)
    for mine, array in zip(compute(new, {"x": X}, outputs), wanted, strict=True):
        np.testing.assert_allclose(mine, array, 1e-5, 1e-6)
    for mine, array in zip(evaluated(graph, {"x": X}), wanted, strict=True):
        np.testing.assert_allclose(mine, array, 1e-5, 1e-6)
    again = from_graph_def(new, outputs=outputs)
    assert names(to_graph_def(again)) == names(new)
    assert len(loops_of(again)) == len(loops_of(graph))


def test_the_nodes_of_a_loop_in_a_function_are_not_in_the_way():
    @legacy.Defun(tf.float32)
    def first(x):
        return times(2, tf.sin, x)[0]

    definition = v1(lambda x: first(x, name="call"))
    taken = definition.node.add(name="call/while/Sin", op="Relu", input=["x"])
    taken.attr["T"].type = tf.float32.as_datatype_enum
    graph = canonical(definition)
    assert [loop.name for loop in loops_of(graph)] == ["call_1/while/Exit"]
    np.testing.assert_allclose(compute(to_graph_def(graph), {"x": X}, ["out"])[0], np.sin(np.sin(X)), 1e-5)


def test_batch_norms_in_a_function_with_a_loop_are_folded():
    signature = tf.TensorSpec(IMAGE, tf.float32, name="x")
    frozen = convert_variables_to_constants_v2(tf.function(network).get_concrete_function(signature))
    concrete = tf.function(frozen, autograph=False).get_concrete_function(signature)
    result = tfpasses.run(concrete, "fold-batch-norms")
    assert ops_of(result.graph) == ["Conv", "tf.Loop", "Conv"]
    for mine, wanted in zip(result.model(tf.constant(PICTURE)), concrete(tf.constant(PICTURE)), strict=True):
        np.testing.assert_allclose(mine, wanted, 1e-5, 1e-5)


def test_a_function_whose_result_lies_in_a_loop_keeps_its_call_whole():
    @legacy.Defun(tf.float32)
    def first(x):
        return times(2, tf.sin, x)[0]

    definition = v1(lambda x: first(x, name="call"))
    (function,) = definition.library.function
    (result,) = function.ret
    function.ret[result] = "while/Merge_1:output:0"
    with pytest.raises(GraphError, match=r"^node call: calls \w+: node while/Merge_1: a result, and inside of a loop$"):
        read(definition).functions.body(read(definition).nodes["call"], "f")


def test_calls_in_a_loop_stay_in_it():
    inner = tf.function(lambda x: tf.sin(x) + 1.0, autograph=False)
    definition = v1(lambda x: times(3, inner, x)[0])
    graph = canonical(definition)
    assert ops_of(graph) == ["tf.Loop"]
    assert names(to_graph_def(graph)) == names(definition)
    np.testing.assert_allclose(evaluated(graph, {"x": X})[0], compute(definition, {"x": X}, ["out"])[0], 1e-6)


# branches, run node by node


def test_a_loop_in_the_branch_that_is_not_taken_is_not_run():
    def call(x):  # that of nothing would never end
        endless = tf.while_loop(lambda y: tf.reduce_sum(y) < 9.0, lambda y: [tf.abs(y) + 1.0], [x])[0]
        return V1.cond(tf.reduce_sum(x) > 0, lambda: x * 2.0, lambda: endless)

    def branch(x):
        loop = lambda: tf.while_loop(lambda y: tf.reduce_sum(y) < 9.0, lambda y: [y * 0.0], [x])[0]  # noqa: E731
        return V1.cond(tf.reduce_sum(x) > -1e9, lambda: x * 2.0, loop)

    assert len(loops_of(read(v1(call)))) == 1
    graph = read(v1(branch))
    (loop,) = loops_of(graph)
    value, never = evaluated(graph, {"x": X}, [*graph.outputs, Ref(loop.name)])
    np.testing.assert_array_equal(value, X * 2)
    np.testing.assert_array_equal(never, np.zeros((1, 4)))


def test_branches_that_read_nothing_of_a_switch_are_not_run_node_by_node():
    graph = read(v1(lambda x: x * V1.cond(tf.reduce_sum(x) > 0, lambda: 1.0, lambda: 2.0)))
    with pytest.raises(GraphError, match=r"^node cond/Merge: 2 branches meet in it that read nothing of a Switch"):
        evaluated(graph, {"x": X})


# containers


def session(use_resource):
    """A session with a network whose loop reads variables, and an optimizer, so that there is a loop of gradients."""
    graph = tf.Graph()
    with graph.as_default(), as_in_tensorflow_1():
        x = V1.placeholder(tf.float32, IMAGE, "x")
        positive = V1.random_uniform_initializer(0.5, 2, seed=1)

        def normed(y, channels, name):
            with V1.variable_scope(name, use_resource=use_resource, reuse=V1.AUTO_REUSE):
                kernel = V1.get_variable("kernel", (3, 3, y.shape[-1], channels), initializer=V1.glorot_uniform_initializer(2))
                scale, mean, variance, offset = (V1.get_variable(one, (channels,), initializer=positive) for one in "smvo")
            y = tf.nn.conv2d(y, kernel, 1, "SAME")
            return V1.nn.fused_batch_norm(y, scale, offset, mean, variance, is_training=False)[0]

        y, _ = times(2, lambda z: tf.sin(normed(z, 4, "inside")), normed(x, 4, "before"))
        y = tf.identity(normed(y, 5, "after"), "y")
        V1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_sum(y**2))
        one = V1.Session(graph=graph)
        one.run(V1.global_variables_initializer())
    return one


@pytest.mark.parametrize("use_resource", [True, False])
def test_sessions_with_loops_are_folded(use_resource):
    one = session(use_resource)
    assert len(loops_of(from_session(one, ["x"], ["y"]))) == 2
    result = tfpasses.run(one, "canonicalize{training=false},fold-batch-norms", inputs=["x"], outputs=["y", "while/Exit"])
    assert [op for op in ops_of(result.graph) if op in ("Conv", "tf.Loop", "BatchNorm")] == ["Conv", "tf.Loop", "Conv"]
    fetches = ["y:0", "while/Exit:0"]
    for mine, wanted in zip(result.model.run(fetches, {"x:0": PICTURE}), one.run(fetches, {"x:0": PICTURE}), strict=True):
        np.testing.assert_allclose(mine, wanted, 1e-4, 1e-4)


def test_a_saved_model_with_loops_is_folded(tmp_path):
    one = session(True)
    at = one.graph.get_tensor_by_name
    with one.graph.as_default():
        V1.saved_model.simple_save(one, str(tmp_path / "in"), {"x": at("x:0")}, {"y": at("y:0"), "count": at("while/Exit:0")})
    result = tfpasses.run(tmp_path / "in", "canonicalize{training=false},fold-batch-norms")
    tfpasses.save(result, tmp_path / "out")
    found = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"](x=tf.constant(PICTURE))
    np.testing.assert_allclose(found["y"], one.run("y:0", {"x:0": PICTURE}), 1e-4, 1e-4)
    assert int(found["count"]) == 2


def test_a_frozen_loop_is_folded_as_a_saved_model_too(tmp_path):
    definition = lowered(network, IMAGE)
    tfpasses.save(tfpasses.from_graph_def(definition), tmp_path / "converted")
    result = tfpasses.run(tmp_path / "converted", "fold-batch-norms")
    assert ops_of(result.graph) == ["Conv", "tf.Loop", "Conv"]
    tfpasses.save(result, tmp_path / "folded")
    found = tf.saved_model.load(str(tmp_path / "folded")).signatures["serving_default"](x=tf.constant(PICTURE))
    wanted = compute(definition, {"x": PICTURE}, outputs_of(definition))
    for name, array in zip(outputs_of(definition), wanted, strict=True):
        np.testing.assert_allclose(found[name], array, 1e-5, 1e-5)


def test_a_function_with_a_loop_that_does_something_does_it_as_often(capfd):
    def call(x):
        return times(3, lambda y: tf.raw_ops.Print(input=y, data=[y[0, 0]], message="seen"), x)[0]

    signature = tf.TensorSpec(ROW, tf.float32, name="x")
    frozen = convert_variables_to_constants_v2(tf.function(call).get_concrete_function(signature))
    concrete = tf.function(frozen, autograph=False).get_concrete_function(signature)
    function = tfpasses.run(concrete, "canonicalize").model
    capfd.readouterr()
    np.testing.assert_array_equal(function(tf.constant(X))[0], X)
    assert capfd.readouterr().err.count("seen") == 3


# by hand: large ones, and what is refused


def loop(name, value, inner=None):
    """NodeDefs of a loop that goes round as long as `going` says; `inner` gives what stands between two rounds, on `name/Switch:1`."""
    between, result = inner(f"{name}/Switch:1") if inner else ([], f"{name}/Switch:1")
    kind = {"T": "float32"}
    frame = V1.AttrValue(s=name.encode())
    return [
        node_def(f"{name}/Enter", "Enter", value, frame_name=frame, **kind),
        node_def(f"{name}/Merge", "Merge", f"{name}/Enter", f"{name}/Next", N=V1.AttrValue(i=2), **kind),
        node_def(f"{name}/going", "Const", f"^{name}/Merge", value=V1.AttrValue(tensor=tf.make_tensor_proto(False)), dtype="bool"),
        node_def(f"{name}/LoopCond", "LoopCond", f"{name}/going"),
        node_def(f"{name}/Switch", "Switch", f"{name}/Merge", f"{name}/LoopCond", **kind),
        *between,
        node_def(f"{name}/Next", "NextIteration", result, **kind),
        node_def(f"{name}/Exit", "Exit", f"{name}/Switch", **kind),
    ]


def graph_of(*nodes):
    return GraphDef(node=[node_def("x", "Placeholder", dtype="float32"), *nodes])


def relu(name, *inputs):
    return node_def(name, "Relu", *inputs, T="float32")


def test_loops_are_found_whatever_the_order_of_the_file():
    definition = graph_of(*loop("a", "x"), *loop("b", "a/Exit"), relu("out", "b/Exit"))
    turned = GraphDef(node=reversed(definition.node))
    for one in (definition, turned):
        graph = read(one)
        assert [node.name for node in graph.nodes.values()] == ["x", "a/Exit", "b/Exit", "out"]
        assert names(to_graph_def(graph)) == names(one)
    np.testing.assert_array_equal(compute(turned, {"x": X}, ["out"])[0], np.maximum(X, 0))


def test_a_thousand_loops_in_a_row_are_a_thousand_nodes():
    nodes = [node for number in range(1000) for node in loop(f"l{number}", f"l{number - 1}/Exit" if number else "x")]
    assert len(loops_of(read(graph_of(*nodes), ["l999/Exit"]))) == 1000


def test_a_hundred_loops_in_one_another_are_one_node():
    def within(depth):
        if depth == 0:
            return None
        return lambda value: (loop(f"l{depth}", value, within(depth - 1)), f"l{depth}/Exit")

    definition = graph_of(*loop("l100", "x", within(99)))
    graph = read(definition, ["l100/Exit"])
    assert [node.name for node in graph.nodes.values()] == ["x", "l100/Exit"]
    assert graph.nodes["l100/Exit"].config["nodes"] == 700
    assert names(to_graph_def(graph)) == names(definition)


def changed(nodes, name, **inputs):
    """NodeDefs, of which one reads something else at some places."""
    for node in nodes:
        if node.name == name:
            for place, text in inputs.items():
                node.input[int(place[1:])] = text
    return nodes


def twice(value):
    return [relu("in", value, "^x")], "in"


def cyclic(value):
    return [node_def("a", "AddN", value, "b", N=V1.AttrValue(i=2), T="float32"), relu("b", "a")], "a"


REFUSED = {
    "a cycle beside a loop": (graph_of(*loop("l", "x"), relu("a", "b"), relu("b", "a")), "the graph has a cycle through node"),
    "a cycle in a loop": (graph_of(*loop("l", "x", cyclic)), "the graph has a cycle through node"),
    "a loop that reads what it gives": (graph_of(*changed(loop("l", "x"), "l/Enter", _0="l/Exit")), "the graph has a cycle through node"),
    "loops that read each other": (graph_of(*loop("a", "b/Exit"), *loop("b", "a/Exit")), "the graph has a cycle through node"),
    "a loop that nothing enters": (
        graph_of(*changed(loop("l", "x"), "l/Merge", _0="l/Next")),
        "node l/Merge: nothing enters by it|the graph has a cycle through node",
    ),
    "inside and outside": (
        graph_of(*loop("l", "x", twice)),
        "node [a-zA-Z/]+: it reads [(]or waits for[)] .* and others, of which some are in a loop and some are not",
    ),
    "another output of an Exit": (graph_of(*loop("l", "x"), relu("y", "l/Exit:1")), "node l/Exit: output 1 is read, an Exit gives 1"),
    "another output of a NextIteration": (
        graph_of(*changed(loop("l", "x"), "l/Merge", _1="l/Next:1")),
        "node l/Merge: output 1 of l/Next does not exist",
    ),
    "another output inside": (
        graph_of(*changed(loop("l", "x"), "l/Next", _0="l/Switch:2")),
        "node l/Switch: output 2 is read, Switch gives 2",
    ),
    "an operation that does not fit": (
        graph_of(*loop("l", "x", lambda value: ([node_def("in", "Relu", value, T="int32")], "in"))),
        "node in: its input 0 is float32, Relu takes int32",
    ),
    "another dtype each time": (
        graph_of(
            *[
                *loop("l", "x", lambda value: ([node_def("in", "Cast", value, SrcT="float32", DstT="int32")], "in"))[:-2],
                node_def("l/Next", "NextIteration", "in", T="int32"),
                node_def("l/Exit", "Exit", "l/Switch", T="float32"),
            ]
        ),
        "node l/Merge: its input 1 is int32, Merge takes float32",
    ),
    "a cycle of NextIterations": (
        graph_of(node_def("a", "NextIteration", "b", T="float32"), relu("b", "a")),
        "the graph has a cycle through node",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_loop_of_tensorflow_is_refused_in_one_line(case):
    definition, reason = REFUSED[case]
    with pytest.raises(GraphError, match=f"^({reason})[^\n]*$"):
        from_graph_def(definition, outputs=["x"])


def test_a_function_of_the_name_of_the_operation_is_refused_beside_loops():
    definition = graph_of(*loop("l", "x"))
    definition.library.function.add().signature.name = "Loop"
    with pytest.raises(
        GraphError, match=r"^node l/Exit: a loop goes by the operation Loop here, as one of the functions does; rename that$"
    ):
        from_graph_def(definition)


@pytest.mark.parametrize(
    ("output", "reason"),
    [("l/Switch", "it is inside of a loop"), ("l/Exit:1", "there is no such value"), ("l/Exit_1", "there is no such value")],
)
def test_outputs_that_do_not_leave_a_loop_are_refused(output, reason):
    with pytest.raises(GraphError, match=f"^output {output}: {reason}$"):
        from_graph_def(graph_of(*loop("l", "x")), outputs=[output])


def test_enters_that_belong_to_no_loop_stay_as_they_are():
    frame = V1.AttrValue(s=b"f")
    through = [node_def("e", "Enter", "x", T="float32", frame_name=frame), relu("r", "e"), node_def("y", "Exit", "r", T="float32")]
    graph = read(graph_of(*through, *loop("l", "x")), ["y", "l/Exit"])
    assert [node.op for node in graph.nodes.values()] == ["Input", "tf.Enter", "tf.Relu", "tf.Exit", "tf.Loop"]
