"""Functions of a GraphDef: bodies that can stand in the place of their calls, and what is refused in one line."""

import time

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError

from tfpasses.frontends.graph_def import from_graph_def, to_graph_def
from tfpasses.graph import GraphError, Ref, Spec, check_structure

GraphDef = tf.compat.v1.GraphDef
FLOAT = tf.float32.as_datatype_enum
ROW = tf.TensorSpec((None, 4), tf.float32)


def graph_of(call, *signature):
    """A concrete function's graph, its calls as they are, read."""
    definition = tf.function(call).get_concrete_function(*signature).graph.as_graph_def()
    return from_graph_def(definition)


def calling(function):
    """What calls a function, so that the graph has a call of it."""

    def call(x):
        return function(x)

    return call


def calls_of(graph):
    return [node for node in graph.nodes.values() if "Call" in node.op]


def body_of(graph, attribute="f", node=None, number=0):
    """The body of a call, the only one unless it is given, as the call is fed."""
    (call,) = [node] if node is not None else calls_of(graph)
    inputs = call.inputs[1:] if "If" in call.op or "Case" in call.op else call.inputs
    return graph.functions.body(call, attribute, number, [graph.spec(ref) for ref in inputs])


def texts_of(node):
    return list(node.owner.source.input)


def waits_of(node):
    return [text[1:] for text in texts_of(node) if text[0] == "^"]


def library(text, *reads, gives=1):
    """A GraphDef in which `y` calls `f` of a library in text, on a placeholder `x`, `n`, its negative, or a variable `h`."""
    definition = GraphDef()
    text_format.Parse(text, definition.library)
    definition.node.add(name="x", op="Placeholder").attr["dtype"].type = FLOAT
    if "n" in reads:
        definition.node.add(name="n", op="Neg", input=["x"]).attr["T"].type = FLOAT
    if "h" in reads:
        handle = definition.node.add(name="h", op="VarHandleOp")
        handle.attr["dtype"].type = FLOAT
        handle.attr["shape"].shape.dim.add(size=3)
    reads = reads or ("x",)
    node = definition.node.add(name="y", op="PartitionedCall", input=reads)
    node.attr["f"].func.name = "f"
    node.attr["Tin"].list.type.extend(tf.resource.as_datatype_enum if name == "h" else FLOAT for name in reads)
    node.attr["Tout"].list.type.extend([FLOAT] * gives)
    return definition


def function(nodes, *, name="f", inputs='input_arg { name: "x" type: DT_FLOAT }', output="r:activations:0", rest=""):
    """One function in protocol buffer text."""
    outputs = 'output_arg { name: "out" type: DT_FLOAT }' if output else ""
    returned = f'ret {{ key: "out" value: "{output}" }}' if output else ""
    return f'function {{ signature {{ name: "{name}" {inputs} {outputs} }} {nodes} {returned} {rest} }}'


def node_def(name, op, *inputs, attributes='attr { key: "T" value { type: DT_FLOAT } }'):
    return f'node_def {{ name: "{name}" op: "{op}" {" ".join(f"input: {chr(34)}{text}{chr(34)}" for text in inputs)} {attributes} }}'


RELU = node_def("r", "Relu", "x")
TWO = 'input_arg { name: "x" type: DT_FLOAT } input_arg { name: "z" type: DT_FLOAT }'


# bodies


@tf.function
def split(x, kernel):
    a, b = tf.split(x, 2, axis=-1)
    return tf.nn.relu(b) @ kernel, a


def call_split(x):
    y, a = split(x, tf.constant(np.ones((2, 3), "float32")))
    return y + 1.0, a


def test_the_nodes_of_a_body_are_named_for_the_call():
    graph = graph_of(call_split, ROW)
    (call,) = calls_of(graph)
    body = body_of(graph)
    check_structure(body.graph)
    assert all(name.startswith(f"{call.name}/") for name in body.graph.nodes)
    assert [node.owner.source.name for node in body.graph.nodes.values() if node.owner] == [
        name for name in body.graph.nodes if body.graph.nodes[name].op != "Input"
    ]


def test_a_body_takes_the_arguments_and_gives_the_results_in_order():
    graph = graph_of(call_split, ROW)
    body = body_of(graph)
    assert [body.graph.nodes[name].specs[0].shape for name in body.graph.inputs] == [(None, 4), (2, 3)]
    assert [body.graph.nodes[ref.node].op for ref in body.graph.outputs] == ["tf.Identity", "tf.Identity"]
    product, first = (body.graph.nodes[ref.node].inputs[0] for ref in body.graph.outputs)
    assert body.graph.nodes[product.node].op == "tf.MatMul"
    assert (body.graph.nodes[first.node].op, first.index) == ("tf.Split", 0)


def test_what_its_node_defs_read_are_values_of_a_graph_def():
    graph = graph_of(call_split, ROW)
    (call,) = calls_of(graph)
    nodes = {node.op: node for node in body_of(graph).graph.nodes.values()}
    assert texts_of(nodes["tf.Split"]) == [f"{call.name}/split/split_dim", "x"]
    assert texts_of(nodes["tf.Relu"]) == [f"{call.name}/split:1"]
    assert texts_of(nodes["tf.MatMul"]) == [f"{call.name}/Relu", call.inputs[1].node]
    assert all(node.config.of is node.owner.source for op, node in nodes.items() if op.startswith("tf."))


def test_constants_of_a_body_are_known_as_they_were_read():
    graph = graph_of(call_split, ROW)
    body = body_of(graph)
    (key,) = body.graph.weights
    assert body.graph.weights[key].tolist() == -1
    assert graph.source.arrays[key] is body.graph.weights[key] and not body.graph.weights[key].flags.writeable


def test_a_branch_takes_what_follows_the_predicate():
    graph = graph_of(lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x + 1.0, lambda: tf.exp(x)), ROW)
    (node,) = [node for node in graph.nodes.values() if node.op == "tf.StatelessIf"]
    ops = [[node.op for node in body_of(graph, name, node).graph.nodes.values()] for name in ("then_branch", "else_branch")]
    assert "tf.AddV2" in ops[0] and "tf.Exp" in ops[1] and [row.count("Input") for row in ops] == [len(node.inputs) - 1] * 2


def test_a_case_takes_the_branch_of_a_number():
    def call(x):
        return tf.switch_case(tf.cast(tf.reduce_sum(x), tf.int32), [lambda: x + 1.0, lambda: tf.exp(x), lambda: tf.sin(x)])

    graph = graph_of(call, ROW)
    (node,) = [node for node in graph.nodes.values() if node.op == "tf.StatelessCase"]
    ops = [{node.op for node in body_of(graph, "branches", node, number).graph.nodes.values()} for number in range(3)]
    assert ["tf.AddV2" in ops[0], "tf.Exp" in ops[1], "tf.Sin" in ops[2]] == [True] * 3
    with pytest.raises(GraphError, match="its attribute branches names no function number 3"):
        body_of(graph, "branches", node, 3)


POLYMORPHIC = f"""
function {{
  signature {{
    name: "f"
    input_arg {{ name: "xs" type_attr: "T" number_attr: "N" }}
    input_arg {{ name: "rest" type_list_attr: "L" }}
    output_arg {{ name: "halves" type_attr: "T" number_attr: "M" }}
    output_arg {{ name: "sum" type_attr: "T" }}
    attr {{ name: "T" type: "type" default_value {{ type: DT_DOUBLE }} }} attr {{ name: "N" type: "int" }}
    attr {{ name: "M" type: "int" default_value {{ i: 2 }} }} attr {{ name: "L" type: "list(type)" }}
  }}
  {node_def("s", "AddN", "xs", attributes='attr { key: "T" value { placeholder: "T" } } attr { key: "N" value { placeholder: "N" } }')}
  {
    node_def(
        "c",
        "Const",
        attributes='''attr { key: "dtype" value { type: DT_INT32 } }
    attr { key: "value" value { tensor { dtype: DT_INT32 tensor_shape {} int_val: 0 } } }''',
    )
}
  {
    node_def(
        "p",
        "Split",
        "c:output:0",
        "xs:1",
        attributes='attr { key: "T" value { placeholder: "T" } } attr { key: "num_split" value { i: 2 } }',
    )
}
  {node_def("m", "Mul", "s:sum:0", "rest:1", attributes='attr { key: "T" value { placeholder: "T" } }')}
  ret {{ key: "halves" value: "p:output" }} ret {{ key: "sum" value: "m:z:0" }}
}}"""


def polymorphic(dtype):
    definition = GraphDef()
    text_format.Parse(POLYMORPHIC, definition.library)
    dtypes = {"a": dtype, "b": dtype, "i": tf.int32, "d": dtype}
    for name, one in dtypes.items():
        definition.node.add(name=name, op="Placeholder").attr["dtype"].type = one.as_datatype_enum
    node = definition.node.add(name="y", op="f", input=list(dtypes))
    node.attr["T"].type = dtype.as_datatype_enum
    node.attr["N"].i, node.attr["M"].i = 2, 2
    node.attr["L"].list.type.extend([tf.int32.as_datatype_enum, dtype.as_datatype_enum])
    return definition


@pytest.mark.parametrize("dtype", [tf.float32, tf.float16])
def test_attributes_that_are_left_to_the_call_are_those_of_the_call(dtype):
    graph = from_graph_def(polymorphic(dtype), outputs=[])
    node = graph.nodes["y"].but(specs=(Spec(None, dtype.name),) * 3)
    body = graph.functions.body(node, "f", specs=[graph.spec(ref) for ref in node.inputs])
    assert [str(ref) for ref in body.graph.outputs] == ["y/p", "y/p:1", "y/m"]
    assert texts_of(body.graph.nodes["y/s"]) == ["a", "b"] and texts_of(body.graph.nodes["y/p"]) == ["y/c", "b"]
    assert texts_of(body.graph.nodes["y/m"]) == ["y/s", "d"]
    assert body.graph.nodes["y/s"].config == {"T": dtype.name, "N": 2}
    assert body.graph.spec(Ref("y/m")).dtype == dtype.name


def test_the_functions_named_by_attributes_of_a_body_take_what_is_left_to_the_call():
    nested = 'attr { key: "f" value { func { name: "g" attr { key: "U" value { placeholder: "T" } } } } }'
    lists = 'attr { key: "Tin" value { list { type: DT_FLOAT } } } attr { key: "Tout" value { list { type: DT_FLOAT } } }'
    inner = function(
        node_def("r", "Relu", "x", attributes='attr { key: "T" value { placeholder: "U" } }'),
        name="g",
        inputs='input_arg { name: "x" type_attr: "U" } attr { name: "U" type: "type" }',
    ).replace("type: DT_FLOAT", 'type_attr: "U"')
    outer = function(node_def("c", "PartitionedCall", "x", attributes=nested + lists), output="c:output:0")
    definition = library(outer + inner)
    definition.node[-1].attr["f"].func.attr["T"].type = FLOAT
    graph = from_graph_def(definition)
    body = graph.functions.body(graph.nodes["y"], "f", specs=[Spec((3,), "float32")])
    within = graph.functions.body(body.graph.nodes["y/c"], "f", specs=[Spec((3,), "float32")])
    assert within.graph.nodes["y/c/r"].config == {"T": "float32"}
    assert within.graph.outputs == (Ref("y/c/r"),)


def test_colocation_follows_the_names():
    def call(x):
        y = tf.nn.relu(x, name="first")
        with tf.compat.v1.colocate_with(y.op):
            return tf.exp(y, name="second")

    graph = graph_of(calling(tf.function(call)), ROW)
    body = body_of(graph)
    (second,) = [node for node in body.graph.nodes.values() if node.op == "tf.Exp"]
    assert second.owner.source.attr["_class"].list.s == [f"loc:@{second.name.replace('second', 'first')}".encode()]


def test_a_node_on_no_device_lies_where_the_call_does():
    definition = library(function(RELU + node_def("n", "Neg", "x").replace('name: "n"', 'name: "n" device: "/cpu:1"')))
    definition.node[-1].device = "/cpu:0"
    graph = from_graph_def(definition)
    nodes = graph.functions.body(graph.nodes["y"], "f").graph.nodes
    assert [nodes[name].owner.source.device for name in ("y/r", "y/n")] == ["/cpu:0", "/cpu:1"]


# shapes


def test_shapes_in_a_body_are_those_that_the_call_makes_of_them():
    inner = tf.function(lambda x: tf.nn.relu(x) @ tf.ones((4, 7)), input_signature=[tf.TensorSpec((None, None), tf.float32)])
    graph = graph_of(calling(inner), tf.TensorSpec((5, 4), tf.float32))
    assert body_of(graph).graph.spec(body_of(graph).graph.outputs[0]) == Spec((5, 7), "float32")


def test_what_follows_a_call_has_the_shape_that_the_function_gives():
    inner = tf.function(lambda x: tf.nn.relu(x) @ tf.ones((4, 7)), input_signature=[tf.TensorSpec((None, None), tf.float32)])
    outer = tf.function(lambda x: tf.exp(inner(x)))
    graph = graph_of(lambda x: outer(x) + 1.0, tf.TensorSpec((5, 4), tf.float32))
    assert graph.spec(graph.outputs[0]) == Spec((5, 7), "float32")


def test_what_follows_a_branch_has_what_the_branches_shapes_have_in_common():
    def call(x):
        return tf.cond(tf.reduce_sum(x) > 0, lambda: x @ tf.ones((4, 7)), lambda: (x @ tf.ones((4, 7)))[:1])

    graph = graph_of(lambda x: tf.nn.relu(call(x)), tf.TensorSpec((5, 4), tf.float32))
    assert graph.spec(graph.outputs[0]) == Spec((None, 7), "float32")


def test_what_follows_a_loop_has_the_shape_that_it_says():
    graph = graph_of(lambda x: tf.nn.relu(tf.while_loop(lambda y: tf.reduce_sum(y) < 9, lambda y: [y + 1.0], [x])[0]), ROW)
    assert graph.spec(graph.outputs[0]) == Spec((None, 4), "float32")


def test_what_follows_a_switch_and_a_merge_has_the_shape_of_what_they_read():
    with tf.Graph().as_default() as graph:
        x, p = tf.compat.v1.placeholder(tf.float32, (None, 4)), tf.compat.v1.placeholder(tf.bool, ())
        no, yes = tf.raw_ops.Switch(data=x, pred=p)
        value, number = tf.raw_ops.Merge(inputs=[tf.exp(no), tf.nn.relu(yes)[:3]])
        tf.identity(value, "value"), tf.identity(number, "number")
    read = from_graph_def(graph.as_graph_def(), outputs=["value", "number"])
    assert [read.spec(ref) for ref in read.outputs] == [Spec((None, 4), "float32"), Spec((), "int32")]


def test_the_value_of_a_variable_has_its_shape_also_in_a_function():
    from tfpasses.frontends.graph_def.read import Variable

    variable = tf.Variable(tf.ones((4, 7)))
    inner = tf.function(lambda x: x @ variable)
    concrete = tf.function(lambda x: inner(x) + tf.reduce_sum(variable)).get_concrete_function(tf.TensorSpec((5, 4), tf.float32))
    (captured,) = concrete.graph.internal_captures
    variables = {captured.op.name: Variable("v", variable.numpy())}
    graph = from_graph_def(concrete.graph.as_graph_def(), inputs=["x"], variables=variables)
    assert graph.spec(graph.outputs[0]) == Spec((5, 7), "float32")
    body = body_of(graph)
    (reader,) = [node for node in body.graph.nodes.values() if node.op == "tf.ReadVariableOp"]
    assert reader.specs == (Spec((4, 7), "float32"),) and texts_of(reader) == [captured.op.name]


# what waits for what

ASSERT = """node_def { name: "t" op: "Const" attr { key: "dtype" value { type: DT_BOOL } }
  attr { key: "value" value { tensor { dtype: DT_BOOL tensor_shape {} bool_val: true } } } }
node_def { name: "check" op: "Assert" input: "t:output:0" input: "x" attr { key: "T" value { list { type: DT_FLOAT } } } }"""


def waited_for(definition, *waits, waiter=True):
    """A call that waits for nodes, and (unless told) a node that waits for it."""
    for name in waits:
        definition.node.add(name=name, op="NoOp")
    definition.node[len(definition.node) - 1 - len(waits)].input.extend(f"^{name}" for name in waits)
    if waiter:
        definition.node.add(name="last", op="NoOp", input=["^y"])
    return from_graph_def(definition, outputs=["y"])


def test_who_waits_for_a_call_waits_for_what_its_function_does_and_gives():
    graph = waited_for(library(function(RELU + ASSERT + node_def("n", "Neg", "x"), rest='control_ret { key: "n" value: "n" }')))
    done = graph.functions.body(graph.nodes["y"], "f").done
    assert (done.name, done.op, done.inputs, done.specs) == ("y", "tf.NoOp", (), ())
    assert sorted(waits_of(done)) == ["y/check", "y/n", "y/r"]


def test_who_waits_for_a_call_waits_for_what_it_reads_and_waits_for():
    graph = waited_for(library(function(RELU), "n"), "before")
    assert waits_of(graph.functions.body(graph.nodes["y"], "f").done) == ["y/r", "n", "before"]


def test_a_call_that_nobody_waits_for_and_that_only_gives_values_leaves_nothing_behind():
    graph = waited_for(library(function(RELU)), waiter=False)
    assert graph.functions.body(graph.nodes["y"], "f").done is None


@pytest.mark.parametrize(("given", "gives"), [(function(RELU + ASSERT), 1), (function(RELU, output=""), 0)])
def test_a_call_that_does_something_or_gives_nothing_may_be_waited_for(given, gives):
    graph = from_graph_def(library(given, gives=gives), outputs=[])
    assert graph.functions.body(graph.nodes["y"], "f").done is not None


def test_the_first_nodes_of_a_body_wait_for_what_the_call_waits_for():
    graph = waited_for(library(function(RELU + node_def("e", "Exp", "r:activations:0") + ASSERT, output="e:y:0")), "before", waiter=False)
    nodes = graph.functions.body(graph.nodes["y"], "f").graph.nodes
    assert {name: waits_of(node) for name, node in nodes.items() if node.owner} == {
        "y/r": ["before"],
        "y/e": [],
        "y/t": [],
        "y/check": ["before"],
        "y/out": ["y/check"],
    }


def test_results_do_not_come_before_what_the_function_does():
    graph = from_graph_def(library(function(RELU + ASSERT)))
    body = graph.functions.body(graph.nodes["y"], "f")
    (ref,) = body.graph.outputs
    result = body.graph.nodes[ref.node]
    assert (result.op, texts_of(result), result.inputs) == ("tf.Identity", ["y/r", "^y/check"], (Ref("y/r"),))


def test_results_that_come_after_it_anyway_stay_as_they_are():
    graph = from_graph_def(library(function(node_def("r", "Relu", "x", "^n") + node_def("n", "NoOp", "^check", attributes="") + ASSERT)))
    assert graph.functions.body(graph.nodes["y"], "f").graph.outputs == (Ref("y/r"),)


def test_an_argument_that_is_a_result_waits_for_what_the_call_waits_for():
    graph = waited_for(library(function("", output="x")), "before", waiter=False)
    body = graph.functions.body(graph.nodes["y"], "f")
    assert texts_of(body.graph.nodes[body.graph.outputs[0].node]) == ["x", "^before"]
    loose = from_graph_def(library(function("", output="x")))
    assert loose.functions.body(loose.nodes["y"], "f").graph.outputs == (Ref("y/x"),)


def test_to_wait_for_an_argument_is_to_wait_for_the_node_that_the_call_reads():
    graph = from_graph_def(library(function(node_def("r", "Relu", "x", "^z"), inputs=TWO), "x", "n"))
    assert texts_of(graph.functions.body(graph.nodes["y"], "f").graph.nodes["y/r"]) == ["x", "^n"]


READ = """node_def { name: "v" op: "ReadVariableOp" input: "h" attr { key: "dtype" value { type: DT_FLOAT } } }"""


def test_nobody_waits_for_values_alone():
    """A frozen function's results still wait for what once read the variables."""
    nodes = node_def("k", "Identity", "x") + node_def("n", "NoOp", "^k", attributes="") + node_def("r", "Relu", "x", "^n")
    graph = from_graph_def(library(function(nodes)))
    assert texts_of(graph.functions.body(graph.nodes["y"], "f").graph.nodes["y/r"]) == ["x"]


def test_what_comes_before_the_arguments_is_waited_for():
    graph = from_graph_def(library(function(node_def("k", "Identity", "x") + node_def("r", "Relu", "x", "^k")), "n"))
    assert texts_of(graph.functions.body(graph.nodes["y"], "f").graph.nodes["y/r"]) == ["n", "^y/k"]


def test_reads_of_variables_are_waited_for():
    handle = 'input_arg { name: "x" type: DT_FLOAT } input_arg { name: "h" type: DT_RESOURCE }'
    graph = from_graph_def(library(function(READ + node_def("r", "Relu", "x", "^v"), inputs=handle), "x", "h"))
    body = graph.functions.body(graph.nodes["y"], "f")
    assert texts_of(body.graph.nodes["y/r"]) == ["x", "^y/v"] and texts_of(body.graph.nodes["y/v"]) == ["h"]


def test_who_waits_is_known_in_the_graph_and_in_bodies():
    graph = waited_for(library(function(RELU + ASSERT)), "before")
    assert list(graph.functions.waiting("y")) == ["last"] and list(graph.functions.waiting("before")) == ["y"]
    graph.functions.body(graph.nodes["y"], "f")
    assert list(graph.functions.waiting("y/check")) == ["y/out", "y"]
    assert not graph.functions.waiting("y/r_")


def test_a_node_that_hands_a_value_on_waits_as_the_one_did_whose_name_it_has():
    definition = GraphDef()
    for name in ("x", "z"):
        definition.node.add(name=name, op="Placeholder").attr["dtype"].type = FLOAT
    definition.node.add(name="y", op="AddV2", input=["x", "z"], device="/cpu:0").attr["T"].type = FLOAT
    graph = waited_for(definition, "before")
    new = graph.functions.passing(graph.nodes["y"], Ref("z"), Spec((3,), "float32"))
    assert (new.name, new.op, new.inputs, new.specs) == ("y", "tf.Identity", (Ref("z"),), (Spec((3,), "float32"),))
    assert texts_of(new) == ["z", "^before"] and new.owner.source.device == "/cpu:0" and new.config == {"T": "float32"}


# names


def test_a_name_that_is_taken_is_not_given_again():
    definition = library(function(RELU))
    definition.node.add(name="y/r", op="Neg", input=["x"]).attr["T"].type = FLOAT
    graph = from_graph_def(definition, outputs=["y"])
    assert graph.functions.body(graph.nodes["y"], "f").graph.outputs == (Ref("y_1/r"),)
    assert graph.functions.body(graph.nodes["y"], "f", taken=lambda name: name == "y_1/r").graph.outputs == (Ref("y_2/r"),)


def test_the_same_call_gives_the_same_names_again():
    graph = from_graph_def(library(function(RELU)))
    first, second = (graph.functions.body(graph.nodes["y"], "f").graph for _ in range(2))
    assert list(first.nodes) == list(second.nodes)


def test_functions_and_unknown_operations_are_known_by_name():
    definition = library(function(RELU + node_def("u", "MyOwn", "x")) + function(RELU, name="g"))
    definition.node.add(name="z", op="MyOther", input=["x"])
    functions = from_graph_def(definition, outputs=["y"]).functions
    assert (sorted(functions.names), sorted(functions.unknown)) == (["f", "g"], ["MyOther", "MyOwn"])


def test_functions_that_nobody_asked_for_leave_the_graph_as_it_was():
    definition = library(function(RELU))
    graph = from_graph_def(definition)
    graph.functions.body(graph.nodes["y"], "f")
    assert to_graph_def(graph) == definition


@pytest.mark.parametrize("where", ["call", "function", "name"])
def test_a_call_that_is_compiled_says_so(where):
    definition = library(function(RELU))
    call = definition.node[-1]
    given = {"call": call, "function": definition.library.function[0], "name": call.attr["f"].func}[where]
    given.attr["_XlaMustCompile"].b = True
    graph = from_graph_def(definition)
    assert graph.functions.body(graph.nodes["y"], "f").compiled
    given.attr["_XlaMustCompile"].b = False
    assert not graph.functions.body(graph.nodes["y"], "f").compiled


# what is refused

CALL = 'attr { key: "Tin" value { list { type: DT_FLOAT } } } attr { key: "Tout" value { list { type: DT_FLOAT } } }'


def call_of(name, function_name):
    named = f'attr {{ key: "f" value {{ func {{ name: "{function_name}" }} }} }}'
    return node_def(name, "PartitionedCall", "x", attributes=CALL + named)


BOTH = function(call_of("c", "g"), output="c:output:0") + function(call_of("c", "f"), name="g", output="c:output:0")
HUGE = 'input_arg { name: "x" type: DT_FLOAT number_attr: "N" } attr { name: "N" type: "int" default_value { i: 1099511627776 } }'
LONG = node_def("u", "Unpack", "x", attributes='attr { key: "num" value { i: 4611686018427387904 } }')
BAD_CONST = 'node_def { name: "c" op: "Const" attr { key: "dtype" value { type: DT_FLOAT } } attr { key: "value" value { i: 1 } } }'
REFUSED = {
    "one that calls itself": (function(call_of("c", "f"), output="c:output:0"), "node y: calls f: it is recursive"),
    "two that call each other": (BOTH, "node y: calls f: it is recursive"),
    "one named as an operation": (function(node_def("c", "f", "x"), output="c:out:0"), "node y: calls f: it is recursive"),
    "too few arguments": (function(RELU, inputs=TWO), "node y: calls f: it takes 2 arguments, not 1"),
    "too many arguments": (function("", inputs="", output=""), "node y: calls f: it takes 0 arguments, not 1"),
    "an unknown function": (function(RELU, name="g"), "node y: calls f: the graph has no such function"),
    "an argument of another dtype": (
        function(RELU, inputs='input_arg { name: "x" type: DT_INT32 }'),
        "its argument x is int32, not float32",
    ),
    "an argument of no dtype": (function(RELU, inputs='input_arg { name: "x" }'), "x is of no known dtype"),
    "an argument of a dtype that is not given": (
        function(RELU, inputs='input_arg { name: "x" type_attr: "U" }'),
        "the call does not say what the attribute U is",
    ),
    "an argument without a name": (function(RELU, inputs="input_arg { type: DT_FLOAT }"), "argument 0 has no name"),
    "two arguments of one name": (
        function(RELU, inputs=TWO.replace('"z"', '"x"')),
        "two of its arguments and nodes are named x",
    ),
    "a node with an argument's name": (function(node_def("x", "Relu", "x")), "two of its arguments and nodes are named x"),
    "two nodes of one name": (function(RELU + RELU), "two nodes are named r"),
    "a node without a name": (function(node_def("", "Relu", "x")), "has no name"),
    "more arguments than can be": (function(RELU, inputs=HUGE), "N=1099511627776 is no number of values"),
    "a result that nothing gives": (function(RELU).replace('key: "out"', 'key: "in"'), "nothing is said to be its result out"),
    "a result that does not exist": (function(RELU, output="q:activations:0"), "result out: its input q:activations:0 does not exist"),
    "a result of another dtype": (
        function(node_def("s", "Shape", "x"), output="s:output:0"),
        "node s: its output 0, a result of float32, is int32",
    ),
    "an output that an operation lacks": (function(RELU, output="r:output:0"), "its input r:output:0 does not exist"),
    "an output beyond the last": (function(RELU, output="r:activations:1"), "its input r:activations:1 does not exist"),
    "an output that is no number": (function(RELU, output="r:activations:x"), "its input r:activations:x does not exist"),
    "an output as a GraphDef names it": (function(RELU, output="r"), "its input r does not exist"),
    "an output with too many parts": (function(RELU, output="r:activations:0:0"), "its input r:activations:0:0 does not exist"),
    "more outputs than can be": (function(LONG, output="u:output:0"), "num=4611686018427387904 is no number of values"),
    "an input that is not there": (function(node_def("r", "Relu", "w")), "node r: its input w does not exist"),
    "a control input that is not there": (function(node_def("r", "Relu", "x", "^w")), r"node r: its control input \^w does not exist"),
    "a cycle": (function(node_def("r", "Relu", "e:y:0") + node_def("e", "Exp", "r:activations:0")), "the graph has a cycle through node"),
    "a cycle of waiting": (function(node_def("r", "Relu", "x", "^e") + node_def("e", "Exp", "r:activations:0")), "a cycle through node"),
    "a last node that is not there": (
        function(RELU, rest='control_ret { key: "n" value: "n" }'),
        "n, which it must have run, does not exist",
    ),
    "an attribute that is not given": (
        function(node_def("r", "Relu", "x", attributes='attr { key: "T" value { placeholder: "U" } }')),
        "the call does not say what the attribute U is",
    ),
    "outputs of an unknown operation": (
        function(node_def("u", "MyOwn", "x"), output="u:y:0"),
        "node u: TensorFlow has no operation MyOwn, so that its outputs cannot be counted",
    ),
    "a constant that is none": (function(BAD_CONST, output="c:output:0"), "node c: its constant cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_body_can_be_is_refused_in_one_line(case):
    text, message = REFUSED[case]
    graph = from_graph_def(library(text), outputs=[])
    for _ in range(2):  # what was refused once is refused again
        with pytest.raises(GraphError, match=message) as error:
            graph.functions.body(graph.nodes["y"], "f", specs=[Spec(None, "float32")])
        assert "\n" not in str(error.value) and str(error.value).startswith("node y: ")


def test_an_attribute_that_names_no_function_is_refused():
    graph = from_graph_def(library(function(RELU)))
    for attribute in ("Tin", "g"):
        with pytest.raises(GraphError, match=f"^node y: its attribute {attribute} names no function$"):
            graph.functions.body(graph.nodes["y"], attribute)


def test_a_call_that_is_said_to_give_something_else_is_refused():
    graph = from_graph_def(library(function(RELU)))
    for specs, message in [((), "gives 1 values, not 0"), ((Spec(None, "int32"),), "its result out is float32, not int32")]:
        with pytest.raises(GraphError, match=message):
            graph.functions.body(graph.nodes["y"].but(specs=specs), "f")


def test_a_function_that_calls_a_recursive_one_is_given_with_that_call_in_it():
    graph = from_graph_def(library(BOTH.replace('"g"', '"h"').replace('"f"', '"g"') + function(call_of("c", "g"), output="c:output:0")))
    body = graph.functions.body(graph.nodes["y"], "f")
    assert body.graph.nodes["y/c"].op == "tf.PartitionedCall"
    with pytest.raises(GraphError, match="node y/c: calls g: it is recursive"):
        graph.functions.body(body.graph.nodes["y/c"], "f")


# growth


def test_a_library_that_doubles_thirty_times_is_refused_at_once():
    text = "".join(
        function(call_of("c", f"f{number}") + call_of("d", f"f{number}"), name=f"f{number - 1}" if number > 1 else "f", output="c:output:0")
        for number in range(1, 31)
    )
    graph = from_graph_def(library(text + function(RELU, name="f30")))
    with pytest.raises(GraphError, match=r"node y: calls f: it would be \d{10} nodes with all that it calls; at most 1048576"):
        graph.functions.body(graph.nodes["y"], "f")


def test_functions_that_call_one_another_a_thousand_deep_are_read():
    text = "".join(
        function(call_of("c", f"f{number + 1}"), name=f"f{number}" if number else "f", output="c:output:0") for number in range(1000)
    )
    graph = from_graph_def(library(text + function(RELU, name="f1000")))
    node = graph.nodes["y"]
    for _ in range(1000):
        node = graph.functions.body(node, "f").graph.nodes[f"{node.name}/c"]
    assert graph.functions.body(node, "f").graph.outputs[0].node.count("/") == 1001


def test_a_function_that_is_called_often_is_read_once(monkeypatch):
    from tfpasses.frontends.graph_def.functions import library as functions

    counts = {"flatten": 0, "template_of": 0}
    for name in counts:
        whole = getattr(functions, name)

        def counted(*arguments, name=name, whole=whole):
            counts[name] += 1
            return whole(*arguments)

        monkeypatch.setattr(functions, name, counted)
    definition = library(function(RELU))
    for number in range(100):
        definition.node.add().CopyFrom(definition.node[1])
        definition.node[-1].name = f"y{number}"
    graph = from_graph_def(definition, outputs=["y"])
    for number in range(100):
        graph.functions.body(graph.nodes[f"y{number}"], "f", specs=[graph.spec(Ref("x"))])
    assert counts == {"flatten": 1, "template_of": 1}


def test_of_arguments_of_ever_other_shapes_only_some_are_told_apart(monkeypatch):
    from tfpasses.frontends.graph_def.functions import library as functions

    monkeypatch.setattr(functions, "MOST_KINDS", 3)
    graph = from_graph_def(library(function(RELU)))
    shapes = [graph.functions.body(graph.nodes["y"], "f", specs=[Spec((size,), "float32")]).graph.nodes["y/r"].specs for size in range(6)]
    assert [spec.shape for (spec,) in shapes] == [(0,), (1,), None, None, None, None]  # reading the graph was the first of three


@pytest.mark.slow
def test_a_thousand_calls_take_ten_times_as_long_as_a_hundred():
    def timed(calls):
        nodes = "".join(node_def(f"r{number}", "Relu", f"r{number - 1}:activations:0" if number else "x") for number in range(100))
        definition = library(function(nodes, output="r99:activations:0"))
        for number in range(calls):
            definition.node.add().CopyFrom(definition.node[1])
            definition.node[-1].name = f"y{number}"
            definition.node[-1].input[0] = f"y{number - 1}" if number else "x"
        graph = from_graph_def(definition, outputs=["y"])
        started = time.process_time()
        for number in range(calls):
            graph.functions.body(graph.nodes[f"y{number}"], "f", specs=[graph.spec(Ref("x"))])
        return time.process_time() - started

    timed(10)
    assert min(timed(1000) for _ in range(2)) < 20 * min(timed(100) for _ in range(3))


@pytest.mark.parametrize("seed", range(5))
def test_bytes_changed_at_random_give_a_body_or_one_line(seed):
    text = function(RELU + ASSERT + node_def("e", "Exp", "r:activations:0", "^check"), output="e:y:0") + POLYMORPHIC.replace('"f"', '"g"')
    definition = library(text)
    data, generator = definition.library.SerializeToString(deterministic=True), np.random.default_rng(seed)
    given = 0
    for _ in range(200):
        changed = bytearray(data)
        for place in generator.integers(0, len(data), generator.integers(1, 4)):
            changed[place] = generator.integers(256)
        try:
            definition.library.ParseFromString(bytes(changed))
        except DecodeError:  # the protocol buffers' own refusal: what reads files says it
            continue
        try:
            graph = from_graph_def(definition, outputs=[])
            check_structure(graph.functions.body(graph.nodes["y"], "f", specs=[Spec(None, "float32")]).graph)
            given += 1
        except GraphError as error:
            assert "\n" not in str(error)
    assert given
