"""What must hold of every fold, whatever the model."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import tfpasses
from eager_groups import eager_groups
from in_float64 import outputs, truth
from keras_same import arrays_of, assert_same_arrays, configuration

__all__ = ["assert_explained", "assert_fold", "assert_near"]

FACTOR = 4
LOOKS = 4
HALF = 2.0**-11
"""The rounding of float16."""


def assert_fold(
    model: keras.Model, x: Any, unit: float, pipeline: str = "fold-batch-norms", verify: str = "shapes", callers: bool = True
) -> tfpasses.Result:
    """Fold, and assert that the function and the model's looks are kept, and that each batch norm left is explained; and, if asked for,
    that the caller's model is as it was. `unit` is the rounding of the dtype that the model computes in.
    """
    before = (arrays_of(model), configuration(model)) if callers else None
    with eager_groups():
        own, exact = outputs(model, x), truth(model, x)
    result = tfpasses.run(model, pipeline, verify=verify)
    assert all(verdict.ok for verdict in result.verdicts)
    assert looks(result.model) == looks(model)
    if len(set(model.output_names)) == len(model.output_names):  # a layer that gives two outputs may become two layers
        taken = {name for name in model.output_names if f"output {name} is now named " in " ".join(r.reason for r in result.remarks)}
        assert taken <= {layer.name for layer in result.model.layers}  # by another use of a shared layer, which stays
        pairs = zip(result.model.output_names, model.output_names, strict=True)
        assert all(new == old or old in taken for new, old in pairs)
    assert_explained(result)
    with eager_groups():
        assert_near(outputs(result.model, x), own, exact, model, x, unit)
    if before is not None:
        assert_same_arrays(arrays_of(model), before[0])
        assert configuration(model) == before[1]
        with eager_groups():
            assert_same_arrays(outputs(model, x), own)
    return result


def assert_near(new: list[np.ndarray], own: list[np.ndarray], exact: list[np.ndarray], model: keras.Model, x: Any, unit: float) -> None:
    """`new` are outputs of what `model` was rewritten to, `own` those of what it was, `exact` the truth."""
    if not all(map(close, new, own, exact, [unit] * len(own))):
        jittered = [truth(model, x, unit, seed) for seed in range(LOOKS)]
        for number, (ours, theirs, wanted) in enumerate(zip(new, own, exact, strict=True)):
            assert close(ours, theirs, wanted, unit, [values[number] for values in jittered]), f"output {number}"


def assert_explained(result: tfpasses.Result) -> None:
    """Exactly one remark a batch norm that is left."""
    left = sorted(node.name for node in result.graph.nodes.values() if node.op == "BatchNorm")
    missed = sorted(remark.node for remark in result.remarks if remark.kind == "missed")
    assert missed == left


def looks(model: keras.Model) -> Any:
    """What a caller sees of a model: its names, and the structures, shapes and dtypes of inputs and outputs."""
    tensors = keras.tree.map_structure(lambda x: (x.shape, x.dtype), (model._inputs_struct, model._outputs_struct))
    return type(model), model.name, [x.name for x in model.inputs], tensors


def close(new: np.ndarray, own: np.ndarray, exact: np.ndarray, unit: float, jittered: list[np.ndarray] | None = None) -> bool:
    """Whether `new` is at most four times as far from the truth as `own`, or as rounding all that is read can make the truth.

    Where the original overflows nothing is asked, and of an output in half precision that does so somewhere only what is a number: beside
    the end of the range a fold may overflow a step earlier, since a batch norm that computed in float32 is gone.
    """
    new, own = np.asarray(new, np.float64), np.asarray(own, np.float64)
    where = np.isfinite(own) & np.isfinite(exact)
    if unit >= HALF and (np.isfinite(exact) & ~np.isfinite(own)).any():
        where &= np.isfinite(new)
    explained = [unit * largest(exact, where), largest(own - exact, where)]
    explained += [largest(values - exact, where) for values in jittered or []]
    return new.shape == own.shape and largest(new - exact, where) <= FACTOR * max(explained)


def largest(values: np.ndarray, where: np.ndarray) -> float:
    return float(np.max(np.abs(values), where=where, initial=0.0))
