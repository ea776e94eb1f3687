import sys
from contextlib import nullcontext

import pytest


@pytest.fixture(autouse=True)
def layer_names_count_from_the_start():
    """No test sees names that depend on what ran before it in the same process."""
    if "keras" in sys.modules:
        from zoo.fresh_names import fresh_names
    else:
        fresh_names = nullcontext
    with fresh_names():
        yield
