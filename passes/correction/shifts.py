"""What quantized kernels add to the outputs of layers on average, taken from their biases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import attrs
import numpy as np

from tfpasses.graph import Array, Edit
from tfpasses.manager import Context, PassError, Remark
from tfpasses.passes.correction.biases import Biased, corrected

__all__ = ["Shift", "take"]


@attrs.frozen(eq=False)
class Shift:
    """What quantized kernels add to a layer's output: to be taken from its bias."""

    layer: Biased
    values: Array
    """One number an output channel, float64, the mean over the layer's uses; NaN where it is not known for one of them."""
    reason: str
    """Why the layer is not corrected, or not all of its channels; empty where it is."""
    assumes: frozenset[str] = frozenset()
    """The additions that are taken for normal, with independent addends: see `Moments`."""
    borderless: bool = False
    """Whether zeros around an image of unknown size are left out of account."""
    on_grid: bool = False
    """Whether quantization changes nothing of its kernels."""

    @property
    def known(self) -> Array:
        """Of which channels it is known."""
        return ~np.isnan(self.values)


def take(
    found: Sequence[Shift], name: str, only: str, edit: Edit, context: Context, remedy: Callable[[str], str] = lambda reason: ""
) -> Iterator[Remark]:
    """Take the shifts from the biases, layer by layer, for a pass of a name; a remark for each layer that is not corrected, or not in all
    channels, and one that says how far the others are.

    `remedy` is what would help against a reason. Raises `PassError` for a layer that the pass's option `only` named and that cannot be.
    """
    done: list[Shift] = []
    for shift in found:
        layer, known = shift.layer.name, shift.known
        values = np.where(known, shift.values, 0.0)
        bias = corrected(shift.layer, values, edit) if known.any() else None
        idle = not values.any()
        if bias is None or (idle and not known.all()):
            reason = shift.reason or "its corrected bias would not be finite in its dtype"
            if only:
                raise PassError(f"only={only!r}: {layer} cannot be corrected: {reason}")
            yield Remark(name, "missed", layer, reason, remedy(reason))
            continue
        if idle:
            yield Remark(name, "note", layer, "its kernel is on the grid already" if shift.on_grid else "what it reads is 0 on average")
            continue
        if not known.all():
            missing = f"{int((~known).sum())} of its {known.size} channels are not corrected: {shift.reason}"
            yield Remark(name, "missed", layer, missing, remedy(shift.reason))
        if shift.borderless:
            yield Remark(name, "note", layer, "the size of the image that it reads is not known: what zeros do at its border is left out")
        edit.savepoint()
        edit.set_params([edit.nodes[node.name] for node in shift.layer.nodes], {"bias": bias})
        edit.note(channels=int(known.sum()), largest=float(np.abs(values).max()))
        if shift.assumes:
            edit.note(assumes=tuple(sorted(shift.assumes)))
        context.on_rewrite(edit.commit("correct", layer))
        done.append(shift)
    if done:
        yield Remark(name, "note", edit.source.name, summary(done, len(found)))


def summary(done: Sequence[Shift], count: int) -> str:
    """What was corrected, and how far, in a line."""
    largest = max(done, key=lambda shift: float(np.nanmax(np.abs(shift.values))))
    text = f"{len(done)} of {count} layers corrected, by up to {np.nanmax(np.abs(largest.values)):.3g} ({largest.layer.name})"
    assumed = [shift for shift in done if shift.assumes]
    sums = sorted({name for shift in assumed for name in shift.assumes})
    if not assumed:
        return text
    said = ", ".join(sums[:3]) + " .." * (len(sums) > 3)
    return f"{text}; {len(assumed)} of them take for independent what {said} adds, and the sum for normal"
