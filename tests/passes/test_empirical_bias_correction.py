"""empirical-bias-correction: against the published procedure done naively, both models run anew for every layer."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping

import attrs
import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import tfpasses
from eager_groups import eager_groups
from fold_cases import CASES, batch, bite
from graph_defs import compute, frozen
from normal_networks import on_grid
from tfpasses.frontends.keras import keras_evaluator
from tfpasses.graph import Array
from tfpasses.manager import Context, Observer, PassError, Pipeline, PipelineError, run_passes
from tfpasses.passes.correction.biases import biased
from tfpasses.passes.correction.empirical import Measuring
from tfpasses.passes.quantization.quantizer import Quantizer

NAME = "empirical-bias-correction"
BITS = 4
SAMPLES = 40
"""Two batches, and a smaller one."""


def correct(model, data, options="", **keywords):
    return tfpasses.run(model, f"{NAME}{{bits={BITS} {options}}}", data=data, **keywords)


def remarks(result, kind="missed"):
    return {remark.node: remark.reason for remark in result.remarks if remark.kind == kind and remark.pass_name == NAME}


def bias_of(model, name):
    return np.asarray(model.get_layer(name).bias, np.float64)


# networks: `bias` says whether the layers have one, `fused` whether activations lie within them


def chain(bias, fused):
    x = keras.Input((9, 8, 3), name="x")
    y = L.Conv2D(6, 3, strides=2, padding="same", use_bias=bias, activation="relu6" if fused else None, name="a")(x)
    y = y if fused else L.ReLU(6.0)(y)
    y = L.DepthwiseConv2D(3, padding="same", depth_multiplier=2, use_bias=bias, name="b")(y)
    y = L.Conv2D(5, 1, use_bias=bias, name="c")(L.LeakyReLU(0.3)(y))
    y = L.Dense(7, use_bias=bias, activation="tanh" if fused else None, name="d")(L.GlobalAveragePooling2D()(y))
    return keras.Model(x, L.Dense(4, use_bias=bias, name="e")(y if fused else L.Activation("tanh")(y)))


def residual(bias, fused):
    x = keras.Input((8, 8, 3), name="x")
    a = L.ReLU()(L.Conv2D(6, 3, padding="same", use_bias=bias, name="a")(x))
    b = L.ReLU()(L.Conv2D(6, 3, padding="same", use_bias=bias, name="b")(a))
    late = L.Add()([a, L.Conv2D(6, 1, use_bias=bias, name="c")(b), L.Conv2D(6, 1, use_bias=bias, name="skip")(x)])
    return keras.Model(x, L.Conv2D(3, 3, use_bias=bias, name="d")(L.ReLU()(late)))


def branches(bias, fused):
    x, z = keras.Input((8, 8, 3), name="x"), keras.Input((5,), name="z")
    a = L.ReLU()(L.Conv2D(4, 3, use_bias=bias, name="a")(x))
    b = L.MaxPooling2D(3, strides=1)(L.SeparableConv2D(3, 1, use_bias=bias, name="b")(x))
    both = L.Concatenate()([a, L.ReLU()(b)])
    c = L.Conv2DTranspose(4, 3, strides=2, use_bias=bias, name="c")(both)
    side = L.Dense(4, use_bias=bias, name="side")(z)
    gated = L.Multiply()([L.ReLU()(c), L.Reshape((1, 1, 4))(L.Activation("sigmoid")(side))])
    first = L.Dense(3, use_bias=bias, name="first")(L.Flatten()(gated))
    second = L.Conv2D(2, (2, 3), dilation_rate=2, use_bias=bias, name="second")(both)
    return keras.Model([x, z], {"first": first, "second": second, "early": a})


def tokens(bias, fused):
    x = keras.Input((6, 5), name="x")
    a = L.Dense(8, use_bias=bias, activation="relu" if fused else None, name="a")(x)
    a = a if fused else L.ReLU()(a)
    b = L.Conv1D(8, 3, padding="causal", use_bias=bias, name="b")(a)
    return keras.Model(x, L.Dense(3, use_bias=bias, name="c")(ops.add(b, a)))


def towers(bias, fused):
    """One tower for two inputs: all calls of a layer on one level."""
    x, y = keras.Input((6, 6, 2), name="x"), keras.Input((6, 6, 2), name="y")
    a, b = L.Conv2D(4, 3, use_bias=bias, name="a"), L.Conv2D(3, 3, use_bias=bias, name="b")
    ends = [b(L.ReLU()(a(one))) for one in (x, y)]
    return keras.Model([x, y], L.Dense(2, use_bias=bias, name="c")(L.Flatten()(L.Subtract()(ends))))


def again(bias, fused):
    """A layer called on three levels, between others; `p`, of its first level, is corrected before it."""
    x = keras.Input((6, 6, 3), name="x")
    s = L.Conv2D(3, 3, padding="same", use_bias=bias, name="s")
    y = L.ReLU()(L.Add()([s(x), L.Conv2D(3, 1, use_bias=bias, name="p")(x)]))
    y = L.ReLU()(s(L.ReLU()(L.Conv2D(3, 1, use_bias=bias, name="m")(y))))
    return keras.Model(x, L.Conv2D(2, 1, use_bias=bias, name="e")(s(y)))


NETWORKS = {
    "a chain": (chain, "abcde"),
    "a residual": (residual, ["a", "skip", "b", "c", "d"]),
    "branches": (branches, ["a", "b", "side", "c", "second", "first"]),
    "tokens": (tokens, "abc"),
    "two towers": (towers, "abc"),
    "a layer on several levels": (again, "psme"),
}
"""And the order in which their layers are corrected."""


def inputs_of(model, seed=1):
    generator = np.random.default_rng(seed)
    return {one.name: generator.normal(0.4, 1.0, (SAMPLES, *one.shape[1:])).astype("float32") for one in model.inputs}


def made(build, bias=True, fused=False, seed=0):
    keras.utils.clear_session()
    model = build(bias, fused)
    for layer in model.layers:
        for number, weight in enumerate(layer.weights):
            generator = np.random.default_rng([seed, *layer.name.encode(), number])
            weight.assign(generator.normal(0.0, 0.2 if weight.name == "bias" else 0.4, weight.shape))
    return model


def quantized(build, model):
    """The network with kernels on a grid, in float32, and a bias everywhere."""
    twin = made(build)
    for layer in model.layers:
        arrays = [array if array.ndim == 1 else on_grid(array, BITS) for array in layer.get_weights()]
        if arrays:
            twin.get_layer(layer.name).set_weights(
                [*arrays, *(np.zeros(w.shape) for w in twin.get_layer(layer.name).weights[len(arrays) :])]
            )
    return twin


def outputs(model, name, x):
    """What a layer gives at each of its calls."""
    tensors = [node.output_tensors[0] for node in model.get_layer(name)._inbound_nodes]
    return (
        keras.Model(model.inputs, tensors).predict(x, batch_size=SAMPLES, verbose=0)
        if len(tensors) > 1
        else [keras.Model(model.inputs, tensors[0]).predict(x, batch_size=SAMPLES, verbose=0)]
    )


def naive(build, model, order, x):
    """The published procedure: what is taken from each bias."""
    twin, taken = quantized(build, model), {}
    for name in order:
        each = [
            np.subtract(ours, theirs, dtype=np.float64).reshape(-1, ours.shape[-1]).mean(axis=0)
            for ours, theirs in zip(outputs(twin, name, x), outputs(model, name, x), strict=True)
        ]
        taken[name] = np.mean(each, axis=0)
        twin.get_layer(name).bias.assign_sub(taken[name])
    return taken


def taken_from(model, result):
    before = {layer.name: bias_of(model, layer.name) if getattr(layer, "bias", None) is not None else 0.0 for layer in model.layers}
    return {
        layer.name: before[layer.name] - bias_of(result.model, layer.name)
        for layer in result.model.layers
        if getattr(layer, "bias", None) is not None
    }


def assert_taken(got, wanted):
    assert set(got) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(got[name], values, rtol=2e-4, atol=2e-6, err_msg=name)
        assert np.abs(values).max() > 1e-3, name  # so that nothing is compared with nothing


# sequential


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("bias", [True, False], ids=["with biases", "without"])
def test_sequential_is_the_published_procedure(name, bias):
    build, order = NETWORKS[name]
    model = made(build, bias)
    x = inputs_of(model)
    assert_taken(taken_from(model, correct(model, x)), naive(build, model, order, x))


@pytest.mark.parametrize("name", ["a chain", "tokens"])
def test_an_activation_within_a_layer_comes_after_what_is_measured(name):
    build, order = NETWORKS[name]
    x = inputs_of(made(build))
    wanted = naive(build, made(build), order, x)
    fused = made(build, fused=True)
    assert_taken(taken_from(fused, correct(fused, x)), wanted)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", ["sequential", "fast"])
def test_a_graph_is_corrected_as_the_keras_model_is(name, method):
    build, _ = NETWORKS[name]
    model = made(build, bias=name != "a chain")
    x = inputs_of(model)
    definition = frozen(model)
    fed = {f"in_{place}": x[one.name] for place, one in enumerate(model.inputs)}
    ends = [node.name for node in definition.node if node.name.split("_")[0] == "Identity"]
    after = correct(definition, fed, f"method={method}").model
    same = correct(model, x, f"method={method}").model
    wanted = keras.tree.flatten(same([x[one.name] for one in model.inputs], training=False))
    before, got = (compute(one, fed, ends) for one in (definition, after))
    for ours, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    assert max(np.abs(a - b).max() for a, b in zip(got, before, strict=True)) > 1e-2


def test_a_float_model_comes_out_whose_quantized_twin_is_right_on_average():
    model = made(chain)
    x = inputs_of(model)
    after = correct(model, x, "method=sequential").model
    twin = tfpasses.run(after, f"quantize-weights{{bits={BITS}}}").model
    wanted, got = (one.predict(x, verbose=0).mean(axis=0) for one in (model, twin))
    worse = tfpasses.run(model, f"quantize-weights{{bits={BITS}}}").model.predict(x, verbose=0).mean(axis=0)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert np.abs(worse - wanted).max() > 0.01


# fast


@pytest.mark.parametrize("name", [name for name in CASES if "grouped" not in name or "1d" not in name])
def test_fast_is_the_measured_local_shift(name):
    case = CASES[name]
    keras.utils.clear_session()
    x = keras.Input(case.shape, name="x")
    layer = case.make(True)
    model = bite(keras.Model(x, layer(x)))
    data = batch(model, size=20) + 0.5
    with eager_groups():
        wanted = shift_of(model, data)
    taken = bias_of(model, "linear") - bias_of(correct(model, {"x": data}, "method=fast").model, "linear")
    np.testing.assert_allclose(taken, wanted, rtol=1e-3, atol=1e-5)


def shift_of(model, data, name="linear"):
    """By how much quantized kernels move a layer's output: both run."""
    layer = model.get_layer(name)
    before, arrays = np.asarray(model(data), np.float64), layer.get_weights()
    layer.set_weights([on_grid(array, BITS) if array.ndim > 1 else array for array in arrays])
    after = np.asarray(model(data), np.float64)
    layer.set_weights(arrays)
    axis = 1 if getattr(layer, "data_format", "") == "channels_first" else -1
    return np.moveaxis(after - before, axis, -1).reshape(-1, after.shape[axis]).mean(axis=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_fast_takes_what_each_layer_s_own_kernels_change(name):
    build, order = NETWORKS[name]
    model = made(build)
    x = inputs_of(model)
    wanted = {}
    for layer in order:
        reads = [node.input_tensors[0] for node in model.get_layer(layer)._inbound_nodes]
        values = [keras.Model(model.inputs, tensor).predict(x, batch_size=SAMPLES, verbose=0) for tensor in reads]
        alone = keras.Input(values[0].shape[1:])
        wanted[layer] = np.mean([shift_of(keras.Model(alone, model.get_layer(layer)(alone)), value, layer) for value in values], axis=0)
    assert_taken(taken_from(model, correct(model, x, "method=fast")), wanted)


def test_the_first_layer_of_both_methods_is_the_same_and_the_last_is_not():
    model = made(chain)
    x = inputs_of(model)
    fast, sequential = (taken_from(model, correct(model, x, f"method={method}")) for method in ("fast", "sequential"))
    np.testing.assert_allclose(fast["a"], sequential["a"], rtol=1e-6)
    assert np.abs(fast["e"] - sequential["e"]).max() > 1e-4


# options


def test_only_one_layer_is_corrected_where_it_is_named():
    model = made(residual)
    x = inputs_of(model)
    result = correct(model, x, "only=c")
    assert {name for name, values in taken_from(model, result).items() if np.any(values)} == {"c"}
    assert_taken({"c": taken_from(model, result)["c"]}, naive(residual, model, "c", x))


@pytest.mark.parametrize("method", ["sequential", "fast"])
def test_so_many_samples_are_read(method):
    model = made(chain)
    x = inputs_of(model)
    few = {name: array[:19] for name, array in x.items()}
    wanted = taken_from(model, correct(model, few, f"method={method}"))
    got = taken_from(model, correct(model, x, f"method={method} samples=19"))
    for name, values in wanted.items():
        np.testing.assert_array_equal(got[name], values)


def test_fewer_samples_than_wanted_are_remarked():
    model = made(chain)
    result = correct(model, inputs_of(model), "samples=100")
    assert "40 samples were read; 100 are wanted, and there are no more" in [remark.reason for remark in result.remarks]
    assert not any("wanted" in remark.reason for remark in correct(model, inputs_of(model)).remarks)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_does_not_fit_the_memory_waits_in_files_and_changes_nothing_but_rounding(name, tmp_path, monkeypatch):
    build, _ = NETWORKS[name]
    model = made(build)
    x = inputs_of(model)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for limit in ("0", "20KB"):
        got = taken_from(model, correct(model, x, f"memory-limit={limit}"))
        for layer, values in taken_from(model, correct(model, x)).items():
            np.testing.assert_allclose(got[layer], values, rtol=1e-4, atol=1e-6)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("memory-limit=much", "'much' is no size of memory; write one as 2GB or 512MiB"),
        ("samples=-1", "samples"),
        ("bits=1", "bits"),
        ("method=slow", "method"),
    ],
)
def test_an_option_that_is_none_is_refused_before_anything_runs(options, message):
    with pytest.raises(PipelineError, match=message):
        Pipeline.parse(f"{NAME}{{{options}}}")


def test_without_data_it_is_refused():
    with pytest.raises(PipelineError, match=f"pass {NAME} needs data"):
        tfpasses.run(made(chain), NAME)


@pytest.mark.parametrize(("only", "message"), [("nothing", "there is no layer 'nothing'"), ("flatten", "is no linear layer")])
def test_a_name_that_is_no_layer_of_weights_is_refused(only, message):
    model = made(towers)
    with pytest.raises(PassError, match=message):
        correct(model, inputs_of(model), f"only={only}")


# what is left alone


@pytest.mark.parametrize("method", ["sequential", "fast"])
def test_a_layer_whose_weights_are_no_numbers_stays(method):
    model = made(residual)
    kernel = np.array(model.get_layer("b").kernel)
    kernel[0, 0, 0, 0] = np.nan
    model.get_layer("b").kernel.assign(kernel)
    result = correct(model, inputs_of(model), f"method={method}")
    for layer in result.model.layers:
        if layer.weights:
            np.testing.assert_array_equal(np.isfinite(layer.bias), True)
    assert taken_from(model, result)["b"][0] == 0
    assert "not finite" in remarks(result)["b"]


@pytest.mark.parametrize("method", ["sequential", "fast"])
def test_a_layer_that_reads_what_is_no_number_stays(method):
    model = made(residual)
    x = inputs_of(model)
    huge = Counted([{"x": np.where(np.arange(3) == 1, np.float32(3e38), x["x"])}])
    graph = run_on(model, huge, f"method={method}")
    for name in ("a", "skip", "b", "c", "d"):
        np.testing.assert_array_equal(graph.weights[graph.nodes[name].params["bias"]], model.get_layer(name).bias)


def test_a_kernel_on_the_grid_needs_nothing():
    x = keras.Input((4,), name="x")
    model = bite(keras.Model(x, L.Dense(4, name="b")(x)))
    model.get_layer("b").kernel.assign(np.random.default_rng(0).permuted(np.arange(-8, 8)).reshape(4, 4))
    result = correct(model, {"x": batch(model)})
    assert remarks(result, "note")["b"] == "its kernel is on the grid already"
    np.testing.assert_array_equal(bias_of(result.model, "b"), bias_of(model, "b"))


def test_half_precision_is_summed_in_single():
    x = keras.Input((64, 64, 2), dtype="float16", name="x")
    layer = L.Conv2D(3, 3, padding="same", dtype="float16", name="linear")
    model = bite(keras.Model(x, layer(x)))
    data = (np.random.default_rng(0).normal(5000, 5, (40, 64, 64, 2))).astype("float16")
    taken = bias_of(model, "linear") - bias_of(correct(model, {"x": data}).model, "linear")
    kernel = np.asarray(layer.kernel, np.float64)
    padded = np.pad(data.astype(np.float64).mean(axis=0), [(1, 1), (1, 1), (0, 0)])
    change = on_grid(kernel, BITS).astype(np.float64) - kernel
    wanted = sum(np.einsum("hwi,io->o", padded[i : i + 64, j : j + 64], change[i, j]) for i in range(3) for j in range(3)) / 64**2
    np.testing.assert_allclose(taken, wanted, rtol=0.02, atol=2)


# how the data are read


@attrs.define
class Counted:
    """Samples that count how often they are read, of whatever sizes."""

    parts: list[Mapping[str, Array]]
    readings: int = 0
    count: int | None = None
    infinite: bool = False
    asked: int = 0

    def batches(self, size):
        self.readings += 1
        self.asked = size
        yield from self.parts


@pytest.mark.parametrize(("limit", "size"), [("2GB", 16), ("34MB", 2), ("1MB", 1)])
def test_large_values_are_run_in_small_batches(limit, size):
    x = keras.Input((64, 64, 1), name="x")
    model = bite(keras.Model(x, L.Dense(2)(L.GlobalAveragePooling2D()(L.Conv2D(32, 1)(x)))))
    samples = Counted([{"x": np.ones((1, 64, 64, 1), "float32")}])
    run_on(model, samples, f"memory-limit={limit}")
    assert samples.asked == size


@pytest.mark.parametrize(("limit", "room"), [(100_000, 100_000 - 16 * (48 + 32) - 3 * 4 * (6 + 256)), (1_000, 0)])
def test_sums_and_weights_take_their_part_of_the_memory(limit, room):
    x = keras.Input((4, 4, 3), name="x")
    y = L.Flatten()(L.AveragePooling2D(2, strides=1, padding="same")(L.Conv2D(2, 1, use_bias=False)(x)))
    graph = tfpasses.from_keras(bite(keras.Model(x, L.Dense(8, use_bias=False)(y))))
    layers = biased(graph)
    assert Measuring.of(graph, Quantizer(), layers, Context(), 0, limit=limit).room(layers) == room


class Steps(Observer):
    def __init__(self):
        self.seen = []

    def progressed(self, pass_, done, whole):
        self.seen.append((done, whole))


def run_on(model, samples, options="", observers=()):
    graph = tfpasses.from_keras(model)
    return run_passes(graph, Pipeline.parse(f"{NAME}{{bits={BITS} {options}}}"), observers, keras_evaluator(), samples)


@pytest.mark.parametrize("method", ["sequential", "fast"])
@pytest.mark.parametrize("name", ["a chain", "a layer on several levels"])
def test_the_data_are_read_once(name, method):
    model = made(NETWORKS[name][0])
    samples = Counted([{key: array[start : start + 16] for key, array in inputs_of(model).items()} for start in (0, 16, 32)])
    run_on(model, samples, f"method={method}")
    assert samples.readings == 1


@pytest.mark.parametrize("method", ["sequential", "fast"])
@pytest.mark.parametrize("known", [True, False], ids=["of known count", "of unknown count"])
def test_progress_ends_where_it_said_it_would(method, known):
    model = made(again)
    samples = Counted([{"x": inputs_of(model)["x"][start : start + 16]} for start in (0, 16, 32)], count=SAMPLES if known else None)
    steps = Steps()
    run_on(model, samples, f"method={method}", [steps])
    assert [done for done, _ in steps.seen] == list(range(1, len(steps.seen) + 1))
    assert steps.seen[-1][0] == steps.seen[-1][1] or (method == "fast" and not known)
    assert known is (steps.seen[0][1] is not None)


def test_images_of_several_sizes_count_by_their_places():
    x = keras.Input((None, None, 3), name="x")
    y = L.ReLU()(L.Conv2D(4, 3, strides=2, padding="same", name="a")(x))
    model = bite(keras.Model(x, L.Conv2DTranspose(2, 3, strides=2, name="b")(y)))
    generator = np.random.default_rng(5)
    parts = [{"x": generator.normal(0.5, 1, (count, size, size + 2, 3)).astype("float32")} for count, size in ((3, 5), (2, 12), (1, 5))]
    graph = run_on(model, Counted(parts), "method=fast")
    for name in "ab":
        layer = model.get_layer(name)
        inner = keras.Model(model.inputs, [layer.input, layer.output])
        rows = []
        for part in parts:
            read, before = inner(part["x"])
            alone = keras.models.clone_model(keras.Sequential([keras.Input(read.shape[1:]), layer]))
            alone.layers[-1].set_weights([on_grid(layer.kernel, BITS), layer.bias])
            rows.append((np.asarray(alone(read), np.float64) - np.asarray(before)).reshape(-1, layer.filters))
        wanted = np.concatenate(rows).mean(axis=0)
        got = np.asarray(layer.bias) - graph.weights[graph.nodes[name].params["bias"]]
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-5, err_msg=name)
