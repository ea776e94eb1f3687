"""Looking at graphs and runs: pictures, JSON, tables, progress."""

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
