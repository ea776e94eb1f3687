"""AIMET's cross-layer equalization in sessions of TensorFlow 1: the closed forms, in the session or in a new one."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tensorflow as tf

import v1_graphs
from keras2_sessions import in_session
from tfpasses.graph import TfpassesError
from tfpasses.passes.aimet.batch_norm_fold import fold_all_batch_norms
from tfpasses.passes.aimet.cross_layer_equalization import ClsSetInfo, CrossLayerScaling, GraphSearchUtils, HighBiasFold, equalize_model
from tfpasses.passes.aimet.utils.graph_saver import save_and_load_graph
from tfpasses.passes.aimet.utils.op.conv import BiasUtils

tf_keras = pytest.importorskip("tf_keras", reason="Keras 2 is not installed (pip install tf-keras)")

v1 = tf.compat.v1
X = np.random.default_rng(1).normal(size=(2, 12, 12, 3)).astype("float32")


@pytest.fixture(autouse=True)
def no_warning():
    """A set that is safe is scaled without a word."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "scaling")
        yield


def mobile(active=True, limit=None):
    """Convolution, depthwise, pointwise, convolution, each with a batch norm, then a pool and a dense layer."""
    layers = tf_keras.layers
    x = y = tf_keras.Input((12, 12, 3))
    made = [layers.Conv2D(4, 3, use_bias=False, name="a"), layers.DepthwiseConv2D(3, use_bias=False, name="b")]
    for layer in [*made, layers.Conv2D(5, 1, name="c"), layers.Conv2D(4, 3, use_bias=False, name="d")]:
        y = layers.BatchNormalization(name=f"{layer.name}_bn")(layer(y))
        if active and layer.name != "c":
            y = layers.ReLU(limit, name=f"{layer.name}_relu")(y)
    return tf_keras.Model(x, layers.Dense(3, name="e")(layers.GlobalAveragePooling2D()(y)))


def folded(lifted=False, **how):
    """The model, the session after folding, and the pairs."""
    model = in_session(lambda: mobile(**how), lifted=lifted)
    new, pairs = fold_all_batch_norms(model.session, model.source, model.target)
    return model, new, pairs


def assert_near(got, wanted):
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def weights(model, session):
    """Kernels and biases by layer, float64."""
    kernels = {name: model.value(f"{name}/{'depthwise_' * (name == 'b')}kernel", session) for name in "abcde"}
    operations = {
        name: model.op(f"{name}/{'depthwise' if name == 'b' else 'MatMul' if name == 'e' else 'Conv2D'}", session) for name in "abcde"
    }
    return kernels, {name: BiasUtils.get_bias_as_numpy_data(session, one).astype(np.float64) for name, one in operations.items()}


def pair_scale(first, second):
    a, b = np.abs(first).max(tuple(range(first.ndim - 1))), np.abs(second).max((*range(second.ndim - 2), -1))
    return a / np.sqrt(a * b)


def triplet_scales(first, middle, last):
    a, b, c = np.abs(first).max((0, 1, 2)), np.abs(middle).max((0, 1, 3)), np.abs(last).max((0, 1, 3))
    root = np.cbrt(a * b * c)
    return a / root, root / c


def names(infos):
    return [(*tuple(pair.layer1.name for pair in one.cls_pair_info_list), one.cls_pair_info_list[-1].layer2.name) for one in infos]


def flags(infos):
    return [tuple(pair.relu_activation_between_layers for pair in one.cls_pair_info_list) for one in infos]


# ReLU6


def test_relu6_becomes_relu_in_a_new_session():
    model = in_session(lambda: mobile(limit=6.0))
    search = GraphSearchUtils(model.session.graph, model.source, [model.target])
    new = search.find_and_replace_relu6_with_relu(model.session)
    kinds = [[operation.type for operation in one.graph.get_operations()] for one in (model.session, new)]
    assert [(kind.count("Relu6"), kind.count("Relu")) for kind in kinds] == [(3, 0), (0, 3)]
    x = 100 * X  # far beyond the limits
    twin = in_session(mobile)
    assert_near(model.run(x, new), twin.run(x))
    assert np.abs(model.run(x) - twin.run(x)).max() > 1


def test_a_minimum_of_6_and_a_relu_is_one_and_other_limits_are_not():
    with tf.Graph().as_default() as graph:
        x = v1.placeholder("float32", (None, 3), "x")
        tf.identity(tf.minimum(tf.nn.relu(x), 6.0) + tf.minimum(tf.nn.relu(x), 5.0), "y")
    session = v1.Session(graph=graph)
    new = GraphSearchUtils(graph, "x", "y").find_and_replace_relu6_with_relu(session)
    x = np.linspace(-9, 9, 6, dtype="float32").reshape(2, 3)
    np.testing.assert_array_equal(new.run("y:0", {"x:0": x}), np.maximum(x, 0) + np.clip(x, 0, 5))


# scaling


def test_the_sets_of_a_session_are_scaled_in_a_new_one_by_the_closed_forms():
    model, session, _ = folded()
    kernels, biases = weights(model, session)
    before = model.run(X, session)
    new, infos = CrossLayerScaling.scale_model(session, model.source, model.target)
    assert names(infos) == [
        ("a/Conv2D/without_bias", "b/depthwise/without_bias", "c/Conv2D"),
        ("c/Conv2D", "d/Conv2D/without_bias"),
        ("d/Conv2D/without_bias", "e/MatMul"),
    ]
    assert flags(infos) == [(True, True), (False,), (True,)]
    assert all(pair.layer1.graph is new.graph for one in infos for pair in one.cls_pair_info_list)
    one, two = triplet_scales(*(kernels[name] for name in "abc"))
    for pair, scale in zip(infos[0].cls_pair_info_list, (one, two), strict=True):
        np.testing.assert_allclose(pair.scale_factor, scale, rtol=1e-12)
    c = kernels["c"] * two.reshape(-1, 1)
    three = pair_scale(c, kernels["d"])
    d = kernels["d"] * three.reshape(-1, 1)
    four = pair_scale(d, kernels["e"])
    for info, scale in zip(infos[1:], (three, four), strict=True):
        np.testing.assert_allclose(info.cls_pair_info_list[0].scale_factor, scale, rtol=1e-6)
    after, others = weights(model, new)
    wanted = {"a": kernels["a"] / one, "b": kernels["b"] * (one / two).reshape(-1, 1), "c": c / three, "d": d / four}
    for name, kernel in (wanted | {"e": kernels["e"] * four.reshape(-1, 1)}).items():
        np.testing.assert_allclose(after[name], kernel, rtol=1e-6)
    for name, scale in {"a": one, "b": two, "c": three, "d": four, "e": np.ones(3)}.items():
        np.testing.assert_allclose(others[name], biases[name] / scale, rtol=1e-6)
    assert_near(model.run(X, new), before)
    np.testing.assert_array_equal(model.run(X, session), before)


def test_given_sets_are_scaled_in_the_session_itself():
    model, session, _ = folded()
    kernels, biases = weights(model, session)
    before = model.run(X, session)
    operations = [model.op(name, session) for name in ("a/Conv2D", "b/depthwise", "c/Conv2D", "d/Conv2D")]
    scales = CrossLayerScaling.scale_cls_sets(session, [tuple(operations[:3]), (operations[2], operations[3])])
    one, two = triplet_scales(*(kernels[name] for name in "abc"))
    np.testing.assert_allclose(scales[0], (one, two), rtol=1e-12)
    after, others = weights(model, session)
    np.testing.assert_allclose(after["a"], kernels["a"] / one, rtol=3e-7)
    np.testing.assert_allclose(others["b"], biases["b"] / two, rtol=3e-7)
    assert_near(model.run(X, session), before)


WAYS = {
    "scale_cls_set": (CrossLayerScaling.scale_cls_set, CrossLayerScaling.scale_cls_set),
    "by kind": (CrossLayerScaling.scale_cls_set_with_depthwise_layers, CrossLayerScaling.scale_cls_set_with_conv_layers),
}


@pytest.mark.parametrize("name", WAYS)
def test_each_way_of_scaling_one_set_does_the_same(name):
    model, session, _ = folded()
    twin = save_and_load_graph("temp", session)
    three, two = ("a/Conv2D", "b/depthwise", "c/Conv2D"), ("c/Conv2D", "d/Conv2D")
    for way, layers in zip(WAYS[name], (three, two), strict=True):
        way(session, tuple(model.op(one, session) for one in layers))
    CrossLayerScaling.scale_cls_sets(twin, [[model.op(one, twin) for one in layers] for layers in (three, two)])
    np.testing.assert_array_equal(model.run(X, session), model.run(X, twin))


@pytest.mark.parametrize("use_resource", v1_graphs.KINDS.values(), ids=list(v1_graphs.KINDS))
def test_both_kinds_of_variables_are_scaled(use_resource):
    session = two_layers(use_resource)
    before = session.run("y:0", {"x:0": X})
    first, second = (session.graph.get_operation_by_name(name) for name in ("first", "second"))
    kernels = session.run([one.inputs[1] for one in (first, second)])
    scale = CrossLayerScaling.scale_cls_set_with_conv_layers(session, (first, second))
    np.testing.assert_allclose(scale, pair_scale(*map(np.float64, kernels)), rtol=1e-12)
    np.testing.assert_allclose(session.run(first.inputs[1]), kernels[0] / scale, rtol=3e-7)
    assert_near(session.run("y:0", {"x:0": X}), before)


def two_layers(use_resource=True, between=tf.nn.relu, constant=False):
    """Two convolutions, without biases, and what lies between."""
    generator = np.random.default_rng(3)
    with tf.Graph().as_default() as graph, v1.variable_scope("", use_resource=use_resource):
        kernels = [generator.normal(size=shape).astype("float32") for shape in ((3, 3, 3, 4), (3, 3, 4, 2))]
        if not constant:
            kernels = [v1.get_variable(name, initializer=kernel) for name, kernel in zip("kl", kernels, strict=True)]
        x = v1.placeholder("float32", (None, 12, 12, 3), "x")
        y = between(tf.nn.conv2d(x, kernels[0], 1, "SAME", name="first"))
        tf.identity(tf.nn.conv2d(y, kernels[1], 1, "VALID", name="second"), "y")
        session = v1.Session(graph=graph)
        session.run(v1.global_variables_initializer())
    return session


def with_second_reader(y):
    tf.reduce_sum(y, name="reader")
    return tf.nn.relu(y)


@pytest.mark.parametrize(
    ("between", "why"),
    [
        (tf.nn.relu6, "it clips at 6, which no scale passes through"),
        (tf.nn.sigmoid, "it is Sigmoid, which no scale passes through"),
        (lambda y: 1.0 - tf.nn.relu(y), "sub: it computes with a constant, which is not scaled"),
        (with_second_reader, "reader: it is tf.Sum, which no scale passes through"),
    ],
)
def test_an_unsafe_set_is_scaled_all_the_same_with_a_warning_that_says_why(between, why):
    session = two_layers(between=between)
    first, second = (session.graph.get_operation_by_name(name) for name in ("first", "second"))
    kernels = session.run([one.inputs[1] for one in (first, second)])
    with pytest.warns(UserWarning, match=f"^scaling first, second: .*{why}") as caught:
        (scale,) = CrossLayerScaling.scale_cls_sets(session, [(first, second)])
    assert [one.filename for one in caught if "scaling" in str(one.message)] == [__file__]
    np.testing.assert_allclose(session.run(first.inputs[1]), kernels[0] / scale, rtol=3e-7)


def test_kernels_that_are_constants_cannot_change_in_the_session():
    session = two_layers(constant=True)
    layers = [session.graph.get_operation_by_name(name) for name in ("first", "second")]
    before = session.run("y:0", {"x:0": X})
    with pytest.raises(TfpassesError, match=r"is no variable of the session.*scale_model gives a new session"):
        CrossLayerScaling.scale_cls_sets(session, [layers])
    new, infos = CrossLayerScaling.scale_model(session, "x", "y")
    assert names(infos) == [("first", "second")]
    assert_near(new.run("y:0", {"x:0": X}), before)


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        (("Relu", "second"), "^Relu, a Relu, is part of no convolution or matrix product"),
        (("first", "third"), "^third is no operation of the session's graph"),
        (("second", "first"), "^second gives 2 channels, first reads 3"),
    ],
)
def test_what_cannot_be_scaled_is_an_error(layers, why):
    session = two_layers()

    class Named:
        name = "third"

    operations = [Named() if name == "third" else session.graph.get_operation_by_name(name) for name in layers]
    with pytest.raises(ValueError, match=why):
        CrossLayerScaling.scale_cls_sets(session, [operations])


def test_no_sets_scale_nothing_and_sets_of_another_number_are_errors():
    session = two_layers()
    layers = [session.graph.get_operation_by_name(name) for name in ("first", "second")]
    assert CrossLayerScaling.scale_cls_sets(session, []) == []
    with pytest.raises(ValueError, match="2 layers was given where one of 3 is asked for"):
        CrossLayerScaling.scale_cls_set_with_depthwise_layers(session, layers)


def test_scale_model_leaves_alone_what_it_would_change():
    session = two_layers(between=tf.nn.relu6)
    _, infos = CrossLayerScaling.scale_model(session, "x", "y")
    assert infos == []


# high-bias fold


def shift_of(model, name, scale, active=True):
    gamma, beta = model.value(f"{name}/gamma"), model.value(f"{name}/beta")
    return (np.maximum(0, beta - 3 * np.abs(gamma)) if active else beta) / scale


def test_high_biases_move_by_the_arithmetic_into_a_new_session():
    model, session, pairs = folded(lifted=True)
    scaled, infos = CrossLayerScaling.scale_model(session, model.source, model.target)
    kernels, biases = weights(model, scaled)
    before = model.run(X, scaled)
    new = HighBiasFold.bias_fold(scaled, pairs, infos)
    _, after = weights(model, new)
    scales = [pair.scale_factor for one in infos for pair in one.cls_pair_info_list]
    a, b, c, d = (shift_of(model, f"{name}_bn", scale, name != "c") for name, scale in zip("abcd", scales, strict=True))
    assert a.any() and b.any() and c.any() and d.any()
    np.testing.assert_allclose(after["a"], biases["a"] - a, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(after["b"], biases["b"] + kernels["b"].sum((0, 1)).reshape(-1) * a - b, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(after["c"], biases["c"] + b @ kernels["c"][0, 0] - c, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(after["d"], biases["d"] + c @ kernels["d"].sum((0, 1)) - d, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(after["e"], biases["e"] + d @ kernels["e"], rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(model.run(X, scaled), before)


def test_where_nothing_lies_between_the_function_stays():
    model, session, pairs = folded(lifted=True, active=False)
    scaled, infos = CrossLayerScaling.scale_model(session, model.source, model.target)
    new = HighBiasFold.bias_fold(scaled, dict(pairs), infos)
    assert np.abs(weights(model, new)[1]["a"] - weights(model, scaled)[1]["a"]).max() > 1
    assert_near(model.run(X, new), model.run(X))


def test_what_a_session_knows_goes_with_it_when_it_is_saved_and_loaded():
    model, session, pairs = folded(lifted=True)
    scaled, infos = CrossLayerScaling.scale_model(session, model.source, model.target)
    copy = save_and_load_graph("./temp", scaled)
    a, b = (HighBiasFold.bias_fold(one, pairs, infos) for one in (scaled, copy))
    np.testing.assert_array_equal(model.run(X, a), model.run(X, b))


def test_infos_and_pairs_may_be_made_by_hand_of_operations_of_any_session():
    model, session, _ = folded(lifted=True)
    layers = [model.op(name, session) for name in ("a/Conv2D", "b/depthwise")]
    info = ClsSetInfo(ClsSetInfo.ClsSetLayerPairInfo(*layers, np.full(4, 2.0), True))
    _, biases = weights(model, session)
    new = HighBiasFold.bias_fold(session, [(model.op("a/Conv2D"), model.op("a_bn/cond"))], [info])
    np.testing.assert_allclose(weights(model, new)[1]["a"], biases["a"] - shift_of(model, "a_bn", 2.0), rtol=1e-6, atol=1e-6)


def test_biases_that_are_added_by_sums_move_too():
    rng = np.random.default_rng(4)
    with tf.Graph().as_default() as graph:
        a, b, d, e = (
            v1.get_variable(name, initializer=tf.constant(rng.normal(size=shape).astype("float32")), use_resource=True)
            for name, shape in {"a": (3, 3, 3, 4), "b": (4,), "d": (3, 3, 4, 5), "e": (5,)}.items()
        )
        y = tf.nn.conv2d(v1.placeholder("float32", (None, 12, 12, 3), "x"), a, 1, "VALID", name="first") + b
        one, zero, five = (np.full(4, number, "float32") for number in (1, 0, 5))
        y, *_ = v1.nn.fused_batch_norm(y, one, five, zero, one, is_training=False)  # its gamma is 1, its beta 5
        tf.identity(tf.nn.conv2d(tf.nn.relu(y), d, 1, "VALID", name="second") + e, name="y")
        session = v1.Session(graph=graph)
        session.run(v1.global_variables_initializer())
    folded_, pairs = fold_all_batch_norms(session, "x", "y")
    scaled, infos = CrossLayerScaling.scale_model(folded_, "x", "y")
    new = HighBiasFold.bias_fold(scaled, pairs, infos)
    old, now = (
        [BiasUtils.get_bias_as_numpy_data(one, one.graph.get_operation_by_name(name)) for name in ("first", "second")]
        for one in (scaled, new)
    )
    shift = 2.0 / infos[0].cls_pair_info_list[0].scale_factor  # beta - 3·gamma = 5 - 3
    kernel = scaled.run("d/Read/ReadVariableOp:0").astype(np.float64)
    np.testing.assert_allclose(now[0], old[0] - shift, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(now[1], old[1] + shift @ kernel.sum((0, 1)), rtol=1e-5, atol=1e-5)


OTHER_SHAPES = {"a": (27, 4), "b": (1, 1, 1, 4)}


@pytest.mark.parametrize("which", OTHER_SHAPES)
def test_layers_whose_variables_have_another_shape_are_found_again_in_the_new_session(which):
    rng = np.random.default_rng(4)
    with tf.Graph().as_default() as graph:
        shapes = {"a": (3, 3, 3, 4), "b": (4,), "c": (3, 3, 4, 2), "d": (2,), which: OTHER_SHAPES[which]}
        values = {name: tf.constant(rng.normal(size=shape).astype("float32")) for name, shape in shapes.items()}
        a, b, c, d = (v1.get_variable(name, initializer=value, use_resource=True) for name, value in values.items())
        y = tf.nn.conv2d(v1.placeholder("float32", (None, 12, 12, 3), "x"), tf.reshape(a, (3, 3, 3, 4)), 1, "SAME", name="first") + b
        one, zero, five = (np.full(4, number, "float32") for number in (1, 0, 5))
        y, *_ = v1.nn.fused_batch_norm(y, one, five, zero, one, is_training=False)
        tf.nn.bias_add(tf.nn.conv2d(tf.nn.relu(y), c, 1, "SAME", name="second"), d, name="y")
        session = v1.Session(graph=graph)
        session.run(v1.global_variables_initializer())
    folded_, pairs = fold_all_batch_norms(session, "x", "y")
    scaled, infos = CrossLayerScaling.scale_model(folded_, "x", "y")
    assert_near(scaled.run("y:0", {"x:0": X}), session.run("y:0", {"x:0": X}))
    new = HighBiasFold.bias_fold(scaled, pairs, infos)
    ((pair,),) = [info.cls_pair_info_list for info in infos]
    old, now = (BiasUtils.get_bias_as_numpy_data(one, one.graph.get_operation_by_name(pair.layer1.name)) for one in (scaled, new))
    np.testing.assert_allclose(now, old - 2.0 / pair.scale_factor, rtol=1e-5, atol=1e-5)  # beta - 3·gamma = 5 - 3


def test_pairs_may_be_given_the_other_way_around_with_a_flag():
    model, session, pairs = folded(lifted=True)
    scaled, infos = CrossLayerScaling.scale_model(session, model.source, model.target)
    a, b = (HighBiasFold.bias_fold(scaled, given, infos) for given in (pairs, [(bn, layer, True) for layer, bn in pairs]))
    np.testing.assert_array_equal(model.run(X, a), model.run(X, b))
    assert np.abs(weights(model, a)[1]["a"] - weights(model, scaled)[1]["a"]).max() > 1


def test_arguments_in_another_order_and_scales_of_other_layers_are_errors():
    model, session, pairs = folded(lifted=True)
    scaled, infos = CrossLayerScaling.scale_model(session, model.source, model.target)
    with pytest.raises(ValueError, match="is no ClsSetInfo"):
        HighBiasFold.bias_fold(scaled, infos, pairs)
    with pytest.raises(ValueError, match="is no pair of a convolution or matrix product and a batch norm"):
        HighBiasFold.bias_fold(scaled, infos, infos)
    infos[0].cls_pair_info_list[0].scale_factor = np.ones(3)
    with pytest.raises(ValueError, match=r"there are 3 scales of shape \(3,\); they do not belong together"):
        HighBiasFold.bias_fold(scaled, pairs, infos)
    with pytest.raises(ValueError, match="is no set of layers; give a list of sets"):
        CrossLayerScaling.scale_cls_sets(scaled, (model.op("a/Conv2D", scaled), model.op("b/depthwise", scaled)))


@pytest.mark.parametrize("given", ["no pairs", "other pairs", "no sets", "nothing known"])
def test_nothing_moves_without(given):
    model, session, pairs = folded(lifted=True)
    scaled, infos = CrossLayerScaling.scale_model(session, model.source, model.target)
    if given == "nothing known":
        scaled.graph.clear_collection("tfpasses/channel_statistics")
    chosen = {"no pairs": [], "other pairs": [(model.op("e/MatMul"), pairs[0][1])]}.get(given, pairs)
    new = HighBiasFold.bias_fold(scaled, chosen, [] if given == "no sets" else infos)
    for name, value in model.values(scaled).items():
        np.testing.assert_array_equal(model.values(new)[name], value)


# in one call


def test_one_call_is_the_four_steps_and_leaves_the_given_session_alone():
    model = in_session(lambda: mobile(limit=6.0), lifted=True)
    before = model.run(X)
    new = equalize_model(model.session, model.source, model.target)
    session, pairs = fold_all_batch_norms(model.session, model.source, model.target)
    session = GraphSearchUtils(session.graph, model.source, model.target).find_and_replace_relu6_with_relu(session)
    session, infos = CrossLayerScaling.scale_model(session, model.source, model.target)
    session = HighBiasFold.bias_fold(session, pairs, infos)
    np.testing.assert_array_equal(model.run(X, new), model.run(X, session))
    assert not {"Relu6", "FusedBatchNormV3"} & {operation.type for operation in new.graph.get_operations()}
    np.testing.assert_array_equal(model.run(X), before)


def test_replacing_before_folding_gives_the_same():
    model = in_session(lambda: mobile(limit=6.0), lifted=True)
    search = GraphSearchUtils(model.session.graph, model.source, model.target)
    session, pairs = fold_all_batch_norms(search.find_and_replace_relu6_with_relu(model.session), model.source, model.target)
    session, infos = CrossLayerScaling.scale_model(session, model.source, model.target)
    session = HighBiasFold.bias_fold(session, pairs, infos)
    np.testing.assert_array_equal(model.run(X, session), model.run(X, equalize_model(model.session, model.source, model.target)))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sets"), [("MobileNet", 14), ("ResNet50", 32)])
def test_networks_of_keras_2_keep_their_function_when_scaled(name, sets):
    model = in_session(lambda: getattr(tf_keras.applications, name)(weights=None, input_shape=(64, 64, 3), classifier_activation=None))
    x = np.random.default_rng(2).normal(size=(2, 64, 64, 3))
    session, _ = fold_all_batch_norms(model.session, model.source, model.target)
    session = GraphSearchUtils(session.graph, model.source, model.target).find_and_replace_relu6_with_relu(session)
    new, infos = CrossLayerScaling.scale_model(session, model.source, model.target)
    assert len(infos) == sets
    assert_near(model.run(x, new), model.run(x, session))
