"""Layer names that do not depend on what the process built before."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from contextlib import contextmanager

from keras.src.backend.common import global_state

__all__ = ["fresh_names"]

_COUNTERS = "object_name_uids"


@contextmanager
def fresh_names() -> Iterator[None]:
    """Within the block automatic layer names count from the start; afterwards the old counters go on.

    ``keras.backend.clear_session()`` would do too much: it forgets the process's dtype policy, and the counters of a model
    half built by the caller, which then gets two layers of one name.
    """
    before = global_state.get_global_attribute(_COUNTERS)
    global_state.set_global_attribute(_COUNTERS, collections.defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute(_COUNTERS, before if before is not None else collections.defaultdict(int))
