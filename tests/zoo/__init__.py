"""Models that bite: seeded architectures whose outputs tell one image from another and notice a lost beta.

With arbitrary batch-norm statistics a deep network maps any two images to the same output, and an equivalence test of
batch-norm folding passes whatever the fold did.  Here weights are seeded and statistics are *measured*.

The zoo is a judge of the project, so nothing in it imports the project.
"""

from zoo.architectures import APPLICATIONS, ARCHITECTURES, Architecture, architecture
from zoo.deterministic import golden_weights
from zoo.fold_scan import Fold, fold_count, fold_scan, foldable
from zoo.fresh_names import fresh_names
from zoo.reference import float64_model, float64_outputs
from zoo.relative_error import relative_error
from zoo.seeded_models import build, inputs, typical
from zoo.smooth_images import images
from zoo.tolerance import float32_error, tolerance

__all__ = [
    "APPLICATIONS",
    "ARCHITECTURES",
    "Architecture",
    "Fold",
    "architecture",
    "build",
    "float32_error",
    "float64_model",
    "float64_outputs",
    "fold_count",
    "fold_scan",
    "foldable",
    "fresh_names",
    "golden_weights",
    "images",
    "inputs",
    "relative_error",
    "tolerance",
    "typical",
]
