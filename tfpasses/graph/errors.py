"""What can go wrong, each a subclass of the nearest builtin. Every message is one line: what is wrong, where, what to do."""

from __future__ import annotations

__all__ = ["FactsError", "GraphError", "ShapeError", "TfpassesError", "UnsupportedModelError"]


class TfpassesError(Exception):
    """Base of everything tfpasses raises on purpose; the command line prints it as one line and exits with 2."""


class GraphError(TfpassesError, ValueError):
    """A graph is not well-formed, or an edit would make it so."""


class ShapeError(GraphError):
    """A node's recorded shape or dtype is not what its operation gives."""


class FactsError(TfpassesError, ValueError):
    """A facts file cannot be read, or belongs to another model."""


class UnsupportedModelError(TfpassesError, TypeError):
    """A model or file that cannot be read into a graph, or a graph that cannot be written as the kind asked for."""
