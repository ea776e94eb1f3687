"""The scales that make the ranges of kernels meet, class by class of channels, in sweeps until they stay.

A unit is what one closed form solves: a region (classes that the same kernels give and read), or several in a row with a depthwise
kernel between each and the next. Solving one changes the ranges that the next one sees; at the end, for each class, the largest range
of what gives it is that of what reads it. (In the language of matrices: balancing in the maximum norm, a row and column at a time.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import attrs
import numpy as np

from tfpasses.graph import Array
from tfpasses.passes.equalization.arithmetic import REACH, balanced
from tfpasses.passes.equalization.channels import Channels, Kernel, components

__all__ = ["Scales", "Unit", "equalize", "units"]

Step = Callable[[Array], Array]
"""What becomes of a unit's scales before they are applied."""


@attrs.frozen(eq=False)
class Unit:
    """Regions in a row, solved together."""

    regions: tuple[Array, ...]
    """The classes of each, in an order in which those at one place belong together."""
    producers: tuple[int, ...]
    """The kernels that give the first, by their numbers."""
    middles: tuple[int, ...]
    """The depthwise kernels between one and the next."""
    consumers: tuple[int, ...]
    """The kernels that read the last."""


@attrs.frozen(eq=False)
class Scales:
    """What came of it."""

    scale: Array
    """For each class: what gives it is divided by this, what reads it multiplied. float64; 1 for what stays."""
    units: tuple[Unit, ...]
    sweeps: int
    apart: float
    """How far the two ranges of a class differ at most, as a logarithm, of those that could be equal."""
    ranges: tuple[Array, Array]
    """For each class, the largest range of what gives it, and of what reads it, in the end."""


class State:
    """The magnitudes of all kernels ([in, groups, out]), scaled in place; what is kept of them for each class."""

    def __init__(self, channels: Channels) -> None:
        self.channels = channels
        self.magnitudes = [np.nan_to_num(kernel.view.magnitudes, nan=0.0, posinf=0.0) for kernel in channels.kernels]  # which are fixed
        self.place = np.zeros(channels.count, np.intp)
        """Where a class lies in the unit that is being solved."""

    def given(self, number: int) -> Array:
        """The largest magnitude of each output channel of a kernel."""
        return np.asarray(self.magnitudes[number].max(axis=0, initial=0.0).reshape(-1), np.float64)

    def read(self, number: int) -> Array:
        """The largest magnitude of each input channel of a kernel."""
        kernel = self.channels.kernels[number]
        return np.asarray(kernel.view.of_in(self.magnitudes[number].max(axis=2, initial=0.0)), np.float64)

    def largest(self, classes: Array, found: Sequence[tuple[Array, Array]]) -> Array:
        """The largest of some ranges for each of some classes. `found` are (classes, ranges)."""
        self.place[classes] = np.arange(classes.size)
        most = np.zeros(classes.size)
        for these, ranges in found:
            inside = np.isin(these, classes) if these.size != classes.size or not np.array_equal(these, classes) else slice(None)
            np.maximum.at(most, self.place[these[inside]], ranges[inside])
        return most

    def ranges(self) -> tuple[Array, Array]:
        """For each class, the largest range of what gives it, and of what reads it."""
        gives, reads = np.zeros(self.channels.count), np.zeros(self.channels.count)
        for number, kernel in enumerate(self.channels.kernels):
            np.maximum.at(gives, kernel.outs, self.given(number))
            np.maximum.at(reads, kernel.ins, self.read(number))
        return gives, reads

    def divide(self, number: int, scale: Array) -> None:
        """Divide the output channels of a kernel by the scales of their classes."""
        kernel = self.channels.kernels[number]
        factors = kernel.view.per_out(1.0 / scale[kernel.outs])
        self.magnitudes[number] *= factors.astype(self.magnitudes[number].dtype)

    def multiply(self, number: int, scale: Array) -> None:
        """Multiply the input channels of a kernel by the scales of their classes."""
        kernel = self.channels.kernels[number]
        factors = kernel.view.per_in(scale[kernel.ins])
        self.magnitudes[number] *= factors.astype(self.magnitudes[number].dtype)


def equalize(
    channels: Channels,
    chosen: Sequence[Unit],
    sweeps: int,
    tolerance: float,
    reach: float = REACH,
    least: Array | None = None,
) -> Scales:
    """Scale until the two ranges of every class differ by `tolerance` at most (relative), at most `sweeps` times through all units.

    No scale leaves 1/reach to reach, or is below what `least` says for its class. Each step is the closed form's: to go further (successive
    over-relaxation) takes half as many sweeps, but where several kernels meet there are many solutions, and it ends at one of wilder
    scales (1 to 3 points of MobileNetV2's accuracy at 8 bits).
    """
    state = State(channels)
    total, low = np.ones(channels.count), np.full(channels.count, 1 / reach)
    if least is not None:
        low = np.maximum(low, least)
    rest, done = 0.0, 0
    while done < sweeps:
        done += 1
        rest = 0.0
        for unit in chosen:
            steps = solved(unit, state, low, reach, total, SHORTER if reads_itself(unit) else 1.0)
            rest = max(rest, *[float(np.abs(np.log(step)).max(initial=0.0)) for step in steps])
            apply(unit, steps, state, total)
        if rest <= tolerance / 2 and apart(chosen, total, low, reach, state.ranges()) <= tolerance:  # a step is half of a difference
            break
    ranges = state.ranges()
    return Scales(total, tuple(chosen), done, apart(chosen, total, low, reach, ranges), ranges)


def apart(chosen: Sequence[Unit], total: Array, low: Array, reach: float, ranges: tuple[Array, Array]) -> float:
    """How far, as a logarithm, the two ranges of any class differ, where all kernels in its row have one, and no scale is at a bound."""
    gives, reads = ranges
    most = 0.0
    for unit in chosen:
        rows = np.stack(unit.regions)
        free = ((gives[rows] > 0) & (reads[rows] > 0) & (total[rows] > low[rows] * CLOSE) & (total[rows] < reach / CLOSE)).all(axis=0)
        most = max(most, float(np.abs(np.log(gives[rows[:, free]] / reads[rows[:, free]])).max(initial=0.0)))
    return most


CLOSE = 1 + 1e-9
"""A scale within this of its bound is at it."""


SHORTER = 0.5
"""So much of a step is taken where a kernel reads the region that it gives to: its two sides change at once."""


def solved(unit: Unit, state: State, low: Array, reach: float, total: Array, power: float) -> list[Array]:
    """The scales of a unit's regions, from the ranges as they are; so that no total leaves its bounds."""
    kernels = state.channels.kernels
    first = state.largest(unit.regions[0], [(kernels[number].outs, state.given(number)) for number in unit.producers])
    last = state.largest(unit.regions[-1], [(kernels[number].ins, state.read(number)) for number in unit.consumers])
    middles = [state.given(number)[order] for number, order in zip(unit.middles, orders(unit, state), strict=True)]
    ranges = [first, *middles, last]
    steps = balanced(ranges, reach)
    idle = np.min(ranges, axis=0) == 0
    if idle.any() and not idle.all():
        settle(ranges, steps, idle)
    bounded = []
    for region, step in zip(unit.regions, steps, strict=True):
        bounded.append(np.clip(total[region] * step**power, low[region], reach) / total[region])
    return bounded


def settle(ranges: Sequence[Array], steps: Sequence[Array], idle: Array) -> None:
    """Scale the channels, too, of which a kernel has nothing, but no further than that no other kernel's range exceeds the largest that
    the channels come to have which all kernels have something of. As there are ranges for all scales then, each is free.
    """
    most = float(np.exp2(np.log2([each[~idle] for each in ranges]).mean(axis=0).max()))
    excess = [np.maximum(each[idle] / most, 1.0) for each in ranges]
    left, right = [np.cumprod(one, axis=0) for one in (excess, excess[::-1])]
    empty = np.argmin([each[idle] for each in ranges], axis=0)  # what lies before it is scaled from the first on, the rest from the last
    for place, step in enumerate(steps):
        step[idle] = np.where(place < empty, left[place], 1.0 / right[len(steps) - 1 - place])


def orders(unit: Unit, state: State) -> Iterator[Array]:
    """For each depthwise kernel in the middle: its channels in the order of the unit's classes."""
    for number, region in zip(unit.middles, unit.regions, strict=False):
        ins = state.channels.kernels[number].ins
        state.place[ins] = np.arange(ins.size)
        yield state.place[region].copy()


def apply(unit: Unit, steps: Sequence[Array], state: State, total: Array) -> None:
    """Scale the kernels of a unit."""
    scale = np.ones(state.channels.count)
    for region, step in zip(unit.regions, steps, strict=True):
        scale[region] = step
        total[region] *= step
    for number in (*unit.producers, *unit.middles):
        state.divide(number, scale)
    for number in (*unit.middles, *unit.consumers):
        state.multiply(number, scale)


def reads_itself(unit: Unit) -> bool:
    """Whether a kernel reads a class of the region that it gives to: such two scales do not settle in one step."""
    return not set(unit.producers).isdisjoint(unit.consumers)


# which units there are


def units(channels: Channels) -> list[Unit]:
    """All that may be scaled, in the order of computing."""
    given, read = np.zeros(channels.count, bool), np.zeros(channels.count, bool)
    for kernel in channels.kernels:
        given[kernel.outs], read[kernel.ins] = True, True
    free = given & read & (channels.fixed < 0)
    sides = [(number, side, ends[free[ends]]) for number, kernel in enumerate(channels.kernels) for side, ends in enumerate(kernel.ends)]
    labels = components(channels.count, [(ends[:1], ends) for _, _, ends in sides if ends.size])
    classes = np.flatnonzero(free)
    names, starts = np.unique(np.sort(labels[classes]), return_index=True)
    members = np.split(classes[np.argsort(labels[classes], kind="stable")], starts[1:])
    regions = dict(zip(names.tolist(), members, strict=True)) if classes.size else {}
    around: tuple[dict[int, list[int]], dict[int, list[int]]] = ({label: [] for label in regions}, {label: [] for label in regions})
    for number, side, ends in sides:
        for label in np.unique(labels[ends]).tolist():
            around[side][label].append(number)
    consumers, producers = ({label: tuple(numbers) for label, numbers in one.items()} for one in around)
    return list(chains(channels, regions, producers, consumers, labels))


def chains(
    channels: Channels,
    regions: dict[int, Array],
    producers: dict[int, tuple[int, ...]],
    consumers: dict[int, tuple[int, ...]],
    labels: Array,
) -> Iterator[Unit]:
    """Regions in a row, joined where nothing but one depthwise kernel lies between one and the next."""
    joined: dict[int, tuple[int, int]] = {}
    for label, region in regions.items():
        if len(consumers[label]) != 1:
            continue
        (number,) = consumers[label]
        kernel = channels.kernels[number]
        after = int(labels[kernel.outs[0]]) if kernel.outs.size else label
        if after == label or producers.get(after) != (number,) or not one_to_one(kernel, region, regions[after]):
            continue
        joined[label] = (number, after)
    begun = {after for _, after in joined.values()}
    for label, region in regions.items():
        if label in begun:
            continue
        row, middles, here = [region], [], label
        while here in joined:
            number, here = joined[here]
            kernel = channels.kernels[number]
            order = np.argsort(kernel.ins, kind="stable")
            place = order[np.searchsorted(kernel.ins[order], row[-1])]
            row.append(kernel.outs[place])
            middles.append(number)
        yield Unit(tuple(row), producers[label], tuple(middles), consumers[here])


def one_to_one(kernel: Kernel, before: Array, after: Array) -> bool:
    """Whether a kernel is depthwise, and takes each class of one region into one of the other."""
    return kernel.view.shape[::2] == (1, 1) and np.array_equal(np.sort(kernel.ins), before) and np.array_equal(np.sort(kernel.outs), after)
