"""Looking at graphs and runs: pictures, JSON, tables, progress. Each part is imported where it is asked for: a list needs no pictures."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfpasses.view.dot import to_dot, to_svg
    from tfpasses.view.json import graph_json, list_json, run_json, verify_json
    from tfpasses.view.progress import ProgressBar
    from tfpasses.view.summary import print_differences, print_remarks, print_rewrites, print_summary

__all__ = [
    "ProgressBar",
    "graph_json",
    "list_json",
    "print_differences",
    "print_remarks",
    "print_rewrites",
    "print_summary",
    "run_json",
    "to_dot",
    "to_svg",
    "verify_json",
]

_HOME = {
    "ProgressBar": "progress",
    **dict.fromkeys(("graph_json", "list_json", "run_json", "verify_json"), "json"),
    **dict.fromkeys(("print_differences", "print_remarks", "print_rewrites", "print_summary"), "summary"),
    **dict.fromkeys(("to_dot", "to_svg"), "dot"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module tfpasses.view has no attribute {name!r}")
    return getattr(importlib.import_module(f"tfpasses.view.{_HOME[name]}"), name)
