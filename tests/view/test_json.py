import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import jsonschema
import numpy as np
import pytest

import model_files
import tfpasses
import zoo
from graphs import graph, node, ref
from tfpasses.graph import ChannelStats
from tfpasses.view import graph_json

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "graph.schema.json").read_text())


def check(value):
    """The JSON of a graph, after a trip through text, against the schema."""
    text = json.dumps(graph_json(value), allow_nan=False)
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(text))
    return json.loads(text)


@pytest.fixture(scope="module")
def nested():
    return tfpasses.run(tfpasses.from_keras(model_files.nested()), "fold-batch-norms").graph


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0"])
def test_a_well_known_architecture_fits_the_schema_before_and_after(name):
    before = tfpasses.from_keras(zoo.architecture(name))
    check(before)
    check(tfpasses.run(before, "fold-batch-norms").graph)


def test_nodes_are_told_in_topological_order(nested):
    seen = set()
    for told in check(nested)["nodes"]:
        assert {one["node"] for one in told["inputs"]} <= seen
        seen.add(told["name"])
    assert seen == set(nested.nodes)


def test_a_node_is_told_with_its_wiring_and_shapes(nested):
    (told,) = [told for told in check(nested)["nodes"] if told["name"] == "down"]
    assert told == {
        "name": "down",
        "op": "Conv",
        "inputs": [{"node": "add", "index": 0}],
        "config": {"data_format": "channels_last", "dilation": [1, 1], "groups": 1, "padding": "same", "strides": [2, 2]},
        "params": {"kernel": "down/kernel", "bias": "down/bias"},
        "outputs": [{"shape": [None, 4, 4, 4], "dtype": "float32"}],
        "layer": "down",
        "origin": [],
        "made_by": "",
    }


def test_outputs_are_told_with_their_public_names(nested):
    assert [(told["node"], told["name"]) for told in check(nested)["outputs"]] == [
        (one.node, name) for one, name in zip(nested.outputs, nested.output_names, strict=True)
    ]


def test_scopes_are_told_with_what_crosses_their_border(nested):
    told = check(nested)["scopes"]
    assert (told["block"]["inputs"], told["block"]["outputs"]) == ([{"node": "image", "index": 0}], [{"node": "block/relu6", "index": 0}])
    assert set(told) == {"block", "block/core"}


def test_a_fact_is_told_with_its_numbers(nested):
    ((about, fact),) = nested.facts.items()
    (told,) = check(nested)["facts"]
    assert (told["about"], told["kind"]) == ({"node": about[0].node, "index": 0}, "ChannelStats")
    assert told["values"] == {"mean": fact.mean.tolist(), "std": fact.std.tolist()}


def weight(value):
    array = np.asarray(value)
    told = check(attrs.evolve(graph(node("c", "Const", params={"value": "w"}), outputs=["c"]), weights={"w": array}))
    return {key: value for key, value in told["weights"]["w"].items() if key not in ("shape", "dtype")}


@pytest.mark.parametrize(
    ("values", "least", "greatest", "bad"),
    [
        ([1.0, -2.0, 0.5], -2.0, 1.0, 0),
        ([1.0, np.nan, np.inf], 1.0, 1.0, 2),
        ([np.nan], None, None, 1),
        ([], None, None, 0),
        ([True, False], 0.0, 1.0, 0),
        (["a", "b"], None, None, 0),
    ],
    ids=str,
)
def test_a_weight_is_told_by_the_range_of_its_finite_values(values, least, greatest, bad):
    assert weight(values) == {"min": least, "max": greatest, "not_finite": bad}


def test_a_configuration_that_json_has_no_type_for_is_text():
    config = {
        "nan": np.nan,
        "number": np.float32(2.5),
        "function": np.sum,
        "pair": (1, None),
        "array": np.zeros(2),
        "deep": {"a": [np.int64(1)]},
    }
    told = check(graph(node("x", "Input", config=config), outputs=["x"]))["nodes"][0]["config"]
    assert {key: told[key] for key in ("nan", "number", "function", "pair", "deep")} == {
        "nan": "nan",
        "number": 2.5,
        "function": "<sum>",
        "pair": [1, None],
        "deep": {"a": [1]},
    }
    assert told["array"].startswith("array(float64[2] ")


def test_a_fact_that_is_no_number_fits_the_schema():
    value = graph(node("x", "Input"), outputs=["x"], facts={(ref("x"), "ChannelStats"): ChannelStats([np.nan, 1.0], [np.inf, 0.0])})
    assert check(value)["facts"][0]["values"] == {"mean": ["nan", 1.0], "std": ["inf", 0.0]}


PROGRAM = """
import json
import graphs, tfpasses.graph
from tfpasses.view import graph_json, to_dot
value = graphs.chain("Relu", "keras.LSTM", "Sigmoid")
print(value.to_text(), value.digest, json.dumps(graph_json(value)), to_dot(value))
"""


def test_all_forms_are_the_same_whatever_the_hash_seed():
    def said(seed):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "tests")}
        return subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment).stdout

    assert said("1") == said("2") != ""
