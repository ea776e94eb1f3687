import zipfile

import attrs
import numpy as np
import pytest

from graphs import chain, graph, node
from tfpasses.graph import ChannelStats, FactsError, Ref, load_facts, save_facts


def with_facts(source, *names):
    return attrs.evolve(source, facts={(Ref(name), "ChannelStats"): ChannelStats([1.0, 2.0], [0.5, 0.25]) for name in names})


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "facts.npz"
    save_facts(path, with_facts(chain("Relu", "Relu"), "n1", "n2"))
    return path


def refused(path):
    with pytest.raises(FactsError) as caught:
        load_facts(path, chain("Relu", "Relu"))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_facts_are_float64_vectors():
    assert ChannelStats(3, np.float32([1, 2])).mean.dtype == np.float64


def test_facts_are_read_only():
    assert not ChannelStats([1], [2]).std.flags.writeable


def test_facts_are_read_back_for_the_values_they_are_about(saved):
    assert list(load_facts(saved, chain("Relu", "Relu"))) == [(Ref("n1"), "ChannelStats"), (Ref("n2"), "ChannelStats")]


def test_facts_are_read_back_with_their_numbers(saved):
    fact = load_facts(saved, chain("Relu", "Relu"))[Ref("n1"), "ChannelStats"]
    assert (fact.mean.tolist(), fact.std.tolist()) == ([1.0, 2.0], [0.5, 0.25])


@pytest.mark.parametrize("name", ["a/b", "a|b", "a|0|ChannelStats|mean"])
def test_a_fact_about_a_node_with_any_name_is_read_back(tmp_path, name):
    source = with_facts(graph(node("x", "Input"), node(name, "Relu", "x"), outputs=[name]), name)
    save_facts(tmp_path / "f.npz", source)
    assert list(load_facts(tmp_path / "f.npz", source)) == [(Ref(name), "ChannelStats")]


def test_a_fact_about_a_second_output_is_read_back(tmp_path):
    source = graph(node("x", "Input"), node("a", "my.Split", "x", outputs=2), outputs=["a"])
    save_facts(tmp_path / "f.npz", attrs.evolve(source, facts={(Ref("a", 1), "ChannelStats"): ChannelStats(0, 1)}))
    assert list(load_facts(tmp_path / "f.npz", source)) == [(Ref("a", 1), "ChannelStats")]


def test_no_facts_are_read_back_as_none(tmp_path):
    save_facts(tmp_path / "f.npz", chain("Relu"))
    assert load_facts(tmp_path / "f.npz", chain("Relu")) == {}


def test_facts_of_another_model_are_refused(saved):
    with pytest.raises(FactsError, match="belong to another model"):
        load_facts(saved, chain("Relu", "Tanh"))


def test_a_missing_file_is_refused(tmp_path):
    assert refused(tmp_path / "none.npz") == "no such file"


def test_a_folder_is_refused(tmp_path):
    assert refused(tmp_path).startswith("not a facts file")


@pytest.mark.parametrize("part", [0.0, 0.05, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused(saved, part):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * part)])
    assert refused(saved).startswith("not a facts file (.npz)")


def test_a_file_damaged_inside_is_refused(saved):
    content = bytearray(saved.read_bytes())
    start = content.index(b"NUMPY")
    content[start + 60 : start + 90] = bytes(30)
    saved.write_bytes(content)
    assert refused(saved).startswith("not a facts file (.npz)")


def test_a_text_file_is_refused(tmp_path):
    (tmp_path / "f.npz").write_text("mean: 0\n")
    assert refused(tmp_path / "f.npz").startswith("not a facts file (.npz)")


def test_a_lone_array_is_refused(tmp_path):
    np.save(tmp_path / "f.npy", np.ones(3))
    assert refused(tmp_path / "f.npy").startswith("not a facts file (.npz)")


def test_a_zip_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as file:
        file.writestr("readme.txt", "hello")
    assert refused(tmp_path / "f.npz").startswith("not a facts file")


@pytest.mark.parametrize(
    "arrays", [{"a": np.ones(3)}, {"digest": "x"}, {"digest": "x", "format": "new"}, {"digest": "x", "format": [1, 2]}]
)
def test_an_npz_of_something_else_is_refused(tmp_path, arrays):
    np.savez(tmp_path / "f.npz", **arrays)
    assert refused(tmp_path / "f.npz").startswith("not a facts file of format 1")


def test_a_later_format_is_refused(tmp_path):
    np.savez(tmp_path / "f.npz", digest=chain("Relu", "Relu").digest, format=2)
    assert refused(tmp_path / "f.npz").startswith("not a facts file of format 1")


@pytest.mark.parametrize("key", ["n1|0|Unknown|mean", "n1|0|ChannelStats|median", "n1|first|ChannelStats|mean", "n1"])
def test_a_fact_of_an_unknown_kind_is_refused(tmp_path, key):
    np.savez(tmp_path / "f.npz", digest=chain("Relu", "Relu").digest, format=1, **{key: np.ones(1)})
    assert refused(tmp_path / "f.npz").startswith("holds a fact this version does not know")


def test_a_pickle_inside_is_not_loaded(tmp_path):
    np.savez(tmp_path / "f.npz", digest=np.array(object(), dtype=object), format=1)
    assert refused(tmp_path / "f.npz").startswith("not a facts file (.npz)")
