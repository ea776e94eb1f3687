"""Calls inlined and branches resolved: the graph computes what it did, does what it did, and says why what stays stays."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.python.framework import function as legacy
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from graph_defs import compute
from tfpasses.frontends.graph_def import from_graph_def, to_graph_def
from tfpasses.frontends.graph_def.read import Variable
from tfpasses.frontends.graph_def.writing.writer import write
from tfpasses.graph import Edit, check_structure
from tfpasses.passes.raising.calls import call_rules
from tfpasses.pattern import RuleSet

V1 = tf.compat.v1
ROW = tf.TensorSpec((None, 4), tf.float32)
X = np.linspace(-2, 3, 12, dtype="float32").reshape(3, 4)
CALLS = (
    "PartitionedCall",
    "StatefulPartitionedCall",
    "If",
    "StatelessIf",
    "Case",
    "StatelessCase",
    "Switch",
    "Merge",
    "RefSwitch",
    "RefMerge",
)


def resolved(graph, training=None):
    """The graph after the rules, the edit that made it, and what is said of the nodes that stay."""
    edit = Edit(graph, "canonicalize")
    rules = RuleSet(call_rules(training, graph.functions))
    declined = rules.rewrite(edit)
    said = {miss.root: miss for _, miss in rules.misses(edit, declined)}
    new = edit.freeze()
    check_structure(new)
    return new, edit, said


def traced(call, *signature):
    return tf.function(call).get_concrete_function(*(signature or (ROW,))).graph.as_graph_def()


def calling(function):
    """What calls a function, so that the graph has a call of it."""

    def call(x, *more):
        return function(x, *more)

    return call


def built(build):
    """A graph of TensorFlow 1 with the placeholder `x`; what `build` gives are its outputs `out`, `out_1`, .."""
    with tf.Graph().as_default() as graph:
        outputs = build(V1.placeholder(tf.float32, (None, 4), name="x"))
        for value in outputs if isinstance(outputs, list | tuple) else [outputs]:
            tf.identity(value, "out")
    return graph.as_graph_def()


def outputs_of(definition):
    return [node.name for node in definition.node if node.name.partition("_")[0] in ("Identity", "out")]


def check_same(definition, training=None, feeds=None, left=(), outputs=None):
    """The rules leave these calls, and the graph computes what it did. Gives the new definition."""
    outputs = outputs or outputs_of(definition)
    new = to_graph_def(resolved(from_graph_def(definition, outputs=outputs), training)[0])
    assert Counter(node.op for node in new.node if node.op in CALLS) == Counter(left)
    feeds = {"x": X} if feeds is None else feeds
    for mine, wanted in zip(compute(new, feeds, outputs), compute(definition, feeds, outputs), strict=True):
        np.testing.assert_array_equal(mine, wanted)
    from_graph_def(new, outputs=outputs)
    return new


# calls


@tf.function
def one(x):
    return tf.nn.relu(x) * 2.0


@tf.function
def several(x):
    a, b, c = tf.split(x, [1, 1, 2], axis=1)
    values, places = tf.unique(tf.reshape(tf.round(x), [-1]))
    return {"b": b + one(c), "parts": [a, values, places], "same": x, "one": tf.constant(1.0)}


@tf.function
def nested(x):
    found = several(one(x))
    return tf.reduce_sum(found["b"]) * found["same"] + tf.reduce_max(found["parts"][1]) + found["one"]


@tf.function(jit_compile=True)
def compiled(x):
    return tf.nn.relu(x @ tf.ones((4, 3))) + 1.0


@tf.function
def moments(x):
    norm = V1.nn.fused_batch_norm(x[None, :, None], tf.ones(4), tf.zeros(4), epsilon=0.01, is_training=True)
    return norm[2], norm[0], norm[1]


FUNCTIONS = {
    "one": calling(one),
    "twice": lambda x: one(one(x)) + one(x),
    "several values": calling(several),
    "nested": calling(nested),
    "compiled": calling(compiled),
    "of operations with several outputs": calling(moments),
    "lists": calling(tf.function(lambda y: tf.stack(tf.unstack(y, 4, axis=1)[::-1]))),
    "in a branch": lambda x: tf.cond(tf.constant(True), lambda: nested(x), lambda: compiled(x)[:, :1]),
    "true": lambda x: tf.cond(tf.constant(True), lambda: x + 1.0, lambda: x - 1.0),
    "false": lambda x: tf.cond(tf.constant(False), lambda: x + 1.0, lambda: x - 1.0),
    "not true": lambda x: tf.cond(tf.logical_not(tf.identity(tf.constant(True))), lambda: x + 1.0, lambda: x - 1.0),
    "and": lambda x: tf.cond(tf.logical_and(tf.constant(False), tf.reduce_sum(x) > 0), lambda: x + 1.0, lambda: x - 1.0),
    "or": lambda x: tf.cond(tf.logical_or(tf.reduce_sum(x) > 0, tf.constant(True)), lambda: x + 1.0, lambda: x - 1.0),
    "a branch in a branch": lambda x: tf.cond(
        tf.constant(True), lambda: tf.cond(tf.constant(False), lambda: x, lambda: one(x)), lambda: x - 1.0
    ),
    "cases": lambda x: [
        tf.switch_case(tf.constant(number), [lambda: x + 1.0, lambda: tf.exp(x), lambda: -x]) for number in (0, 1, 2, 3, -1)
    ],
    "numbers and texts as predicates": lambda x: [
        tf.raw_ops.If(cond=tf.constant(value), input=[x], Tout=[tf.float32], then_branch=branch(one), else_branch=branch(minus))
        for value in (0, 3, 0.0, -0.5, "", "no", [False], [], [[0], [0]])
    ],
}


def branch(function):
    return function.get_concrete_function(ROW)


@tf.function
def minus(x):
    return -x


@pytest.mark.parametrize("case", FUNCTIONS)
def test_calls_are_inlined_and_constant_branches_resolved(case):
    check_same(traced(FUNCTIONS[case]))


def test_a_function_of_tensorflow_1_is_inlined():
    def build(x):
        @legacy.Defun(tf.float32, func_name="halves")
        def halves(y):
            return y / 2.0, y

        @legacy.Defun(tf.float32, func_name="quarter")
        def quarter(y):
            return halves(halves(y)[0])

        return quarter(x)

    definition = built(build)
    assert "quarter" in [node.op for node in definition.node]
    assert not {"halves", "quarter"} & {node.op for node in check_same(definition).node}


def test_a_function_that_leaves_its_dtype_to_the_call_is_inlined():
    definition = V1.GraphDef()
    text_format.Parse(
        """function { signature { name: "twice" input_arg { name: "y" type_attr: "T" } output_arg { name: "z" type_attr: "T" }
             attr { name: "T" type: "type" } }
           node_def { name: "s" op: "AddV2" input: "y" input: "y" attr { key: "T" value { placeholder: "T" } } }
           ret { key: "z" value: "s:z:0" } }""",
        definition.library,
    )
    for name, dtype in {"x": tf.float32, "i": tf.int32}.items():
        definition.node.add(name=name, op="Placeholder").attr["dtype"].type = dtype.as_datatype_enum
        node = definition.node.add(name=f"call_{name}", op="PartitionedCall", input=[name])
        node.attr["f"].func.name = "twice"
        node.attr["f"].func.attr["T"].type = dtype.as_datatype_enum
        for key in ("Tin", "Tout"):
            node.attr[key].list.type.append(dtype.as_datatype_enum)
        definition.node.add(name=f"out_{name}", op="Identity", input=[node.name]).attr["T"].type = dtype.as_datatype_enum
    new = to_graph_def(resolved(from_graph_def(definition, outputs=["out_x", "out_i"]))[0])
    new.ClearField("library")  # TensorFlow does not import functions that leave a dtype to the call
    x, i = compute(new, {"x": X, "i": np.int32([1, 2])}, ["out_x", "out_i"])
    assert i.tolist() == [2, 4]
    np.testing.assert_array_equal(x, X + X)


def test_a_frozen_call_that_is_compiled_is_inlined_and_waits_for_nothing():
    kernel = tf.Variable(np.linspace(-1, 1, 12, dtype="float32").reshape(4, 3))
    layer = tf.function(lambda x: tf.nn.relu(x @ kernel), jit_compile=True)
    concrete = tf.function(lambda x: layer(x) + 1.0).get_concrete_function(ROW)
    definition = convert_variables_to_constants_v2(concrete).graph.as_graph_def()
    assert "StatefulPartitionedCall" in [node.op for node in definition.node]
    new = check_same(definition)
    (relu,) = [node for node in new.node if node.op == "Relu"]
    followers = [node for node in new.node if relu.name in node.input]
    assert [list(node.input) for node in followers] == [[relu.name]]


def checked(x):
    tf.debugging.assert_less(x, 10.0)
    return x + 1.0


def lowered(x, training):
    """What TensorFlow makes Switch and Merge of: a branch that waits for a check, with a call, a constant, and a check in one of two."""
    with tf.control_dependencies([tf.debugging.Assert(x[0, 0] < 10.0, [x])]):
        y = tf.cond(training, lambda: one(x) - tf.reduce_mean(x, 0), lambda: checked(tf.cond(x[0, 0] > 0, lambda: one(x), lambda: -x)))
    return y, tf.cond(training, lambda: tf.constant(1.0), lambda: tf.constant(2.0))


@pytest.mark.parametrize("training", [True, False])
def test_a_frozen_branch_that_tensorflow_lowered_is_resolved(training):
    concrete = tf.function(lowered).get_concrete_function(ROW, tf.TensorSpec((), tf.bool))
    definition = convert_variables_to_constants_v2(concrete).graph.as_graph_def()
    assert "Switch" in [node.op for node in definition.node]
    outputs = outputs_of(definition)
    new = to_graph_def(resolved(from_graph_def(definition, outputs=outputs), training)[0])
    for x in (X, -X):
        feeds = {"x": x, "training": np.bool_(training)}
        for mine, wanted in zip(compute(new, feeds, outputs), compute(definition, feeds, outputs), strict=True):
            np.testing.assert_array_equal(mine, wanted)
    assert Counter(node.op for node in new.node)["Mean"] == training
    assert not [node.name for node in new.node if node.op == "Switch" and node.input[1] == "training"]
    for one_of_both in (definition, new):
        with pytest.raises(tf.errors.InvalidArgumentError, match="assertion failed"):
            compute(one_of_both, {"x": X + 20, "training": np.bool_(training)}, outputs)


def test_the_nodes_of_a_body_leave_as_they_lay_in_the_function():
    definition = traced(calling(one))
    (inner,) = [function for function in definition.library.function]
    new = {node.name: node for node in check_same(definition).node}
    for node in inner.node_def:
        written = new[f"PartitionedCall/{node.name}"]
        assert (written.op, dict(written.attr)) == (node.op, dict(node.attr))


def test_a_constant_of_a_body_takes_its_new_value():
    new, _, _ = resolved(from_graph_def(traced(calling(one))))
    edit = Edit(new, "set")
    (constant,) = [node for node in edit.nodes.values() if node.op == "Const"]
    edit.set_params(constant, {"value": np.float32(-3)})
    (y,) = compute(to_graph_def(edit.freeze()), {"x": X}, ["Identity"])
    np.testing.assert_array_equal(y, np.maximum(X, 0) * np.float32(-3))


def test_an_output_that_is_a_call_keeps_its_name():
    definition = traced(calling(nested))
    (call,) = [node for node in definition.node if "Call" in node.op]
    new = check_same(definition, outputs=[call.name])
    assert call.name in [node.name for node in new.node]


def test_the_handle_of_a_variable_feeds_what_reads_it_in_the_body():
    variable = tf.Variable(np.linspace(-1, 1, 12, dtype="float32").reshape(4, 3))
    inner = tf.function(lambda x: x @ variable)
    concrete = tf.function(calling(tf.function(lambda y: inner(y) + 1.0))).get_concrete_function(ROW)
    (captured,) = concrete.graph.internal_captures
    variables = {captured.op.name: Variable("kernel", variable.numpy())}
    new, _, _ = resolved(from_graph_def(concrete.graph.as_graph_def(), inputs=["x"], variables=variables))
    (reader,) = [node for node in new.nodes.values() if node.op == "tf.ReadVariableOp"]
    assert [new.nodes[ref.node].op for ref in reader.inputs] == ["Variable"] and reader.specs[0].shape == (4, 3)
    assert list(write(new).variables) == [captured.op.name]


def test_what_the_call_gave_is_followed_to_what_stands_for_it():
    graph = from_graph_def(traced(calling(one)))
    new, edit, _ = resolved(graph)
    (rewrite,) = edit.journal
    assert (rewrite.rule, rewrite.root, rewrite.removed) == ("inline", "PartitionedCall", ("PartitionedCall",))
    assert {node.origin for node in new.nodes.values() if node.name.startswith("PartitionedCall/")} == {("PartitionedCall",)}


def test_a_graph_without_calls_stays_the_same_object():
    graph = from_graph_def(traced(tf.nn.relu))
    assert resolved(graph)[0] is graph


def test_a_graph_from_keras_has_no_calls():
    from graphs import chain

    graph = chain("Relu", "tf.PartitionedCall")
    assert resolved(graph)[0] is graph


# branches of TensorFlow 1


def v1(build):
    """The same as TensorFlow 1 writes branches."""

    def built_in_v1(x):
        V1.disable_control_flow_v2()
        try:
            return build(x)
        finally:
            V1.enable_control_flow_v2()

    return built(built_in_v1)


def in_branches(x):
    y = tf.nn.relu(x)
    return V1.cond(tf.constant(True), lambda: [y + 1.0, tf.constant(3.0)], lambda: [V1.Print(x - 1.0, [x]), tf.reduce_sum(x)])


def deep(x):
    def inner():
        return V1.cond(tf.constant(False), lambda: x * 2.0, lambda: V1.cond(x[0, 0] > 0, lambda: x * 3.0, lambda: x * 4.0))

    return V1.cond(tf.constant(True), inner, lambda: x - 1.0)


def number(x):
    no, yes = tf.raw_ops.Switch(data=x, pred=tf.constant(True))
    value, index = tf.raw_ops.Merge(inputs=[tf.exp(no), yes])
    return value, index


def check(x):
    with tf.control_dependencies([V1.Assert(tf.constant(True), [x])]):
        return tf.identity(x)


SWITCHES = {
    "true": lambda x: V1.cond(tf.constant(True), lambda: x + 1.0, lambda: x - 1.0),
    "false": lambda x: V1.cond(tf.constant(False), lambda: x + 1.0, lambda: x - 1.0),
    "several values": in_branches,
    "the number of the input that came": number,
    "a case": lambda x: V1.case([(tf.constant(False), lambda: x), (tf.constant(True), lambda: -x)], lambda: x + 5.0),
    "a call in a branch": lambda x: V1.cond(tf.constant(True), lambda: one(x), lambda: x),
    "the predicate as a value": lambda x: V1.cond(tf.constant(True), lambda: tf.constant(1.0), lambda: tf.constant(2.0)),
    "checks of what is constant": lambda x: [V1.cond(tf.constant(True), lambda: check(x), lambda: x), check(x)],
}


@pytest.mark.parametrize("case", SWITCHES)
def test_branches_of_tensorflow_1_are_resolved(case):
    definition = v1(SWITCHES[case])
    assert "Switch" in [node.op for node in definition.node]
    check_same(definition)


def test_a_branch_that_depends_on_a_value_stays_within_one_that_does_not():
    definition = v1(deep)
    switches = Counter(node.op for node in definition.node)["Switch"]
    new = check_same(definition, left=["Merge"] + ["Switch"] * 3)
    assert switches > 6
    for x in (X, -X):
        for mine, wanted in zip(compute(new, {"x": x}, ["out"]), compute(definition, {"x": x}, ["out"]), strict=True):
            np.testing.assert_array_equal(mine, wanted)


def test_what_waits_for_the_branch_not_taken_never_runs():
    """In neither branch does a value say that it belongs there: both write a constant."""

    def build(x):
        written = V1.get_variable("v", initializer=0.0, use_resource=True)
        taken = V1.cond(
            tf.constant(False), lambda: written.assign(3.0, read_value=True), lambda: written.assign(4.0, read_value=True), name="branch"
        )
        return taken + tf.reduce_sum(x)

    definition = v1(build)
    assert "Switch" in [node.op for node in definition.node]
    new = to_graph_def(resolved(from_graph_def(definition, outputs=["out"]))[0])
    assert [node.op for node in new.node].count("AssignVariableOp") == 2  # the initializer and the branch taken
    assert [effects(one, {"x": X}, ["out"]) for one in (new, definition)] == [([X.sum() + np.float32(4)], {"v": 4.0})] * 2


# what is done besides computing


def effects(definition, feeds, outputs, runs=1):
    """The outputs, and the variables afterwards."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
        handles = [op for op in graph.get_operations() if op.type == "VarHandleOp"]
        with V1.Session() as session:
            for handle in handles:
                session.run(next(user for user in handle.outputs[0].consumers() if user.name.endswith("Assign")))
            for _ in range(runs):
                values = session.run([f"{name}:0" for name in outputs], {f"{name}:0": array for name, array in feeds.items()})
            reads = {
                handle.name: session.run(tf.raw_ops.ReadVariableOp(resource=handle.outputs[0], dtype=tf.float32)) for handle in handles
            }
    return values, reads


def counter():
    return V1.get_variable("v", initializer=0.0, use_resource=True)


def writes(x):
    """Nothing that the function gives depends on what it writes."""
    v = counter()
    return tf.function(lambda y: (v.assign_add(1.0), y * 2.0)[1])(x)


def writes_and_reads(x):
    v = counter()

    @tf.function
    def add(y):
        v.assign_add(tf.reduce_sum(y))
        return v.read_value()

    @tf.function
    def scale(y):
        before = add(y)
        v.assign(v * 3.0)
        return before, add(y), v.read_value()

    return tf.function(lambda y: [*scale(y), add(y), *scale(y)])(x)


def writes_in_a_branch(x):
    v = counter()

    def yes():
        v.assign_add(5.0)
        return x + v

    return tf.function(lambda y: tf.cond(tf.constant(True), yes, lambda: y) + v)(x)


def waits_for_a_call(x):
    v = counter()
    write = tf.function(lambda y: (v.assign_add(7.0), y)[1])
    with tf.control_dependencies([write(x).op]):
        return v.read_value() + tf.reduce_sum(x)


def call_that_waits(x):
    v = counter()
    with tf.control_dependencies([v.assign_add(7.0).op]):
        return tf.function(lambda y: y + v)(x)


def legacy_without_control(x):
    """The function's results do not wait for what it writes, nor does anything in it."""
    v = counter()

    @legacy.Defun(tf.float32, tf.resource, func_name="silent")
    def silent(y, handle):
        tf.raw_ops.AssignAddVariableOp(resource=handle, value=tf.constant(2.0))
        return y * 2.0

    return silent(x, v.handle)


EFFECTS = {
    one.__name__: one for one in (writes, writes_and_reads, writes_in_a_branch, waits_for_a_call, call_that_waits, legacy_without_control)
}


@pytest.mark.parametrize("case", EFFECTS)
def test_what_a_call_does_is_still_done(case):
    definition = built(EFFECTS[case])
    outputs = outputs_of(definition)
    new = to_graph_def(resolved(from_graph_def(definition, outputs=outputs))[0])
    assert not {node.op for node in new.node} & {*CALLS, "silent"}
    mine, wanted = (effects(one, {"x": X}, outputs, runs=3) for one in (new, definition))
    assert wanted[1]["v"] != 0
    assert mine[1] == wanted[1]
    for a, b in zip(mine[0], wanted[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_order_of_reads_and_writes_holds_every_time():
    definition = built(writes_and_reads)
    outputs = outputs_of(definition)
    new = to_graph_def(resolved(from_graph_def(definition, outputs=outputs))[0])
    _, variables = effects(new, {"x": X}, outputs, runs=1)
    s = X.sum()
    assert variables["v"] == pytest.approx((((s * 3 + s) + s) + s) * 3 + s)
    for _ in range(20):
        assert effects(new, {"x": X}, outputs, runs=1)[1] == variables


def test_a_call_may_still_be_run_by_its_name():
    def build(x):
        v = counter()
        tf.function(lambda y: (v.assign_add(tf.reduce_sum(y)), None)[1])(x)
        return tf.identity(x)

    definition = built(build)
    (call,) = [node.name for node in definition.node if "Call" in node.op]
    new = to_graph_def(resolved(from_graph_def(definition, outputs=["out"]))[0])
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(new, name="")
        with V1.Session() as session:
            session.run("v/Assign")
            session.run(call, {"x:0": X})
            assert session.run(graph.get_tensor_by_name("v/Read/ReadVariableOp:0")) == X.sum()


@pytest.mark.parametrize("build", [calling(tf.function(checked)), calling(tf.function(calling(tf.function(checked))))])
def test_what_a_function_checks_is_still_checked(build):
    definition = traced(build)
    new = check_same(definition, left=["If"])
    for one_of_both in (definition, new):
        with pytest.raises(tf.errors.InvalidArgumentError, match="assertion failed"):
            compute(one_of_both, {"x": X + 9}, ["Identity"])


# the learning phase


def norm(x, training):
    """As Keras 2 writes a layer that differs in training."""
    return tf.cond(training, lambda: x - tf.reduce_mean(x, 0), lambda: (x - 0.5) * 2.0)


def phase(name, build, v1_control_flow=True):
    def with_phase(x):
        return build(x, V1.placeholder_with_default(False, (), name))

    return v1(with_phase) if v1_control_flow else built(with_phase)


@pytest.mark.parametrize("name", ["keras_learning_phase", "model/learning_phase", "is_training", "a/b/training"])
@pytest.mark.parametrize("v1_control_flow", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_branches_on_a_pinned_learning_phase_are_resolved(name, v1_control_flow, training):
    definition = phase(name, norm, v1_control_flow)
    new = check_same(definition, training, {"x": X, name: np.bool_(training)})
    (y,) = compute(new, {"x": X}, ["out"])  # whatever the default is
    np.testing.assert_allclose(y, X - X.mean(0) if training else (X - 0.5) * 2, rtol=1e-6)


def test_a_learning_phase_that_a_layer_negates_and_restricts_is_pinned():
    def build(x, training):
        return norm(norm(x, tf.logical_and(training, x[0, 0] > 0)), tf.logical_not(tf.identity(training)))

    check_same(phase("keras_learning_phase", build), False)


def test_a_learning_phase_handed_to_a_function_is_pinned():
    definition = phase("keras_learning_phase", calling(tf.function(lambda y, t: norm(norm(y, t), t))), False)
    assert "If" not in [node.op for node in definition.node]
    check_same(definition, False)


def test_a_placeholder_without_a_known_shape_may_be_the_learning_phase():
    def build(x):
        return norm(x, V1.placeholder(tf.bool, name="is_training"))

    definition = v1(build)
    new = check_same(definition, False, {"x": X, "is_training": np.False_})
    assert "is_training" in [node.name for node in new.node]


@pytest.mark.parametrize(
    ("name", "training", "remedy"),
    [
        ("keras_learning_phase", None, "training=false (or true) pins the learning phase"),
        ("keras_learning_phase_of_mine", False, ""),
        ("training/of", False, ""),
    ],
)
@pytest.mark.parametrize("v1_control_flow", [True, False])
def test_a_predicate_that_is_not_pinned_stays(name, training, remedy, v1_control_flow):
    definition = phase(name, norm, v1_control_flow)
    graph = from_graph_def(definition, outputs=["out"])
    new, _, said = resolved(graph, training)
    assert new is graph
    found = [miss for miss in said.values() if "is no constant" in miss.reason]
    assert found and {miss.remedy for miss in found} == {remedy}


@pytest.mark.parametrize(("dtype", "shape"), [("int32", ()), ("bool", (1,))])
def test_what_is_no_scalar_boolean_is_no_learning_phase(dtype, shape):
    def build(x):
        training = V1.placeholder(dtype, shape, "training")
        return tf.raw_ops.If(cond=training, input=[x], Tout=[tf.float32], then_branch=branch(one), else_branch=branch(minus))[0]

    graph = from_graph_def(built(build))
    assert resolved(graph, False)[0] is graph


# what stays


def loop(x):
    return tf.while_loop(lambda y: tf.reduce_sum(y) < 90.0, lambda y: [one(y) + 1.0], [x])[0]


def unknown(x):
    return tf.cond(tf.reduce_sum(x) > 0, lambda: one(x), lambda: x)


def recursive(x):
    definition = traced(calling(one))
    (inner,) = definition.library.function
    call = inner.node_def.add(name="again", op="PartitionedCall", input=["x"])
    call.attr["f"].func.name = inner.signature.name
    return definition


STAY = {
    "a loop": (lambda: traced(loop), "StatelessWhile", "it is (a part of) a loop, which stays whole"),
    "a branch": (lambda: traced(unknown), "StatelessIf", "its predicate Greater is no constant"),
    "a recursive function": (lambda: recursive(None), "PartitionedCall", "node PartitionedCall: calls __inference_one"),
    "a Switch": (lambda: v1(lambda x: V1.cond(x[0, 0] > 0, lambda: x, lambda: -x)), "Switch", "is no constant"),
    "a Merge": (lambda: v1(lambda x: V1.cond(x[0, 0] > 0, lambda: x, lambda: -x)), "Merge", "more than one of its inputs may come"),
}


@pytest.mark.parametrize("case", STAY)
def test_what_cannot_be_resolved_stays_whole_and_says_why(case):
    make, op, reason = STAY[case]
    definition = make()
    graph = from_graph_def(definition, outputs=outputs_of(definition))
    new, _, said = resolved(graph)
    assert new is graph
    (miss, *_) = [said[node.name] for node in graph.nodes.values() if node.op == f"tf.{op}"]
    assert reason in miss.reason and "\n" not in miss.reason


def test_an_unknown_operation_stays_and_says_why():
    definition = traced(calling(one))
    (inner,) = definition.library.function
    next(node for node in inner.node_def if node.op == "Relu").op = "MyOwn"
    graph = from_graph_def(definition)
    new, _, said = resolved(graph)
    assert new is graph
    assert "node Relu: TensorFlow has no operation MyOwn, so that its outputs cannot be counted" in said["PartitionedCall"].reason
    definition = traced(tf.nn.relu)
    definition.node[1].op = "MyOwn"
    assert resolved(from_graph_def(definition))[2][definition.node[1].name].reason == "TensorFlow has no operation MyOwn"


def test_a_call_whose_function_stays_is_left_whole_in_a_body_that_does_not():
    definition = traced(calling(nested))
    inner = next(function for function in definition.library.function if "_one_" in function.signature.name)
    next(node for node in inner.node_def if node.op == "Relu").op = "MyOwn"
    new, edit, said = resolved(from_graph_def(definition))
    left = [node.name for node in new.nodes.values() if "Call" in node.op]
    assert left and all("MyOwn" in said[name].reason for name in left) and len(edit.journal) == 1


def test_a_loop_in_a_function_keeps_its_functions():
    new = check_same(traced(calling(tf.function(loop))))
    assert [node.op for node in new.node].count("StatelessWhile") == 1
    assert any("while_body" in function.signature.name for function in new.library.function)


def test_an_output_that_never_comes_keeps_its_switch():
    def build(x):
        return tf.raw_ops.Switch(data=x, pred=tf.constant(True))[0]

    graph = from_graph_def(built(build))
    new, _, said = resolved(graph)
    assert new is graph and [miss.reason for miss in said.values()] == ["then the graph's output out would never come"]


def test_a_merge_of_several_that_may_come_keeps_the_switch_of_one_that_does_not():
    def build(x):
        sides = tf.raw_ops.Switch(data=x, pred=x[0, 0] > 0)
        return tf.raw_ops.Merge(inputs=[*sides, tf.raw_ops.Switch(data=x, pred=tf.constant(True))[0]])[0]

    graph = from_graph_def(built(build))
    new, _, said = resolved(graph)
    assert new is graph and "Merge would still join several values" in [miss.reason for miss in said.values()]


GROUPED = np.linspace(-1, 1, 3 * 3 * 2 * 8, dtype="float32").reshape(3, 3, 2, 8)
PLAIN = np.linspace(-1, 1, 3 * 3 * 4 * 8, dtype="float32").reshape(3, 3, 4, 8)
IMAGE = tf.TensorSpec((None, 5, 5, 4), tf.float32)


def conv(kernel, **options):
    return tf.function(lambda x: tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME")), **options)


COMPILED = {
    "plain": (conv(PLAIN, jit_compile=True), 0),
    "grouped": (conv(GROUPED, jit_compile=True), 1),
    "grouped, in a call of a compiled one": (tf.function(lambda x: conv(GROUPED)(x) + 1.0, jit_compile=True), 1),
    "grouped, in a branch of a compiled one": (
        tf.function(lambda x: tf.cond(x[0, 0, 0, 0] > 0, lambda: conv(GROUPED)(x), lambda: conv(PLAIN)(x)), jit_compile=True),
        1,
    ),
    "grouped, in a loop of a compiled one": (
        tf.function(
            lambda x: tf.while_loop(lambda i, y: i < 2, lambda i, y: [i + 1, conv(GROUPED[..., :4])(y)], [0, x])[1], jit_compile=True
        ),
        1,
    ),
    "grouped, compiled in a call of one that is not": (tf.function(lambda x: conv(GROUPED, jit_compile=True)(x) + 1.0), 1),
}


@pytest.mark.parametrize("case", COMPILED)
def test_a_compiled_call_stays_where_it_holds_a_grouped_convolution(case):
    function, left = COMPILED[case]
    definition = traced(lambda x: function(x) * 2.0, IMAGE)
    new, _, said = resolved(from_graph_def(definition))
    calls = [node for node in new.nodes.values() if "Call" in node.op]
    assert len(calls) == left
    assert all("in it is a grouped convolution, which a CPU runs in no other way" in said[node.name].reason for node in calls)
    image = np.linspace(-1, 1, 200, dtype="float32").reshape(2, 5, 5, 4)
    outputs = [compute(one_of_both, {"x": image}, ["Identity"]) for one_of_both in (to_graph_def(new), definition)]
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-5)


# growth


def test_calls_by_the_thousand_within_one_call_are_inlined_in_one_rewrite():
    definition = traced(calling(tf.function(lambda y: one(y) + 1.0)))
    outer = next(function for function in definition.library.function if "_one_" not in function.signature.name)
    call = next(node for node in outer.node_def if node.op == "PartitionedCall")
    for number in range(3000):
        outer.node_def.add().CopyFrom(call)
        outer.node_def[-1].name = f"again_{number}"
    new, edit, _ = resolved(from_graph_def(definition))
    assert len(edit.journal) == 1 and sum(node.op == "tf.Relu" for node in new.nodes.values()) == 3001


def test_a_library_that_stands_for_too_many_nodes_stays_whole_at_once():
    definition = traced(calling(one))
    (inner,) = definition.library.function
    for number in range(40):
        outer = definition.library.function.add()
        outer.CopyFrom(definition.library.function[-2] if number else inner)
        outer.signature.name = f"f{number}"
        for node in list(outer.node_def):
            if node.op in ("Relu", "PartitionedCall"):
                node.CopyFrom(definition.node[1])
                node.op = "PartitionedCall"
        del outer.node_def[:]
        for name in ("a", "b"):
            call = outer.node_def.add()
            call.CopyFrom(next(node for node in definition.node if node.op == "PartitionedCall"))
            call.name = name
            call.input[:] = ["x"]
            call.attr["f"].func.name = f"f{number - 1}" if number else inner.signature.name
        for key in outer.ret:
            outer.ret[key] = "a:output:0"
    next(node for node in definition.node if node.op == "PartitionedCall").attr["f"].func.name = "f39"
    graph = from_graph_def(definition)
    new, _, said = resolved(graph)
    assert new is graph and "nodes with all that it calls; at most 1048576 are inlined" in said["PartitionedCall"].reason
