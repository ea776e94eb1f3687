"""The `tf.Graph` frontend: frozen GraphDefs in, GraphDefs out. Importing it imports TensorFlow."""

from tfpasses.frontends.graph_def.files import load_graph_def, save_graph_def
from tfpasses.frontends.graph_def.read import from_graph_def
from tfpasses.frontends.graph_def.write import to_graph_def

__all__ = ["from_graph_def", "load_graph_def", "save_graph_def", "to_graph_def"]
