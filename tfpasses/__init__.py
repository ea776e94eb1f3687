"""tfpasses: a declarative graph-rewrite pass framework for TensorFlow and Keras 3.

    result = tfpasses.run(model, "fold-batch-norms", verify="numeric")
    result.model      # a new model; the one given is as it was

Importing this package imports neither TensorFlow nor Keras; what needs them imports them when it is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfpasses.api import (
        Result,
        compare_models,
        from_concrete_function,
        from_graph_def,
        from_keras,
        from_saved_model,
        from_session,
        load,
        run,
        save,
    )
    from tfpasses.graph import Graph, TfpassesError, diff
    from tfpasses.manager import Contract, Effect, Pass, Pipeline, register, rule

__all__ = [
    "Contract",
    "Effect",
    "Graph",
    "Pass",
    "Pipeline",
    "Result",
    "TfpassesError",
    "compare_models",
    "diff",
    "from_concrete_function",
    "from_graph_def",
    "from_keras",
    "from_saved_model",
    "from_session",
    "load",
    "register",
    "rule",
    "run",
    "save",
]

_HOME = {
    **dict.fromkeys(("Result", "compare_models", "load", "run", "save"), "tfpasses.api"),
    **dict.fromkeys((f"from_{kind}" for kind in ("concrete_function", "graph_def", "keras", "saved_model", "session")), "tfpasses.api"),
    **dict.fromkeys(("Graph", "TfpassesError", "diff"), "tfpasses.graph"),
    **dict.fromkeys(("Contract", "Effect", "Pass", "Pipeline", "register", "rule"), "tfpasses.manager"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module tfpasses has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
