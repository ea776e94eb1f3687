"""GraphDefs with something wrong: real ones, changed at random in their bytes or in what they say.

A mutant is made from (source, kind, seed) alone, so that these three repeat it anywhere: `mutant("layers", "structure", 17)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from itertools import count
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from keras import layers as L

from graph_defs import frozen
from zoo.fresh_names import fresh_names

__all__ = ["KINDS", "SOURCES", "Mutant", "changed_file", "mutant", "source"]

GraphDef = tf.compat.v1.GraphDef
NodeDef = tf.compat.v1.NodeDef
AttrValue = tf.compat.v1.AttrValue


@attrs.frozen
class Mutant:
    """A definition with something wrong."""

    definition: Any
    outputs: list[str]
    """The source's outputs, as far as there still are nodes of their names."""
    changes: list[str]
    """What was done to it, in words."""


# what is changed


@cache
def source(name: str) -> Any:
    """A sound GraphDef; not to be changed."""
    with fresh_names():
        keras.utils.set_random_seed(1)
        return renumbered(SOURCES[name]())


def renumbered(definition: Any) -> Any:
    """The same, its functions and nameless constants numbered from 0: TensorFlow counts on from what a process made before."""
    counted = [re.fullmatch(r"(.*_)(\d+)", function.signature.name) for function in definition.library.function]
    counted += [re.fullmatch(r"(.*/)(\d+)", node.name) for node in definition.node]
    text = text_format.MessageToString(definition)
    for place, name in enumerate(sorted(filter(None, counted), key=lambda name: int(name[2]))):
        text = text.replace(f'"{name[0]}"', f'"{name[1]}{place}"')
    again = text_format.Parse(text, GraphDef())
    functions = sorted(again.library.function, key=lambda function: str(function.signature.name))
    del again.library.function[:]
    again.library.function.extend(functions)
    return again


def layers_of_keras() -> Any:
    """Every layer that folding knows, with a grouped convolution, which is a call that has to be compiled."""
    x = inputs = keras.Input((8, 8, 4))
    y = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(4, 3, padding="same", dilation_rate=2)(x)))
    y = L.BatchNormalization(scale=False)(L.DepthwiseConv2D(3, padding="same")(y))
    x = L.Activation("hard_swish")(L.Add()([x, y]))
    x = L.Concatenate()([L.Conv2D(4, 2, strides=2, groups=2)(x), L.SeparableConv2D(4, 2, strides=2)(x)])
    x = L.Conv2DTranspose(3, 2)(L.PReLU(shared_axes=[1, 2])(L.ZeroPadding2D(1)(x)))
    x = L.LeakyReLU()(L.Cropping2D(1)(L.AveragePooling2D(2)(x)))
    x = L.Dense(3, activation="softmax")(L.Dropout(0.5)(L.Flatten()(x)))
    return frozen(keras.Model(inputs, x))


def calls() -> Any:
    """Functions that call functions, branches and loops, values with several outputs, texts, control inputs."""

    @tf.function
    def inner(x: Any) -> Any:
        a, b, c = tf.split(x, 3, -1)
        tf.debugging.assert_all_finite(a, "finite")
        return tf.nn.relu(a + b), c

    @tf.function
    def outer(x: Any, y: Any) -> Any:
        a, c = inner(x)
        b, _ = inner(x * y)
        return tf.cond(tf.reduce_sum(a) > 0.0, lambda: a + b, lambda: b - c)

    def call(x: Any) -> Any:
        y = outer(x, tf.constant(np.arange(6, dtype="float32")))
        y = tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, outer(tf.tile(y, [1, 3]), 0.5)), [0, y])[1]
        parts = tf.unstack(tf.reshape(y, tf.stack([tf.shape(x)[0], 1, 2])), axis=-1)
        name = tf.strings.join(["a text", tf.strings.as_string(parts[0])])
        return {"name": name, "value": tf.nn.bias_add(y, tf.constant([1.0, 2.0])), "part": tf.concat(parts, 1)}

    return tf.function(call).get_concrete_function(tf.TensorSpec((None, 6), tf.float32)).graph.as_graph_def()


def first_graph() -> Any:
    """As TensorFlow 1 writes them: fused batch norms, a switch, shapes told by the file or packed from numbers, blocks of a batch."""
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 4), "x")
        training = tf.compat.v1.placeholder_with_default(False, (), "training")
        y = tf.nn.conv2d(x, tf.cast(tf.constant(np.ones((3, 3, 4, 4), "float16")), tf.float32), 1, [[0, 0], [1, 1], [1, 1], [0, 0]])
        moments = [tf.constant(np.full(4, value, "float32")) for value in (1, 0, 0.5, 2)]
        out, into = tf.raw_ops.Switch(data=y, pred=training)
        into = tf.raw_ops.FusedBatchNormV3(x=into, scale=moments[0], offset=moments[1], mean=[], variance=[], is_training=True).y
        out = tf.raw_ops.FusedBatchNormV3(
            x=out, scale=moments[0], offset=moments[1], mean=moments[2], variance=moments[3], is_training=False
        ).y
        y = tf.raw_ops.Merge(inputs=[out, into]).output
        y = tf.batch_to_space(tf.nn.relu(tf.space_to_batch(y, [2, 2], [[0, 0], [0, 0]])), [2, 2], [[0, 0], [0, 0]])
        y = tf.nn.atrous_conv2d(y, tf.ones((2, 2, 4, 4)), 2, "SAME")
        y = tf.nn.max_pool2d(tf.transpose(y, [0, 3, 1, 2]), 2, 2, "VALID", data_format="NCHW")
        y = tf.squeeze(tf.expand_dims(tf.reduce_mean(tf.pad(y, [[0, 0], [0, 0], [1, 0], [0, 1]]), [2, 3], keepdims=True), -1), [2, 3, 4])
        y = tf.reshape(y, tf.stack([tf.shape(y)[0], tf.constant(2) * 2]))
        y = tf.nn.bias_add(tf.matmul(y, tf.ones((3, 4)), transpose_b=True), [1.0, 2.0, 3.0])
        tf.identity(tf.image.resize(y[:, None, :, None], [2, 5])[:, 0, ::2, 0], "Identity")
    return graph.as_graph_def(add_shapes=True)


def old_loops() -> Any:
    """Loops of TensorFlow 1, whose nodes form cycles: one in another, with a branch inside."""
    tf.compat.v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default() as graph:
            x = tf.compat.v1.placeholder(tf.float32, (None, 4), "x")

            def inner(i: Any, y: Any) -> Any:
                return i + 1, tf.cond(tf.reduce_sum(y) > 0.0, lambda: y * 2.0, lambda: y - 1.0)

            def outer(i: Any, y: Any) -> Any:
                return i + 1, tf.nn.relu(tf.while_loop(lambda i, y: i < 2, inner, [0, y])[1]) + x

            tf.identity(tf.while_loop(lambda i, y: i < 3, outer, [0, x * 0.5])[1], "Identity")
    finally:
        tf.compat.v1.enable_control_flow_v2()
    return graph.as_graph_def()


SOURCES: dict[str, Callable[[], Any]] = {"layers": layers_of_keras, "calls": calls, "first graph": first_graph, "old loops": old_loops}


# how


def mutant(name: str, kind: str, seed: int) -> Mutant:
    """A source with something wrong; the same for the same arguments."""
    definition, changes = GraphDef(), []
    if kind == "structure":
        rng = np.random.default_rng([seed, list(SOURCES).index(name)])
        definition.CopyFrom(source(name))
        for _ in range(pick(rng, (1, 1, 1, 2, 3))):
            change = pick(rng, CHANGES)
            changes.append(f"{change.__name__}: {change(definition, rng)}")
    else:
        for place in count():  # until it is a protocol buffer still
            data, changes = changed_file(name, kind, seed + (place << 32))
            definition.Clear()
            try:
                if kind == ".pb":
                    definition.ParseFromString(data)
                else:
                    text_format.Parse(data, definition)
                break
            except (DecodeError, text_format.ParseError, ValueError):
                continue
    names = {node.name for node in definition.node}
    results = [node.name for node in source(name).node if node.op == "Identity" and node.name.startswith("Identity")]
    return Mutant(definition, [result for result in results if result in names], changes)


def changed_file(name: str, suffix: str, seed: int) -> tuple[bytes, list[str]]:
    """A source's `.pb` or `.pbtxt` file with something wrong, and what."""
    rng = np.random.default_rng([seed, list(SOURCES).index(name)])
    if suffix == ".pb":
        return changed_bytes(source(name).SerializeToString(deterministic=True), rng)
    return changed_lines(text_of(name), rng)


@cache
def text_of(name: str) -> str:
    """A source as text."""
    return str(text_format.MessageToString(source(name)))


KINDS = ("structure", ".pb", ".pbtxt")


def pick(rng: np.random.Generator, entries: Any) -> Any:
    """One of the entries."""
    return entries[int(rng.integers(len(entries)))]


def changed_bytes(data: bytes, rng: np.random.Generator) -> tuple[bytes, list[str]]:
    """Bytes with a few of them changed, cut out, doubled, or the end cut off."""
    changed, changes = bytearray(data), []
    for _ in range(pick(rng, (1, 1, 1, 2, 3))):
        start = int(rng.integers(len(changed)))
        length = int(rng.integers(1, 2 ** rng.integers(1, 8)))
        what = pick(rng, ("a bit", "a byte", "a byte", "random bytes", "bytes cut out", "bytes doubled", "bytes moved", "the end cut off"))
        changes.append(f"{what} at {start}, {length}")
        if what == "a bit":
            changed[start] ^= 1 << int(rng.integers(8))
        elif what == "a byte":
            changed[start] = int(rng.integers(256))
        elif what == "random bytes":
            changed[start : start + length] = rng.bytes(len(changed[start : start + length]))
        elif what == "bytes cut out":
            del changed[start : start + length]
        elif what == "bytes doubled":
            changed[start:start] = changed[start : start + length]
        elif what == "bytes moved":
            moved = changed[start : start + length]
            del changed[start : start + length]
            start = int(rng.integers(len(changed) + 1))
            changed[start:start] = moved
        else:
            del changed[start:]
        if not changed:
            break
    return bytes(changed), changes


def changed_lines(text: str, rng: np.random.Generator) -> tuple[bytes, list[str]]:
    """A text with a few of its lines changed."""
    lines, changes = text.splitlines(), []
    for _ in range(pick(rng, (1, 1, 2, 3))):
        told = [place for place, line in enumerate(lines) if ": " in line]
        what = pick(
            rng, ("a number", "a number", "another's value", "another's value", "lost", "twice", "a word", "moved", "the end cut off")
        )
        if what in ("a word", "the end cut off") and rng.integers(4):  # which leave no text of a GraphDef
            what = "a number"
        place = int(pick(rng, [place for place in told if what != "a number" or lines[place][-1:].isdigit()]))
        key, _, _ = lines[place].partition(": ")
        changes.append(f"{what} at {place}: {lines[place].strip()[:60]}")
        if what == "a number":
            lines[place] = f"{key}: {pick(rng, SIZES)}"
        elif what == "another's value":
            lines[place] = lines[int(pick(rng, [place for place in told if lines[place].strip().startswith(key.strip() + ": ")]))]
        elif what == "lost":
            del lines[place]
        elif what == "twice":
            lines.insert(place, lines[place])
        elif what == "a word":
            lines[place] = f"{key}: {pick(rng, WORDS)}"
        elif what == "moved":
            lines.insert(place + int(rng.integers(-3, 4)), lines.pop(place))
        else:
            return "\n".join(lines[:place]).encode(), changes
    return "\n".join(lines).encode(), changes


WORDS = ["true", "DT_FLOAT", "DT_STRING", "DT_NONE", "-1", "1e400", "nan", "{ }", '""', '"x"', '"\\377"', "[1, 2]"]

# what is said


NAMES = [
    "",
    " ",
    "x",
    "a b",
    "two\nlines",
    "^x",
    "x:0",
    "a" * 300,
    "\u2028",
    "größe",
    "_internal",
    "a/b/c",
    "Identity",
    "Identity_" + "9" * 5000,
    "/",
    "x\0",
]
INPUTS = [
    "^",
    ":",
    "x:",
    "x:-1",
    "x:9",
    "x:99999999999999999999",
    "x:" + "9" * 5000,
    "^x:0",
    "x:0:0",
    "x:1²",
    "two\nlines",
    "^two\nlines",
    "out:y:0",
]
OPERATIONS = [
    *("", "two\nlines", "NoSuchOperation", "Const", "Placeholder", "Identity", "IdentityN", "NoOp", "Pack", "Unpack", "Split", "SplitV"),
    *("Reshape", "Shape", "StridedSlice", "GatherV2", "Prod", "ConcatV2", "Transpose", "ExpandDims", "Squeeze", "Fill", "Mean", "Pad"),
    *("Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond", "If", "StatelessIf", "Case", "While", "PartitionedCall"),
    *("StatefulPartitionedCall", "VarHandleOp", "ReadVariableOp", "VariableV2", "Cast", "MatMul", "Conv2D", "DepthwiseConv2dNative"),
    *("Conv2DBackpropInput", "FusedBatchNormV3", "BiasAdd", "AddV2", "Mul", "Sub", "Rsqrt", "Relu", "LeakyRelu", "Softmax", "MaxPool"),
    *("SpaceToBatchND", "BatchToSpaceND", "ResizeBilinear", "AddN", "Einsum", "BatchMatMulV2", "_Arg", "_Retval", "SymbolicGradient"),
]
SIZES = [-5, -1, 0, 1, 2, 3, 255, 1 << 16, 1 << 24, 1 << 31, 1 << 40, 1 << 62, (1 << 63) - 1, -(1 << 63)]
TYPES = [0, 1, 2, 3, 4, 7, 9, 10, 14, 19, 20, 21, 101, 107, 120, 200, 9999, -1]


def shape_of(rng: np.random.Generator) -> Any:
    """A shape that nothing has."""
    shape = AttrValue().shape
    if rng.integers(8) == 0:
        shape.unknown_rank = True
    for _ in range(pick(rng, (0, 1, 2, 4, 5, 300))):
        shape.dim.add(size=pick(rng, SIZES))
    return shape


def all_nodes(definition: Any, rng: np.random.Generator) -> Any:
    """The nodes of the graph, or now and then of one of its functions."""
    functions = [function.node_def for function in definition.library.function if function.node_def]
    return pick(rng, functions) if functions and rng.integers(3) == 0 else definition.node


def some_node(definition: Any, rng: np.random.Generator, *ops: str) -> Any:
    """A node, one of these operations if there are such."""
    nodes = all_nodes(definition, rng)
    return pick(rng, [node for node in nodes if node.op in ops] or nodes or [NodeDef()])


def delete_a_node(definition: Any, rng: np.random.Generator) -> str:
    nodes = all_nodes(definition, rng)
    place = int(rng.integers(len(nodes))) if nodes else 0
    name = nodes[place].name if nodes else ""
    del nodes[place : place + 1]
    return name


def double_a_node(definition: Any, rng: np.random.Generator) -> str:
    nodes = all_nodes(definition, rng)
    node = nodes.add()
    node.CopyFrom(pick(rng, nodes))
    node.name += pick(rng, ("", "_1", "/x"))
    return node.name


def rename_a_node(definition: Any, rng: np.random.Generator) -> str:
    node = some_node(definition, rng)
    old, node.name = node.name, pick(rng, NAMES)
    if rng.integers(2):  # with those that read it
        for other in definition.node:
            other.input[:] = [node.name if text == old else text for text in other.input]
    return f"{old} {node.name[:20]!r}"


def rewire(definition: Any, rng: np.random.Generator) -> str:
    """Any input to any value: cycles, other outputs, other shapes and dtypes."""
    nodes = all_nodes(definition, rng)
    node = pick(rng, [node for node in nodes if node.input] or [NodeDef(input=["x"])])
    name = pick(rng, nodes).name if nodes else "x"
    text = pick(rng, (name, name, name, f"{name}:{pick(rng, (0, 1, 2, 70000))}", f"^{name}", pick(rng, INPUTS)))
    place = int(rng.integers(len(node.input)))
    node.input[place] = text
    return f"{node.name} {place} {text[:40]!r}"


def change_the_inputs(definition: Any, rng: np.random.Generator) -> str:
    """One more, one less, or in another order."""
    node = some_node(definition, rng)
    what = pick(rng, ("more", "less", "many", "another order"))
    if what in ("more", "many"):
        node.input.extend([pick(rng, all_nodes(definition, rng)).name] * (1 if what == "more" else 3000))
    elif what == "less":
        del node.input[:1]
    else:
        node.input[:] = list(node.input)[::-1]
    return f"{node.name} {what}"


def reorder_the_nodes(definition: Any, rng: np.random.Generator) -> str:
    nodes = all_nodes(definition, rng)
    order = [NodeDef.FromString(nodes[int(place)].SerializeToString()) for place in rng.permutation(len(nodes))]
    del nodes[:]
    nodes.extend(order)
    return ""


def change_an_operation(definition: Any, rng: np.random.Generator) -> str:
    node = some_node(definition, rng)
    node.op = pick(rng, [*OPERATIONS, *(function.signature.name for function in definition.library.function)])
    return f"{node.name} {node.op!r}"


def any_value(definition: Any, rng: np.random.Generator) -> Any:
    """An attribute's value of any kind."""
    functions = [function.signature.name for function in definition.library.function]
    one = AttrValue()
    kind = pick(rng, ("s", "i", "i", "f", "b", "type", "type", "shape", "shape", "tensor", "list", "list", "func", "placeholder", "none"))
    if kind == "s":
        one.s = pick(rng, (b"", b"SAME", b"VALID", b"EXPLICIT", b"NCHW", b"NC", b"\xff\xfe", b"two\nlines", b"\x80" * 500))
    elif kind == "i":
        one.i = pick(rng, SIZES)
    elif kind == "f":
        one.f = pick(rng, (0.0, -1.0, float("nan"), float("inf"), 1e38))
    elif kind == "b":
        one.b = bool(rng.integers(2))
    elif kind == "type":
        one.type = pick(rng, TYPES)
    elif kind == "shape":
        one.shape.CopyFrom(shape_of(rng))
    elif kind == "tensor":
        one.tensor.dtype = pick(rng, TYPES)
        one.tensor.tensor_shape.CopyFrom(shape_of(rng))
    elif kind == "list":
        one.list.SetInParent()
        for _ in range(pick(rng, (0, 1, 2, 4, 5, 100))):
            what = pick(rng, ("i", "i", "i", "type", "shape", "s", "f", "b", "func"))
            if what == "func":
                one.list.func.add(name=pick(rng, [*functions, "none"]))
            elif what == "shape":
                one.list.shape.add().CopyFrom(shape_of(rng))
            else:
                getattr(one.list, what).append(pick(rng, {"i": SIZES, "type": TYPES, "s": [b"x", b"\xff"], "f": [0.5], "b": [True]}[what]))
    elif kind == "func":
        one.func.name = pick(rng, [*functions, "none", "", "two\nlines"])
    elif kind == "placeholder":
        one.placeholder = pick(rng, ("T", "none"))
    return one


def change_an_attribute(definition: Any, rng: np.random.Generator) -> str:
    node = some_node(definition, rng)
    key = pick(rng, sorted(node.attr) or ["T"])
    what = pick(rng, ("lost", "of the same kind", "of the same kind", "another's", "anything"))
    if what == "lost":
        node.attr.pop(key, None)
    elif what == "another's":
        other = some_node(definition, rng)
        if other.attr:
            node.attr[key].CopyFrom(other.attr[pick(rng, sorted(other.attr))])
    else:
        kind = node.attr[key].WhichOneof("value")
        values = [any_value(definition, rng) for _ in range(30)]
        fitting = [one for one in values if what == "anything" or one.WhichOneof("value") == kind]
        if fitting:
            node.attr[key].CopyFrom(fitting[0])
    return f"{node.name} {node.op} {key} {what} {str(node.attr.get(key, ''))[:80]!r}"


def change_the_bytes(definition: Any, rng: np.random.Generator) -> str:
    """Of one node, or of a function, so that it still is one."""
    functions = definition.library.function
    one = pick(rng, functions) if functions and rng.integers(3) == 0 else some_node(definition, rng)
    data = one.SerializeToString(deterministic=True)
    for _ in range(50):
        changed, changes = changed_bytes(data, rng)
        try:
            new = type(one).FromString(changed)
        except DecodeError:
            continue
        one.CopyFrom(new)
        return "; ".join(changes)
    return "none"


def change_a_count(definition: Any, rng: np.random.Generator) -> str:
    """How many inputs or outputs there are."""
    node = some_node(definition, rng, "Unpack", "Pack", "ConcatV2", "Split", "Merge", "AddN", "StringJoin")
    key = pick(rng, ("N", "num", "num_split", "n"))
    node.attr[key].i = pick(rng, SIZES)
    return f"{node.name} {node.op} {key}={node.attr[key].i}"


def change_a_constant(definition: Any, rng: np.random.Generator) -> str:
    """Its shape, dtype or elements."""
    node = some_node(definition, rng, "Const")
    tensor = node.attr["value"].tensor
    what = pick(
        rng,
        (
            "shape",
            "shape",
            "one element for all",
            "few elements for all",
            "dtype",
            "both dtypes",
            "cut",
            "longer",
            "texts",
            "elements",
            "gone",
        ),
    )
    if what in ("shape", "one element for all", "few elements for all"):
        if what != "shape":
            tensor.tensor_content = b""
            tensor.dtype = pick(rng, (1, 2, 3, 7, 9, 10, 14, 18, 19))
            node.attr["dtype"].type = tensor.dtype
            many = 1 if what == "one element for all" else 3
            for field, value in (
                ("float_val", 1.0),
                ("int_val", 7),
                ("int64_val", 7),
                ("bool_val", True),
                ("half_val", 99),
                ("string_val", b"x"),
            ):
                del getattr(tensor, field)[:]
                getattr(tensor, field).extend([value] * many)
        tensor.tensor_shape.CopyFrom(shape_of(rng))
    elif what in ("dtype", "both dtypes"):
        tensor.dtype = pick(rng, TYPES)
        if what == "both dtypes":
            node.attr["dtype"].type = tensor.dtype
    elif what == "cut":
        tensor.tensor_content = tensor.tensor_content[: int(rng.integers(len(tensor.tensor_content) + 1))]
    elif what == "longer":
        tensor.tensor_content += bytes(int(rng.integers(1, 9)))
    elif what == "texts":
        node.attr["dtype"].type = tensor.dtype = tf.string.as_datatype_enum
        tensor.tensor_content = b""
        tensor.string_val.extend([b"text", b"\xff", b"two\nlines"][: int(rng.integers(4))])
    elif what == "elements":  # of what they were
        array = np.frombuffer(tensor.tensor_content, "uint8").copy()
        array[rng.integers(0, max(len(array), 1), len(array) and 3)] = pick(rng, (0, 127, 255))
        tensor.tensor_content = array.tobytes()
    else:
        node.attr["value"].Clear()
    return f"{node.name} {what} {str(tensor.tensor_shape)[:100]!r}"


def change_a_function(definition: Any, rng: np.random.Generator) -> str:
    """Gone, of another name, there twice, calling itself or another, with other arguments or results."""
    functions = definition.library.function
    if not functions:
        return "none"
    function = pick(rng, functions)
    name = function.signature.name
    what = pick(
        rng, ("gone", "renamed", "doubled", "recursive", "arguments", "results", "result types", "attribute", "gradient", "emptied")
    )
    if what == "gone":
        functions.remove(function)
    elif what == "renamed":
        function.signature.name = pick(rng, NAMES)
    elif what == "doubled":
        functions.add().CopyFrom(function)
    elif what == "recursive":
        if function.node_def:
            node = pick(rng, function.node_def)
            if rng.integers(2):
                node.op = name
            else:
                node.op = "PartitionedCall"
                node.attr["f"].func.name = name
                node.attr["Tin"].list.SetInParent()
                node.attr["Tout"].list.SetInParent()
    elif what == "arguments":
        if function.signature.input_arg and rng.integers(2):
            del function.signature.input_arg[0]
        else:
            function.signature.input_arg.add(
                name=pick(rng, ["x", "", "a b"]), type=pick(rng, [1, 3, 20, 101]), number_attr=pick(rng, ["", "N"])
            )
    elif what == "results":
        for key in list(function.ret)[:1]:
            function.ret[key] = pick(rng, [*INPUTS, "x", "x:y:0", "Identity:output:0", "nothing:output:0"])
    elif what == "result types":
        for result in function.signature.output_arg:
            result.type = pick(rng, TYPES)
    elif what == "attribute":
        function.attr[pick(rng, ("_XlaMustCompile", "_noinline", "T"))].CopyFrom(any_value(definition, rng))
    elif what == "gradient":
        definition.library.gradient.add(function_name=name, gradient_func=name)
    else:
        del function.node_def[:]
    return f"{name} {what}"


CHANGES = [
    *(delete_a_node, double_a_node, rename_a_node, rewire, rewire, change_the_inputs, reorder_the_nodes, change_an_operation),
    *(change_an_attribute, change_an_attribute, change_an_attribute, change_a_count, change_a_constant, change_a_constant),
    *(change_a_function, change_the_bytes, change_the_bytes),
]
