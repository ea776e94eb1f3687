import json
from typing import Literal

import attrs
import pytest

import tfpasses
from tfpasses.manager import registry


@pytest.fixture
def rounding(monkeypatch):
    """A pass with options of every kind."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))

    @tfpasses.register
    @attrs.frozen
    class Rounding(tfpasses.Pass):
        """Round the weights.

        A second paragraph.
        """

        name = "rounding"
        contract = tfpasses.Contract(tfpasses.Effect.APPROXIMATES)
        bits: int
        mode: Literal["even", "zero"] = "even"
        per_channel: bool = True
        scale: float | None = None


@pytest.mark.usefixtures("rounding")
def test_a_pass_is_listed_with_its_first_line_effect_and_options(cli):
    lines = cli("list").stdout.splitlines()
    start = lines.index("rounding: Round the weights.")
    assert lines[start + 1].startswith("  effect: ")
    assert lines[start + 2 : start + 6] == [
        "  bits=int (required)",
        "  mode=even|zero (default even)",
        "  per-channel=bool (default true)",
        "  scale=float, optional (default None)",
    ]


@pytest.mark.usefixtures("rounding")
def test_the_list_as_json(cli):
    told = json.loads(cli("list", "--json").stdout)
    (item,) = [item for item in told["passes"] if item["name"] == "rounding"]
    assert (told["format"], item["summary"], item["options"]["bits"]) == (
        "tfpasses-list",
        "Round the weights.",
        {"type": "int", "default": None, "required": True},
    )
    assert item["options"]["per-channel"] == {"type": "bool", "default": "true", "required": False}


def test_the_shipped_passes_are_listed(cli):
    assert "fold-batch-norms: " in cli("list").stdout
