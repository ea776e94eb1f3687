"""AIMET's `aimet_tensorflow.utils.graph_saver`: a session's graph and variables in a session of its own."""

from __future__ import annotations

from typing import Any

from tfpasses.graph import UnsupportedModelError

__all__ = ["save_and_load_graph"]


def save_and_load_graph(meta_path: str, sess: Any) -> Any:
    """A new session with the graph of a session as it is now, and the values of its variables.

    What was not initialized is not either. The copy is made in memory: `meta_path`, where AIMET wrote a checkpoint for the time being, is
    not used. Raises `UnsupportedModelError` for a closed session, an empty graph, or one beyond 2 GB.
    """
    from tfpasses.frontends.graph_def import from_session, rebuilt

    first = next((operation.name for operation in sess.graph.get_operations() if operation.outputs), None)
    if first is None:
        raise UnsupportedModelError("the session's graph has no operations, so that there is nothing to save")
    return rebuilt(from_session(sess, None, [first]))
