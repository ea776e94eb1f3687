"""GraphDefs that speak of much in few bytes: they take little time and memory, or are refused in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graph_def_journeys import JOURNEYS, ends

AttrValue = tf.compat.v1.AttrValue
FLOAT, INT32, INT = (AttrValue(type=dtype.as_datatype_enum) for dtype in (tf.float32, tf.int32, tf.int64))
FLOATS = AttrValue(list=AttrValue.ListValue(type=[tf.float32.as_datatype_enum]))


class Builder:
    """A GraphDef made node by node; what it is called with becomes a node behind the last one."""

    def __init__(self, *shape: int) -> None:
        self.definition = tf.compat.v1.GraphDef()
        self.last = "x"
        self.add("Placeholder", name="x", dtype=FLOAT, shape=AttrValue(shape=tf.TensorShape(shape).as_proto()))

    def add(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        node = self.definition.node.add(name=name or f"n{len(self.definition.node)}", op=op, input=inputs)
        for key, value in attributes.items():
            node.attr[key].CopyFrom(value if isinstance(value, AttrValue) else AttrValue(i=value))
        self.last = str(node.name)
        return self.last

    def constant(self, array: Any) -> str:
        tensor = tf.make_tensor_proto(array, tf.int64)
        return self.add("Const", dtype=INT, value=AttrValue(tensor=tensor))

    def function(self, name: str, *calls: str) -> None:
        """One that calls others, one after the other; without any it is an Identity."""
        function = self.definition.library.function.add()
        function.signature.name = name
        function.signature.input_arg.add(name="x", type=tf.float32.as_datatype_enum)
        function.signature.output_arg.add(name="y", type=tf.float32.as_datatype_enum)
        last = "x"
        for place, called in enumerate(calls or [""]):
            node = function.node_def.add(name=f"c{place}", op="PartitionedCall" if called else "Identity", input=[last])
            attributes = {"f": AttrValue(func={"name": called}), "Tin": FLOATS, "Tout": FLOATS} if called else {"T": FLOAT}
            for key, value in attributes.items():
                node.attr[key].CopyFrom(value)
            last = f"c{place}:output:0"
        function.ret["y"] = last

    def call(self, name: str) -> None:
        self.add("PartitionedCall", "x", f=AttrValue(func={"name": name}), Tin=FLOATS, Tout=FLOATS)


def axes(build: Builder) -> None:
    """One more with each node."""
    place = build.constant(0)
    build.last = "x"
    for _ in range(5000):
        build.add("ExpandDims", build.last, place, T=FLOAT, Tdim=INT)


def elements(build: Builder) -> None:
    """60 times as many with each node, which a shape is made of."""
    build.constant(1)
    for _ in range(500):
        packed = build.add("Pack", *[build.last] * 60, T=INT, N=60)
        build.add("Reshape", "x", packed, T=FLOAT, Tshape=INT)
        build.last = packed


def digits(build: Builder) -> None:
    """60 times as many with each node."""
    places = build.constant(0)
    build.constant(1 << 62)
    for _ in range(500):
        packed = build.add("Pack", *[build.last] * 60, T=INT, N=60)
        build.add("Prod", packed, places, T=INT, Tidx=INT)


def sizes(build: Builder) -> None:
    """An axis that grows by 62 bits with each node."""
    block, crops = build.constant([1 << 62, 1 << 62]), build.constant(np.zeros((2, 2)))
    build.last = "x"
    for _ in range(1000):
        build.add("BatchToSpaceND", build.last, block, crops, T=FLOAT, Tblock_shape=INT, Tcrops=INT)


def outputs(build: Builder) -> None:
    place = build.add("Const", dtype=INT32, value=AttrValue(tensor=tf.make_tensor_proto(0, tf.int32)))
    for _ in range(1000):
        build.add("Split", place, "x", T=FLOAT, num_split=1 << 16)


def repeated_elements(build: Builder) -> None:
    for _ in range(1000):
        build.constant(1)
        build.definition.node[-1].attr["value"].tensor.tensor_shape.dim.add(size=1 << 24)


def no_elements(build: Builder) -> None:
    build.constant(1)
    tensor = build.definition.node[-1].attr["value"].tensor
    tensor.ClearField("int64_val")
    tensor.tensor_shape.CopyFrom(tf.TensorShape([1 << 40, 0]).as_proto())


def inputs(build: Builder) -> None:
    for _ in range(50):
        build.add("AddN", *["x"] * 3000, T=FLOAT, N=3000)


def calls(build: Builder) -> None:
    """Twice as many with each function."""
    for place in range(60):
        build.function(f"f{place}", *[f"f{place + 1}"] * 2 if place < 59 else [])
    build.call("f0")


def deep_calls(build: Builder) -> None:
    for place in range(1000):
        build.function(f"f{place}", *[f"f{place + 1}"] if place < 999 else [])
    build.call("f0")


def a_long_way_back(build: Builder) -> None:
    """The last node first, so that the first one that is read asks for all others."""
    for _ in range(5_000):
        build.add("Identity", build.last, T=FLOAT)
    nodes = list(build.definition.node)[::-1]
    build.definition = tf.compat.v1.GraphDef(node=nodes)


ACCEPTED = (axes, elements, digits, sizes, inputs, calls, deep_calls, a_long_way_back)
REFUSED = {
    outputs: "outputs are more than all that the graph holds",
    repeated_elements: "its constant cannot be read",
    no_elements: "its constant cannot be read",
}


@pytest.mark.parametrize("journey", JOURNEYS)
@pytest.mark.parametrize("claim", ACCEPTED)
def test_what_is_soon_said_is_soon_read(claim, journey):
    build = Builder(4, 4, 4)
    claim(build)
    assert not ends(JOURNEYS[journey], build.definition, [build.last])


@pytest.mark.parametrize("claim", REFUSED)
def test_what_would_take_more_than_there_is_is_refused(claim):
    build = Builder(1 << 16)
    claim(build)
    assert REFUSED[claim] in ends(JOURNEYS["canonicalize and fold"], build.definition, [build.last])
