"""AIMET's `aimet_tensorflow.utils.op.conv`: the biases of convolutions and matrix products in a session."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfpasses.graph import Array, TfpassesError
from tfpasses.passes.aimet.sessions import Names, bias_of, last_of, new_session, read, stored, with_biases

__all__ = ["BiasUtils"]

ADDS = "BiasAdd"
TRANSPOSED = slice(-2, -1)
COUNTS = {
    "DepthwiseConv2dNative": slice(-2, None),
    "Conv2DBackpropInput": TRANSPOSED,
    "Conv3DBackpropInputV2": TRANSPOSED,
    ADDS: slice(0, None),
}
"""Operation -> where in the shape of its kernel, or its bias, the channels are; else at the end."""
TURNS = ("transpose_b", "adj_y")
"""Attributes of a matrix product by which its second matrix has the channels first."""


class BiasUtils:
    """Biases, asked for by the operation that multiplies with the kernel."""

    @staticmethod
    def is_bias_none(input_op: Any) -> bool:
        """Whether no bias is added to what an operation gives."""
        return bias_of(last_of(input_op)) is None

    @staticmethod
    def get_shape(input_op: Any) -> list[int]:
        """The shape that its bias has, or would have. Raises `ValueError` for an operation without a kernel of known shape."""
        kernel = input_op.inputs[1].shape if len(input_op.inputs) > 1 else None
        sizes = None if kernel is None or kernel.rank is None else kernel.as_list()
        turned = any(name in input_op.node_def.attr and input_op.get_attr(name) for name in TURNS)
        found = sizes and sizes[TRANSPOSED if turned else COUNTS.get(input_op.type, slice(-1, None))]
        if not found or None in found:
            raise ValueError(f"{input_op.name}, a {input_op.type}, has no kernel of known shape")
        return [int(np.prod(found))]

    @staticmethod
    def get_bias_as_numpy_data(sess: Any, op: Any) -> Array:
        """The bias. Raises `ValueError` where there is none."""
        return np.asarray(sess.run(added_bias(op)))

    @staticmethod
    def update_bias_for_op(sess: Any, op: Any, bias_as_numpy_array: Array, bias_name: str = "bias_value") -> None:
        """Give the bias another value, in the session. `bias_name`, for biases that AIMET added to the graph, is not used: none is added.

        Raises `ValueError` where there is no bias, `TfpassesError` where it is no variable of the session.
        """
        handle = stored(added_bias(op))
        known = {one.name.partition(":")[0]: one for one in sess.graph.get_collection("variables")}
        if handle.name not in known:
            raise TfpassesError(f"{op.name}: its bias, {handle.name}, is no variable of the session")
        assign = known[handle.name].initializer
        sess.run(assign, {assign.inputs[1]: np.reshape(bias_as_numpy_array, known[handle.name].shape)})

    @staticmethod
    def initialize_model_with_bias(sess: Any, input_op_names: Names, output_op_names: Names) -> Any:
        """A new session in which every convolution and matrix product between some operations has a bias, of zeros where it had none.

        The given session is as it was. Raises `TfpassesError`, one line, where there are no operations of these names.
        """
        return new_session(with_biases(read(sess, input_op_names, output_op_names)))


def added_bias(op: Any) -> Any:
    """The bias that is added to what an operation gives. Raises `ValueError` where there is none."""
    bias = bias_of(last_of(op))
    if bias is None:
        raise ValueError(f"{op.name}, a {op.type}, has no bias; BiasUtils.initialize_model_with_bias gives a session in which it has one")
    return bias
