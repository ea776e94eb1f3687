"""What the manager refuses, and how."""

from __future__ import annotations

from tfpasses.graph import GraphError, TfpassesError

__all__ = ["DataError", "PassError", "PipelineError", "RegistryError", "VerificationError", "WorkerError"]


class DataError(TfpassesError, ValueError):
    """Data that cannot be read, or do not fit the model's inputs."""


class WorkerError(TfpassesError, ConnectionError):
    """Another of several processes is lost, or does something else."""


class PipelineError(TfpassesError, ValueError):
    """A pipeline's text, an option, or the order of passes is wrong. Raised before anything runs."""


class RegistryError(TfpassesError, LookupError):
    """A pass is unknown, or two are registered under one name."""


class PassError(GraphError):
    """A pass failed. The graph that went in is as it was; the cause says what happened."""


class VerificationError(TfpassesError, AssertionError):
    """A pass broke the graph or did not keep the function as its contract says."""
