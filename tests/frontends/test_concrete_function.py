"""Functions in and out: what is traced anew computes the same, on variables of its own."""

import attrs
import keras
import numpy as np
import pytest
import tensorflow as tf

from tfpasses.frontends.graph_def.containers.concrete_function import from_concrete_function
from tfpasses.frontends.graph_def.writing.writer import write
from tfpasses.graph import Edit, GraphError, Slot, UnsupportedModelError, check_structure

VECTOR = tf.TensorSpec((2,), tf.float32, "x")
X = tf.constant([1.0, -2.0])


def rebuilt(graph):
    return graph.source.container.rebuilt(write(graph))


def there_and_back(function):
    graph = from_concrete_function(function)
    check_structure(graph)
    return rebuilt(graph)


def network():
    x = keras.Input((8, 8, 3), name="image")
    y = keras.layers.Conv2D(4, 3, name="conv")(x)
    y = keras.layers.BatchNormalization(name="norm")(y)
    y = keras.layers.ReLU()(y)
    y = keras.layers.Conv2D(4, 3, groups=2, name="grouped")(y)  # on a CPU a call of a compiled function
    return keras.Model(x, keras.layers.Dense(2, name="head")(keras.layers.GlobalAveragePooling2D()(y)))


def images(seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=(2, 8, 8, 3)).astype("float32"))


@pytest.fixture(scope="module")
def traced():
    model = network()
    concrete = tf.function(lambda image: model(image, training=False)).get_concrete_function(tf.TensorSpec((None, 8, 8, 3)))
    concrete.model = model
    return concrete


def assert_same(ours, theirs):
    """Bit for bit, and of one structure."""
    tf.nest.assert_same_structure(ours, theirs, expand_composites=True)
    for a, b in zip(tf.nest.flatten(ours, expand_composites=True), tf.nest.flatten(theirs, expand_composites=True), strict=True):
        assert (a is None and b is None) or (a.dtype == b.dtype and np.array_equal(a.numpy(), b.numpy()))


# what is read


def test_a_captured_variable_is_a_weight_of_its_name(traced):
    weights = from_concrete_function(traced).weights
    assert weights["conv/kernel"].tolist() == traced.model.get_layer("conv").kernel.numpy().tolist()
    assert not weights["conv/kernel"].flags.writeable
    assert {"norm/moving_variance", "grouped/kernel", "head/bias"} <= weights.keys()


def test_variables_of_one_name_are_two_weights():
    a, b = tf.Variable(1.0, name="v"), tf.Variable(2.0, name="v")
    graph = from_concrete_function(tf.function(lambda x: x * a + b).get_concrete_function(VECTOR))
    assert {key: float(array) for key, array in graph.weights.items()} == {"v": 1.0, "v_1": 2.0}


def test_a_variable_named_as_a_node_is_not_that_node():
    v = tf.Variable(3.0, name="Const")
    function = tf.function(lambda x: x * v + tf.constant([1.0, 2.0])).get_concrete_function(VECTOR)
    graph = from_concrete_function(function)
    assert sorted(map(np.sum, graph.weights.values())) == [3.0, 3.0]
    assert_same(rebuilt(graph)(X), function(X))


def test_what_does_not_train_is_said():
    v, w = tf.Variable(1.0, trainable=False), tf.Variable(2.0)
    new = there_and_back(tf.function(lambda x: x * v + w).get_concrete_function(VECTOR))
    assert [variable.trainable for variable in new.variables] == [False, True]


def test_a_captured_tensor_is_a_constant():
    outer = tf.constant([5.0, 7.0])
    function = tf.function(lambda x: x + outer).get_concrete_function(VECTOR)
    graph = from_concrete_function(function)
    assert [array.tolist() for array in graph.weights.values()] == [[5, 7]]
    assert_same(rebuilt(graph)(X), function(X))


@pytest.mark.parametrize("value", ["text", [b"a", b"bc"], 3, [[True]], np.float16(2), tf.constant(2, tf.bfloat16)])
def test_captured_tensors_of_any_dtype(value):
    outer = tf.constant(value)
    function = tf.function(lambda: tf.identity(outer)).get_concrete_function()
    assert_same(there_and_back(function)(), function())


@pytest.mark.parametrize("value", ["text", [b"a", b"bc"], 3, [[True]], np.float16(2), tf.constant(2, tf.bfloat16)])
def test_variables_of_any_dtype(value):
    variable = tf.Variable(value)
    function = tf.function(variable.read_value).get_concrete_function()
    assert_same(there_and_back(function)(), function())


def test_the_structures_are_those_of_the_call():
    function = tf.function(lambda x, scale=2.0, *, more: {"sum": x * scale + more["a"], "rest": (x, [more["b"]])})
    concrete = function.get_concrete_function(VECTOR, more={"b": VECTOR, "a": VECTOR})
    graph = from_concrete_function(concrete)
    assert graph.input_structure == (Slot(0), 2.0, {"more": {"a": Slot(1), "b": Slot(2)}})
    assert graph.output_structure == {"rest": (Slot(0), [Slot(1)]), "sum": Slot(2)}


# there and back


def test_a_network_computes_the_same_bit_for_bit(traced):
    new = there_and_back(traced)
    assert_same(new(images()), traced(images()))


def test_new_variables_have_name_value_dtype_and_order_of_the_old(traced):
    new = there_and_back(traced)
    told = {variable.name: variable for variable in traced.variables}
    assert [variable.name for variable in new.variables] == [
        name for name in map(lambda pair: pair[0].name, by_capture(traced)) if name in told
    ]
    for variable in new.variables:
        old = told[variable.name]
        assert variable is not old
        assert (variable.dtype, variable.shape, variable.trainable) == (old.dtype, old.shape, old.trainable)
        assert np.array_equal(variable, old)


def by_capture(function):
    handles = {id(variable.handle): variable for variable in function.graph.variables}
    return [(handles[id(outer)], inner) for outer, inner in function.graph.captures]


def test_the_callers_variables_are_not_touched(traced):
    before = [variable.numpy() for variable in traced.variables]
    new = there_and_back(traced)
    for variable in new.variables:
        variable.assign(variable + 1)
    assert all(np.array_equal(variable, value) for variable, value in zip(traced.variables, before, strict=True))


def test_gradients_flow_to_the_new_variables(traced):
    new = there_and_back(traced)
    assert len(new.trainable_variables) == len(traced.trainable_variables) == 8
    ours, theirs = gradients(new), gradients(traced)
    for name, gradient in theirs.items():
        np.testing.assert_array_equal(ours[name], gradient)
        assert np.abs(gradient).max() > 0


def gradients(function):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(function(images()) ** 2)
    variables = function.trainable_variables
    return dict(zip((variable.name for variable in variables), tape.gradient(loss, variables), strict=True))


def test_the_function_keeps_its_variables_alive(traced):
    import gc

    new = there_and_back(traced)
    gc.collect()
    assert len(new.variables) == len(traced.variables)


def test_a_function_traced_anew_has_the_nodes_that_it_had(traced):
    function = tf.function(lambda x: {"a": tf.nn.relu(x), "b": [x + 1.0]}).get_concrete_function(VECTOR)
    again = there_and_back(there_and_back(function))
    assert sorted(map(str, again.graph.as_graph_def().node)) == sorted(map(str, function.graph.as_graph_def().node))
    assert len(there_and_back(there_and_back(traced)).graph.get_operations()) == len(traced.graph.get_operations())


@pytest.mark.parametrize(
    ("call", "arguments", "keywords"),
    [
        (lambda x, y: x - y, (X, 2 * X), {}),
        (lambda *xs: xs[0] - xs[1], (X, 2 * X), {}),
        (lambda d: d["a"] - d["b"][0], ({"b": [X], "a": 3 * X},), {}),
        (lambda *, z, a: z - a, (), {"z": X, "a": 2 * X}),
        (lambda x, **more: x - more["z"] * more["y"], (X,), {"z": X, "y": 3 * X}),
        (lambda x: None, (X,), {}),
        (lambda x: (x, None, [x + 1.0]), (X,), {}),
        (lambda x: x, (X,), {}),
        (lambda x: [x, x], (X,), {}),
        (lambda ragged: ragged * 2.0, (tf.ragged.constant([[1.0, 2.0], [3.0]]),), {}),
        (lambda sparse: tf.sparse.reduce_sum(sparse) * 2.0, (tf.sparse.from_dense([[0.0, 2.0], [3.0, 0.0]]),), {}),
        (lambda x: tf.RaggedTensor.from_row_lengths(x, [0, 2]), (X,), {}),
    ],
    ids=[
        "two", "any number", "nested", "by keyword alone", "any keywords", "gives nothing", "gives None", "gives its input",
        "gives one twice", "ragged", "sparse", "gives ragged",
    ],
)  # fmt: skip
def test_arguments_and_results_of_every_structure(call, arguments, keywords):
    function = tf.function(call).get_concrete_function(*arguments, **keywords)
    assert_same(there_and_back(function)(*arguments, **keywords), function(*arguments, **keywords))


def test_arguments_that_are_no_tensors_are_bound():
    function = tf.function(lambda x, training=False: x + 1.0 if training else x)
    for training, want in ((True, [2, -1]), (False, [1, -2])):
        new = there_and_back(function.get_concrete_function(VECTOR, training=training))
        assert new(X).numpy().tolist() == want


def test_shapes_that_python_code_told_are_told_again():
    def call(x):
        y = tf.reshape(x, tf.cast(x[:1], tf.int32))
        y.set_shape((7,))
        return y

    concrete = tf.function(call).get_concrete_function(tf.TensorSpec((None,)))
    assert there_and_back(concrete).structured_outputs.shape == (7,)


def test_effects_happen_once_a_call():
    counter = tf.Variable(0)

    def call(x):
        counter.assign_add(1)
        return x

    new = there_and_back(tf.function(call).get_concrete_function(VECTOR))
    new(X)
    new(X)
    assert (new.variables[0].numpy(), counter.numpy()) == (2, 0)


def test_effects_of_a_function_without_results():
    total = tf.Variable(1.0)

    def call(x):
        total.assign_add(x)

    new = there_and_back(tf.function(call).get_concrete_function(tf.TensorSpec(())))
    assert new(tf.constant(4.0)) is None
    assert (new.variables[0].numpy(), total.numpy()) == (5, 1)


def test_loops_branches_calls_and_custom_gradients_are_differentiated():
    v = tf.Variable(0.5)
    inner = tf.function(lambda x: tf.nn.tanh(x) * v)

    @tf.custom_gradient
    def scaled(x):
        return x * 0.5, lambda upstream: upstream * 100.0

    @tf.function
    def call(x):
        for _ in tf.range(3):
            x = inner(x) + scaled(x)
        if tf.reduce_sum(x) > 0:
            x = x * v
        else:
            x = x - v
        return inner(x)

    concrete = call.get_concrete_function(tf.TensorSpec((2,)))
    concrete_gradients = value_and_gradients(concrete, v)
    new = there_and_back(concrete)
    assert_same(value_and_gradients(new, new.variables[0]), concrete_gradients)
    assert all(np.abs(gradient).max() > 0 for gradient in concrete_gradients[1])


def value_and_gradients(function, variable, x=X):
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return value, tape.gradient(value, [variable, x])


@tf.custom_gradient
def tenfold(x):
    """e^x, whose gradient is said to be ten times what it is, by a tensor that is no argument."""
    y = tf.exp(x)
    return y + 1.0, lambda upstream: upstream * y * 10.0


def test_custom_gradients_are_those_of_the_new_function():
    """With the old function's they would be of another call, or fail."""
    v = tf.Variable([0.5, 0.25])
    inner = tf.function(lambda x: tf.nn.silu(x) * v)
    concrete = tf.function(lambda x: inner(tenfold(tf.nn.silu(x * v)))).get_concrete_function(VECTOR)
    wanted = value_and_gradients(concrete, v)
    once = there_and_back(concrete)
    twice = there_and_back(once)
    del once
    assert_same(value_and_gradients(twice, twice.variables[0]), wanted)
    twice.variables[0].assign([1.0, 2.0])
    v.assign([1.0, 2.0])
    for x in (X, 3 * X):
        assert_same(value_and_gradients(twice, twice.variables[0], x), value_and_gradients(concrete, v, x))


def test_custom_gradients_are_saved(tmp_path):
    v = tf.Variable([0.5, 0.25])
    concrete = tf.function(lambda x: tenfold(tf.nn.silu(x * v))).get_concrete_function(VECTOR)
    module = tf.Module()
    module.function = there_and_back(concrete)
    module.v = module.function.variables[0]
    tf.saved_model.save(module, tmp_path / "saved")
    loaded = tf.saved_model.load(tmp_path / "saved")
    assert_same(value_and_gradients(loaded.function, loaded.v), value_and_gradients(concrete, v))


def test_a_custom_gradient_of_what_is_gone_is_said():
    graph = from_concrete_function(tf.function(tenfold).get_concrete_function(VECTOR))
    edit = Edit(graph, "cut")
    exponential = next(node for node in edit.nodes.values() if node.op == "tf.Exp")
    edit.replace(exponential, exponential.inputs[0])
    new = rebuilt(edit.freeze())
    assert new(X).numpy().tolist() == [2, -1]
    with tf.GradientTape() as tape, pytest.raises(GraphError, match="its custom gradient reads Exp:0, which is not there"):
        tape.watch(X)
        new(X)


def test_a_function_that_was_differentiated_is_read_as_it_was():
    """TensorFlow lets its graph give more values, and call other functions, for its gradients."""
    v = tf.Variable(0.5)
    inner = tf.function(lambda x: tf.nn.tanh(x) * v)

    def make():
        return tf.function(lambda x: inner(x * v) * x).get_concrete_function(VECTOR)

    fresh, used = make(), make()
    value_and_gradients(used, v)
    assert len(used.outputs) > 1
    graph = from_concrete_function(used)
    check_structure(graph)
    assert {name: (node.op, node.inputs) for name, node in graph.nodes.items()} == {
        name: (node.op, node.inputs) for name, node in from_concrete_function(fresh).nodes.items()
    }
    new = rebuilt(graph)
    assert_same(value_and_gradients(new, new.variables[0]), value_and_gradients(fresh, v))


def test_what_is_divided_by_is_not_known_before_the_call():
    """A captured constant stays one: TensorFlow multiplies by the reciprocal of a constant that it knows, which rounds otherwise."""
    deviation = tf.constant(np.random.default_rng(0).uniform(1, 2, 1000).astype("float32"))
    x = tf.constant(np.random.default_rng(1).normal(size=1000).astype("float32"))
    concrete = tf.function(lambda x: x / tf.sqrt(deviation)).get_concrete_function(tf.TensorSpec((1000,)))
    assert_same(there_and_back(concrete)(x), concrete(x))


def test_a_changed_constant_is_one_of_the_new_function():
    outer = tf.constant([5.0, 7.0])
    graph = from_concrete_function(tf.function(lambda x: x + outer).get_concrete_function(VECTOR))
    (key,) = graph.weights
    new = rebuilt(attrs.evolve(graph, weights={key: np.float32([1, 2])}))
    assert new(X).numpy().tolist() == [2, 0]


def test_a_compiled_function_stays_compiled():
    new = there_and_back(tf.function(lambda x: x * 2.0, jit_compile=True).get_concrete_function(VECTOR))
    assert new.function_def.attr["_XlaMustCompile"].b


def test_devices_and_colocations_survive():
    def call(x):
        with tf.device("/cpu:0"):
            y = tf.nn.relu(x)
        with tf.compat.v1.colocate_with(y.op):
            return tf.exp(y)

    concrete = tf.function(call).get_concrete_function(VECTOR)
    told = {node.name: (node.device, list(node.attr["_class"].list.s)) for node in concrete.graph.as_graph_def().node}
    assert any(device for device, _ in told.values()) and any(beside for _, beside in told.values())
    new = there_and_back(concrete).graph.as_graph_def().node
    assert {node.name: (node.device, list(node.attr["_class"].list.s)) for node in new} == told


def test_a_lookup_table_is_looked_up_in():
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([5, 6], tf.int64)), -1)
    function = tf.function(table.lookup).get_concrete_function(tf.TensorSpec((None,), tf.string))
    assert there_and_back(function)(tf.constant(["b", "c"])).numpy().tolist() == [6, -1]


def test_a_new_function_can_be_called_in_another(traced):
    new = there_and_back(traced)
    outer = tf.function(lambda image: new(image) * 2.0)
    np.testing.assert_array_equal(outer(images()), traced(images()) * 2.0)


def test_a_new_function_can_be_saved(traced, tmp_path):
    module = tf.Module()
    module.function = there_and_back(traced)
    module.variables_read = list(module.function.variables)
    tf.saved_model.save(module, tmp_path / "saved", signatures=module.function)
    loaded = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
    np.testing.assert_array_equal(loaded(image=images())["output_0"], traced(images()))


# changes


def test_a_variable_takes_its_new_value():
    v = tf.Variable([2.0, 3.0], name="v")
    graph = from_concrete_function(tf.function(lambda x: x * v).get_concrete_function(VECTOR))
    new = rebuilt(attrs.evolve(graph, weights={**graph.weights, "v": np.float32([10, 100])}))
    assert new(X).numpy().tolist() == [10, -200]
    assert v.numpy().tolist() == [2, 3]


def test_a_node_that_was_taken_out_takes_its_variable_along():
    v = tf.Variable(2.0, name="v")
    graph = from_concrete_function(tf.function(lambda x: tf.nn.relu(x * v)).get_concrete_function(VECTOR))
    edit = Edit(graph, "cut")
    product = next(node for node in edit.nodes.values() if node.op == "tf.Mul")
    read = edit.nodes[product.inputs[1].node]
    edit.replace(product, product.inputs[0])
    edit.remove(read)
    new = rebuilt(edit.freeze())
    assert new(X).numpy().tolist() == [1, 0]
    assert new.variables == ()


# tf.function


def test_a_tf_function_with_an_input_signature_is_one_again():
    v = tf.Variable(2.0)
    new = there_and_back(tf.function(lambda x: x * v, input_signature=[tf.TensorSpec((None,))]))
    assert new(tf.constant([1.0, 2.0, 3.0])).numpy().tolist() == [2, 4, 6]
    assert isinstance(new, tf.types.experimental.PolymorphicFunction)


def test_an_input_signature_stays_as_it_was():
    signature = (tf.TensorSpec((None, 2), name="a"), {"b": tf.TensorSpec((2,)), "c": [tf.TensorSpec((), tf.int32, "n")]})
    function = tf.function(lambda x, more, factor=3.0: {"y": x * more["b"] * factor}, input_signature=signature)
    new = there_and_back(function)
    assert new.input_signature == function.input_signature == signature
    assert new.get_concrete_function().structured_input_signature == function.get_concrete_function().structured_input_signature
    given = np.array([[1, 2], [3, 4], [5, 6]], "float32"), {"b": np.array([1, 10], "float32"), "c": [7]}
    assert new(*given)["y"].numpy().tolist() == [[3, 60], [9, 120], [15, 180]]
    with pytest.raises(TypeError, match=r"Binding inputs to tf\.function failed"):
        new(tf.zeros((2, 2, 2)), given[1])


def test_a_method_with_an_input_signature_is_loaded_with_it(tmp_path):
    class Scaled(tf.Module):
        def __init__(self):
            super().__init__()
            self.scale = tf.Variable([1.0, 2.0])

        @tf.function(input_signature=[tf.TensorSpec((None, 2))])
        def __call__(self, x):
            return x * self.scale

    scaled = Scaled()  # its method refers to it weakly
    saved = tf.Module()
    saved.call = there_and_back(scaled.__call__)
    saved.variables_of_it = saved.call.get_concrete_function().graph.variables
    tf.saved_model.save(saved, tmp_path / "saved")
    loaded = tf.saved_model.load(tmp_path / "saved")
    assert [loaded.call(np.ones((size, 2), "float32")).shape for size in (1, 4)] == [(1, 2), (4, 2)]


def test_a_tf_function_with_one_trace_takes_what_fits_that_alone():
    function = tf.function(lambda x, training=False: x + 1.0 if training else x * 2.0)
    function(X)
    new = there_and_back(function)
    assert new(X).numpy().tolist() == [2, -4]
    for arguments in ((tf.zeros(3),), (tf.zeros(2, tf.float64),), (X, True)):
        with pytest.raises(UnsupportedModelError, match=r"^this function was rewritten for .*; rewrite one that was traced for that$"):
            new(*arguments)


@pytest.mark.parametrize("calls", [0, 2])
def test_a_tf_function_without_its_one_trace_is_refused(calls):
    @tf.function
    def doubled(x):
        return x * 2.0

    for size in range(calls):
        doubled(tf.zeros(size + 1))
    with pytest.raises(UnsupportedModelError) as error:
        from_concrete_function(doubled)
    assert (
        str(error.value) == f"tf.function doubled has {'2 traces' if calls else 'no trace yet'}; choose one with .get_concrete_function(..)"
    )


# what is refused


def deleted():
    return tf.function(lambda v: tf.function(lambda x: x * v).get_concrete_function(VECTOR)).python_function(tf.Variable(2.0))


def of_another_graph():
    with tf.Graph().as_default():
        outer = tf.compat.v1.placeholder(tf.float32, (2,), "outer")
        return tf.function(lambda x: x * outer).get_concrete_function(VECTOR)


REFUSED = {
    "a python function": (lambda: abs, "a builtin_function_or_method is no tf.function and no ConcreteFunction"),
    "a keras model": (network, "a Functional is no tf.function and no ConcreteFunction"),
    "a variable as an argument": (
        lambda: tf.function(lambda v, x: v * x).get_concrete_function(tf.Variable(1.0), VECTOR),
        "it takes a tf.Variable as an argument",
    ),
    "a variable that is gone": (deleted, "a variable that it reads has been deleted"),
    "a tensor of another graph": (of_another_graph, "it captures outer:0 of another graph"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_traced_anew_is_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(UnsupportedModelError, match=message) as error:
        from_concrete_function(make())
    assert "\n" not in str(error.value)
