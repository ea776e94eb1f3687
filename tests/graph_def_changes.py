"""Changes to what a GraphDef says: its nodes, what they read, their operations and attributes, its constants and functions.

Each takes a GraphDef, which it changes, and a generator of random numbers; it gives what it did, in words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from graph_def_bytes import SIZES, changed_bytes, pick

__all__ = ["CHANGES"]

NodeDef = tf.compat.v1.NodeDef
AttrValue = tf.compat.v1.AttrValue

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
