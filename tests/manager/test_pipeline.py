"""Pipelines as text and as TOML."""

from __future__ import annotations

from typing import Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfpasses.manager import Contract, Effect, Pass, Pipeline, PipelineError, RegistryError, options_of, register, type_name

EXACT = Contract(Effect.EXACT)


@attrs.frozen
class Plain(Pass):
    name = "plain"
    contract = EXACT


@attrs.frozen
class Rich(Pass):
    name = "rich"
    contract = EXACT
    flag: bool = False
    on: bool = True
    count: int = 3
    ratio: float = 0.5
    word: str = "a"
    mode: Literal["fast", "slow", ""] = "fast"
    level: Literal[1, 2, False] = 1
    maybe_count: int | None = None
    maybe_word: str | None = "w"
    maybe_number: float | None = 1.0
    either: int | float = 1
    clip: Literal["a", "b"] | None = "a"


@attrs.frozen
class Needy(Pass):
    name = "needy"
    contract = EXACT
    bits: int
    seed: int = 0


@attrs.frozen
class Careful(Pass):
    name = "careful"
    contract = EXACT
    bits: int = attrs.field(default=8, validator=attrs.validators.ge(2))


@pytest.fixture(autouse=True)
def known(own_registry):
    for cls in (Plain, Rich, Needy, Careful):
        register(cls)


def parse(text):
    return Pipeline.parse(text)


# round trip

words = st.text(max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
rich = st.builds(
    Rich,
    flag=st.booleans(),
    on=st.booleans(),
    count=st.integers(),
    ratio=numbers,
    word=words | st.sampled_from(["none", "true", "", " ", '"', "\\", "\\n", "{", "}", ",", "=", "a b", "\n"]),
    mode=st.sampled_from(["fast", "slow", ""]),
    level=st.sampled_from([1, 2, False]),
    maybe_count=st.none() | st.integers(),
    maybe_word=st.none() | words | st.just("none"),
    maybe_number=st.none() | numbers,
    either=st.integers() | numbers.filter(lambda number: not number.is_integer()),
    clip=st.sampled_from(["a", "b", None]),
)
passes = st.lists(rich | st.just(Plain()) | st.builds(Needy, bits=st.integers(), seed=st.integers()), min_size=1, max_size=4)


@given(passes)
def test_the_text_of_a_pipeline_reads_as_the_pipeline(items):
    for cls in (Plain, Rich, Needy):
        register(cls)
    pipeline = Pipeline(items)
    assert parse(str(pipeline)) == pipeline


@given(rich)
def test_a_toml_file_reads_as_its_text(tmp_path_factory, item):
    register(Rich)
    lines = ["[[pass]]", 'name = "rich"']
    for key in options_of(Rich):
        value = getattr(item, key.replace("-", "_"))
        if value is not None:
            lines.append(f"{key} = {toml(value)}")
        elif key != "maybe-word":  # TOML has no null; a text `none` is None where the option takes no texts
            lines.append(f'{key} = "none"')
    path = tmp_path_factory.mktemp("toml") / "p.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    expected = item if item.maybe_word is not None else attrs.evolve(item, maybe_word="w")
    assert Pipeline.read(path) == Pipeline([expected])


def toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(char):08x}" for char in value) + '"'
    return repr(value)


def test_defaults_are_left_out():
    assert str(Pipeline([Plain(), Rich(), Needy(bits=4)])) == "plain,rich,needy{bits=4}"


def test_options_are_written_with_dashes():
    assert str(Pipeline([Rich(maybe_count=2, flag=True)])) == "rich{flag=true maybe-count=2}"


def test_what_is_no_bare_word_is_quoted():
    assert str(Pipeline([Rich(word='a "b", c')])) == r'rich{word="a \"b\", c"}'


def test_an_option_that_is_none_against_its_default_is_written():
    assert str(Pipeline([Rich(maybe_word=None)])) == "rich{maybe-word=none}"
    assert parse("rich{maybe-word=none}").passes[0].maybe_word is None


def test_the_word_none_is_quoted_where_it_could_be_mistaken():
    assert parse('rich{maybe-word="none"}').passes[0].maybe_word == "none"


def test_none_is_a_word_like_others_where_nothing_is_optional():
    assert parse("rich{word=none}").passes[0].word == "none"


def test_spaces_between_things_do_not_matter():
    assert parse('  plain ,\n rich { count = 5   word = "x y" } \n') == Pipeline([Plain(), Rich(count=5, word="x y")])


def test_braces_may_be_empty():
    assert parse("rich{}") == Pipeline([Rich()])


def test_a_pass_may_come_twice():
    assert parse("plain,rich,plain").passes == (Plain(), Rich(), Plain())


@pytest.mark.parametrize(
    "value", ["plain,rich", Pipeline([Plain(), Rich()]), [Plain(), Rich()], (Plain(), Rich()), ["plain", Rich()], ["plain,rich"]]
)
def test_a_pipeline_is_made_of_a_text_or_of_passes(value):
    assert Pipeline.of(value) == Pipeline([Plain(), Rich()])


def test_a_pipeline_is_made_of_one_pass():
    assert Pipeline.of(Plain()) == Pipeline([Plain()])


def test_an_option_is_called_as_the_constructor_calls_it():
    register(attrs.frozen(type("Hidden", (Pass,), {"name": "hidden", "contract": EXACT, "__annotations__": {"_the_c": int}, "_the_c": 1})))
    pipeline = parse("hidden{the-c=2}")
    assert (str(pipeline), list(options_of(type(pipeline.passes[0])))) == ("hidden{the-c=2}", ["the-c"])


# errors


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Plain, r"Plain is a class, not a pass; call it: Plain\(\)"),
        ([Plain], r"call it: Plain\(\)"),
        (3, "3 is no pass"),
        ([None], "None is no pass"),
    ],
)
def test_what_is_no_pass_is_refused(value, message):
    with pytest.raises(PipelineError, match=message):
        Pipeline.of(value)


GRAMMAR = {
    "": "a pass name is expected at column 1",
    "   ": "a pass name is expected at column 4",
    ",plain": "a pass name is expected at column 1",
    "plain,": "a pass name is expected at column 7",
    "plain, ,rich": "a pass name is expected at column 8",
    "1plain": "a pass name is expected at column 1",
    "plain rich": "a comma or the end is expected at column 7",
    "plain}": "a comma or the end is expected at column 6",
    "rich{count=1}}": "a comma or the end is expected at column 14",
    "rich{count=1": "key=value or a closing brace is expected at column 13",
    "rich{count}": "key=value or a closing brace is expected at column 6",
    "rich{count=}": "key=value or a closing brace is expected at column 6",
    "rich{count=1,ratio=2}": "key=value or a closing brace is expected at column 13",
    "rich{word=a=b}": "key=value or a closing brace is expected at column 12",
    'rich{word="a}': "key=value or a closing brace is expected at column 6",
    "rich{count=1 rich{": "key=value or a closing brace is expected at column 14",
}


@pytest.mark.parametrize("text", GRAMMAR)
def test_bad_grammar_is_refused_with_the_column(text):
    with pytest.raises(PipelineError) as caught:
        parse(text)
    assert str(caught.value) == f"pipeline {text!r}: {GRAMMAR[text]}"


OPTIONS = {
    "rich{cuont=1}": "pass rich has no option 'cuont'; it has 'flag', 'on', 'count', 'ratio', 'word', 'mode', 'level', "
    "'maybe-count', 'maybe-word', 'maybe-number', 'either', 'clip'",
    "rich{maybe_count=1}": "pass rich has no option 'maybe_count'",
    "plain{x=1}": "pass plain has no option 'x'; it has none",
    "rich{count=many}": "pass rich, option count: 'many' is not int (default 3)",
    "rich{count=1.5}": "pass rich, option count: '1.5' is not int (default 3)",
    "rich{count=none}": "pass rich, option count: 'none' is not int (default 3)",
    'rich{count=""}': "pass rich, option count: '' is not int (default 3)",
    "rich{ratio=half}": "pass rich, option ratio: 'half' is not float (default 0.5)",
    "rich{ratio=1e999}": "pass rich, option ratio: '1e999' is not float (default 0.5)",
    "rich{ratio=nan}": "pass rich, option ratio: 'nan' is not float (default 0.5)",
    "rich{maybe-number=-inf}": "pass rich, option maybe-number: '-inf' is not float, optional (default 1.0)",
    "rich{flag=True}": "pass rich, option flag: 'True' is not bool (default false)",
    "rich{flag=1}": "pass rich, option flag: '1' is not bool (default false)",
    "rich{mode=medium}": "pass rich, option mode: 'medium' is not fast|slow| (default fast)",
    "rich{level=3}": "pass rich, option level: '3' is not 1|2|false (default 1)",
    "rich{maybe-count=x}": "pass rich, option maybe-count: 'x' is not int, optional (default none)",
    "rich{either=x}": "pass rich, option either: 'x' is not int or float (default 1)",
    "needy": "pass needy needs option bits (int)",
    "needy{seed=1}": "pass needy needs option bits (int)",
    "needy{bits=x}": "pass needy, option bits: 'x' is not int (default none)",
    "rich{count=1 count=2}": "pipeline 'rich{count=1 count=2}': option count is given twice",
    "careful{bits=1}": "pass careful: ",
}


@pytest.mark.parametrize("text", OPTIONS)
def test_a_bad_option_is_refused_with_name_type_and_default(text):
    with pytest.raises(PipelineError) as caught:
        parse(text)
    assert str(caught.value).startswith(OPTIONS[text])


def test_an_unknown_pass_is_refused():
    with pytest.raises(RegistryError, match=r"unknown pass 'plan'; did you mean plain\?"):
        parse("rich,plan")


def test_an_option_of_a_type_that_has_no_text_is_refused():
    register(attrs.frozen(type("Odd", (Pass,), {"name": "odd", "contract": EXACT, "__annotations__": {"x": list}, "x": ()})))
    with pytest.raises(PipelineError, match="cannot be written in a pipeline"):
        parse("odd{x=1}")


# TOML


def read(tmp_path, text):
    path = tmp_path / "p.toml"
    path.write_text(text)
    return Pipeline.read(path)


def test_toml_gives_the_same_pipeline(tmp_path):
    text = '[[pass]]\nname = "plain"\n[[pass]]\nname = "rich"\ncount = 5\nflag = true\nratio = 0.25\nword = "x y"\nmaybe-count = 7\n'
    assert read(tmp_path, text) == parse('plain,rich{count=5 flag=true ratio=0.25 word="x y" maybe-count=7}')


@pytest.mark.parametrize(
    "text",
    [
        "",
        'pass = "plain"',
        "pass = []",
        "[pass]\nname = 'plain'",
        "[[pass]]\ncount = 1",
        "[[pass]]\nname = 3",
        "[[passes]]\nname = 'plain'",
    ],
)
def test_a_file_without_passes_is_refused(tmp_path, text):
    with pytest.raises(PipelineError, match=r"p\.toml: a pipeline file has a table \[\[pass\]\] with a name for every pass"):
        read(tmp_path, text)


def test_a_file_that_is_no_toml_is_refused(tmp_path):
    with pytest.raises(PipelineError, match=r"p\.toml: not TOML: .*line 1"):
        read(tmp_path, "plain,rich")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(PipelineError, match=r"none\.toml: cannot be read"):
        Pipeline.read(tmp_path / "none.toml")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "p.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PipelineError, match=r"p\.toml: cannot be read"):
        Pipeline.read(tmp_path / "p.toml")


@pytest.mark.parametrize("value", ['"many"', "1.5", "[1]", "{a = 1}", "2020-01-01", "true"])
def test_a_bad_value_in_a_file_is_refused(tmp_path, value):
    with pytest.raises(PipelineError, match=r"pass rich, option count: .* is not int \(default 3\)"):
        read(tmp_path, f'[[pass]]\nname = "rich"\ncount = {value}\n')


def test_an_unknown_option_in_a_file_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="pass plain has no option 'x'"):
        read(tmp_path, '[[pass]]\nname = "plain"\nx = 1\n')


# what a pass takes


def test_options_are_told_with_type_and_default():
    assert options_of(Needy) == {"bits": (int, attrs.NOTHING), "seed": (int, 0)}


@pytest.mark.parametrize(
    ("kind", "name"), [(int, "int"), (Literal["a", "b"], "a|b"), (float | None, "float, optional"), (int | str, "int or str")]
)
def test_a_type_is_told_as_a_user_reads_it(kind, name):
    assert type_name(kind) == name
