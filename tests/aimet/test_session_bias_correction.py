"""AIMET's bias correction in sessions, of whole networks on data: against the published procedure done naively."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import v1_graphs
from correction_by_hand import (
    TF,
    X,
    added,
    assert_biases,
    biases,
    chain,
    joined,
    naively,
    normed,
    on_grid,
    outputs,
    params,
    quantize,
    silent,
    spread,
    twin_of,
)
from keras2_sessions import in_session
from tfpasses.graph import TfpassesError
from tfpasses.passes.aimet.batch_norm_fold import fold_all_batch_norms
from tfpasses.passes.aimet.bias_correction import (
    BiasCorrection,
    BiasCorrectionParams,
    QuantParams,
    QuantScheme,
)
from tfpasses.passes.aimet.cross_layer_equalization import CrossLayerScaling
from tfpasses.passes.aimet.utils.op.conv import BiasUtils
from tfpasses.passes.quantization.quantizer import Quantizer

tf_keras = pytest.importorskip("tf_keras", reason="Keras 2 is not installed (pip install tf-keras)")

v1 = tf.compat.v1
no_warning = silent  # for all tests here


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("make", [chain, joined])
def test_biases_are_those_of_the_published_procedure_in_a_new_session(make, bias):
    model = spread(in_session(lambda: make(bias)))
    before = model.run(X)
    new = BiasCorrection.correct_bias(model.session, params(model), TF, tf.data.Dataset.from_tensor_slices(X).batch(20))
    assert_biases(biases(new, "abcde"), naively(model, make, "abcde", X), biases(twin_of(model, make).session, "abcde"))
    for name, value in model.values().items():
        if "kernel" in name:  # a float graph comes out
            np.testing.assert_array_equal(model.values(new)[name], value)
    np.testing.assert_array_equal(model.run(X), before)


def test_what_is_run_with_quantized_weights_gives_the_means_of_the_float_network():
    model = spread(in_session(lambda: chain(True)))
    new = BiasCorrection.correct_bias(model.session, params(model), TF, X)
    twin = twin_of(model, chain)
    quantize(twin, "abcde")
    off = [np.abs((twin.run(X) - model.run(X)).mean(axis=0)).max()]
    for name, value in biases(new, "abcde").items():
        twin.set(f"{name}/bias", value)
    off.append(np.abs((twin.run(X) - model.run(X)).mean(axis=0)).max())
    assert off[1] < 1e-5 < 1e-2 < off[0]


@pytest.mark.parametrize("mode", ["tf_enhanced", QuantScheme.post_training_tf_enhanced, "stochastic"])
def test_modes_of_quantizing_in_all_spellings(mode):
    model = spread(in_session(lambda: joined(True)))
    rounding = "stochastic" if mode == "stochastic" else "nearest"
    given = QuantParams("tf", rounding) if mode == "stochastic" else QuantParams(mode)
    new = BiasCorrection.correct_bias(model.session, params(model), given, X)
    quantizer = Quantizer(8, "tf" if mode == "stochastic" else "tf_enhanced", symmetric=True, rounding=rounding)
    reference, other = twin_of(model, joined), twin_of(model, joined)
    for name, value in model.values().items():
        if "kernel" in name:  # what is drawn depends on the kernel's name
            other.set(name.removesuffix(":0"), quantizer.quantized(value, key=name.removesuffix(":0")))
    for name in "abcde":
        more = outputs(other, name, X) - outputs(reference, name, X)
        other.set(f"{name}/bias", other.value(f"{name}/bias") - more.mean(axis=tuple(range(more.ndim - 1))))
    assert_biases(biases(new, "abcde"), biases(other.session, "abcde"))


def test_the_default_is_tf_enhanced_and_nearest():
    given = QuantParams()
    assert (given.quant_mode, given.round_mode, given.use_cuda, given.ops_to_ignore) == ("tf_enhanced", "nearest", True, None)
    assert given.quantizer(symmetric=True) == Quantizer(8, "tf_enhanced", symmetric=True, per_channel=False, rounding="nearest")


def test_whole_batches_are_used_as_many_as_the_samples_take():
    model = spread(in_session(lambda: chain(True)))
    data = tf.data.Dataset.from_tensor_slices(X).batch(4)
    new = BiasCorrection.correct_bias(model.session, params(model, samples=10, batch=4), TF, data)
    assert_biases(biases(new, "abcde"), naively(model, chain, "abcde", X[:12]))
    assert np.abs(added(new, "a") - naively(model, chain, "a", X[:10])["a"]).max() > 1e-4


def test_fewer_samples_than_wanted_are_used_with_a_warning():
    model = spread(in_session(lambda: chain(True)))
    with pytest.warns(UserWarning, match=r"^20 samples were read; 64 are wanted, and there are no more$"):
        new = BiasCorrection.correct_bias(model.session, params(model, samples=50, batch=32), TF, X)
    assert_biases(biases(new, "abcde"), naively(model, chain, "abcde", X))


def of_graph(x):
    with tf.Graph().as_default():
        return tf.data.Dataset.from_tensor_slices(x).batch(8)


DATA = {
    "batches of another size": lambda x: tf.data.Dataset.from_tensor_slices(x).batch(7),
    "no batches": tf.data.Dataset.from_tensor_slices,
    "labels": lambda x: tf.data.Dataset.from_tensor_slices((x, np.arange(len(x)))).batch(5),
    "float64": lambda x: tf.data.Dataset.from_tensor_slices(x.astype(np.float64)).batch(1),
    "repeated": lambda x: tf.data.Dataset.from_tensor_slices(x).batch(20).repeat(),
    "of a graph": of_graph,
    "generator": lambda x: (one for one in np.split(x, 4)),
}


@pytest.mark.parametrize("kind", DATA)
def test_all_kinds_of_data_give_the_same(kind):
    model = spread(in_session(lambda: chain(True)))
    with model.session.graph.as_default(), model.session.as_default():
        new = BiasCorrection.correct_bias(model.session, params(model), TF, DATA[kind](X))
    assert_biases(biases(new, "abcde"), naively(model, chain, "abcde", X))


def test_several_inputs_are_fed_in_the_order_of_their_names():
    def make(bias=True):
        layers = tf_keras.layers
        x, z = tf_keras.Input((12, 12, 3), name="x"), tf_keras.Input((5,), name="z")
        a = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Conv2D(4, 3, name="a")(x)))
        return tf_keras.Model([x, z], layers.Dense(3, name="c")(layers.Concatenate()([a, layers.ReLU()(layers.Dense(2, name="b")(z))])))

    model = spread(in_session(make))
    z = np.random.default_rng(7).normal(0.3, 1.0, (20, 5)).astype("float32")
    given = BiasCorrectionParams(20, 1, 20, ["z", "x"], [model.target])
    new = BiasCorrection.correct_bias(model.session, given, TF, tf.data.Dataset.from_tensor_slices((z, X)).batch(5))
    reference, other = twin_of(model, make), twin_of(model, make)
    quantize(other, "abc")
    for name in "abc":
        more = np.subtract(*(one.session.run(f"{name}/BiasAdd:0", {"x:0": X, "z:0": z}).astype(np.float64) for one in (other, reference)))
        other.set(f"{name}/bias", other.value(f"{name}/bias") - more.mean(axis=tuple(range(more.ndim - 1))))
    assert_biases(biases(new, "abc"), biases(other.session, "abc"))


def test_a_bias_that_several_operations_add_is_corrected_once_by_the_mean_over_all():
    def make(bias=True):
        layers = tf_keras.layers
        x = tf_keras.Input((12, 12, 3))
        a = layers.Conv2D(3, 3, padding="same", use_bias=bias, name="a")
        y = layers.ReLU()(a(layers.ReLU()(a(x))))
        return tf_keras.Model(x, layers.Dense(3, name="b")(layers.GlobalAveragePooling2D()(y)))

    model = spread(in_session(make))
    new = BiasCorrection.correct_bias(model.session, params(model), TF, X)
    reference, other = twin_of(model, make), twin_of(model, make)
    quantize(other, "ab")

    def means(names):
        differences = [
            np.subtract(*(one.session.run(f"{name}:0", {f"{model.source}:0": X}).astype(np.float64) for one in (other, reference)))
            for name in names
        ]
        return np.mean([more.mean(axis=tuple(range(more.ndim - 1))) for more in differences], axis=0)

    other.set("a/bias", other.value("a/bias") - means(["a/BiasAdd", "a_1/BiasAdd"]))
    other.set("b/bias", other.value("b/bias") - means(["b/BiasAdd"]))
    assert_biases({name: model.value(f"{name}/bias", new) for name in "ab"}, {name: other.value(f"{name}/bias") for name in "ab"})


def test_a_bias_behind_what_moves_a_layers_value_is_found_by_the_operation_that_multiplies():
    """A dilated convolution, one in 1-D, a dense layer of three axes."""

    def make():
        layers = tf_keras.layers
        x = tf_keras.Input((12, 12, 3))
        y = layers.ReLU()(layers.Conv2D(4, 2, dilation_rate=2, name="a")(x))
        y = layers.ReLU()(layers.Conv1D(5, 3, name="b")(layers.Reshape((10, 40))(y)))
        return tf_keras.Model(x, layers.Dense(3, name="c")(y))

    model = in_session(make)
    graph = model.session.graph
    inside = [[op for op in graph.get_operations() if op.name.startswith(f"{name}/")] for name in "abc"]
    multiply = [next(op for op in ops if op.type in ("Conv2D", "MatMul")) for ops in inside]
    assert not any(map(BiasUtils.is_bias_none, multiply))
    for op, name in zip(multiply, "abc", strict=True):
        np.testing.assert_array_equal(BiasUtils.get_bias_as_numpy_data(model.session, op), model.value(f"{name}/bias"))
    before = model.run(X)
    scale = CrossLayerScaling.scale_cls_set_with_conv_layers(model.session, (multiply[1], multiply[2]))
    assert np.abs(scale - 1).max() > 0.05
    np.testing.assert_allclose(model.run(X), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("use_resource", v1_graphs.KINDS.values(), ids=list(v1_graphs.KINDS))
def test_a_graph_made_by_hand_with_its_training_is_corrected(use_resource):
    """Convolution, fused batch norm, ReLU, matrix product and a sum with a number; an optimizer, and a learning phase."""
    session = v1_graphs.network(use_resource)
    given = BiasCorrectionParams(2, 2, 2, "x", "y")
    new = BiasCorrection.correct_bias(session, given, TF, v1_graphs.X)
    with session.graph.as_default():
        values = {one.name: session.run(one) for one in v1.global_variables()}
    kernels = values["conv/kernel:0"], values["head/weights:0"]
    quantized = [on_grid(kernel, True) for kernel in kernels]

    def conv(kernel):
        return tf.nn.conv2d(v1_graphs.X.astype(np.float64), kernel, 1, "SAME").numpy()

    first = (conv(quantized[0]) - conv(kernels[0].astype(np.float64))).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(added(new, "conv"), -first, rtol=0, atol=1e-6)
    gamma, beta, mean, variance = (values[f"norm/{name}:0"] for name in ("gamma", "beta", "moving_mean", "moving_variance"))

    def pooled(kernel, bias):
        y = (conv(kernel) + bias - mean) * gamma / np.sqrt(variance + 1e-3) + beta  # 0.001 is fused_batch_norm's epsilon
        return np.maximum(y, 0).mean(axis=(1, 2))

    second = pooled(quantized[0], -first) @ quantized[1] - pooled(kernels[0].astype(np.float64), 0.0) @ kernels[1]
    matrix = new.graph.get_operation_by_name("MatMul")  # the number that is added behind it is no bias
    np.testing.assert_allclose(BiasUtils.get_bias_as_numpy_data(new, matrix), -second.mean(axis=0), rtol=0, atol=1e-5)
    assert v1_graphs.run(new).shape == (2, 2)


def test_what_is_ignored_is_neither_quantized_nor_corrected():
    model = spread(in_session(lambda: chain(True)))
    ops = ["b/depthwise", model.op("d/BiasAdd"), "a/Conv2D", "leaky_re_lu/LeakyRelu"]
    new = BiasCorrection.correct_bias(model.session, params(model), QuantParams("tf", ops_to_ignore=ops), X)
    zero = dict.fromkeys("abd", 0.0)
    wanted = naively(model, chain, "abcde", X, quantized="ce", given=zero)
    assert_biases(biases(new, "abcde"), wanted)
    for name in "abd":
        np.testing.assert_array_equal(added(new, name), model.value(f"{name}/bias"))
    one = BiasCorrection.correct_bias(model.session, params(model), QuantParams("tf", ops_to_ignore="a/Conv2D"), X)
    np.testing.assert_array_equal(added(one, "a"), model.value("a/bias"))
    assert np.abs(added(one, "b") - model.value("b/bias")).max() > 1e-3


def test_an_ignored_layer_without_a_bias_gets_one_of_zeros():
    model = spread(in_session(lambda: chain(False)))
    new = BiasCorrection.correct_bias(model.session, params(model), QuantParams("tf", ops_to_ignore=["c/Conv2D"]), X)
    np.testing.assert_array_equal(added(new, "c"), np.zeros(5))
    assert np.abs(added(new, "b")).max() > 1e-3


def test_every_convolution_and_matrix_product_has_a_bias_afterwards():
    model = in_session(normed)
    folded, _ = fold_all_batch_norms(model.session, model.source, model.target)
    for session in (model.session, folded):
        new = BiasCorrection.correct_bias(session, params(model), TF, X, perform_only_empirical_bias_corr=False)
        for name in ("a/Conv2D", "b/depthwise", "c/Conv2D", "d/Conv2D", "e/MatMul"):
            assert not BiasUtils.is_bias_none(new.graph.get_operation_by_name(name)), name


def test_what_the_outputs_do_not_need_is_left_alone():
    generator = np.random.default_rng(3)
    with tf.Graph().as_default() as graph:
        kernels = [v1.get_variable(name, initializer=generator.normal(size=(3, 3, 3, 2)).astype("float32")) for name in "kl"]
        x, z = (v1.placeholder("float32", (None, 12, 12, 3), name) for name in "xz")
        tf.identity(tf.nn.conv2d(x, kernels[0], 1, "SAME", name="first"), "y")
        tf.identity(tf.nn.conv2d(z, kernels[1], 1, "SAME", name="other"), "w")
        session = v1.Session(graph=graph)
        session.run(v1.global_variables_initializer())
    new = BiasCorrection.correct_bias(session, BiasCorrectionParams(20, 20, 20, ["x"], ["y"]), TF, X)
    assert np.abs(BiasUtils.get_bias_as_numpy_data(new, new.graph.get_operation_by_name("first"))).max() > 1e-4
    np.testing.assert_array_equal(new.run("w:0", {"z:0": X}), session.run("w:0", {"z:0": X}))


@pytest.mark.parametrize("default", [True, False])
def test_a_learning_phase_that_is_fed_is_taken_for_inference(default):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder("float32", (None, 12, 12, 3), "x")
        training = v1.placeholder_with_default(False, (), "is_training") if default else v1.placeholder("bool", (), "is_training")
        kernel = v1.get_variable("k", (3, 3, 3, 2))
        y = tf.nn.conv2d(x, kernel, 1, "SAME", name="c")
        tf.cond(training, lambda: tf.nn.dropout(y, 0.5), lambda: y * 1.0, name="phase")
        z = tf.cond(training, lambda: y + v1.random_normal((2,)), lambda: tf.identity(y))
        tf.nn.conv2d(z, v1.get_variable("l", (3, 3, 2, 2)), 1, "SAME", name="y")
        session = v1.Session(graph=graph)
        session.run(v1.global_variables_initializer())
    new = BiasCorrection.correct_bias(session, BiasCorrectionParams(20, 20, 20, ["x"], ["y"]), TF, X)
    assert not BiasUtils.is_bias_none(new.graph.get_operation_by_name("y"))
    kernels = session.run([one.inputs[1] for one in (graph.get_operation_by_name("c"), graph.get_operation_by_name("y"))])
    quantized = [on_grid(kernel, True) for kernel in kernels]

    def conv(image, kernel):
        return tf.nn.conv2d(image, np.asarray(kernel, np.float64), 1, "SAME").numpy()

    first = [conv(X.astype(np.float64), kernel[0]) for kernel in (quantized, kernels)]
    shift = (first[0] - first[1]).mean(axis=(0, 1, 2))
    second = (conv(first[0] - shift, quantized[1]) - conv(first[1], kernels[1])).mean(axis=(0, 1, 2))
    got = [BiasUtils.get_bias_as_numpy_data(new, new.graph.get_operation_by_name(name)) for name in "cy"]
    np.testing.assert_allclose(got, [-shift, -second], rtol=0, atol=1e-6)


def test_another_placeholder_that_is_not_fed_is_an_error():
    with tf.Graph().as_default() as graph:
        x, keep = v1.placeholder("float32", (None, 12, 12, 3), "x"), v1.placeholder("float32", (), "keep_prob")
        tf.nn.conv2d(x * keep, v1.get_variable("k", (3, 3, 3, 2)), 1, "SAME", name="y")
        session = v1.Session(graph=graph)
        session.run(v1.global_variables_initializer())
    with pytest.raises(TfpassesError, match=r"^input keep_prob is needed and not given$"):
        BiasCorrection.correct_bias(session, BiasCorrectionParams(20, 20, 20, ["x"], ["y"]), TF, X)


ALONE = """
import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
v1.disable_eager_execution()
x = v1.placeholder("float32", (None, 8, 8, 3), "x")
kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype("float32")
tf.nn.relu(tf.nn.conv2d(x, v1.get_variable("k", initializer=kernel), 1, "SAME", name="c"), "y")
data = tf.data.Dataset.from_tensor_slices(np.random.default_rng(1).normal(0.5, 1, (12, 8, 8, 3)).astype("float32")).batch(4)
session = v1.Session()
session.run(v1.global_variables_initializer())

from tfpasses.passes.aimet.bias_correction import BiasCorrection, BiasCorrectionParams, QuantParams
from tfpasses.passes.aimet.utils.op.conv import BiasUtils

new = BiasCorrection.correct_bias(session, BiasCorrectionParams(4, 4, 12, ["x"], ["y"]), QuantParams(), data)
once = BiasUtils.get_bias_as_numpy_data(new, new.graph.get_operation_by_name("c"))
other = BiasUtils.initialize_model_with_bias(session, ["x"], ["y"])
BiasCorrection.bias_correction_per_layer(other, other, BiasCorrectionParams(4, 4, 12, ["x"], ["y"]), "c", data, QuantParams())
np.testing.assert_allclose(BiasUtils.get_bias_as_numpy_data(other, other.graph.get_operation_by_name("c")), once, rtol=1e-3, atol=1e-6)
assert np.abs(once).max() > 1e-4
"""


@pytest.mark.slow
def test_a_program_that_turned_eager_execution_off_is_served():
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
