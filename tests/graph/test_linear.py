import numpy as np
import pytest

from graphs import node
from tfpasses.graph import Graph, LinearView

# op -> kernel shape, and the out channel of each kernel entry by its index
LAYOUTS = {
    "Dense": ((3, 5), lambda i: i[1]),
    "Conv": ((3, 2, 4, 5), lambda i: i[3]),
    "DepthwiseConv": ((3, 2, 4, 2), lambda i: i[2] * 2 + i[3]),
    "ConvTranspose": ((3, 2, 5, 4), lambda i: i[2]),
    "SeparableConv": ((1, 1, 8, 5), lambda i: i[3]),
}


def view(op, bias=None, **config):
    slot = "pointwise_kernel" if op == "SeparableConv" else "kernel"
    weights = {"k": np.ones(LAYOUTS[op][0]), "d": np.ones((3, 3, 4, 2)), "b": bias}
    params = {slot: "k", **({"depthwise_kernel": "d"} if op == "SeparableConv" else {}), **({} if bias is None else {"bias": "b"})}
    return LinearView.of(node("n", op, params=params, config=config), Graph({}, weights))


@pytest.mark.parametrize(("op", "channels"), [("Dense", 5), ("Conv", 5), ("DepthwiseConv", 8), ("ConvTranspose", 5), ("SeparableConv", 5)])
def test_the_view_counts_the_out_channels(op, channels):
    assert view(op).out_channels == channels


@pytest.mark.parametrize("op", LAYOUTS)
def test_a_vector_over_the_out_channels_meets_its_kernel_entries(op):
    lin = view(op)
    scaled = lin.kernel * lin.per_out_channel(np.arange(lin.out_channels))
    expected = [LAYOUTS[op][1](index) for index in np.ndindex(lin.kernel.shape)]
    assert scaled.ravel().tolist() == expected


@pytest.mark.parametrize("op", LAYOUTS)
def test_the_kernel_slot_is_that_of_the_kernel_that_gives_the_output(op):
    assert view(op).kernel_slot == ("pointwise_kernel" if op == "SeparableConv" else "kernel")


def test_a_node_without_bias_has_none():
    assert view("Conv").bias is None


def test_a_nodes_bias_is_seen():
    assert view("Conv", bias=np.arange(5)).bias.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("data_format", "axis"), [("channels_last", 3), ("channels_first", 1)])
def test_the_channel_axis_follows_the_data_format(data_format, axis):
    assert view("Conv", data_format=data_format).channel_axis(4) == axis


def test_a_node_that_is_not_linear_has_no_view():
    with pytest.raises(ValueError, match="node n: Relu is not linear"):
        LinearView.of(node("n", "Relu"), Graph({}))
