"""The named pipelines that are shipped."""

from __future__ import annotations

from typing import Literal

import attrs

from tfpasses.manager import NamedPipeline

__all__ = ["CrossLayerEqualization"]


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
