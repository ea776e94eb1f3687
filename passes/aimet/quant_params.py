"""AIMET's parameters of bias correction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import attrs

from tfpasses.passes.aimet.sessions import Names
from tfpasses.passes.quantization.quantizer import Quantizer

__all__ = ["BiasCorrectionParams", "QuantParams"]

BITS = 8
SCHEMES: Mapping[Any, Literal["tf", "tf_enhanced"]] = {
    "tf": "tf",
    "post_training_tf": "tf",
    "tf_enhanced": "tf_enhanced",
    "post_training_tf_enhanced": "tf_enhanced",
}
ROUNDINGS: Mapping[Any, Literal["nearest", "stochastic"]] = {
    "nearest": "nearest",
    "ROUND_NEAREST": "nearest",
    "stochastic": "stochastic",
    "ROUND_STOCHASTIC": "stochastic",
}


def spelled(value: Any) -> Any:
    """A text, or the name of a member of an enumeration, whoever's that is."""
    return value if isinstance(value, str) else getattr(value, "name", None)


def one_of(choices: Mapping[Any, str]) -> Any:
    """Refuses, with a `ValueError`, what is none of some choices."""

    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if spelled(value) not in choices:
            raise ValueError(f"{attribute.name}={value!r}; write one of {', '.join(choices)}")

    return check


def positive(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Refuses what is no number of samples."""
    if not hasattr(value, "__index__") or int(value) < 1:
        raise ValueError(f"{attribute.name}={value!r}; it is a number of samples, at least 1")


@attrs.define
class QuantParams:
    """How weights are quantized: per tensor, to 8 bits.

    Raises `ValueError` for a mode that is none, here and where one is set later.
    """

    quant_mode: Any = attrs.field(default="tf_enhanced", validator=one_of(SCHEMES))
    """`tf` (the range of the values) or `tf_enhanced` (that of least error), or a `QuantScheme`, this package's or AIMET's."""
    round_mode: Any = attrs.field(default="nearest", validator=one_of(ROUNDINGS))
    """`nearest` or `stochastic`."""
    use_cuda: bool = True
    """Not used: what is run is run where TensorFlow runs it."""
    ops_to_ignore: Any = None
    """Operations, or their names: layers that they are part of are neither quantized nor corrected."""

    def quantizer(self, *, symmetric: bool) -> Quantizer:
        """The quantizer that these describe."""
        rounding = ROUNDINGS[spelled(self.round_mode)]
        return Quantizer(BITS, SCHEMES[spelled(self.quant_mode)], symmetric=symmetric, per_channel=False, rounding=rounding)

    @property
    def ignored(self) -> list[str]:
        """The names of the operations to ignore. Raises `ValueError` for what is neither a name nor an operation."""
        given = self.ops_to_ignore
        if given is None:
            return []
        one = isinstance(given, str) or hasattr(given, "name") or not isinstance(given, Iterable)
        found = []
        for item in [given] if one else given:
            name = item if isinstance(item, str) else getattr(item, "name", None)
            if not isinstance(name, str):
                raise ValueError(f"ops_to_ignore holds {item!r}, which is neither an operation nor the name of one")
            found.append(name)
        return found


@attrs.define
class BiasCorrectionParams:
    """What is measured, and on how many samples. Raises `ValueError` for numbers below 1."""

    batch_size: int = attrs.field(validator=positive)
    """The samples that are used are as many whole batches of this size as `num_bias_correct_samples` takes."""
    num_quant_samples: int = attrs.field(validator=positive)
    """Not used: the ranges of weights need no samples, and activations are not quantized."""
    num_bias_correct_samples: int = attrs.field(validator=positive)
    input_op_names: Names
    """The placeholders that the data are for, in order."""
    output_op_names: Names
    """Layers that these do not need are left alone."""

    @property
    def samples(self) -> int:
        """So many samples are used."""
        return math.ceil(int(self.num_bias_correct_samples) / int(self.batch_size)) * int(self.batch_size)
