"""Frozen GraphDefs in and out: what nobody touched leaves equal, and what is malformed is refused in one line."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

import zoo
from tfpasses.frontends.graph_def import from_graph_def, to_graph_def
from tfpasses.graph import Edit, GraphError, Node, Ref, Spec, UnsupportedModelError, check_structure

GraphDef = tf.compat.v1.GraphDef
X = np.linspace(-9, 9, 24, dtype="float32").reshape(2, 3, 4)


def frozen(call, *signature):
    return convert_variables_to_constants_v2(tf.function(call).get_concrete_function(*signature)).graph.as_graph_def()


def compute(definition, feeds, fetches):
    with tf.Graph().as_default():
        values = tf.import_graph_def(
            definition, input_map=dict(feeds), return_elements=[str(ref) + ":0" * (":" not in str(ref)) for ref in fetches]
        )
        return tf.compat.v1.Session().run(values)


def build(*nodes):
    """A GraphDef from (name, operation, inputs, attributes)."""
    definition = GraphDef()
    for name, op, inputs, attributes in nodes:
        node = definition.node.add(name=name, op=op, input=inputs)
        for key, value in attributes.items():
            node.attr[key].CopyFrom(value)
    return definition


FLOAT = tf.compat.v1.AttrValue(type=tf.float32.as_datatype_enum)


def relu(name, *inputs):
    return (name, "Relu", inputs, {"T": FLOAT})


def placeholder(name):
    return (name, "Placeholder", [], {"dtype": FLOAT})


def constant(name, array):
    value = tf.compat.v1.AttrValue(tensor=tf.make_tensor_proto(array))
    return (name, "Const", [], {"dtype": tf.compat.v1.AttrValue(type=value.tensor.dtype), "value": value})


@pytest.fixture(scope="module")
def mobilenet():
    model = zoo.architecture("MobileNetV2")
    zoo.golden_weights(model)
    return frozen(lambda x: model(x, training=False), tf.TensorSpec((None, 96, 96, 3), tf.float32))


# there and back


def test_a_graph_that_nobody_touched_leaves_equal(mobilenet):
    graph = from_graph_def(mobilenet)
    check_structure(graph)
    assert to_graph_def(graph) == mobilenet


def test_an_edit_that_does_nothing_changes_nothing(mobilenet):
    graph = from_graph_def(mobilenet)
    assert to_graph_def(Edit(graph, "nothing").freeze()) == mobilenet


def test_control_inputs_functions_and_nodes_off_the_path_survive():
    @tf.function
    def inner(x):
        return x + 1.0

    def call(x):
        with tf.control_dependencies([tf.debugging.assert_all_finite(x, "finite")]):
            return tf.nn.relu(inner(x))

    concrete = tf.function(call).get_concrete_function(tf.TensorSpec((2, 3), tf.float32))
    definition = concrete.graph.as_graph_def()
    assert definition.library.function and any(text[0] == "^" for node in definition.node for text in node.input)
    assert to_graph_def(from_graph_def(definition)) == definition


def test_the_order_of_the_file_does_not_matter(mobilenet):
    backwards = GraphDef(versions=mobilenet.versions)
    backwards.node.extend(reversed(mobilenet.node))
    graph = from_graph_def(backwards)
    check_structure(graph)
    assert sorted(map(str, to_graph_def(graph).node)) == sorted(map(str, mobilenet.node))


# what is read


def test_constants_are_weights_and_placeholders_inputs():
    graph = from_graph_def(build(placeholder("x"), constant("c", X), ("y", "AddV2", ["x", "c"], {"T": FLOAT})))
    assert {key: array.tolist() for key, array in graph.weights.items()} == {"c": X.tolist()}
    assert not graph.weights["c"].flags.writeable
    assert (graph.inputs, graph.outputs) == (("x",), (Ref("y"),))
    assert graph.nodes["y"].op == "tf.AddV2" and graph.nodes["y"].config == {"T": "float32"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int8", "int64", "bool", "complex64", "str"])
@pytest.mark.parametrize("shape", [(), (0, 2), (3, 2)])
def test_constants_of_every_dtype(dtype, shape):
    values = np.ones(shape, "float32")
    array = np.array(values.astype(str), dtype=object) if dtype == "str" else values.astype(tf.as_dtype(dtype).as_numpy_dtype)
    graph = from_graph_def(build(constant("c", array)), outputs=["c"])
    assert graph.weights["c"].tolist() == (np.array(array, dtype="S").tolist() if dtype == "str" else array.tolist())


def test_the_elements_of_a_large_constant_are_not_copied():
    definition = build(constant("c", np.arange(1000.0)))
    assert isinstance(from_graph_def(definition, outputs=["c"]).weights["c"].base.base, bytes)


def test_values_with_several_outputs():
    def call(x):
        a, b = tf.split(x, 2)
        return {"a": a, "b": b * 2.0}

    graph = from_graph_def(frozen(call, tf.TensorSpec((4, 3), tf.float32)))
    split = next(node for node in graph.nodes.values() if node.op == "tf.Split")
    assert [spec.dtype for spec in split.specs] == ["float32", "float32"]
    assert {use[1] for use in ((name, index) for name, index in graph.users[split.name].items())} == {0, 1}


IMAGE = tf.TensorSpec((None, 12, None, 4), tf.float32)
KNOWN = tf.TensorSpec((2, 12, 9, 4), tf.float32)
ROW = tf.TensorSpec((None, 6), tf.float32)
K = tf.ones((3, 2, 4, 5))

SHAPES = {
    "conv, same": (lambda x: tf.nn.conv2d(x, K, 2, "SAME"), IMAGE),
    "conv, valid": (lambda x: tf.nn.conv2d(x, K, [1, 3, 2, 1], "VALID", dilations=1), KNOWN),
    "conv, dilated": (lambda x: tf.raw_ops.Conv2D(input=x, filter=K, strides=[1] * 4, padding="VALID", dilations=[1, 2, 3, 1]), KNOWN),
    "conv, explicit": (lambda x: tf.nn.conv2d(x, K, 2, [[0, 0], [1, 2], [0, 3], [0, 0]]), KNOWN),
    "conv, channels first": (lambda x: tf.nn.conv2d(tf.transpose(x, [0, 3, 1, 2]), K, 2, "VALID", data_format="NCHW"), KNOWN),
    "depthwise": (lambda x: tf.nn.depthwise_conv2d(x, K, [1, 2, 2, 1], "SAME"), IMAGE),
    "conv 3d": (lambda x: tf.nn.conv3d(x[:, None], tf.ones((1, 3, 3, 4, 2)), [1, 1, 2, 2, 1], "VALID"), KNOWN),
    "conv 1d": (lambda x: tf.nn.conv1d(x[:, 0], tf.ones((3, 4, 2)), 2, "VALID"), KNOWN),
    "transposed": (lambda x: tf.nn.conv2d_transpose(x, tf.ones((3, 3, 5, 4)), [2, 24, 18, 5], 2, "SAME"), KNOWN),
    "pools": (lambda x: tf.nn.avg_pool2d(tf.nn.max_pool2d(x, [3, 2], [2, 1], "VALID"), 2, 2, "SAME"), IMAGE),
    "more than there is": (lambda x: tf.nn.max_pool2d(x, 3, 2, "VALID"), tf.TensorSpec((1, 3, 3, 4), tf.float32)),
    "batch norm": (lambda x: tf.compat.v1.nn.fused_batch_norm(x, *[tf.ones(4)] * 4, is_training=False)[0], IMAGE),
    "tile": (lambda x: tf.tile(x, [1, 2, 3, 1]), IMAGE),
    "repeated": (lambda x: tf.repeat(x, 3, 1), KNOWN),
    "pad": (lambda x: tf.pad(x, [[0, 0], [1, 2], [3, 0], [0, 0]]), IMAGE),
    "mean": (lambda x: tf.reduce_mean(x, [1, -2]), IMAGE),
    "mean, kept": (lambda x: tf.reduce_max(x, 1, keepdims=True), IMAGE),
    "flatten": (lambda x: tf.reshape(x, [-1, 12 * 9 * 4]), KNOWN),
    "reshape, unknown": (lambda x: tf.reshape(x, [-1, 6, 2]), IMAGE),
    "reshape, packed": (lambda x: tf.reshape(x, tf.stack([tf.shape(x)[0], 3, 2])), ROW),
    "squeeze": (lambda x: tf.squeeze(tf.expand_dims(x, -1)[:, None], [1]), IMAGE),
    "squeeze, all": (lambda x: tf.squeeze(tf.expand_dims(x, 0)), KNOWN),
    "concat": (lambda x: tf.concat([x, x[..., :2], x], -1), IMAGE),
    "transpose": (lambda x: tf.transpose(x, [0, 3, 1, 2]), IMAGE),
    "matmul": (lambda x: x @ tf.ones((6, 3)), ROW),
    "matmul, turned": (lambda x: tf.matmul(x, tf.ones((3, 6)), transpose_b=True), ROW),
    "matmul in a batch": (lambda x: x @ tf.ones((2, 1, 4, 7)), KNOWN),
    "broadcast": (lambda x: x * tf.ones((12, 1, 1)) + tf.ones((5, 1, 12, 9, 1)), KNOWN),
    "blocks": (lambda x: tf.batch_to_space(tf.space_to_batch(x, [2, 3], [[0, 0], [0, 0]]), [2, 3], [[0, 0], [0, 0]]), KNOWN),
    "resize": (lambda x: tf.image.resize(x, [5, 7]), IMAGE),
    "stack": (lambda x: tf.stack([x, x], 1), ROW),
    "gather": (lambda x: tf.gather(x, tf.constant([[0, 2], [1, 1]]), axis=1), KNOWN),
    "fill": (lambda x: x + tf.fill([3, 1, 6], 2.0), ROW),
    "compare": (lambda x: tf.where(x > tf.ones((2, 1, 1)), x, 0.0), ROW),
    "halves": (lambda x: tf.split(x, 2), KNOWN),
    "slices": (lambda x: tf.concat([tf.reshape(x[..., 1:, None, ::2], [-1]), tf.reshape(x[:, 1:-1:3, ::-1, None, 3:], [-1])], 0), KNOWN),
    "slice, unknown": (lambda x: x[0, 2:5, :, ::-2], IMAGE),
    "swish": (lambda x: tf.nn.silu(tf.nn.conv2d(x, K, 2, "SAME")), IMAGE),
    "gelu": (tf.nn.gelu, IMAGE),
    "rows of a matrix product": (lambda x: tf.tensordot(x, tf.ones((4, 7)), 1), IMAGE),
    "a part of the shape": (lambda x: tf.reshape(x, [tf.shape(x)[0], tf.shape(x)[1], -1]), KNOWN),
    "no rank": (lambda x: tf.nn.relu(x) + 1.0, tf.TensorSpec(None, tf.float32)),
}


def shapes_of(definition):
    """By TensorFlow's own inference."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
        return {op.name: [None if o.shape.rank is None else tuple(o.shape) for o in op.outputs] for op in graph.get_operations()}


def assert_shapes_agree(definition, may_lack=0):
    """Ours are TensorFlow's, or more; where they are less, they lack at most so many."""
    lacking = []
    for name, theirs in shapes_of(definition).items():
        ours = [spec.shape for spec in from_graph_def(definition, outputs=[]).nodes[name].specs]
        assert len(ours) == len(theirs)
        for mine, wanted in zip(ours, theirs, strict=True):
            if mine is None or wanted is None:
                lacking += [name] if wanted is not None else []
                continue
            assert len(mine) == len(wanted)
            assert all(a is None or b is None or a == b for a, b in zip(mine, wanted, strict=True)), (name, mine, wanted)
            lacking += [name] if any(a is None and b is not None for a, b in zip(mine, wanted, strict=True)) else []
    assert len(lacking) <= may_lack, lacking


# without a rule of ours: the statistics of a fused batch norm, the parts of a split
LACKING = {"batch norm": 5, "reshape, packed": 1, "halves": 4}


def test_operations_that_keep_the_shape_do_so_by_their_own_definition():
    from tensorflow.python.framework import op_def_registry

    from tfpasses.frontends.graph_def.reading.shapes import BROADCAST, SAME

    for name in (*SAME, *BROADCAST):
        definition = op_def_registry.get(name)
        assert definition is not None, name
        assert len(definition.input_arg) >= (2 if name in BROADCAST else 1), name


@pytest.mark.parametrize("case", SHAPES)
def test_shapes_are_those_that_tensorflow_infers(case):
    call, signature = SHAPES[case]
    assert_shapes_agree(frozen(call, signature), LACKING.get(case, 0))


def test_all_shapes_of_a_network_are_known(mobilenet):
    assert_shapes_agree(mobilenet)


def test_an_operation_without_a_rule_gives_an_unknown_shape():
    definition = frozen(lambda x: tf.nn.relu(tf.unique_with_counts(x[:, 0])[0]), tf.TensorSpec((None, 4), tf.float32))
    specs = {node.op: node.specs[0] for node in from_graph_def(definition).nodes.values()}
    assert specs["tf.UniqueWithCounts"] == specs["tf.Relu"] == Spec(None, "float32")


def test_shapes_that_the_file_tells_are_taken():
    graph = tf.Graph()
    with graph.as_default():
        tf.cumsum(tf.compat.v1.placeholder(tf.float32, (4, 3), "x"), name="y")
    assert from_graph_def(graph.as_graph_def(add_shapes=True)).nodes["y"].specs == (Spec((4, 3), "float32"),)


def test_an_operation_that_is_not_known_here_is_opaque():
    definition = build(placeholder("x"), ("f", "MyOwnOperation", ["x"], {"depth": tf.compat.v1.AttrValue(i=3)}), relu("y", "f:1"))
    graph = from_graph_def(definition)
    assert graph.nodes["f"].specs == (Spec(None, "unknown"),) * 2
    assert to_graph_def(graph) == definition


def test_the_text_shows_attributes(mobilenet):
    line = next(line for line in from_graph_def(mobilenet).to_text().splitlines() if "= tf.Conv2D(" in line)
    assert "data_format=NHWC" in line and "strides=[1,2,2,1]" in line


# inputs and outputs


def test_the_results_of_a_frozen_function_are_its_outputs():
    graph = from_graph_def(frozen(lambda x: [tf.nn.relu(x + number) for number in range(12)], tf.TensorSpec((2,), tf.float32)))
    assert [ref.node for ref in graph.outputs] == ["Identity", *(f"Identity_{number}" for number in range(1, 12))]


def test_outputs_may_be_named():
    definition = build(placeholder("x"), relu("a", "x"), relu("b", "a"), relu("c", "a"))
    assert from_graph_def(definition, outputs=["a", "c:0"]).outputs == (Ref("a"), Ref("c"))


def test_inputs_may_be_named():
    definition = build(placeholder("x"), placeholder("z"), ("y", "AddV2", ["x", "z"], {"T": FLOAT}))
    assert from_graph_def(definition).inputs == ("x", "z")
    assert from_graph_def(definition, inputs=["z", "x"]).inputs == ("z", "x")


# changes


def test_a_value_read_elsewhere_is_computed_from_there():
    definition = build(placeholder("x"), ("n", "Neg", ["x"], {"T": FLOAT}), relu("r", "n"), ("y", "Exp", ["r"], {"T": FLOAT}))
    edit = Edit(from_graph_def(definition), "cut")
    edit.replace(edit.nodes["r"], edit.nodes["r"].inputs[0])
    new = to_graph_def(edit.freeze())
    assert [node.name for node in new.node] == ["x", "n", "y"]
    assert (new.node[0], new.node[1]) == (definition.node[0], definition.node[1])
    (y,) = compute(new, {"x": X}, ["y"])
    np.testing.assert_allclose(y, np.exp(-X), rtol=1e-6)


def test_a_constant_takes_its_new_value():
    definition = build(placeholder("x"), constant("c", np.float32([1, 2])), ("y", "AddV2", ["x", "c"], {"T": FLOAT}))
    edit = Edit(from_graph_def(definition), "set")
    edit.set_params(edit.nodes["c"], {"value": np.float32([3, 4])})
    (y,) = compute(to_graph_def(edit.freeze()), {"x": np.float32([[0, 0]])}, ["y"])
    assert y.tolist() == [[3, 4]]


def test_a_node_that_was_taken_out_is_waited_for_no_more():
    definition = build(placeholder("x"), relu("r", "x"), relu("y", "x", "^r"))
    edit = Edit(from_graph_def(definition), "cut")
    edit.remove(edit.nodes["r"])
    assert [list(node.input) for node in to_graph_def(edit.freeze()).node] == [[], ["x"]]


def test_what_no_tensorflow_operation_is_said_to_be_is_not_written():
    graph = from_graph_def(build(placeholder("x"), relu("y", "x")))
    edit = Edit(graph, "add")
    edit.replace(edit.nodes["y"], edit.add(Node("z", "keras.LSTM", (Ref("x"),), specs=graph.nodes["y"].specs)))
    with pytest.raises(UnsupportedModelError, match=r"^node z: keras.LSTM cannot be written as TensorFlow operations$"):
        to_graph_def(edit.freeze())


def test_a_graph_from_keras_is_not_written():
    from tfpasses.frontends.keras import from_keras

    x = keras.Input((3,))
    with pytest.raises(UnsupportedModelError, match="was not read from a GraphDef"):
        to_graph_def(from_keras(keras.Model(x, keras.layers.ReLU()(x))))


# what is refused

HUGE = build(constant("c", np.ones(4, "float32")), relu("y", "c"))
HUGE.node[0].attr["value"].tensor.tensor_shape.dim[0].size = 1 << 40
SHORT = build(constant("c", np.ones(4, "float32")), relu("y", "c"))
SHORT.node[0].attr["value"].tensor.tensor_shape.dim[0].size = 5
MANY = build(placeholder("x"), ("s", "Unpack", ["x"], {"T": FLOAT, "num": tf.compat.v1.AttrValue(i=1 << 50)}))

MALFORMED = {
    "a name taken twice": (build(placeholder("x"), relu("x", "x")), "two nodes are named x"),
    "a node without a name": (build(("", "Relu", [], {})), "a node of operation Relu has no name"),
    "an input that is not there": (build(relu("y", "x")), "node y: its input x does not exist"),
    "a control input that is not there": (build(placeholder("x"), relu("y", "x", "^z")), r"node y: its control input \^z does not exist"),
    "an output that is not there": (build(placeholder("x"), relu("r", "x"), relu("y", "r:1")), "node r: output 1 is read, Relu gives 1"),
    "an output that is no number": (build(placeholder("x"), relu("y", "x:one")), "node y: its input x:one names no output"),
    "a cycle": (build(relu("a", "b"), relu("b", "a")), "the graph has a cycle through node"),
    "several ends": (build(placeholder("x"), relu("a", "x"), relu("b", "x")), "several nodes could be the outputs; name them: a, b"),
    "a constant larger than its bytes": (HUGE, "node c: its constant cannot be read"),
    "a constant that does not fit its shape": (SHORT, "node c: its constant cannot be read"),
    "more outputs than can be": (MANY, "node s: num=1125899906842624 is no number of outputs"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_graphs_are_refused(case):
    definition, message = MALFORMED[case]
    with pytest.raises(GraphError, match=message) as error:
        from_graph_def(definition)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"inputs": ["z"]}, "input z: there is no such node"),
        ({"inputs": ["y"]}, "input y: it is no placeholder"),
        ({"outputs": ["y:1"]}, "output y:1: there is no such value"),
        ({"outputs": ["z"]}, "output z: there is no such value"),
    ],
)
def test_names_that_do_not_fit_are_refused(names, message):
    with pytest.raises(GraphError, match=message):
        from_graph_def(build(placeholder("x"), relu("y", "x")), **names)


@pytest.mark.parametrize("seed", range(20))
def test_bytes_changed_at_random_give_a_graph_or_one_line(seed):
    net = build(placeholder("x"), constant("c", X), ("a", "AddV2", ["x", "c"], {"T": FLOAT}), relu("r", "a", "^c"), relu("y", "r"))
    data, generator = net.SerializeToString(), np.random.default_rng(seed)
    for _ in range(50):
        changed = bytearray(data)
        for place in generator.integers(0, len(data), generator.integers(1, 5)):
            changed[place] = generator.integers(256)
        definition = GraphDef()
        try:
            definition.ParseFromString(bytes(changed[: generator.integers(len(data) // 2, len(data) + 1)]))
        except DecodeError:  # the protocol buffers' own refusal: what reads files says it
            continue
        try:
            check_structure(from_graph_def(definition))
        except GraphError as error:
            assert "\n" not in str(error)
