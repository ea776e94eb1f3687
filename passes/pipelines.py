"""The named pipelines that are shipped."""

from __future__ import annotations

from typing import Literal

import attrs

from tfpasses.manager import NamedPipeline

__all__ = ["CrossLayerEqualization", "DataFreeQuantization"]


@attrs.frozen
class CrossLayerEqualization(NamedPipeline):
    """Cross-layer equalization: fold batch norms, constant channels, cross-layer scaling, high-bias fold.

    `relu6=clip` keeps activations with an upper limit exact, by limits per channel; `replace` makes them ReLUs first, as AIMET does; `skip`
    and `bound` leave them as they are. `padding` says what `fold-constant-channels` does where zero padding meets a constant; there, the
    high-bias fold, which only approximates, leaves layers alone.
    """

    name = "cle"

    relu6: Literal["clip", "replace", "skip", "bound"] = "clip"
    padding: Literal["refuse", "border-map", "approximate"] = "border-map"

    @property
    def text(self) -> str:
        """The pipeline that it stands for, as text."""
        scaling = "relu6-to-relu,cross-layer-scaling" if self.relu6 == "replace" else f"cross-layer-scaling{{relu6={self.relu6}}}"
        constant = f"fold-constant-channels{{padding={self.padding}}}"
        return f"fold-batch-norms,{constant},{scaling},high-bias-fold"


@attrs.frozen
class DataFreeQuantization(NamedPipeline):
    """Cross-layer equalization, then bias correction: what lets 8 bits a tensor do for the weights. `quantize-weights` may follow.

    `correction=analytical` needs no data; `sequential`, `fast` (the two methods of `empirical-bias-correction`) and `hybrid`
    (`bias-correction`) do. `bits`, `scheme`, `symmetric` and `per_channel` are those of the quantizer to come, `relu6` and `padding` as for
    `cle`.
    """

    name = "dfq"

    correction: Literal["analytical", "sequential", "fast", "hybrid"] = "analytical"
    bits: int = 8
    scheme: Literal["tf", "tf_enhanced"] = "tf"
    symmetric: bool = False
    per_channel: bool = False
    relu6: Literal["clip", "replace", "skip", "bound"] = "clip"
    padding: Literal["refuse", "border-map", "approximate"] = "border-map"

    @property
    def text(self) -> str:
        """The pipeline that it stands for, as text."""
        flags = " ".join(
            f"{name}={str(value).lower()}" for name, value in (("symmetric", self.symmetric), ("per-channel", self.per_channel))
        )
        quantizer = f"bits={self.bits} scheme={self.scheme} {flags}"
        correction = {
            "analytical": f"analytical-bias-correction{{{quantizer}}}",
            "hybrid": f"bias-correction{{{quantizer}}}",
        }.get(self.correction, f"empirical-bias-correction{{method={self.correction} {quantizer}}}")
        return f"cle{{relu6={self.relu6} padding={self.padding}}},{correction}"
