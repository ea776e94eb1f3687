"""Raising by hand-built graphs: every way in which an operation is written, and what must not be raised, because .."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest
import tensorflow as tf

import tfpasses
from graph_defs import built, canonical, compute, draw, ops_of, passed
from tfpasses.frontends.graph_def import from_graph_def, to_graph_def
from tfpasses.graph import Edit, UnsupportedModelError, View

C = 5
X = (None, 6, 7, C)
GAMMA, BETA, MEAN = draw(C, seed=1), draw(C, seed=2), draw(C, seed=3)
VARIANCE = draw(C, seed=4, low=0.2, high=2.0)
RAW = tf.raw_ops


def node_of(graph, op):
    (found,) = [node for node in graph.nodes.values() if node.op == op]
    return found


def params(graph, node):
    return {slot: graph.weights[key].tolist() for slot, key in node.params.items()}


def assert_written_as_read(graph, definition):
    """What nobody changed leaves as the NodeDefs it came from."""
    assert sorted(map(str, to_graph_def(graph).node)) == sorted(map(str, definition.node))


def raised(definition, *ops, fresh=0):
    graph = canonical(definition)
    assert ops_of(graph) == list(ops)
    assert_written_as_read(graph, definition)
    return graph


# batch norms


def ordered(op, a, b, swap):
    return op(x=b, y=a) if swap else op(x=a, y=b)


def batch_norm(x, swaps, add, gamma=True, beta="sub", gamma_value=GAMMA):
    """(x - mean)·gamma/sqrt(variance + eps) + beta as TensorFlow writes it, with the operands in some order."""
    swap = iter(swaps)
    scale = RAW.Rsqrt(x=ordered(add, tf.constant(VARIANCE), tf.constant(np.float32(1e-3)), next(swap)))
    if gamma:
        scale = ordered(RAW.Mul, scale, tf.constant(gamma_value), next(swap))
    scaled = ordered(RAW.Mul, x, scale, next(swap))
    if beta == "sub":
        return ordered(add, scaled, tf.constant(BETA) - ordered(RAW.Mul, tf.constant(MEAN), scale, next(swap)), next(swap))
    if beta == "neg mean":
        return ordered(add, scaled, ordered(RAW.Mul, RAW.Neg(x=tf.constant(MEAN)), scale, next(swap)), next(swap))
    if beta == "neg product":
        return ordered(add, scaled, RAW.Neg(x=ordered(RAW.Mul, tf.constant(MEAN), scale, next(swap))), next(swap))
    return RAW.Sub(x=scaled, y=ordered(RAW.Mul, tf.constant(MEAN), scale, next(swap)))


@pytest.mark.parametrize("add", [RAW.AddV2, RAW.Add], ids=["AddV2", "Add"])
@pytest.mark.parametrize("gamma", [True, False], ids=["gamma", "no gamma"])
@pytest.mark.parametrize("beta", ["sub", "neg mean", "neg product", "none"])
def test_a_batch_norm_with_its_operands_in_every_order(add, gamma, beta):
    expected = {"mean": MEAN.tolist(), "variance": VARIANCE.tolist()}
    expected |= ({"gamma": GAMMA.tolist()} if gamma else {}) | ({"beta": BETA.tolist()} if beta == "sub" else {})
    for swaps in itertools.product([False, True], repeat=5 if gamma else 4):
        definition = built(lambda x, swaps=swaps: batch_norm(x, swaps, add, gamma, beta), x=X)
        graph = raised(definition, "BatchNorm")
        node = node_of(graph, "BatchNorm")
        assert params(graph, node) == expected
        assert node.config == {"axis": 3, "epsilon": float(np.float32(1e-3))}


FUSED = {
    "FusedBatchNorm": RAW.FusedBatchNorm,
    "FusedBatchNormV2": RAW.FusedBatchNormV2,
    "FusedBatchNormV3": RAW.FusedBatchNormV3,
}


def fused(x, op=RAW.FusedBatchNormV3, **options):
    options = {"epsilon": 0.01, "is_training": False, **options}
    return op(x=x, scale=tf.constant(GAMMA), offset=tf.constant(BETA), mean=tf.constant(MEAN), variance=tf.constant(VARIANCE), **options)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("name", FUSED)
def test_a_fused_batch_norm(name, layout):
    shape = X if layout == "NHWC" else (None, C, 6, 7)
    definition = built(lambda x: fused(x, FUSED[name], data_format=layout).y, x=shape)
    graph = raised(definition, "BatchNorm")
    node = node_of(graph, "BatchNorm")
    expected = {"gamma": GAMMA.tolist(), "beta": BETA.tolist(), "mean": MEAN.tolist(), "variance": VARIANCE.tolist()}
    assert params(graph, node) == expected
    assert node.config == {"axis": 3 if layout == "NHWC" else 1, "epsilon": float(np.float32(0.01))}


def conv(x, filters=C, size=3, seed=9, kernel=None, **options):
    options = {"strides": [1, 1, 1, 1], "padding": "SAME", **options}
    return RAW.Conv2D(
        input=x, filter=tf.constant(draw(size, size, x.shape[-1], filters, seed=seed)) if kernel is None else kernel, **options
    )


def folded(definition, options="", outputs=None):
    graph = from_graph_def(definition, outputs=outputs or [node.name for node in definition.node if node.name.startswith("out")])
    return passed(graph, f"canonicalize,fold-batch-norms{options}")


def assert_function_kept(definition, graph, shape, outputs=("out",), tolerance=1e-5):
    x = draw(*(size or 3 for size in shape), seed=7, low=-2, high=2)
    old, new = (compute(one, {"x": x}, outputs) for one in (definition, to_graph_def(graph)))
    for a, b in zip(old, new, strict=True):
        assert np.abs(a).max() > 0.05
        assert np.abs(a - b).max() <= tolerance * np.abs(a).max()


@pytest.mark.parametrize("training", [True, False])
def test_a_fused_batch_norm_folds_unless_it_is_in_training(training):
    def build(x):
        statistics = {"mean": tf.constant([], tf.float32), "variance": tf.constant([], tf.float32)} if training else {}
        values = {"mean": tf.constant(MEAN), "variance": tf.constant(VARIANCE), **statistics}
        x = conv(x)
        return RAW.FusedBatchNormV3(x=x, scale=tf.constant(GAMMA), offset=tf.constant(BETA), is_training=training, **values).y

    definition = built(build, x=X)
    result = tfpasses.run(from_graph_def(definition, outputs=["out"]), "canonicalize,fold-batch-norms", verify="off")
    assert ops_of(result.graph) == (["Conv", "tf.FusedBatchNormV3"] if training else ["Conv"])
    assert any("is_training=True" in remark.reason for remark in result.remarks) == training
    assert_function_kept(definition, result.graph, X)


def test_what_converters_leave_of_a_batch_norm_folds():
    definition = built(lambda x: conv(x) * tf.constant(GAMMA) + tf.constant(BETA), x=X)
    raised(definition, "Conv", "BatchNorm")
    graph = folded(definition)
    assert ops_of(graph) == ["Conv"]
    assert_function_kept(definition, graph, X)


@pytest.mark.parametrize("shape", [(), (1, 6, 1, C), (2, 3)], ids=["a number", "along two axes", "other shapes"])
def test_a_multiplication_that_is_not_per_channel_is_no_batch_norm(shape):
    if shape == (2, 3):
        definition = built(lambda x: x * tf.constant(draw(6, 1)) + tf.constant(draw(7, 1, 1)), x=(None, 6, 7, 6, 1))
    else:
        definition = built(lambda x: x * tf.constant(draw(*shape)) + tf.constant(BETA), x=X)
    assert "BatchNorm" not in ops_of(canonical(definition))


@pytest.mark.parametrize("negative", [False, True])
def test_a_channel_of_negative_or_zero_gamma(negative):
    gamma = np.array([-1.0 if negative else 0.0, 0.5, 1.0, -2.0, 0.0], "float32")
    definition = built(lambda x: batch_norm(conv(x), [False] * 5, RAW.AddV2, gamma_value=gamma), x=X)
    graph = folded(definition)
    assert ops_of(graph) == ["Conv"]
    assert_function_kept(definition, graph, X)


# what others fold silently


def test_a_convolution_with_a_second_consumer_keeps_its_batch_norm():
    def build(x):
        y = conv(x)
        return [batch_norm(y, [False] * 5, RAW.AddV2), RAW.Relu(features=y)]

    definition = built(build, x=X)
    graph = folded(definition)
    assert sorted(ops_of(graph)) == ["BatchNorm", "Conv", "Relu"]
    assert_function_kept(definition, graph, X, ["out", "out_1"])


def test_a_fetch_of_an_intermediate_tensor_keeps_the_batch_norm():
    definition = built(lambda x: [batch_norm(conv(x), [False] * 5, RAW.AddV2)], x=X)
    (conv_name,) = [node.name for node in definition.node if node.op == "Conv2D"]
    graph = folded(definition, outputs=["out", conv_name])
    assert "BatchNorm" in ops_of(graph)
    assert_function_kept(definition, graph, X, ["out", conv_name])


@pytest.mark.parametrize("inner", ["Rsqrt", "Sub", "Mul"])
def test_a_batch_norm_whose_inner_value_is_fetched_is_not_raised(inner):
    definition = built(lambda x: batch_norm(x, [False] * 5, RAW.AddV2), x=X)
    fetched = [node.name for node in definition.node if node.op == inner][-1]
    graph = canonical(definition, outputs=["out", fetched])
    assert "BatchNorm" not in ops_of(graph)
    assert_function_kept(definition, graph, X, ["out", fetched])


def test_a_shared_kernel_constant_is_sharing():
    def build(x):
        kernel = tf.constant(draw(3, 3, C, C))
        y = batch_norm(conv(x, kernel=kernel), [False] * 5, RAW.AddV2)
        return [y, conv(x, kernel=kernel)]

    definition = built(build, x=X)
    result = tfpasses.run(from_graph_def(definition, outputs=["out", "out_1"]), "canonicalize,fold-batch-norms", verify="off")
    convs = [node for node in result.graph.nodes.values() if node.op == "Conv"]
    assert len({node.params["kernel"] for node in convs}) == 1
    assert "BatchNorm" in ops_of(result.graph)
    assert_function_kept(definition, result.graph, X, ["out", "out_1"])


def test_a_shared_kernel_whose_uses_fold_alike_folds():
    def build(x):
        kernel = tf.constant(draw(3, 3, C, C))
        return [fused(conv(one, kernel=kernel)).y for one in (x, RAW.Tanh(x=x))]

    definition = built(build, x=X)
    graph = folded(definition)
    assert ops_of(graph).count("BatchNorm") == 0
    assert_function_kept(definition, graph, X, ["out", "out_1"])


def test_a_kernel_that_something_else_reads_too_is_not_changed():
    def build(x):
        kernel = tf.constant(draw(3, 3, C, C))
        return [fused(conv(x, kernel=kernel)).y, tf.reduce_sum(kernel)]

    definition = built(build, x=X)
    graph = folded(definition)
    assert "BatchNorm" in ops_of(graph)
    assert_function_kept(definition, graph, X, ["out", "out_1"])


def test_a_dilated_convolution_apart_folds():
    def build(x):
        y = RAW.SpaceToBatchND(input=x, block_shape=[2, 2], paddings=[[2, 2], [2, 3]])
        y = RAW.BatchToSpaceND(input=conv(y, padding="VALID"), block_shape=[2, 2], crops=[[0, 0], [0, 1]])
        return fused(y).y

    definition = built(build, x=X)
    graph = raised(definition, "Conv", "BatchNorm")
    assert (node_of(graph, "Conv").config["dilation"], node_of(graph, "Conv").config["padding"]) == ((2, 2), "same")
    graph = folded(definition)
    assert ops_of(graph) == ["Conv"]
    assert_function_kept(definition, graph, X)


@pytest.mark.parametrize(
    ("blocks", "pads", "crops"),
    [([2, 2], [[1, 3], [2, 3]], [[0, 0], [0, 1]]), ([2, 2], [[2, 2], [2, 3]], [[1, 0], [0, 1]])],
    ids=["pads elsewhere", "crops elsewhere"],
)
def test_space_to_batch_that_is_no_dilation_is_left_alone(blocks, pads, crops):
    def build(x):
        y = RAW.SpaceToBatchND(input=x, block_shape=blocks, paddings=pads)
        return RAW.BatchToSpaceND(input=conv(y, padding="VALID"), block_shape=blocks, crops=crops)

    graph = canonical(built(build, x=X))
    assert ops_of(graph) == ["tf.SpaceToBatchND", "Conv", "tf.BatchToSpaceND"]


def test_a_batch_norm_of_a_placeholder_stays():
    definition = built(lambda x: fused(x).y, x=X)
    graph = folded(definition)
    assert ops_of(graph) == ["BatchNorm"]
    assert_written_as_read(graph, definition)


def test_what_waits_for_another_node_is_not_raised():
    def build(x):
        with tf.control_dependencies([tf.debugging.assert_all_finite(x, "finite")]):
            return fused(conv(x)).y

    definition = built(build, x=X)
    graph = folded(definition)
    assert "tf.FusedBatchNormV3" in ops_of(graph)
    assert to_graph_def(graph) == definition


# linear operations


BIASES = {
    "BiasAdd": lambda y: RAW.BiasAdd(value=y, bias=tf.constant(BETA)),
    "Add": lambda y: RAW.Add(x=y, y=tf.constant(BETA)),
    "AddV2 before": lambda y: RAW.AddV2(x=tf.constant(BETA), y=y),
    "AddV2 of four axes": lambda y: RAW.AddV2(x=y, y=tf.constant(BETA.reshape(1, 1, 1, C))),
}


@pytest.mark.parametrize("name", BIASES)
def test_a_bias_in_every_spelling(name):
    definition = built(lambda x: BIASES[name](conv(x)), x=X)
    graph = raised(definition, "Conv")
    assert params(graph, node_of(graph, "Conv"))["bias"] == BETA.tolist()
    with_norm = built(lambda x: fused(BIASES[name](conv(x))).y, x=X)
    graph = folded(with_norm)
    assert ops_of(graph) == ["Conv"]
    assert_function_kept(with_norm, graph, X)


NO_BIASES = {
    "of another axis": lambda y: y + tf.constant(draw(7, 1)),
    "of one number": lambda y: y + tf.constant(np.float32(0.5)),
    "of every element": lambda y: y + tf.constant(draw(6, 7, C)),
    "not constant": lambda y: y + tf.reduce_mean(y),
}


@pytest.mark.parametrize("name", NO_BIASES)
def test_an_addition_that_is_no_bias(name):
    graph = canonical(built(lambda x: NO_BIASES[name](conv(x)), x=X))
    assert "bias" not in node_of(graph, "Conv").params


def test_a_second_bias_is_an_addition():
    definition = built(lambda x: conv(x) + tf.constant(BETA) + tf.constant(MEAN), x=X)
    raised(definition, "Conv", "Add")


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("transpose", [False, True])
def test_matrix_products(rank, transpose):
    kernel = draw(C, 4).T if transpose else draw(C, 4)

    def build(x):
        if rank == 2:
            y = RAW.MatMul(a=x, b=tf.constant(kernel), transpose_b=transpose)
        else:
            y = RAW.BatchMatMulV2(x=x, y=tf.constant(kernel), adj_y=transpose)
        return batch_norm_of_four(y)

    shape = (None, *range(2, rank), C)
    definition = built(build, x=shape)
    graph = raised(definition, "Dense", "BatchNorm")
    assert graph.weights[node_of(graph, "Dense").params["kernel"]].tolist() == draw(C, 4).tolist()
    graph = folded(definition)
    assert ops_of(graph) == ["Dense"]
    assert_function_kept(definition, graph, shape)


def batch_norm_of_four(y):
    scale = RAW.Rsqrt(x=tf.constant(VARIANCE[:4]) + 1e-3)
    return y * scale + (tf.constant(BETA[:4]) - tf.constant(MEAN[:4]) * scale)


def test_a_product_with_a_matrix_for_each_sample_is_no_dense_layer():
    graph = canonical(built(lambda x: RAW.BatchMatMulV2(x=x, y=tf.constant(draw(3, C, 4))), x=(3, 2, C)))
    assert ops_of(graph) == ["tf.BatchMatMulV2"]


def test_explicit_padding_is_left_alone():
    padding = {"padding": "EXPLICIT", "explicit_paddings": [0, 0, 1, 2, 0, 1, 0, 0]}
    assert ops_of(canonical(built(lambda x: conv(x, **padding), x=X))) == ["tf.Conv2D"]


def test_padding_before_a_convolution_is_an_operation_of_its_own():
    graph = raised(built(lambda x: conv(tf.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]]), padding="VALID"), x=X), "Pad", "Conv")
    assert node_of(graph, "Pad").config == {"padding": ((1, 2), (0, 1)), "data_format": "channels_last"}


@pytest.mark.parametrize("kind", ["REFLECT", "of ones"])
def test_other_paddings_are_left_alone(kind):
    ends = [[0, 0], [1, 1], [1, 1], [0, 0]]
    definition = built(lambda x: tf.pad(x, ends, mode="REFLECT") if kind == "REFLECT" else tf.pad(x, ends, constant_values=1.0), x=X)
    assert ops_of(canonical(definition))[0].startswith("tf.")


# activations

ACTIVATIONS = {
    "Relu": (lambda x: RAW.Relu(features=x), {"max_value": None, "negative_slope": 0.0}),
    "Relu6": (lambda x: RAW.Relu6(features=x), {"max_value": 6.0, "negative_slope": 0.0}),
    "Maximum, then Minimum": (lambda x: tf.minimum(tf.maximum(x, 0.0), 4.0), {"max_value": 4.0, "negative_slope": 0.0}),
    "Minimum, then Maximum": (lambda x: tf.clip_by_value(x, 0.0, 6.0), {"max_value": 6.0, "negative_slope": 0.0}),
    "ClipByValue": (
        lambda x: RAW.ClipByValue(t=x, clip_value_min=0.0, clip_value_max=6.0),
        {"max_value": 6.0, "negative_slope": 0.0},
    ),
    "constants first": (lambda x: tf.minimum(4.0, tf.maximum(0.0, x)), {"max_value": 4.0, "negative_slope": 0.0}),
    "Minimum of a Relu": (lambda x: tf.minimum(RAW.Relu(features=x), 2.5), {"max_value": 2.5, "negative_slope": 0.0}),
    "LeakyRelu": (lambda x: RAW.LeakyRelu(features=x, alpha=0.25), {"max_value": None, "negative_slope": 0.25}),
    "Maximum of a share": (lambda x: tf.maximum(x, 0.25 * x), {"max_value": None, "negative_slope": 0.25}),
    "a share first": (lambda x: tf.maximum(x * 0.25, x), {"max_value": None, "negative_slope": 0.25}),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_rectifier_in_every_spelling(name):
    build, config = ACTIVATIONS[name]
    graph = raised(built(build, x=X), "Relu")
    assert node_of(graph, "Relu").config == {**config, "threshold": 0.0}


NO_RELUS = {
    "between -1 and 1": lambda x: tf.clip_by_value(x, -1.0, 1.0),
    "limits that cross": lambda x: tf.minimum(tf.maximum(x, 0.0), -1.0),
    "a limit per channel": lambda x: tf.minimum(tf.maximum(x, 0.0), tf.constant(VARIANCE)),
    "more than all of it": lambda x: tf.maximum(x, 1.5 * x),
    "a share of something else": lambda x: tf.maximum(x, 0.5 * tf.reverse(x, [1])),
}


@pytest.mark.parametrize("name", NO_RELUS)
def test_what_is_no_rectifier(name):
    assert "Relu" not in ops_of(canonical(built(NO_RELUS[name], x=X)))


@pytest.mark.parametrize("way", ["AddV2", "Sub"])
def test_a_rectifier_with_slopes_of_its_own(way):
    alpha = draw(6, 7, C, low=0.1)

    def build(x):
        below = RAW.Relu(features=RAW.Neg(x=x))
        above = RAW.Relu(features=x)
        return above + RAW.Neg(x=tf.constant(alpha)) * below if way == "AddV2" else above - tf.constant(alpha) * below

    graph = raised(built(build, x=X), "PRelu")
    assert graph.weights[node_of(graph, "PRelu").params["alpha"]].tolist() == alpha.tolist()


# reshaping


def test_a_reshape_that_mixes_samples_is_left_alone():
    assert ops_of(canonical(built(lambda x: RAW.Reshape(tensor=x, shape=[-1, 7 * C]), x=X))) == ["tf.Reshape"]


def test_a_reshape_that_fixes_the_batch_is_left_alone():
    assert ops_of(canonical(built(lambda x: RAW.Reshape(tensor=x, shape=[2, 12]), x=(None, 3, 4)))) == ["tf.Reshape"]


def test_a_reshape_of_a_fixed_batch():
    graph = raised(built(lambda x: RAW.Reshape(tensor=x, shape=[2, -1]), x=(2, 3, 4)), "Flatten")
    assert node_of(graph, "Flatten").specs[0].shape == (2, 12)


def test_a_mean_over_channels_is_no_pool():
    assert ops_of(canonical(built(lambda x: tf.reduce_mean(x, [1, 3]), x=X))) == ["tf.Mean"]


def test_numbers_that_are_no_floating_point_are_left_alone():
    assert ops_of(canonical(built(lambda x: x + x, dtype="int32", x=(None, 3)))) == ["tf.AddV2"]


def test_values_of_unknown_rank_are_left_alone():
    assert ops_of(canonical(built(lambda x: RAW.Relu(features=x) + tf.constant(BETA), x=None))) == ["tf.Relu", "tf.AddV2"]


# writing


def test_a_view_keeps_what_it_stands_for():
    definition = built(lambda x: fused(conv(x)).y, x=X)
    node = node_of(canonical(definition), "Conv")
    assert isinstance(node.owner.source, View)
    assert [source.op for source in node.owner.source.sources] == ["Const", "tf.Conv2D"]


def test_a_constant_that_changes_keeps_its_node_and_a_new_bias_follows():
    definition = built(lambda x: fused(conv(x)).y, x=X)
    written = {node.name: node for node in to_graph_def(folded(definition)).node}
    read = {node.name: node for node in definition.node}
    (kernel,) = [node.input[1] for node in definition.node if node.op == "Conv2D"]
    assert written[kernel].op == "Const" and written[kernel] != read[kernel]
    (conv_name,) = [node.name for node in definition.node if node.op == "Conv2D"]
    assert written[conv_name].op == "BiasAdd"
    assert written[written[conv_name].input[0]].op == "Conv2D"
    assert written["x"] == read["x"]


def test_a_batch_norm_that_gains_a_gamma_is_written_anew():
    """The outer one of two takes the inner one's place, with that one's statistics."""

    def build(x):
        inner = batch_norm(x, [False] * 5, RAW.AddV2)
        return batch_norm(inner, [False] * 4, RAW.AddV2, gamma=False, beta="none")

    definition = built(build, x=X)
    graph = folded(definition)
    (norm,) = [node for node in graph.nodes.values() if node.op == "BatchNorm"]
    assert {"gamma", "beta"} <= norm.params.keys()
    assert_function_kept(definition, graph, X, ["out"])


def test_arrays_of_another_dtype_are_constants_of_their_own():
    definition = built(lambda x: fused(x).y, x=X)
    graph = canonical(definition)
    (norm,) = [node for node in graph.nodes.values() if node.op == "BatchNorm"]
    edit = Edit(graph, "widened")
    edit.set_params(norm, {slot: np.asarray(array, "float64") * 2 for slot, array in graph.params(norm).items()})
    x = draw(2, 6, 7, C, seed=7)
    scale = 2 * GAMMA / np.sqrt(2 * VARIANCE.astype("float64") + norm.config["epsilon"])
    (found,) = compute(to_graph_def(edit.freeze()), {"x": x}, ["out"])
    np.testing.assert_allclose(found, (x - 2 * MEAN) * scale + 2 * BETA, rtol=1e-4, atol=1e-5)


def test_an_output_that_is_folded_away_keeps_its_name():
    definition = built(lambda x: fused(conv(x)).y, x=X)
    (norm,) = [node.name for node in definition.node if node.op == "FusedBatchNormV3"]
    graph = folded(definition, outputs=[norm])
    assert ops_of(graph) == ["Conv", "tf.Identity"][:1] or ops_of(graph) == ["Conv"]
    assert_function_kept(definition, graph, X, [norm])


def test_another_output_of_a_node_that_is_gone_cannot_be_named():
    definition = built(lambda x: fused(conv(x)).y, x=X)
    (norm,) = [node.name for node in definition.node if node.op == "FusedBatchNormV3"]
    graph = from_graph_def(definition, outputs=[f"{norm}:1"])
    assert "BatchNorm" not in ops_of(passed(graph, "canonicalize"))


@pytest.mark.parametrize("options", ["{direction=forward}", "{direction=forward standalone=affine}", "{standalone=affine}"])
def test_what_passes_make_is_written_as_operations(options):
    def build(x):
        y = RAW.Relu(features=fused(x).y)
        return RAW.Relu(features=fused(conv(fused(y).y)).y)

    definition = built(build, x=X)
    graph = folded(definition, options)
    assert {"Add"} <= set(ops_of(graph))
    assert_function_kept(definition, graph, X)


def test_two_batch_norms_in_a_row_become_one():
    definition = built(lambda x: fused(batch_norm(x, [False] * 5, RAW.AddV2)).y, x=X)
    graph = folded(definition)
    assert ops_of(graph) == ["BatchNorm"]
    assert_function_kept(definition, graph, X)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions(dtype):
    def build(x):
        kernel, bias = (tf.constant(array.astype(dtype)) for array in (draw(3, 3, C, C), BETA))
        y = RAW.BiasAdd(value=conv(x, kernel=kernel), bias=bias)
        return y * tf.constant(GAMMA.astype(dtype)) + tf.constant(MEAN.astype(dtype))

    definition = built(build, dtype=dtype, x=X)
    graph = folded(definition)
    assert ops_of(graph) == ["Conv"]
    x = draw(2, 6, 7, C).astype(dtype)
    (old,), (new,) = (compute(one, {"x": x}, ["out"]) for one in (definition, to_graph_def(graph)))
    assert np.abs(old - new).max() <= (2e-2 if dtype == "float16" else 1e-13) * np.abs(old).max()


def test_constants_beyond_what_a_graph_def_can_hold_are_refused(monkeypatch):
    monkeypatch.setattr(importlib.import_module("tfpasses.frontends.graph_def.writing.writer"), "MOST_BYTES", 1000)
    graph = folded(built(lambda x: fused(conv(x)).y, x=X))
    with pytest.raises(UnsupportedModelError, match=r"its constants take \d+ bytes; a GraphDef holds at most 1000"):
        to_graph_def(graph)


# waiting


def test_what_waits_for_nothing_but_constants_is_raised():
    def build(x):
        kernel, other = tf.constant(draw(3, 3, C, C)), tf.constant(BETA)
        with tf.control_dependencies([tf.group(kernel, other)]):
            y = tf.identity(conv(x, kernel=kernel))
        return fused(y).y

    definition = built(build, x=X)
    assert any(text.startswith("^") for node in definition.node for text in node.input)
    graph = folded(definition)
    assert ops_of(graph) == ["Conv"]
    assert_function_kept(definition, graph, X)


# precision, names, places


def test_a_constant_that_was_rounded_on_its_way_is_no_constant_of_another_precision():
    def build(x):
        kernel = tf.cast(tf.cast(tf.constant(draw(3, 3, C, C)), "float16"), "float32")
        return fused(conv(x, kernel=kernel)).y

    definition = built(build, x=X)
    graph = folded(definition)
    assert "tf.Conv2D" in ops_of(graph)
    assert_function_kept(definition, graph, X)


def test_a_kernel_stored_in_more_precision_than_it_is_used_in():
    def build(x):
        kernel, vectors = tf.cast(tf.constant(draw(3, 3, C, C)), "float16"), [tf.constant(v.astype("float16")) for v in (GAMMA, BETA)]
        return conv(x, kernel=kernel) * vectors[0] + vectors[1]

    definition = built(build, dtype="float16", x=X)
    graph = folded(definition)
    assert ops_of(graph) == ["Conv"]
    x = draw(2, 6, 7, C).astype("float16")
    (old,), (new,) = (compute(one, {"x": x}, ["out"]) for one in (definition, to_graph_def(graph)))
    assert np.abs(old - new).max() <= 2e-2 * np.abs(old).max()


def test_a_wish_to_be_placed_beside_a_node_that_is_gone_is_dropped():
    def build(x):
        y = fused(conv(x)).y
        with tf.compat.v1.colocate_with(y.op):
            return RAW.Relu(features=y)

    definition = built(build, x=X)
    assert any("_class" in node.attr for node in definition.node)
    graph = folded(definition)
    assert ops_of(graph) == ["Conv", "Relu"]
    assert_function_kept(definition, graph, X)


def test_devices_survive():
    def build(x):
        with tf.device("/job:worker/task:3"):
            return fused(conv(x)).y

    written = to_graph_def(folded(built(build, x=X)))
    assert {node.device for node in written.node if node.op in ("Conv2D", "Const")} == {"/job:worker/task:3"}


def test_outputs_of_a_call_that_is_inlined_keep_their_names():
    @tf.function
    def inner(x):
        return RAW.Relu(features=x), fused(conv(x)).y

    definition = built(lambda x: list(inner(x)), x=X)
    (call,) = [node.name for node in definition.node if "PartitionedCall" in node.op]
    graph = folded(definition, outputs=[f"{call}:1", call])
    assert sorted(ops_of(graph)) == ["Conv", "Relu"]
    assert_function_kept(definition, graph, X, [call, f"{call}:1"])


def test_a_variable_that_a_function_writes_is_no_constant():
    variable = tf.Variable(draw(3, 3, C, C), name="kernel")

    @tf.function(input_signature=[tf.TensorSpec(X, tf.float32)])
    def network(x):
        y = fused(conv(x, kernel=variable)).y
        with tf.control_dependencies([y]):
            variable.assign(2 * draw(3, 3, C, C))
        return y

    result = tfpasses.run(network, "fold-batch-norms")
    assert "tf.Conv2D" in ops_of(result.graph)
    x = tf.constant(draw(2, 6, 7, C))
    first, second = ([np.asarray(call(x)) for _ in range(2)] for call in (network, result.model))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(*first)  # the second call sees what the first one wrote


# one constant in several places


def normed(y):
    return batch_norm(y, [False] * 5, RAW.AddV2)


def product(x, kernel, **options):
    return RAW.MatMul(a=x, b=kernel, **options)


def tied(x, turn):
    kernel = tf.constant(draw(C, C))
    hidden = RAW.Relu(features=normed(product(x, kernel)))
    return product(hidden, kernel, transpose_b=True) if turn else product(hidden, tf.reshape(tf.reshape(kernel, (C * C,)), (C, C)))


def limited(x):
    bias = tf.constant(np.array([1.5], "float32"))
    y = normed(tf.reshape(product(x, tf.constant(draw(C, 1))) + bias, (-1, 1)) * tf.ones((1, C)))
    return tf.minimum(tf.maximum(y, 0.0), bias)


SHARED = {
    "a matrix and its transpose": lambda x: tied(x, True),
    "a matrix and the same in another shape": lambda x: tied(x, False),
    "a bias and a limit": limited,
}


@pytest.mark.parametrize("name", SHARED)
def test_what_else_reads_a_constant_sees_it_as_it_was(name):
    definition = built(SHARED[name], x=(None, C))
    graph = folded(definition)
    assert_function_kept(definition, graph, (4, C))


def test_a_tied_kernel_stays_two_variables_that_train():
    kernel = tf.Variable(draw(C, C), name="kernel")

    @tf.function(input_signature=[tf.TensorSpec((None, C), tf.float32)])
    def network(x):
        hidden = RAW.Relu(features=batch_norm(RAW.MatMul(a=x, b=kernel), [False] * 5, RAW.AddV2))
        return RAW.MatMul(a=hidden, b=kernel, transpose_b=True)

    result = tfpasses.run(network.get_concrete_function(), "fold-batch-norms", verify="numeric")
    assert "BatchNorm" not in ops_of(result.graph)
    x = tf.constant(draw(4, C))
    with tf.GradientTape() as tape:
        y = result.model(x)
    np.testing.assert_allclose(y, network(x), rtol=1e-5, atol=1e-5)
    assert all(gradient is not None for gradient in tape.gradient(y, result.model.trainable_variables))
    assert len(result.model.trainable_variables) == 3  # both kernels and the new bias


def test_one_constant_in_two_slots_of_a_batch_norm():
    def build(x):
        both = tf.constant(GAMMA + 2)
        inner = x * tf.constant(BETA + 2) + tf.constant(MEAN)
        return RAW.Relu(features=inner * both + both)

    definition = built(build, x=X)
    graph = folded(definition)
    assert ops_of(graph) == ["BatchNorm", "Relu"]
    assert_function_kept(definition, graph, X)


def test_a_bias_of_channels_first_behind_a_multiplication_is_no_batch_norm_of_the_last_axis():
    def build(x):
        y = conv(x, filters=6, size=1) * tf.constant(draw(6, seed=3) + 2)
        return RAW.BiasAdd(value=y, bias=tf.constant(draw(6, seed=4)), data_format="NCHW")

    definition = built(build, x=(None, 6, 6, 4))
    graph = folded(definition)
    assert "tf.BiasAdd" in ops_of(graph)
    assert_function_kept(definition, graph, (2, 6, 6, 4))


def test_parameters_along_an_axis_of_unknown_length_may_broadcast_it():
    definition = built(
        lambda x: RAW.MatMul(a=x * tf.constant(draw(8) + 2) + tf.constant(draw(8, seed=2)), b=tf.constant(draw(8, 4))), x=(None, None)
    )
    graph = folded(definition)
    assert "BatchNorm" not in ops_of(graph)
    assert_function_kept(definition, graph, (3, 1))


def test_a_multiplication_by_what_is_no_number_is_left_as_it_is():
    scale = np.array([1, np.nan, np.inf, 2, 3], "float32")
    definition = built(lambda x: conv(x) * tf.constant(scale) + tf.constant(BETA), x=X)
    result = tfpasses.run(from_graph_def(definition, outputs=["out"]), "fold-batch-norms", verify="numeric")
    assert "BatchNorm" not in ops_of(result.graph)


def test_numbers_of_bfloat16_are_verified():
    def build(x):
        kernel, vectors = (tf.constant(draw(1, 1, C, C), "bfloat16"), [tf.constant(v, "bfloat16") for v in (MEAN, VARIANCE, BETA, GAMMA)])
        y = conv(x, kernel=kernel)
        return tf.nn.batch_normalization(y, *vectors, tf.constant(1e-3, "bfloat16"))

    definition = built(build, dtype="bfloat16", x=X)
    assert tfpasses.run(from_graph_def(definition, outputs=["out"]), "fold-batch-norms", verify="numeric").verdicts
