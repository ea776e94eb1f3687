import json
import xml.etree.ElementTree as ET

import keras
import numpy as np
import pytest

import model_files
import tfpasses
from tfpasses.view import graph_json, to_dot


@pytest.fixture(scope="module")
def folded(files, tmp_path_factory):
    """`small.keras`, folded, in its file."""
    path = tmp_path_factory.mktemp("folded") / "folded.keras"
    tfpasses.save(tfpasses.run(tfpasses.load(files / "small.keras"), "fold-batch-norms"), path)
    return path


def test_show_prints_the_text_form(cli, files):
    assert cli("show", files / "nested.keras").stdout == tfpasses.load(files / "nested.keras").to_text()


def test_show_reads_h5(cli, files):
    assert cli("show", files / "small.h5").stdout == cli("show", files / "small.keras").stdout


def test_show_prints_dot(cli, files):
    assert cli("show", files / "nested.keras", "--format", "dot").stdout == to_dot(tfpasses.load(files / "nested.keras"))


def test_show_prints_json(cli, files):
    assert json.loads(cli("show", files / "nested.keras", "--format", "json").stdout) == graph_json(tfpasses.load(files / "nested.keras"))


def test_show_prints_svg(cli, files):
    assert ET.fromstring(cli("show", files / "nested.keras", "--format", "svg").stdout).tag.endswith("svg")


@pytest.mark.parametrize(("name", "beginning"), [("a.svg", "<?xml"), ("a.dot", "digraph"), ("a.json", "{"), ("a.txt", "graph small")])
def test_the_outputs_ending_says_the_format(cli, files, tmp_path, name, beginning):
    assert cli("show", files / "small.keras", "-o", tmp_path / name).output == ""
    assert (tmp_path / name).read_text().startswith(beginning)


def test_a_format_that_is_named_goes_before_the_ending(cli, files, tmp_path):
    cli("show", files / "small.keras", "--format", "text", "-o", tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text().startswith("graph small")


def test_without_dot_svg_is_refused_with_the_remedy(refusal, files, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "apt-get install graphviz" in refusal("show", files / "small.keras", "--format", "svg")


def test_equal_models_have_no_difference(cli, files):
    assert cli("diff", files / "small.keras", files / "small.h5").output == ""


def test_a_difference_is_a_unified_diff_under_the_files_names(cli, files, folded):
    lines = cli("diff", files / "small.keras", folded, code=1).stdout.splitlines()
    assert lines[:2] == [f"--- {files / 'small.keras'}", f"+++ {folded}"]
    assert [line for line in lines if line.startswith("-  bn = BatchNorm")]


def test_the_difference_as_json(cli, files, folded):
    told = json.loads(cli("diff", files / "small.keras", folded, "--json", code=1).stdout)
    assert (told["format"], told["equal"], told["diff"][0][:3]) == ("tfpasses-diff", False, "---")


def test_no_difference_as_json(cli, files):
    assert json.loads(cli("diff", files / "small.keras", files / "small.h5", "--json").stdout)["equal"] is True


def test_weights_that_differ_behind_their_summary_are_a_difference(cli, files, tmp_path):
    model = keras.saving.load_model(files / "small.keras")
    kernel, bias = model.get_layer("dense").get_weights()
    model.get_layer("dense").set_weights([kernel[:, ::-1], bias])
    model.save(tmp_path / "swapped.keras")
    assert (
        cli("diff", files / "small.keras", tmp_path / "swapped.keras", code=1).stdout
        == "~ weight dense/kernel: same summary, other values\n"
    )


def test_a_fold_verifies(cli, files, folded):
    assert "ok" in cli("verify", files / "small.keras", folded).stdout


def test_the_tolerance_is_what_the_first_models_rounding_explains(cli, files, folded):
    (output,) = json.loads(cli("verify", files / "small.keras", folded, "--json").stdout)["outputs"]
    assert 0 <= output["maximum"] <= output["allowed"] < 1e-5 * output["scale"]


@pytest.fixture(scope="module")
def nudged(files, tmp_path_factory):
    """`small.keras` with a bias that is off by one hundredth."""
    model = model_files.small()
    kernel, bias = model.get_layer("dense").get_weights()
    model.get_layer("dense").set_weights([kernel, bias + 0.01])
    path = tmp_path_factory.mktemp("nudged") / "nudged.keras"
    model.save(path)
    return path


def test_a_model_that_computes_something_else_fails(cli, files, nudged):
    assert "DIFFERS" in cli("verify", files / "small.keras", nudged, code=1).stdout


def test_the_difference_is_measured(cli, files, nudged):
    told = json.loads(cli("verify", files / "small.keras", nudged, "--json", code=1).stdout)
    (output,) = told["outputs"]
    assert (told["format"], told["ok"], output["output"]) == ("tfpasses-verify", False, "dense")
    assert output["maximum"] == pytest.approx(0.01, rel=1e-3) and output["mean"] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(("tolerance", "code"), [(0.1, 0), (1e-3, 1), (0, 1)])
def test_a_tolerance_of_ones_own(cli, files, nudged, tolerance, code):
    cli("verify", files / "small.keras", nudged, "--tolerance", tolerance, code=code)


def test_the_same_seed_gives_the_same_figures(cli, files, folded):
    assert (
        cli("verify", files / "small.keras", folded, "--seed", 3).stdout == cli("verify", files / "small.keras", folded, "--seed", 3).stdout
    )


def test_another_seed_gives_other_inputs(cli, files, folded):
    assert cli("verify", files / "small.keras", folded, "--seed", 3).stdout != cli("verify", files / "small.keras", folded).stdout


def test_data_decides_what_is_compared(cli, files, nudged, tmp_path):
    np.savez(tmp_path / "data.npz", image=np.full((1, 8, 8, 3), 1e6, np.float32))  # so large that the bias drowns
    cli("verify", files / "small.keras", nudged, "--data", tmp_path / "data.npz", "--tolerance", 1e-3)


def test_a_nan_in_one_model_alone_differs_and_the_json_is_proper(cli, files, tmp_path):
    model = model_files.small()
    model.get_layer("dense").set_weights([np.full((4, 2), np.nan), np.zeros(2)])
    model.save(tmp_path / "nan.keras")

    def refuse(constant):
        pytest.fail(f"{constant} is not JSON")

    told = cli("verify", files / "small.keras", tmp_path / "nan.keras", "--json", code=1).stdout
    assert json.loads(told, parse_constant=refuse)["outputs"][0]["maximum"] == "inf"


def test_models_with_other_inputs_cannot_be_compared(refusal, files):
    assert "they cannot be compared" in refusal("verify", files / "small.keras", files / "nested.keras")


def test_an_output_of_another_shape_fails(cli, files, tmp_path):
    x = keras.Input((8, 8, 3), name="image")
    keras.Model(x, keras.layers.GlobalAveragePooling2D(name="dense")(x)).save(tmp_path / "three.keras")
    result = cli("verify", files / "small.keras", tmp_path / "three.keras", code=1)
    assert result.stderr == "error: output dense has shape (2, 2) in the first model and (2, 3) in the second\n"


def two_inputs(order):
    """x - 2y, with its inputs in the one order or the other."""
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    out = keras.layers.Subtract(name="minus")([x, keras.layers.Rescaling(2.0, name="twice")(y)])
    return keras.Model([x, y] if order == "xy" else [y, x], out)


def test_inputs_go_by_name_where_the_names_are_the_same():
    (difference,) = tfpasses.compare_models(two_inputs("xy"), two_inputs("yx"), tolerance=0.0)
    assert difference.ok
