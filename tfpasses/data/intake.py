"""How data become what a model takes: their shapes and dtypes checked, the values cast, what is no number refused."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import ml_dtypes
import numpy as np

from tfpasses.graph import Array, Graph, Spec
from tfpasses.manager import DataError

__all__ = ["Intake"]

HALVES = ("bfloat16", "float16")
NUMBERS = "biuf"
TAKEN = {"f": NUMBERS, "i": "biu", "u": "biu", "b": "biu", "c": "biufc", "O": "OSU"}
"""Kind of an input's dtype -> kinds of the arrays that it takes, as NumPy has them."""


@attrs.frozen(eq=False)
class Intake:
    """What a model takes."""

    specs: Mapping[str, Spec]
    """By input name, in order."""
    parted: bool
    """Whether the first axes of all inputs are those of the samples."""
    fixed: int | None
    """As many samples as it takes at a time, where only so many."""
    finite: bool = True
    """Whether NaN and infinity are refused: what is measured on them would be neither. Comparing two models can do with them."""

    @classmethod
    def of(cls, graph: Graph, finite: bool = True) -> Intake:
        """The inputs of a graph."""
        specs = {name: graph.nodes[name].specs[0] for name in graph.inputs}
        first = {spec.shape[0] if spec.shape else -1 for spec in specs.values()}
        parted = len(first) == 1 and first != {-1}
        return cls(specs, parted, first.pop() if parted else None, finite)

    def shaped(self, name: str, array: Array, where: str, *, one: bool = False) -> None:
        """Check the shape of a batch, or of one sample, except how many samples there are; and the dtype. Raises `DataError`."""
        spec = self.specs[name]
        given = (spec.shape[1:] if spec.shape else ()) if one else spec.shape
        wanted = array.shape if given is None else given
        first = 1 if self.parted and not one else 0
        fits = array.ndim == len(wanted) and all(b is None or a == b for a, b in zip(array.shape[first:], wanted[first:], strict=True))
        if not fits:
            also = ", or one sample of it," if where and self.parted else " with at least one sample" if not where else ""
            raise DataError(f"data for input {name} has shape {array.shape}{where}; {spec}{also} is expected")
        if array.dtype.kind not in TAKEN.get(kind_of(spec), "") and not (array.dtype.name in HALVES and kind_of(spec) == "f"):
            raise DataError(f"data for input {name} has dtype {array.dtype}{where}; {spec} is expected")

    def counted(self, arrays: Mapping[str, Array], where: str) -> int:
        """How many samples there are in arrays of several inputs. Raises `DataError` where they differ."""
        counts = {name: len(array) for name, array in arrays.items()}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise DataError(f"data{where} have different numbers of samples: {said}")
        return next(iter(counts.values()))

    def filled(self, count: int) -> None:
        """Raise `DataError` where so many samples leave a rest of a model that takes a fixed number."""
        if self.fixed is not None and count % self.fixed:
            raise DataError(
                f"the model takes {self.fixed} samples at a time; of the data {count % self.fixed} "
                f"{'is' if count % self.fixed == 1 else 'are'} left over; give {self.fixed}, or a multiple of it"
            )

    def cast(self, arrays: Mapping[str, Array], first: int) -> dict[str, Array]:
        """Arrays in the dtypes that the model takes. `first` is the number of their first sample, for errors.

        Raises `DataError` for NaN, infinity and values that the dtype cannot hold.
        """
        return {name: self.one_cast(name, array, first) for name, array in arrays.items()}

    def one_cast(self, name: str, array: Array, first: int) -> Array:
        """One of them."""
        spec = self.specs[name]
        kind = kind_of(spec)
        if kind == "O":
            if array.dtype.kind == "O" and not all(isinstance(one, str | bytes) for one in array.ravel()):
                raise DataError(f"data for input {name} holds other things than strings; {spec} is expected")
            return array
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is found below
            new = array.astype(dtype_of(spec), copy=False)
        if kind in "fc":
            wrong = ~np.isfinite(new) if self.finite else ~np.isfinite(new) & np.isfinite(array)
        elif array.dtype == new.dtype:
            return new
        else:
            wrong = new.astype(array.dtype) != array
        if wrong.any():
            place = np.argwhere(wrong)[0]
            value = array[tuple(place)]
            number = f" in sample {first + place[0]} (counted from 0)" if self.parted else ""
            if kind in "fc" and not np.isfinite(value):
                what = "NaN" if np.isnan(value) else "an infinite value"
                raise DataError(f"data for input {name} has {what}{number}; mend or leave out such samples")
            raise DataError(f"data for input {name} has the value {value}{number}, which {spec.dtype} cannot hold")
        return new


def kind_of(spec: Spec) -> str:
    """The kind of an input's dtype as NumPy has it; `O` for strings, nothing for what no array can be given for."""
    if spec.dtype == "string":
        return "O"
    if spec.dtype in HALVES:
        return "f"
    try:
        return np.dtype(spec.dtype).kind
    except TypeError:  # resource, variant
        return ""


def dtype_of(spec: Spec) -> np.dtype[np.generic]:
    """The same dtype of NumPy's."""
    return np.dtype(ml_dtypes.bfloat16) if spec.dtype == "bfloat16" else np.dtype(spec.dtype)
