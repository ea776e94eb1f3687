"""The one measure of how far two outputs are apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["relative_error"]


def relative_error(candidate: ArrayLike, reference: ArrayLike) -> float:
    """``max |candidate - reference| / max |reference|``, in float64; NaN where either holds one, so no bound is met.

    Raises ValueError when the shapes differ: broadcasting would compare other pairs than meant.
    """
    a, b = np.asarray(candidate, np.float64), np.asarray(reference, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"candidate has shape {a.shape}, reference {b.shape}: compare outputs of the same batch")
    if a.size == 0:
        raise ValueError("both outputs are empty: nothing was compared")
    difference, scale = float(np.max(np.abs(a - b))), float(np.max(np.abs(b)))
    if scale == 0.0:
        return 0.0 if difference == 0.0 else float("nan") if np.isnan(difference) else float("inf")
    return difference / scale
