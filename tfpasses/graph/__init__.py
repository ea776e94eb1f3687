"""The ground floor: graphs as values, the vocabulary of operations, and how to edit, check, print and compare graphs. No TensorFlow."""

from tfpasses.graph.check import check_shapes, check_structure
from tfpasses.graph.diff import diff
from tfpasses.graph.edit import Edit
from tfpasses.graph.errors import FactsError, GraphError, ShapeError, TfpassesError, UnsupportedModelError
from tfpasses.graph.evaluator import Evaluator, Held, Run, Step, Total
from tfpasses.graph.facts import ChannelStats, Fact
from tfpasses.graph.facts_file import load_facts, save_facts
from tfpasses.graph.files import WriteError, atomic_directory, atomic_write
from tfpasses.graph.functions import Body, Functions
from tfpasses.graph.graph import OUTPUT, Array, Graph, Scope
from tfpasses.graph.journal import Rewrite, follow
from tfpasses.graph.linear import KernelView, LinearView
from tfpasses.graph.node import Node, Owner
from tfpasses.graph.ops import TRAITS, VOCABULARY, Op, has_trait, ops_with_trait
from tfpasses.graph.shapes import channel_axis
from tfpasses.graph.values import Call, Ref, Slot, Spec
from tfpasses.graph.view import View

__all__ = [
    "OUTPUT",
    "TRAITS",
    "VOCABULARY",
    "Array",
    "Body",
    "Call",
    "ChannelStats",
    "Edit",
    "Evaluator",
    "Fact",
    "FactsError",
    "Functions",
    "Graph",
    "GraphError",
    "Held",
    "KernelView",
    "LinearView",
    "Node",
    "Op",
    "Owner",
    "Ref",
    "Rewrite",
    "Run",
    "Scope",
    "ShapeError",
    "Slot",
    "Spec",
    "Step",
    "TfpassesError",
    "Total",
    "UnsupportedModelError",
    "View",
    "WriteError",
    "atomic_directory",
    "atomic_write",
    "channel_axis",
    "check_shapes",
    "check_structure",
    "diff",
    "follow",
    "has_trait",
    "load_facts",
    "ops_with_trait",
    "save_facts",
]
