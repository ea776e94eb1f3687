"""A check of the vocabulary before it sets: one frozen GraphDef of MobileNetV2 is read into a `Graph` and printed.

The reader below is the least that can be; the whole tf.Graph frontend is a later issue. What it shows is that a `Graph` has room for what
that frontend needs: names with slashes, values `node:1`, constants that are weights, attributes as configuration, opaque operations.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

import zoo
from tfpasses.graph import Edit, Graph, Node, Ref, Slot, Spec, check_shapes, check_structure


def read(function):
    """A frozen concrete function as a Graph: constants are weights, placeholders inputs, everything else an opaque `tf.<Op>`."""
    specs = {op.name: tuple(Spec(shape(tensor), tensor.dtype.name) for tensor in op.outputs) for op in function.graph.get_operations()}
    nodes, weights, results = {}, {}, []
    for definition in function.graph.as_graph_def().node:
        inputs = tuple(value(name) for name in definition.input if not name.startswith("^"))  # ^: a control input
        if definition.op == "NoOp":
            continue
        if definition.op == "Const":
            array = tf.make_ndarray(definition.attr["value"].tensor)
            array.setflags(write=False)
            weights[definition.name] = array
            nodes[definition.name] = Node(definition.name, "Const", params={"value": definition.name}, specs=specs[definition.name])
            continue
        config = {key: attribute(one) for key, one in definition.attr.items() if not key.startswith("_")}
        op = "Input" if definition.op == "Placeholder" else f"tf.{definition.op}"
        nodes[definition.name] = Node(definition.name, op, inputs, {} if op == "Input" else config, specs=specs[definition.name])
    results = [value(tensor.name) for tensor in function.outputs]
    inputs = tuple(tensor.op.name for tensor in function.inputs)
    return Graph(nodes, weights, inputs, tuple(results), output_structure=[Slot(index) for index in range(len(results))], name="frozen")


def value(name):
    """`scope/split:1` and `scope/split` of a GraphDef."""
    node, _, index = name.partition(":")
    return Ref(node, int(index or 0))


def shape(tensor):
    return tuple(tensor.shape) if tensor.shape.rank is not None else ()


def attribute(one):
    """An AttrValue as a plain value."""
    kind = one.WhichOneof("value")
    if kind == "list":
        return [entry for field, entries in one.list.ListFields() for entry in (map(tf.as_str, entries) if field.name == "s" else entries)]
    if kind == "s":
        return one.s.decode() if one.s.isascii() else one.s  # a serialized protocol buffer stays bytes
    if kind == "func":
        return one.func.name
    if kind == "type":
        return tf.as_dtype(one.type).name
    if kind == "shape":
        return tuple(None if dim.size < 0 else dim.size for dim in one.shape.dim)
    return getattr(one, kind)


def frozen(call, *signature):
    return convert_variables_to_constants_v2(tf.function(call).get_concrete_function(*signature))


@pytest.fixture(scope="module")
def mobilenet():
    model = zoo.architecture("MobileNetV2")
    zoo.golden_weights(model)
    return frozen(lambda x: model(x, training=False), tf.TensorSpec((None, 96, 96, 3), tf.float32))


@pytest.fixture(scope="module")
def graph(mobilenet):
    return read(mobilenet)


def test_every_node_of_the_graph_def_is_there(mobilenet, graph):
    definitions = [one for one in mobilenet.graph.as_graph_def().node if one.op != "NoOp"]
    assert list(graph.nodes) == [one.name for one in definitions] and len(definitions) > 500


def test_the_graph_is_well_formed(graph):
    check_structure(graph)
    check_shapes(graph)


def test_the_depthwise_and_plain_convolutions_keep_their_names(graph):
    ops = [node.op for node in graph.nodes.values()]
    assert (ops.count("tf.Conv2D"), ops.count("tf.DepthwiseConv2dNative"), ops.count("Input")) == (35, 17, 1)


def test_a_batch_norm_is_what_keras_emits_and_no_fused_one(graph):
    """52 batch norms, each an Rsqrt that a raising pass will have to find."""
    ops = [node.op for node in graph.nodes.values()]
    assert (ops.count("tf.Rsqrt"), ops.count("tf.FusedBatchNormV3")) == (52, 0)


def test_constants_are_weights(graph):
    model = zoo.architecture("MobileNetV2")
    sizes = [array.size for key, array in graph.weights.items() if array.dtype == np.float32 and array.size > 1]
    assert sum(sizes) == model.count_params()
    assert all(graph.nodes[key].op == "Const" for key in graph.weights)


def test_a_convolutions_attributes_are_configuration(graph):
    node = next(node for node in graph.nodes.values() if node.op == "tf.Conv2D")
    assert {key: node.config[key] for key in ("strides", "padding", "data_format", "dilations", "T")} == {
        "strides": [1, 2, 2, 1],
        "padding": "SAME",
        "data_format": "NHWC",
        "dilations": [1, 1, 1, 1],
        "T": "float32",
    }
    assert graph.spec(Ref(node.name)) == Spec((None, 48, 48, 32), "float32")


def test_the_text_shows_attributes_and_slashes(graph):
    line = next(line for line in graph.to_text().splitlines() if "= tf.Conv2D(" in line)
    assert "/" in line and "data_format=NHWC" in line and "strides=[1,2,2,1]" in line and line.endswith(": float32[?,48,48,32]")


def test_the_text_has_a_line_a_node_and_a_line_a_weight(graph):
    assert len(graph.to_text().splitlines()) == len(graph.nodes) + len(graph.weights) + 4  # graph, inputs, outputs, weights


def test_reading_again_gives_the_same_text_and_digest(mobilenet, graph):
    again = read(mobilenet)
    assert (again.to_text(), again.digest) == (graph.to_text(), graph.digest)


def test_an_edit_that_does_nothing_gives_the_same_graph(graph):
    assert Edit(graph, "nothing").freeze().digest == graph.digest


def test_a_node_can_be_cut_out_of_it(graph):
    """What a raising pass will do: the value behind the last Relu6 of the text is read elsewhere than it was."""
    edit = Edit(graph, "cut")
    node = [node for node in edit.nodes.values() if node.op == "tf.Relu6"][-1]
    edit.replace(node, node.inputs[0])
    cut = edit.freeze()
    check_structure(cut)
    assert node.name not in cut.nodes and len(cut.nodes) == len(graph.nodes) - 1


def test_a_value_that_is_not_a_nodes_first_is_read():
    def halves(x):
        left, right = tf.split(x, 2, axis=-1, name="halves")
        return right - left, right

    graph = read(frozen(halves, tf.TensorSpec((None, 4), tf.float32)))
    check_structure(graph)
    (split,) = [node for node in graph.nodes.values() if node.op == "tf.Split"]
    (minus,) = [node for node in graph.nodes.values() if node.op == "tf.Sub"]
    assert (len(split.specs), minus.inputs) == (2, (Ref(split.name, 1), Ref(split.name, 0)))
    assert f"tf.Sub({split.name}:1, {split.name})" in graph.to_text()


def test_control_inputs_are_left_out():
    def guarded(x):
        with tf.control_dependencies([tf.debugging.assert_all_finite(x, "x")]):
            return tf.identity(x)

    definition = frozen(guarded, tf.TensorSpec((None, 4), tf.float32))
    assert any(name.startswith("^") for one in definition.graph.as_graph_def().node for name in one.input)
    check_structure(read(definition))


def test_integer_and_string_attributes_and_constants_are_expressible():
    def gather(x):
        return tf.gather(x, tf.constant([2, 0], tf.int64), axis=1)

    graph = read(frozen(gather, tf.TensorSpec((None, 4), tf.float32)))
    check_structure(graph)
    assert {array.dtype.name for array in graph.weights.values()} == {"int64", "int32"}


def test_a_grouped_convolution_is_there_as_a_call_with_bytes_among_its_attributes():
    """On a CPU Keras wraps it into a call that XLA compiles."""
    x = keras.Input((8, 8, 4))
    model = keras.Model(x, keras.layers.Conv2D(4, 3, groups=2)(x))
    graph = read(frozen(tf.function(model), tf.TensorSpec((None, 8, 8, 4), tf.float32)))
    check_structure(graph)
    (call,) = [node for node in graph.nodes.values() if node.op.endswith("PartitionedCall")]
    assert isinstance(call.config["config_proto"], bytes) and f"f={call.config['f']}" in graph.to_text()
