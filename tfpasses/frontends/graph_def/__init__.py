"""The `tf.Graph` frontend: GraphDefs, functions, SavedModels and sessions, in and out. Importing it imports TensorFlow."""

from tfpasses.frontends.graph_def.containers.checkpoint import from_checkpoint, save_checkpoint
from tfpasses.frontends.graph_def.containers.concrete_function import from_concrete_function
from tfpasses.frontends.graph_def.containers.saved_model import from_saved_model, save_saved_model
from tfpasses.frontends.graph_def.containers.session import from_session
from tfpasses.frontends.graph_def.evaluate import call_graph, graph_def_evaluator
from tfpasses.frontends.graph_def.files import load_graph_def, save_graph_def
from tfpasses.frontends.graph_def.kinds import has_no_names_of_its_own, is_saved_model, rebuilt, save, save_keras
from tfpasses.frontends.graph_def.read import Source, from_graph_def
from tfpasses.frontends.graph_def.writing.writer import to_bytes, to_graph_def, write

__all__ = [
    "Source",
    "call_graph",
    "from_checkpoint",
    "from_concrete_function",
    "from_graph_def",
    "from_saved_model",
    "from_session",
    "graph_def_evaluator",
    "has_no_names_of_its_own",
    "is_saved_model",
    "load_graph_def",
    "rebuilt",
    "save",
    "save_checkpoint",
    "save_graph_def",
    "save_keras",
    "save_saved_model",
    "to_bytes",
    "to_graph_def",
    "write",
]
