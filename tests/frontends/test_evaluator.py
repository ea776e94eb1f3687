"""Running graphs: every canonical operation against Keras's own layer, in float32 and, where Keras has a kernel, in float64."""

from __future__ import annotations

import math

import attrs
import keras
import numpy as np
import pytest
from keras import Input, Model, ops
from keras import layers as L

from keras_layers import CANONICAL, OPAQUE, LayerCase, randomize
from keras_models import MODELS, build
from keras_same import inputs_for, outputs_of
from tfpasses.frontends.keras import from_keras, keras_evaluator
from tfpasses.graph import Graph, GraphError, Ref

EPS = float(np.finfo(np.float32).eps)
NO_KERNEL = ("conv2d channels first", "transpose2d dilated")
"""Cases that TensorFlow cannot run on a CPU as they are; the lowering is compared in another way."""


def run(graph: Graph, x: object, dtype: str | None = None) -> list[np.ndarray]:
    feeds = [Ref(name) for name in graph.inputs]
    return keras_evaluator().compile(graph, feeds, graph.outputs, dtype)(dict(zip(feeds, keras.tree.flatten(x), strict=True)))


def terms(graph: Graph) -> int:
    """The most products that any output of the graph sums up: all taps of all kernels, or all elements of a window."""
    sums = [math.prod(array.shape) for array in graph.weights.values() if array.ndim > 1]
    return max([64, *sums])


def bound(graph: Graph, expected: np.ndarray) -> float:
    """Two float32 sums of n products differ by at most 2·n·eps times the sum of their absolute values, of the order of the largest."""
    return 2 * terms(graph) * EPS * max(1.0, float(np.abs(expected).max()))


def widened(model: keras.Model) -> keras.Model:
    """The same model under the float64 policy."""

    def wide(config: object) -> object:
        if isinstance(config, dict):
            if config.get("class_name") == "DTypePolicy":
                return {**config, "config": {"name": "float64"}}
            return {key: "float64" if key == "dtype" and value == "float32" else wide(value) for key, value in config.items()}
        return [wide(value) for value in config] if isinstance(config, list) else config

    new = Model.from_config(wide(model.get_config()))
    for a, b in zip(new.weights, model.weights, strict=True):
        a.assign(b.numpy().astype(np.float64))
    return new


@pytest.mark.parametrize("case", sorted(set(CANONICAL) - set(NO_KERNEL)))
def test_a_canonical_layer_gives_what_keras_gives_in_float32(case):
    model = CANONICAL[case].model()
    x = inputs_for(model)
    for a, b in zip(run(from_keras(model), x), outputs_of(model, x, training=False), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=0, atol=bound(from_keras(model), b))


POOLS_3D = tuple(case for case in CANONICAL if "pool3d" in case and "global" not in case)
LEAKY = {"leaky relu": 0.3, "activation leaky_relu": 0.2}
LINES = tuple(case for case in CANONICAL if "bilinear" in case)
NO_KERAS_FLOAT64 = (*POOLS_3D, *LEAKY, *LINES)
"""TensorFlow has no three-dimensional pool of doubles, rounds a leaky ReLU's slope to float32, and resizes in float32 alone."""


@pytest.mark.parametrize("case", sorted(set(CANONICAL) - set(NO_KERNEL) - set(NO_KERAS_FLOAT64)))
def test_a_canonical_layer_gives_what_keras_gives_under_the_float64_policy(case):
    model = CANONICAL[case].model()
    x = keras.tree.map_structure(lambda value: value.astype("float64"), inputs_for(model))
    for a, b in zip(run(from_keras(model), x, "float64"), outputs_of(widened(model), x, training=False), strict=True):
        assert a.dtype == np.float64
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", LINES)
def test_lines_between_centers_in_float64_are_those_in_float32_but_for_rounding(case):
    model = CANONICAL[case].model()
    x = inputs_for(model)
    (narrow,), (wide,) = run(from_keras(model), x), run(from_keras(model), x.astype("float64"), "float64")
    np.testing.assert_allclose(narrow, wide, rtol=0, atol=16 * EPS * np.abs(x).max())


@pytest.mark.parametrize("case", POOLS_3D)
def test_a_three_dimensional_pool_in_float64_is_that_in_float32_of_numbers_that_both_hold(case):
    model = CANONICAL[case].model()
    x = np.round(inputs_for(model) * 256) / 256  # sums of eight such numbers, and their eighths, are exact in float32
    (narrow,), (wide,) = run(from_keras(model), x), run(from_keras(model), x.astype("float64"), "float64")
    exact = 0 if "max" in case or "valid" in case else 4 * EPS  # a border window may hold three, and a third is not
    np.testing.assert_allclose(wide, narrow, rtol=exact, atol=exact)
    np.testing.assert_allclose(narrow, outputs_of(model, x)[0], rtol=exact, atol=exact)


def test_a_relu_with_all_its_options_in_float64_is_its_definition():
    model = CANONICAL["relu all"].model()
    x = inputs_for(model).astype("float64")
    expected = np.where(x >= 0.5, 0.5, np.where(x >= 0.2, x, 0.1 * (x - 0.2)))
    np.testing.assert_allclose(run(from_keras(model), x, "float64")[0], expected, rtol=1e-14)


@pytest.mark.parametrize("case", LEAKY)
def test_a_leaky_relu_in_float64_is_its_definition(case):
    model = CANONICAL[case].model()
    x = inputs_for(model).astype("float64")
    np.testing.assert_allclose(run(from_keras(model), x, "float64")[0], np.where(x > 0, x, LEAKY[case] * x), rtol=1e-14)


def transposed_by_hand(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, rate: int) -> np.ndarray:
    """Every input pixel adds its kernel, spread by the rate, to the output (valid padding, stride 1)."""
    batch, height, width, _ = x.shape
    rows, columns, channels, _ = kernel.shape
    out = np.zeros((batch, height + (rows - 1) * rate, width + (columns - 1) * rate, channels))
    for i in range(rows):
        for j in range(columns):
            out[:, i * rate : i * rate + height, j * rate : j * rate + width] += x @ kernel[i, j].T
    return out + bias


def test_a_dilated_transposed_convolution_spreads_its_kernel():
    model = CANONICAL["transpose2d dilated"].model()
    x = inputs_for(model).astype("float64")
    kernel, bias = (w.numpy().astype("float64") for w in model.weights)
    (value,) = run(from_keras(model), x, "float64")
    np.testing.assert_allclose(value, transposed_by_hand(x, kernel, bias, 2), rtol=1e-12, atol=1e-12)


FIRST = {
    "conv": (lambda **o: L.Conv2D(6, (3, 2), strides=(2, 1), padding="same", groups=2, **o), (9, 8, 4)),
    "dilated conv": (lambda **o: L.Conv2D(6, 3, dilation_rate=(1, 2), **o), (9, 8, 4)),
    "depthwise": (lambda **o: L.DepthwiseConv2D(3, strides=2, depth_multiplier=2, padding="same", **o), (9, 8, 4)),
    "transposed": (lambda **o: L.Conv2DTranspose(5, 3, strides=2, padding="same", **o), (5, 4, 4)),
    "separable": (lambda **o: L.SeparableConv2D(5, 3, padding="same", **o), (9, 8, 4)),
    "conv3d": (lambda **o: L.Conv3D(3, 2, padding="same", **o), (4, 5, 3, 2)),
    "conv1d": (lambda **o: L.Conv1D(3, 3, strides=2, **o), (9, 4)),
    "max pool": (lambda **o: L.MaxPooling2D(3, strides=2, padding="same", **o), (9, 8, 4)),
    "average pool": (lambda **o: L.AveragePooling2D(2, padding="same", **o), (9, 7, 4)),
    "global pool": (lambda **o: L.GlobalMaxPooling2D(keepdims=True, **o), (9, 7, 4)),
    "crop": (lambda **o: L.Cropping2D(((1, 0), (2, 3)), **o), (9, 7, 4)),
    "pad": (lambda **o: L.ZeroPadding2D(((1, 0), (2, 3)), **o), (9, 7, 4)),
}


@pytest.mark.parametrize("case", FIRST)
@pytest.mark.parametrize("dtype", [None, "float64"])
def test_channels_first_is_channels_last_with_the_axes_moved(case, dtype):
    make, shape = FIRST[case]
    last, first = make(), make(data_format="channels_first")
    a, b = LayerCase(lambda: last, shape).model(), LayerCase(lambda: first, (shape[-1], *shape[:-1])).model()
    x = inputs_for(a)
    (expected,), (value,) = run(from_keras(a), x, dtype), run(from_keras(b), np.moveaxis(x, -1, 1), dtype)
    np.testing.assert_array_equal(np.moveaxis(value, 1, -1), expected)


def float64_conv(x, kernel, bias, strides, dilation, groups, padding):
    """A 2-D convolution, one output pixel at a time."""
    rows, columns, width, filters = kernel.shape
    reach = [(rows - 1) * dilation + 1, (columns - 1) * dilation + 1]
    if padding == "same":
        sizes = [-(-size // strides) for size in x.shape[1:3]]
        total = [max((n - 1) * strides + r - size, 0) for n, r, size in zip(sizes, reach, x.shape[1:3], strict=True)]
        x = np.pad(x, [(0, 0), *[(t // 2, t - t // 2) for t in total], (0, 0)])
    else:
        sizes = [(size - r) // strides + 1 for size, r in zip(x.shape[1:3], reach, strict=True)]
    out = np.zeros((x.shape[0], *sizes, filters))
    per = filters // groups
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            window = x[:, i * strides : i * strides + reach[0] : dilation, j * strides : j * strides + reach[1] : dilation]
            for g in range(groups):
                part = window[..., g * width : (g + 1) * width]
                out[:, i, j, g * per : (g + 1) * per] = np.tensordot(part, kernel[..., g * per : (g + 1) * per], 3)
    return out + bias


@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3)])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("size", [(9, 8), (7, 10)])
def test_a_convolution_in_float64_is_the_sum_of_its_products(strides, dilation, groups, padding, size):
    layer = L.Conv2D(4, (3, 2), strides=strides, dilation_rate=dilation, groups=groups, padding=padding)
    model = LayerCase(lambda: layer, (*size, 4)).model()
    x = inputs_for(model).astype("float64")
    kernel, bias = (w.numpy().astype("float64") for w in model.weights)
    (value,) = run(from_keras(model), x, "float64")
    np.testing.assert_allclose(value, float64_conv(x, kernel, bias, strides, dilation, groups, padding), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(9, 8), (7, 7), (4, 5)])
@pytest.mark.parametrize(("pool", "strides"), [(2, 2), (3, 2), (3, 1), (2, 3)])
def test_an_average_pool_counts_no_padding(size, pool, strides):
    model = LayerCase(lambda: L.AveragePooling2D(pool, strides, padding="same"), (*size, 2)).model()
    x = inputs_for(model)
    (narrow,), (wide,) = run(from_keras(model), x), run(from_keras(model), x.astype("float64"), "float64")
    if strides <= pool:  # Keras cannot run the others
        np.testing.assert_allclose(narrow, outputs_of(model, x)[0], rtol=0, atol=2 * pool**2 * EPS * 4)
    ones = np.ones_like(x, "float64")
    np.testing.assert_allclose(run(from_keras(model), ones, "float64")[0], 1.0, rtol=1e-12)
    np.testing.assert_allclose(wide, narrow, rtol=0, atol=2 * pool**2 * EPS * 4)


@pytest.mark.parametrize("output_padding", [None, 0, 1, (1, 0)])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("strides", "size"), [(2, (5, 4)), (3, (4, 5)), ((2, 3), (5, 5))])
def test_a_transposed_convolution_gives_what_keras_gives(output_padding, padding, strides, size):
    model = LayerCase(lambda: L.Conv2DTranspose(3, 3, strides=strides, padding=padding, output_padding=output_padding), (*size, 2)).model()
    x = inputs_for(model)
    (expected,), (value,) = outputs_of(model, x), run(from_keras(model), x)
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=0, atol=bound(from_keras(model), expected))


RUN = sorted(set(MODELS) - {"optional_and_sparse_inputs", "channels_first", "training_calls"})


@pytest.mark.parametrize("name", RUN)
def test_a_whole_model_gives_what_keras_gives(name):
    model = build(name)
    x, graph = inputs_for(model), from_keras(model)
    half = any("16" in node.specs[0].dtype for node in graph.nodes.values())
    for value, expected in zip(run(graph, x), outputs_of(model, x), strict=True):
        a, b = value.astype("float64"), expected.astype("float64")
        # half precision: 2^-8 is bfloat16's unit; a value is rounded at most once a layer, by at most that
        np.testing.assert_allclose(a, b, rtol=0, atol=8 * 2**-8 * max(1.0, np.abs(b).max()) if half else bound(graph, b))


@pytest.mark.parametrize("case", sorted(set(OPAQUE) - {"random flip", "spectral norm"}))
def test_an_opaque_layer_is_run_by_keras_in_its_own_dtype(case):
    model = OPAQUE[case].model()
    x = inputs_for(model)
    graph = from_keras(model)
    for a, b in zip(run(graph, x), outputs_of(model, x), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(run(graph, x, "float64"), outputs_of(model, x), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == "float64" or "float" not in b.dtype.name


def test_training_is_what_the_call_says():
    x = Input((4,), name="x")
    model = Model(x, L.BatchNormalization()(x, training=True))
    randomize(model)
    data = inputs_for(model, batch=5)
    (value,) = run(from_keras(model), data)
    normal = (data - data.mean(0)) / np.sqrt(data.var(0) + 1e-3)
    gamma, beta = (w.numpy() for w in model.weights[:2])
    np.testing.assert_allclose(value, normal * gamma + beta, rtol=0, atol=64 * EPS * 4)


def test_a_frozen_batch_norm_called_with_training_uses_its_statistics():
    x = Input((4,), name="x")
    model = Model(x, L.BatchNormalization(trainable=False)(x, training=True))
    randomize(model)
    data = inputs_for(model)
    np.testing.assert_allclose(run(from_keras(model), data)[0], outputs_of(model, data)[0], rtol=0, atol=64 * EPS * 4)


def test_an_input_that_is_not_fed_is_an_error_by_its_name():
    graph = from_keras(build("shared_layer"))
    with pytest.raises(GraphError, match="input b is needed and not given"):
        keras_evaluator().compile(graph, [Ref("a")], graph.outputs)


def test_an_input_that_the_fetch_does_not_need_need_not_be_fed():
    graph = from_keras(build("unused_input"))
    (value,) = keras_evaluator().compile(graph, [Ref("x")], graph.outputs)({Ref("x"): np.ones((2, 4), "float32")})
    assert value.shape == (2, 2)


def test_a_value_in_the_middle_can_be_fed_and_fetched():
    x = Input((4,), name="x")
    model = Model(x, L.ReLU(name="r")(L.Dense(3, name="d")(x)))
    graph, data = from_keras(model), np.float32([[-1, 0, 2]])
    evaluator = keras_evaluator()
    assert evaluator.compile(graph, [Ref("d")], [Ref("r"), Ref("d")])({Ref("d"): data})[0].tolist() == [[0, 0, 2]]
    (fetched,) = evaluator.compile(graph, [Ref("x")], [Ref("d")])({Ref("x"): np.zeros((1, 4), "float32")})
    np.testing.assert_array_equal(fetched[0], model.get_layer("d").bias)


def test_the_graphs_weights_count_and_not_the_models():
    model = build("sequential")
    graph = from_keras(model)
    zeros = attrs.evolve(graph, weights={key: np.zeros_like(array) for key, array in graph.weights.items()})
    assert not run(zeros, inputs_for(model))[0].any()


def test_the_second_output_of_an_operation_can_be_fetched():
    x = Input((6,), name="x")
    graph = from_keras(Model(x, ops.split(x, 3, axis=1)))
    data = np.arange(12, dtype="float32").reshape(2, 6)
    values = run(graph, data)
    assert [value.tolist() for value in values] == [data[:, i : i + 2].tolist() for i in (0, 2, 4)]
