import json

import attrs
import keras
import numpy as np
import pytest

import tfpasses
from tfpasses.manager import registry

FOLD = ("-p", "fold-batch-norms")


def loaded(path):
    return tfpasses.load(path)


def test_the_written_model_is_the_rewritten_one(cli, files, tmp_path):
    cli("run", files / "small.keras", *FOLD, "-o", tmp_path / "out.keras")
    expected = tfpasses.run(loaded(files / "small.keras"), "fold-batch-norms").graph
    assert loaded(tmp_path / "out.keras").digest == expected.digest


def test_the_input_may_be_its_own_output(cli, files, tmp_path):
    model = tmp_path / "model.keras"
    model.write_bytes((files / "small.keras").read_bytes())
    cli("run", model, *FOLD, "-o", model)
    assert "bn" not in loaded(model).nodes


def test_the_summary_says_how_much_was_rewritten_and_left(cli, files, tmp_path):
    text = cli("run", files / "nested.keras", *FOLD, "-o", tmp_path / "out.keras").stdout
    row = next(line.split() for line in text.splitlines() if "fold-batch-norms " in line and "->" in line)
    assert row[:6] == ["fold-batch-norms", "1", "1", "12", "->", "11"]


def test_a_remark_says_why_a_batch_norm_stays(cli, files, tmp_path):
    text = cli("run", files / "nested.keras", *FOLD, "-o", tmp_path / "out.keras").stdout
    assert "fold-batch-norms: late_bn: not backward: down.activation: it is Relu, not a linear op; not forward: " in text


def test_the_last_line_says_what_was_written(cli, files, tmp_path):
    out, facts = tmp_path / "out.keras", tmp_path / "facts.npz"
    text = cli("run", files / "small.keras", *FOLD, "-o", out, "--facts", facts).stdout
    assert text.splitlines()[-1] == f"{files / 'small.keras'} -> {out}, facts in {facts}"


def test_verbose_names_every_rewrite(cli, files, tmp_path):
    text = cli("run", files / "small.keras", *FOLD, "-o", tmp_path / "out.keras", "-v").stdout
    assert "fold-batch-norms #1 backward at bn; changed conv; removed bn" in text


def test_json_tells_what_the_table_tells_and_more(cli, files, tmp_path):
    text = cli("run", files / "nested.keras", *FOLD, "-o", tmp_path / "out.keras", "--json", "--verify", "numeric").stdout
    told = json.loads(text)
    only = told["passes"][0]
    assert (told["format"], told["version"], told["pipeline"]) == ("tfpasses-run", 1, "fold-batch-norms")
    assert (only["nodes_before"], only["nodes_after"], [rewrite["removed"] for rewrite in only["rewrites"]]) == (
        12,
        11,
        [["block/core/bn"]],
    )
    assert [remark["node"] for remark in told["remarks"]] == ["late_bn"]
    assert told["verification"] and all(verdict["ok"] for verdict in told["verification"])


@pytest.mark.parametrize(
    ("level", "said"), [("off", "not checked"), ("structure", "structure"), ("shapes", "shapes"), ("numeric", "numeric: 2")]
)
def test_the_table_says_how_far_a_pass_was_verified(cli, files, tmp_path, level, said):
    assert said in cli("run", files / "small.keras", *FOLD, "-o", tmp_path / "out.keras", "--verify", level).stdout


def test_a_pipeline_may_be_a_toml_file(cli, files, tmp_path):
    (tmp_path / "pipeline.toml").write_text('[[pass]]\nname = "fold-batch-norms"\n')
    told = json.loads(cli("run", files / "small.keras", "-p", tmp_path / "pipeline.toml", "-o", tmp_path / "out.keras", "--json").stdout)
    assert told["pipeline"] == "fold-batch-norms"


def test_an_h5_model_gives_an_h5_model(cli, files, tmp_path):
    cli("run", files / "small.h5", *FOLD, "-o", tmp_path / "out.h5")
    assert "bn" not in loaded(tmp_path / "out.h5").nodes


def test_the_other_model_format_may_be_asked_for(cli, files, tmp_path):
    cli("run", files / "small.h5", *FOLD, "-o", tmp_path / "out.keras")
    assert "bn" not in loaded(tmp_path / "out.keras").nodes


def test_verification_on_data_of_ones_own(cli, files, tmp_path):
    np.savez(tmp_path / "data.npz", image=np.ones((3, 8, 8, 3)))
    assert "numeric" in cli(
        "run", files / "small.keras", *FOLD, "-o", tmp_path / "out.keras", "--verify", "numeric", "--data", tmp_path / "data.npz"
    ).stdout  # fmt: skip


def test_facts_that_were_written_are_known_in_the_next_run(cli, files, tmp_path):
    out, facts = tmp_path / "out.keras", tmp_path / "facts.npz"
    cli("run", files / "nested.keras", *FOLD, "-o", out, "--facts", facts)
    cli("run", out, *FOLD, "-o", tmp_path / "again.keras", "--load-facts", facts, "--facts", tmp_path / "again.npz")
    (before,), (after,) = (
        tfpasses.load(out, facts).facts.items(),
        tfpasses.load(tmp_path / "again.keras", tmp_path / "again.npz").facts.items(),
    )
    assert (before[0], before[1].mean.tolist(), before[1].std.tolist()) == (after[0], after[1].mean.tolist(), after[1].std.tolist())


def with_weight(model, layer, index, value):
    weights = model.get_layer(layer).get_weights()
    weights[index].flat[0] = value
    model.get_layer(layer).set_weights(weights)
    return model


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize(("layer", "index"), [("conv", 0), ("bn", 0)], ids=["kernel", "gamma"])
@pytest.mark.parametrize("level", ["shapes", "numeric"])
def test_a_weight_that_is_no_number_stays_where_it_is_with_a_remark(cli, files, tmp_path, value, layer, index, level):
    with_weight(keras.saving.load_model(files / "small.keras"), layer, index, value).save(tmp_path / "sick.keras")
    told = cli("run", tmp_path / "sick.keras", *FOLD, "-o", tmp_path / "out.keras", "--json", "--verify", level).stdout
    (remark,) = json.loads(told)["remarks"]
    assert (remark["node"], "finite" in remark["reason"]) == ("bn", True)
    assert loaded(tmp_path / "out.keras").digest == loaded(tmp_path / "sick.keras").digest


@pytest.mark.parametrize("value", [np.nan, -1.0], ids=str)
def test_a_variance_without_a_root_stays_with_a_remark(cli, files, tmp_path, value):
    with_weight(keras.saving.load_model(files / "small.keras"), "bn", 3, value).save(tmp_path / "sick.keras")
    (remark,) = json.loads(cli("run", tmp_path / "sick.keras", *FOLD, "-o", tmp_path / "out.keras", "--json").stdout)["remarks"]
    assert (remark["node"], "finite" in remark["reason"]) == ("bn", True)


@pytest.fixture
def wrong_pass(monkeypatch):
    """A pass that claims to keep the function and doubles every kernel."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))

    @tfpasses.register
    @attrs.frozen
    class DoubleKernels(tfpasses.Pass):
        """Wrong on purpose."""

        name = "double-kernels"
        contract = tfpasses.Contract(tfpasses.Effect.REASSOCIATES)

        def apply(self, edit, context):
            for node in [node for node in edit.nodes.values() if "kernel" in node.params]:
                edit.set_params(node, {"kernel": 2 * edit.params(node)["kernel"]})
                edit.commit("double", node.name)
            return iter(())


@pytest.mark.usefixtures("wrong_pass")
def test_a_pass_that_breaks_its_promise_is_named_and_nothing_is_written(refusal, files, tmp_path):
    said = refusal("run", files / "small.keras", "-p", "double-kernels", "-o", tmp_path / "out.keras", "--verify", "numeric", code=1)
    assert said.startswith("pass double-kernels does not keep the function at conv: error ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("wrong_pass")
def test_a_failed_verification_leaves_the_old_output(refusal, files, tmp_path):
    (tmp_path / "out.keras").write_text("old")
    refusal("run", files / "small.keras", "-p", "double-kernels", "-o", tmp_path / "out.keras", "--verify", "numeric", code=1)
    assert (tmp_path / "out.keras").read_text() == "old"
