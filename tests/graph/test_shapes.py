import pytest

from graphs import node
from tfpasses.graph import ShapeError
from tfpasses.graph.shapes import infer_shape


def shape(op, *inputs, params=None, **config):
    return infer_shape(node("n", op, config=config), inputs, params or {})


def conv(size, kernel, op="Conv", bias=None, **config):
    config = {"strides": (1, 1), "dilation": (1, 1), "groups": 1, "padding": "valid", **config}
    params = {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}
    return shape(op, size, params=params, **config)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, (None, 8, 6, 16)),  # 10 - 2, 8 - 2
        ({"padding": "same"}, (None, 10, 8, 16)),
        ({"strides": (2, 3)}, (None, 4, 2, 16)),  # floor(7 / 2) + 1, floor(5 / 3) + 1
        ({"strides": (2, 3), "padding": "same"}, (None, 5, 3, 16)),  # ceil(10 / 2), ceil(8 / 3)
        ({"dilation": (3, 2)}, (None, 4, 4, 16)),  # 10 - 3·2, 8 - 2·2
        ({"dilation": (3, 2), "padding": "same"}, (None, 10, 8, 16)),
    ],
)
def test_a_convolution_counts_its_windows(config, expected):
    assert conv((None, 10, 8, 3), (3, 3, 3, 16), **config) == expected


def test_a_convolution_of_channels_first_data_keeps_the_channels_in_front():
    assert conv((None, 3, 10, 8), (3, 3, 3, 16), data_format="channels_first") == (None, 16, 8, 6)


def test_a_convolution_of_an_unknown_size_has_an_unknown_size():
    assert conv((None, None, 8, 3), (3, 3, 3, 16)) == (None, None, 6, 16)


def test_a_causal_convolution_counts_every_step():
    assert conv((None, 9, 3), (4, 3, 5), strides=(2,), dilation=(1,), padding="causal") == (None, 5, 5)


def test_a_convolution_in_three_dimensions_counts_its_windows():
    assert conv((1, 5, 6, 7, 2), (2, 3, 4, 2, 9), strides=(1, 1, 1), dilation=(1, 1, 1)) == (1, 4, 4, 4, 9)


def test_a_grouped_convolution_takes_its_groups_channels():
    assert conv((None, 4, 4, 6), (1, 1, 2, 9), groups=3) == (None, 4, 4, 9)


def test_a_depthwise_convolution_multiplies_its_channels():
    assert conv((None, 4, 4, 3), (3, 3, 3, 2), op="DepthwiseConv", bias=(6,)) == (None, 2, 2, 6)


def test_a_separable_convolution_gives_the_pointwise_channels():
    config = {"strides": (1, 1), "dilation": (1, 1), "padding": "same"}
    params = {"depthwise_kernel": (3, 3, 3, 2), "pointwise_kernel": (1, 1, 6, 10)}
    assert shape("SeparableConv", (None, 4, 4, 3), params=params, **config) == (None, 4, 4, 10)


@pytest.mark.parametrize(
    ("size", "kernel", "config", "message"),
    [
        ((None, 4, 4, 5), (1, 1, 3, 8), {}, "kernel takes 3 channels, the input has 5"),
        ((None, 4, 4, 5), (1, 1, 3, 8), {"groups": 2}, "kernel takes 6 channels, the input has 5"),
        ((None, 4, 4, 6), (1, 1, 3, 9), {"groups": 2}, "9 filters do not divide into 2 groups"),
        ((None, 4, 3), (1, 1, 3, 8), {}, "does not fit an input of rank 3"),
        ((None, 4, 4, 3), (1, 1, 3, 8), {"bias": (7,)}, r"bias has shape \(7,\), 8 channels expected"),
        ((None, 4, 4, 5), (1, 1, 3, 1), {"op": "DepthwiseConv"}, "kernel takes 3 channels, the input has 5"),
    ],
)
def test_a_convolution_whose_parameters_do_not_fit_is_an_error(size, kernel, config, message):
    with pytest.raises(ShapeError, match=message):
        conv(size, kernel, **config)


def test_a_pointwise_kernel_that_does_not_fit_the_depthwise_one_is_an_error():
    params = {"depthwise_kernel": (3, 3, 3, 2), "pointwise_kernel": (1, 1, 5, 10)}
    with pytest.raises(ShapeError, match="pointwise kernel takes 5 channels, the depthwise one gives 6"):
        shape("SeparableConv", (None, 4, 4, 3), params=params, strides=(1, 1), dilation=(1, 1), padding="same")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, (None, 9, 11, 16)),  # (4 - 1)·2 + 3, (5 - 1)·2 + 3
        ({"padding": "same"}, (None, 8, 10, 16)),
        ({"strides": (3, 4)}, (None, 12, 20, 16)),  # 3·3 + 3; a stride over the kernel's size leaves a rest: 4·4 + 4
        ({"dilation": (2, 1)}, (None, 11, 11, 16)),  # the kernel reaches over (3 - 1)·2 + 1 = 5: 3·2 + 5
        ({"padding": "same", "output_padding": (1, 0)}, (None, 8, 9, 16)),  # 3·2 + 3 - 2 + 1, 4·2 + 3 - 2 + 0
        ({"output_padding": (1, 0)}, (None, 10, 11, 16)),
    ],
)
def test_a_transposed_convolution_spreads_its_windows(config, expected):
    config = {"strides": (2, 2), "padding": "valid", "output_padding": None, **config}
    assert conv((None, 4, 5, 3), (3, 3, 16, 3), op="ConvTranspose", **config) == expected


def test_a_transposed_convolution_whose_kernel_does_not_fit_is_an_error():
    with pytest.raises(ShapeError, match="kernel takes 4 channels, the input has 3"):
        conv((None, 4, 5, 3), (3, 3, 16, 4), op="ConvTranspose", output_padding=None)


def test_dense_works_on_the_last_axis():
    assert shape("Dense", (None, 7, 3), params={"kernel": (3, 5), "bias": (5,)}) == (None, 7, 5)


def test_dense_with_another_fan_in_is_an_error():
    with pytest.raises(ShapeError, match="kernel takes 4 features, the input has 3"):
        shape("Dense", (None, 3), params={"kernel": (4, 5)})


def test_a_batch_norm_of_another_width_is_an_error():
    with pytest.raises(ShapeError, match=r"mean has shape \(4,\)"):
        shape("BatchNorm", (None, 3), params={"mean": (4,), "variance": (3,)}, axis=-1)


@pytest.mark.parametrize("op", ["Relu", "Softmax", "Identity", "Dropout", "Silu"])
def test_a_unary_op_keeps_the_shape(op):
    assert shape(op, (None, 3, 7)) == (None, 3, 7)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (((2, 3), (2, 3)), (2, 3)),
        (((2, 1), (1, 3)), (2, 3)),
        (((4, 2, 3), (3,)), (4, 2, 3)),
        (((None, 3), (1, 3)), (None, 3)),
        (((None, 3), (5, 3)), (5, 3)),
        (((1, 1), (1,)), (1, 1)),
        (((2,), (1,), (2,)), (2,)),
    ],
)
def test_addition_broadcasts(inputs, expected):
    assert shape("Add", *inputs) == expected


def test_shapes_that_do_not_broadcast_are_an_error():
    with pytest.raises(ShapeError, match="do not broadcast"):
        shape("Multiply", (2, 3), (2, 4))


@pytest.mark.parametrize(
    ("axis", "inputs", "expected"),
    [
        (-1, ((None, 2, 3), (None, 2, 5)), (None, 2, 8)),
        (1, ((1, 2, 3), (1, 4, 3), (1, 1, 3)), (1, 7, 3)),
        (1, ((1, 2, 3), (1, None, 3)), (1, None, 3)),
        (1, ((None, 2), (6, 2)), (6, 4)),
    ],
)
def test_concatenation_adds_up_along_its_axis(axis, inputs, expected):
    assert shape("Concat", *inputs, axis=axis) == expected


@pytest.mark.parametrize("other", [(1, 3, 3), (1, 2)])
def test_concatenation_of_shapes_that_differ_elsewhere_is_an_error(other):
    with pytest.raises(ShapeError, match="differ outside axis 2"):
        shape("Concat", (1, 2, 3), other, axis=-1)


def test_a_pad_grows_the_spatial_axes():
    assert shape("Pad", (None, 4, None, 3), padding=((1, 2), (0, 5))) == (None, 7, None, 3)


def test_a_pool_counts_its_windows():
    assert shape("AvgPool", (None, 7, 8, 3), pool_size=(3, 2), strides=(2, 2), padding="valid") == (None, 3, 4, 3)


def test_a_padded_pool_counts_its_strides():
    assert shape("MaxPool", (None, 3, 7, 8), pool_size=(3, 3), strides=(2, 3), padding="same", data_format="channels_first") == (
        None,
        3,
        4,
        3,
    )


@pytest.mark.parametrize(("keepdims", "expected"), [(False, (None, 3)), (True, (None, 1, 1, 3))])
def test_a_global_pool_leaves_the_channels(keepdims, expected):
    assert shape("GlobalAvgPool", (None, 7, None, 3), keepdims=keepdims) == expected


@pytest.mark.parametrize(("given", "expected"), [((None, 2, 3, 4), (None, 24)), ((5, None, 3), (5, None)), ((5,), (5, 1))])
def test_flatten_multiplies_all_axes_but_the_first(given, expected):
    assert shape("Flatten", given) == expected


@pytest.mark.parametrize(
    ("given", "target", "expected"),
    [((None, 6, 4), (8, 3), (None, 8, 3)), ((2, 6, 4), (-1, 2), (2, 12, 2)), ((2, None, 4), (-1, 2), (2, None, 2))],
)
def test_reshape_gives_its_target(given, target, expected):
    assert shape("Reshape", given, target_shape=target) == expected


@pytest.mark.parametrize("target", [(5, 5), (-1, 5)])
def test_a_reshape_that_does_not_add_up_is_an_error(target):
    with pytest.raises(ShapeError, match="does not reshape"):
        shape("Reshape", (None, 6, 4), target_shape=target)


@pytest.mark.parametrize("op", ["Input", "Const", "keras.LSTM"])
def test_an_op_without_a_rule_has_no_shape(op):
    assert shape(op, (None, 3)) is None


@pytest.mark.parametrize(("op", "inputs"), [("Relu", ((1,), (1,))), ("Dense", ((1, 2),)), ("Add", ())])
def test_inputs_or_parameters_that_do_not_fit_at_all_are_a_shape_error(op, inputs):
    with pytest.raises(ShapeError, match=f"node n: {op} does not fit its inputs"):
        shape(op, *inputs)
