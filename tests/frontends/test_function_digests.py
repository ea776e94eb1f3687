"""The functions that a graph calls are in its digest by what they do, not by their names."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tfpasses.frontends.graph_def import from_graph_def, from_saved_model


@pytest.mark.parametrize("within", [lambda f: f, lambda f: lambda x: tf.cond(x[0] > 0, lambda: f(x), lambda: -x)], ids=["call", "branch"])
def test_what_the_functions_do_that_a_graph_calls_is_in_its_digest(within, tmp_path):
    def digest(factor):
        inner = tf.function(lambda x: x * factor)
        module = tf.Module()
        module.f = tf.function(within(tf.function(within(inner))), input_signature=[tf.TensorSpec((3,), name="x")])
        tf.saved_model.save(module, tmp_path / str(factor), signatures=module.f)
        return from_saved_model(tmp_path / str(factor)).digest

    assert digest(2.0) == digest(2.0) != digest(3.0)


def test_functions_that_call_themselves_have_a_digest_too():
    definition = tf.compat.v1.GraphDef()
    definition.node.add(name="x", op="Placeholder").attr["dtype"].type = tf.float32.as_datatype_enum
    definition.node.add(name="y", op="f", input=["x"])
    for name, other in (("f", "g"), ("g", "f"), ("h", "f")):
        function = definition.library.function.add()
        function.signature.name = name
        function.signature.input_arg.add(name="x", type=tf.float32.as_datatype_enum)
        function.signature.output_arg.add(name="y", type=tf.float32.as_datatype_enum)
        function.node_def.add(name="call", op=other, input=["x"])
        function.ret["y"] = "call:y:0"
    one = from_graph_def(definition, outputs=["y"])
    assert one.digest == from_graph_def(definition, outputs=["y"]).digest
