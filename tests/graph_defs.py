"""GraphDefs for tests: frozen Keras models, graphs built operation by operation, and TensorFlow's own word on what they compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tfpasses.frontends.graph_def import from_graph_def
from tfpasses.graph import Graph
from tfpasses.manager import Pipeline, run_passes

__all__ = ["built", "canonical", "compute", "concrete", "draw", "frozen", "ops_of", "passed"]


def concrete(model: keras.Model) -> Any:
    """A Keras model as a concrete function of its inputs in order, in inference mode."""
    specs = [tf.TensorSpec(x.shape, x.dtype, name=f"in_{place}") for place, x in enumerate(model.inputs)]
    flat = tf.function(lambda *xs: keras.tree.flatten(model(keras.tree.pack_sequence_as(model._inputs_struct, list(xs)), training=False)))
    return flat.get_concrete_function(*specs)


def frozen(model: keras.Model) -> Any:
    """A Keras model as a GraphDef of placeholders and constants."""
    return convert_variables_to_constants_v2(concrete(model)).graph.as_graph_def()


def built(build: Callable[..., Any], dtype: str = "float32", **inputs: Sequence[int | None] | None) -> Any:
    """A GraphDef made by hand: `build` gets placeholders by name, and gives one tensor or several: the outputs `out`, `out_1`, .."""
    with tf.Graph().as_default() as graph:
        fed = {name: tf.compat.v1.placeholder(dtype, shape, name=name) for name, shape in inputs.items()}
        outputs = build(**fed)
        for value in outputs if isinstance(outputs, list | tuple) else [outputs]:
            tf.identity(value, name="out")
    return graph.as_graph_def()


def draw(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """Seeded numbers, float32."""
    return np.random.default_rng(seed + len(shape)).uniform(low, high, shape).astype("float32")


def passed(graph: Graph, pipeline: str) -> Graph:
    """A graph after some passes."""
    return run_passes(graph, Pipeline.of(pipeline), [], None)


def canonical(definition: Any, outputs: Sequence[str] | None = None, options: str = "") -> Graph:
    """A GraphDef read and raised; `outputs` are those called `out` where there are such."""
    named = [node.name for node in definition.node if node.name.split("_")[0] == "out"]
    return passed(from_graph_def(definition, outputs=outputs or named or None), f"canonicalize{options}")


def ops_of(graph: Graph) -> list[str]:
    """The operations of a graph, without inputs, constants and names for values."""
    skipped = ("Input", "Const", "Identity", "Variable", "tf.Identity", "tf.NoOp", "tf.Placeholder")
    return [node.op for node in graph.nodes.values() if node.op not in skipped]


def compute(definition: Any, feeds: Mapping[str, Any], outputs: Sequence[str]) -> list[np.ndarray]:
    """What TensorFlow computes: arrays by placeholder in, values by name (`node` or `node:1`) out. Operation by operation: its optimizer
    takes a Pad before a Conv3D of padding SAME (2.21) for all the padding there is.
    """
    plain = tf.compat.v1.ConfigProto()
    plain.graph_options.rewrite_options.disable_meta_optimizer = True
    with tf.Graph().as_default():
        tf.import_graph_def(definition, name="")
        with tf.compat.v1.Session(config=plain) as session:
            named = [name if ":" in name else f"{name}:0" for name in outputs]
            values = session.run(named, {f"{name}:0": array for name, array in feeds.items()})
    return values
