"""Small Keras models, one for each thing that a frontend must carry over. `MODELS` maps a name to a function that builds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers as L
from keras import ops

from zoo.seeded_weights import seeded_weights  # noqa: F401

__all__ = ["LAYERS", "MODELS", "single", "randomize"]
