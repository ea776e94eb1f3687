"""AIMET's enumerations, as `aimet_common.defs` has them, as far as sessions need them."""

from __future__ import annotations

from enum import Enum

__all__ = ["ActivationType", "QuantScheme"]


class QuantScheme(Enum):
    """How the range of a quantizer is found. Of those that AIMET has, the two that need no training and no percentile."""

    post_training_tf = 1
    """The range of the values."""
    post_training_tf_enhanced = 2
    """The range of least error."""


class ActivationType(Enum):
    """What lies between a batch norm and a convolution."""

    no_activation = 0
    relu = 1
    relu6 = 2
