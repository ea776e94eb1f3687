"""Sessions in and out: a new one computes, trains and saves as the old one, and the old one stays as it was."""

import attrs
import numpy as np
import pytest
import tensorflow as tf

import tfpasses
import v1_graphs
from tfpasses.frontends.graph_def.containers.session import from_session
from tfpasses.frontends.graph_def.writing.writer import write
from tfpasses.graph import Edit, GraphError, Node, Ref, UnsupportedModelError, check_structure
from v1_graphs import KINDS, names, run

v1 = tf.compat.v1
BY_KIND = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def sessions():
    made = {}

    def session(kind):
        if kind not in made:
            made[kind] = v1_graphs.network(KINDS[kind])
        return made[kind]

    yield session
    for one in made.values():
        one.close()


def rebuilt(graph):
    return graph.source.container.rebuilt(write(graph))


def there_and_back(session, inputs=("x",), outputs=("y",)):
    graph = from_session(session, inputs, outputs)
    check_structure(graph)
    return rebuilt(graph)


# what is read


@BY_KIND
def test_variables_are_weights_under_the_names_of_their_nodes(kind, sessions):
    graph = from_session(sessions(kind), ["x"], ["y"])
    assert {node.name for node in graph.nodes.values() if node.op == "Variable"} >= {"conv/kernel", "norm/gamma", "global_step", "counted"}
    assert np.array_equal(graph.weights["conv/kernel"], sessions(kind).run("conv/kernel:0" if kind == "by reference" else READ))
    assert not graph.weights["conv/kernel"].flags.writeable
    assert graph.source.variables["norm/gamma"].trainable
    assert not graph.source.variables["norm/moving_mean"].trainable


READ = "conv/kernel/Read/ReadVariableOp:0"


def test_without_names_the_inputs_are_what_the_outputs_need(sessions):
    graph = from_session(sessions("by handle"), None, ["relu", "y:0"])
    assert (graph.inputs, graph.outputs) == (("x",), (Ref("relu"), Ref("y")))


# there and back


@BY_KIND
def test_a_new_session_computes_the_same_bit_for_bit(kind, sessions):
    new = there_and_back(sessions(kind))
    assert np.array_equal(run(new), run(sessions(kind)))
    assert new.graph is not sessions(kind).graph


@BY_KIND
def test_every_node_is_there_with_its_device_and_colocations(kind, sessions):
    old, new = names(sessions(kind).graph.as_graph_def()), names(there_and_back(sessions(kind)).graph.as_graph_def())
    assert any(node.device for node in new.values())
    assert any("_class" in node.attr for node in new.values())
    for name, node in old.items():
        if not node.device:  # as ever when it imports a graph, TensorFlow writes down the device of what a node lies beside
            new[name].device = ""
    assert new == old


@BY_KIND
def test_the_callers_session_is_not_changed(kind, sessions):
    session = sessions(kind)
    before, value = session.graph.as_graph_def(), run(session)
    new = there_and_back(session)
    run(new, "train")
    assert session.graph.as_graph_def() == before
    assert np.array_equal(run(session), value)
    assert not np.array_equal(run(new), value)


@BY_KIND
def test_a_finalized_graph_is_read(kind):
    with v1_graphs.network(KINDS[kind]) as session:
        session.graph.finalize()
        assert np.array_equal(run(there_and_back(session)), run(session))


@BY_KIND
def test_training_goes_on(kind):
    with v1_graphs.network(KINDS[kind]) as session:
        run(session, "train")
        new = there_and_back(session)
        for _ in range(2):
            run(session, "train")
            run(new, "train")
        assert np.array_equal(run(new), run(session))
        assert new.run(v1.train.get_global_step(new.graph)) == 3


@BY_KIND
def test_collections_survive(kind, sessions):
    old, new = sessions(kind).graph, there_and_back(sessions(kind)).graph
    assert sorted(old.get_all_collection_keys()) == sorted(new.get_all_collection_keys())
    for key in old.get_all_collection_keys():
        assert [one.name for one in old.get_collection(key)] == [one.name for one in new.get_collection(key)]


@BY_KIND
def test_the_savers_own_nodes_save_and_restore(kind, sessions, tmp_path):
    new = there_and_back(sessions(kind))
    new.run("save/control_dependency", {"save/Const:0": str(tmp_path / "model")})
    value = run(new)
    run(new, "train")
    new.run("save/restore_all", {"save/Const:0": str(tmp_path / "model")})
    assert np.array_equal(run(new), value)


@BY_KIND
def test_tables_are_filled(kind, tmp_path):
    (tmp_path / "vocabulary.txt").write_text("a\nb\n")
    with v1_graphs.network(KINDS[kind], tmp_path / "vocabulary.txt") as session:
        new = there_and_back(session, ("words",), ("ids",))
        assert new.run("ids:0", {"words:0": ["b", "c"]}).tolist() == [1, -1]


def test_a_table_whose_file_is_gone_is_said(tmp_path):
    (tmp_path / "vocabulary.txt").write_text("a\nb\n")
    with v1_graphs.network(True, tmp_path / "vocabulary.txt") as session:
        graph = from_session(session, ["x"], ["y"])
        (tmp_path / "vocabulary.txt").unlink()
        with pytest.raises(UnsupportedModelError, match=r"^a lookup table cannot be filled: .*vocabulary\.txt") as error:
            rebuilt(graph)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("use_resource", [True, False])
def test_variables_that_begin_with_one_tensor_keep_their_own_values(use_resource):
    with tf.Graph().as_default(), v1.variable_scope("", use_resource=use_resource), v1.Session() as session:
        beginning = tf.constant([1.0, 2.0])
        a, b = (v1.get_variable(name, initializer=beginning) for name in "ab")
        tf.subtract(a, b, name="y")
        session.run([v1.global_variables_initializer(), a.initializer])
        session.run(v1.assign(a, [5.0, 7.0]))
        assert there_and_back(session, ()).run("y:0").tolist() == [4, 5]


@pytest.mark.parametrize("use_resource", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int64", "bool", "complex64", "string"])
def test_variables_of_any_dtype(use_resource, dtype):
    with tf.Graph().as_default(), v1.variable_scope("", use_resource=use_resource), v1.Session() as session:
        value = tf.constant(["a", "bc"]) if dtype == "string" else tf.cast(tf.constant([0, 1]), dtype)
        tf.identity(v1.get_variable("v", initializer=value), "y")
        session.run(v1.global_variables_initializer())
        assert there_and_back(session, ()).run("y:0").tolist() == session.run("y:0").tolist()


@pytest.fixture
def control_flow_of_tensorflow_1():
    v1.disable_control_flow_v2()
    yield
    v1.enable_control_flow_v2()


def test_branches_of_tensorflow_1_survive(control_flow_of_tensorflow_1):
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (), "x")
        v = v1.get_variable("v", initializer=3.0, use_resource=True)
        tf.identity(v1.cond(x > 0, lambda: x * v, lambda: x - v), "y")
        session.run(v1.global_variables_initializer())
        new = there_and_back(session)
    assert [run(new, x=one) for one in (2.0, -2.0)] == [6, -5]
    assert "cond_context" in new.graph.get_all_collection_keys()
    with new.graph.as_default():
        (gradient,) = v1.gradients(new.graph.get_tensor_by_name("y:0"), new.graph.get_tensor_by_name("x:0"))
        assert [new.run(gradient, {"x:0": one}) for one in (2.0, -2.0)] == [3, 1]


def test_functions_survive():
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (2,), "x")
        v = v1.get_variable("v", initializer=3.0, use_resource=True)
        tf.identity(tf.function(lambda x: tf.nn.relu(x) * v)(x), "y")
        session.run(v1.global_variables_initializer())
        assert run(there_and_back(session), x=[1, -1]).tolist() == [3, 0]


# changes


@BY_KIND
def test_a_variable_takes_its_new_value(kind, sessions):
    graph = from_session(sessions(kind), ["x"], ["y"])
    before = run(sessions(kind))
    weights = {**graph.weights, "head/weights": np.zeros((4, 2), "float32")}
    assert run(rebuilt(attrs.evolve(graph, weights=weights))).tolist() == [[1, 1], [1, 1]]
    assert np.array_equal(run(sessions(kind)), before)


@BY_KIND
def test_a_variable_whose_reader_is_gone_keeps_what_belongs_to_it(kind, sessions):
    graph = from_session(sessions(kind), ["x"], ["relu"])
    edit = Edit(graph, "cut")
    snapshot = "norm/gamma/read" if kind == "by reference" else "norm/gamma/Read/ReadVariableOp"
    norm = edit.nodes["norm/fused"]
    edit.redirect(Ref("norm/fused"), norm.inputs[0])
    drop(edit, "train", "norm/fused", snapshot)
    new = rebuilt(edit.freeze())
    assert {one.name for one in new.graph.get_collection("variables")} == {
        one.name for one in sessions(kind).graph.get_collection("variables")
    }
    assert snapshot in names(new.graph.as_graph_def())
    assert new.graph.get_collection("train_op") == []
    image = np.float32(run(new, "conv/Conv2D:0"))
    assert np.array_equal(run(new, "relu:0"), np.maximum(image, 0))


def drop(edit, *wanted):
    """Take out nodes and everything that depends on them: the optimizer, a saver."""
    gone, order = set(wanted), list(edit.nodes.values())
    for node in order:
        waits = {text[1:] for text in node.owner.source.input if text[:1] == "^"}
        if gone & (waits | {ref.node for ref in edit.nodes[node.name].inputs}):
            gone.add(node.name)
    for node in reversed(order):
        if node.name in gone:
            edit.remove(edit.nodes[node.name])


@BY_KIND
def test_a_new_variable_has_an_initializer_and_is_saved(kind, sessions, tmp_path):
    new = rebuilt(with_bias(from_session(sessions(kind), ["x"], ["y"])))
    (bias,) = [one for one in new.graph.get_collection("variables") if one.name.startswith("dense/bias")]
    assert bias.name in [one.name for one in new.graph.get_collection("trainable_variables")]
    assert bias.shape == (2,)
    np.testing.assert_array_equal(run(new), run(sessions(kind)) + np.float32([10, 20]))
    with new.graph.as_default():
        saver = v1.train.Saver()
        saver.save(new, str(tmp_path / "model"))
        new.run(v1.global_variables_initializer())
        np.testing.assert_array_equal(new.run(bias.value()), np.float32([10, 20]))
        saver.restore(new, str(tmp_path / "model"))
    np.testing.assert_array_equal(run(new), run(sessions(kind)) + np.float32([10, 20]))


def with_bias(graph):
    """A canonical product that reads a variable, with a bias that it did not have."""
    edit = Edit(graph, "bias")
    product = edit.nodes[edit.nodes["y"].inputs[0].node]
    kernel = {"kernel": "head/weights"}
    dense = edit.add(Node("dense", "Dense", product.inputs[:1], {"use_bias": True}, kernel, product.specs))
    edit.set_params(dense, {"bias": np.float32([10, 20])})
    edit.set_input(edit.nodes["y"], 0, Ref("dense"))
    return edit.freeze()


@BY_KIND
def test_a_folded_session_has_its_bias_as_a_variable_and_is_folded_no_further(kind):
    with v1_graphs.network(KINDS[kind], train=False) as session:
        result = tfpasses.run(from_session(session, ["x"], ["y"]), "canonicalize,fold-batch-norms")
        new = rebuilt(result.graph)
        assert "norm/fused" not in names(new.graph.as_graph_def())
        assert {one.name for one in new.graph.get_collection("trainable_variables")} > {"conv/kernel:0", "conv/Conv2D/bias:0"}
        np.testing.assert_allclose(run(new), run(session), rtol=1e-5, atol=1e-5)
        again = tfpasses.run(from_session(new, ["x"], ["y"]), "canonicalize,fold-batch-norms")
        assert not [rewrite for rewrite in again.rewrites if rewrite.pass_name == "fold-batch-norms"]


# what is refused


def refused(error, call):
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_closed_session_is_refused():
    session = v1_graphs.network(True)
    session.close()
    assert refused(UnsupportedModelError, lambda: from_session(session, ["x"], ["y"])).startswith("the session is closed")


@BY_KIND
def test_variables_that_outputs_need_must_be_initialized(kind):
    with v1_graphs.network(KINDS[kind], initialize=False) as session:
        message = refused(UnsupportedModelError, lambda: from_session(session, ["x"], ["y"]))
        assert message == "variable conv/kernel is not initialized in the session; run its initializer or restore it first"


@BY_KIND
def test_other_variables_need_not_be(kind):
    with v1_graphs.network(KINDS[kind], initialize=False) as session:
        with session.graph.as_default():
            needed = [one for one in v1.global_variables() if "Momentum" not in one.name and "step" not in one.name]
        session.run([one.initializer for one in needed])
        new = there_and_back(session)
        assert np.array_equal(run(new), run(session))
        with new.graph.as_default():
            assert b"global_step" in new.run(v1.report_uninitialized_variables())


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (["z"], ["y"], "input z: there is no such placeholder; there are x"),
        (["y"], ["y"], "input y: there is no such placeholder; there are x"),
        (["x"], ["relv"], "output relv: there is no such node; there are relu"),
        (["x"], ["y:1"], "output y:1: there is no such value"),
        (["x"], [], "name the outputs of a session's graph"),
    ],
)
def test_names_that_do_not_fit_are_refused(inputs, outputs, message, sessions):
    assert refused(GraphError, lambda: from_session(sessions("by handle"), inputs, outputs)).startswith(message)


def test_what_is_no_session_is_refused():
    assert refused(UnsupportedModelError, lambda: from_session(tf.Graph(), ["x"], ["y"])) == "a Graph is no tf.compat.v1.Session"
