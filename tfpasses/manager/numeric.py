"""Numeric verification: every rewrite that claims to keep the function is made to prove it.

After a pass, rewrites that touch one another are put together into regions. Each region is run before and after, on the
values that really cross its border (from one run of the whole graph), against the region before in float64. Every element
may be off by `FACTOR` times what the region's own rounding explains there (see `tfpasses.manager.rounding`). Then the
graph's outputs are compared: each may be off by `FACTOR` times the largest error that it had before. An EXACT pass must give
the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs
import numpy as np

from tfpasses.graph import VOCABULARY, Array, Evaluator, Graph, GraphError, Ref, Rewrite, Spec, follow
from tfpasses.manager.contract import Effect
from tfpasses.manager.errors import VerificationError
from tfpasses.manager.observers import Observer, PassRecord
from tfpasses.manager.rounding import UNITS, Measured, Wide, distance, fan_in, largest, magnitude_graph, measure, smallest, unit, wide

__all__ = ["FACTOR", "NumericCheck", "Verdict", "factor", "looks", "own_errors", "random_inputs"]

FACTOR = 4.0
DEFAULT_SIZE = 32
HIDDEN = ("resource", "variant")
"""The dtypes of values that cannot be looked at."""
SECOND_LOOK = 8
"""Before anything is refused, the original's own error is measured in so many more runs."""


@attrs.frozen
class Verdict:
    """How far one region, or one output, moved: the figures of the element that is the farthest beyond its bound, or the nearest to it."""

    pass_name: str
    where: str
    """The rewrites' roots, or `outputs`."""
    error: float
    """After the pass, against the float64 reference."""
    own_error: float
    """What rounding explains before the pass, against the same."""
    bound: float

    @property
    def ok(self) -> bool:
        """Whether the error is a number within the bound."""
        return self.error <= self.bound


@attrs.define
class NumericCheck(Observer):
    """Verifies each function-preserving pass. Raises `VerificationError` naming the pass, the rewrites and the figures."""

    evaluator: Evaluator
    inputs: Mapping[str, Array] | None = None
    """Arrays by input name; seeded random ones where None."""
    verdicts: list[Verdict] = attrs.field(factory=list)

    def pass_ended(self, record: PassRecord) -> None:
        """Verify the pass, if it claims to keep the function and did anything."""
        effect = record.pass_.effect
        if not effect.preserves or not record.journal:
            return
        inputs = self.inputs if self.inputs is not None else random_inputs(record.before)
        for verdict in verify(record, self.evaluator, inputs):
            self.verdicts.append(verdict)
            if not verdict.ok:
                raise VerificationError(
                    f"pass {verdict.pass_name} does not keep the function at {verdict.where}: error {verdict.error:.3g} against float64, "
                    f"allowed {verdict.bound:.3g} (before the pass it was {verdict.own_error:.3g})"
                )


@attrs.frozen
class Region:
    """A part of the graph before a pass, and what stands for it after."""

    roots: tuple[str, ...]
    names: tuple[str, ...]
    """Its nodes, in topological order."""
    feeds: tuple[Ref, ...]
    fetches: tuple[Ref, ...]

    @property
    def where(self) -> str:
        """The rewrites' roots."""
        return ", ".join(dict.fromkeys(self.roots))


def verify(record: PassRecord, evaluator: Evaluator, inputs: Mapping[str, Array]) -> Iterator[Verdict]:
    """One verdict a region, and one an output."""
    before, after = record.before, record.after
    moved = dict(pair for rewrite in record.journal for pair in rewrite.redirects)
    found = [region for region in regions(before, record.journal) if comparable(region, before, after, moved)]
    fed = {Ref(name): array for name, array in inputs.items()}
    border = list(dict.fromkeys(ref for region in found for ref in region.feeds))
    values = dict(zip(border, evaluator.compile(before, list(fed), border)(fed), strict=True)) if border else {}
    name, exact = record.pass_.name, record.pass_.effect is Effect.EXACT
    for region in found:
        feeds = {ref: values[ref] for ref in region.feeds}
        kept = [ref for ref in region.fetches if follow(ref, moved).node in after.nodes]
        sources = {there: array for ref, array in feeds.items() if (there := follow(ref, moved)).node in after.nodes}
        stand = [follow(ref, moved) for ref in kept]
        new = evaluator.compile(after, list(sources), stand)(sources)
        if exact:
            yield exact_verdict(name, region.where, evaluator.compile(before, list(feeds), kept)(feeds), new)
            continue
        known = Known.of(after, evaluator, sources, dict(zip(kept, stand, strict=True))) if opaque(region, before) else Known()
        yield Verdict(name, region.where, *check_region(region, before, evaluator, feeds, dict(zip(kept, new, strict=True)), known))
    if len(after.outputs) != len(before.outputs):
        raise VerificationError(f"pass {name} left {len(after.outputs)} outputs of {len(before.outputs)}")
    new = evaluator.compile(after, list(fed), after.outputs)(fed)
    if exact:
        yield exact_verdict(name, "outputs", evaluator.compile(before, list(fed), before.outputs)(fed), new)
    else:
        told = after if any(opaque(region, before) for region in found) else None
        yield from (Verdict(name, "outputs", *figures) for figures in check_outputs(before, evaluator, fed, new, told))


def regions(graph: Graph, journal: Sequence[Rewrite]) -> list[Region]:
    """Rewrites that share a node, put together, with their border in the graph before the pass."""
    parent: dict[str, str] = {}

    def top(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    for rewrite in journal:
        for name in (*rewrite.made, *rewrite.changed, *rewrite.removed):
            parent[top(name)] = top(rewrite.root)
    place = graph.places
    grown = True
    while grown:  # what lies between two nodes of a region belongs to it, and so do the regions that this meets
        members: dict[str, list[str]] = {}
        for name in sorted(parent.keys() & place.keys(), key=place.__getitem__):
            members.setdefault(top(name), []).append(name)
        grown = False
        for names in members.values():
            for name in between(graph, names, place):
                grown = True
                parent[top(name)] = top(names[0])
    roots: dict[str, list[str]] = {}
    for rewrite in journal:
        roots.setdefault(top(rewrite.root), []).append(rewrite.root)
    return [border(graph, names, tuple(roots[key])) for key, names in members.items()]


def between(graph: Graph, names: Sequence[str], place: Mapping[str, int]) -> set[str]:
    """The nodes on paths from one of `names` to another, without these; `place` is each node's in the order."""
    inside = set(names)
    first = min(place[name] for name in names)
    above: set[str] = set()
    stack = [ref.node for name in names for ref in graph.nodes[name].inputs]
    while stack:
        name = stack.pop()
        if name not in above and name not in inside and place[name] > first:
            above.add(name)
            stack.extend(ref.node for ref in graph.nodes[name].inputs)
    reached = set(inside)
    for name in sorted(above, key=place.__getitem__):
        if any(ref.node in reached for ref in graph.nodes[name].inputs):
            reached.add(name)
    return reached - inside


def border(graph: Graph, names: Sequence[str], roots: tuple[str, ...]) -> Region:
    """The region of some nodes, with the values that cross its border."""
    inside = set(names)
    read = (ref for name in names for ref in graph.nodes[name].inputs if ref.node not in inside)
    feeds = dict.fromkeys(ref for ref in read if graph.nodes[ref.node].op != "Variable")  # a handle is no value that could be handed in
    leaving = {Ref(name, index) for name in names for (user, _), index in graph.users[name].items() if user not in inside}
    seen = (ref for ref in values_of(graph, names) if ref in leaving and graph.spec(ref).dtype not in HIDDEN)
    return Region(roots, tuple(names), tuple(feeds), tuple(seen))


def values_of(graph: Graph, names: Iterable[str]) -> list[Ref]:
    """Everything that some nodes compute."""
    return [Ref(name, index) for name in names for index in range(len(graph.nodes[name].specs))]


def comparable(region: Region, before: Graph, after: Graph, moved: Mapping[Ref, Ref]) -> bool:
    """Whether the region's outputs can be computed after the pass from the same values at its border.

    Where not (a rewrite moved work across the border), the comparison of the graph's outputs has to speak for it.
    """
    if any(before.spec(ref).dtype in HIDDEN for ref in region.feeds):
        return False
    fed = {follow(ref, moved) for ref in region.feeds}
    stack = [ref for ref in (follow(ref, moved) for ref in region.fetches) if ref.node in after.nodes]
    if not stack:
        return False
    limit, seen = 8 * (len(region.names) + len(region.feeds)) + 64, set(stack)
    while stack:
        ref = stack.pop()
        if ref in fed:
            continue
        node = after.nodes[ref.node]
        if node.op == "Input" or len(seen) > limit:
            return False
        for source in node.inputs:
            if source not in seen:
                seen.add(source)
                stack.append(source)
    return True


def check_region(
    region: Region,
    before: Graph,
    evaluator: Evaluator,
    feeds: Mapping[Ref, Array],
    new: Mapping[Ref, Array],
    known: Known,
) -> tuple[float, float, float]:
    """Error, own error and bound at the worst element of a region's outputs, given what they are after the pass.

    Integers are left to the graph's outputs. `known` is what the graph after the pass tells of a region that tells too little itself.
    """
    inner = [ref for ref in values_of(before, region.names) if unit(before.spec(ref))]
    scales = [
        np.maximum(scale, known.scales[ref]) if ref in known.scales and known.scales[ref].shape == np.shape(scale) else scale
        for ref, scale in zip(inner, magnitudes(before, region.names, evaluator, feeds, inner), strict=True)
    ]
    specs = [before.spec(ref) for ref in inner]
    lost = max(map(smallest, specs), default=0.0) * (1 + fan_in(before, region.names) * max(map(largest, feeds.values()), default=0.0))
    worst = (0.0, 0.0, 0.0)
    for more in (0, SECOND_LOOK):
        measured = measure(before, region.names, feeds, inner, evaluator, scales, more)
        rate = max([*map(unit, specs), *measured.rates, known.rate], default=0.0)
        worst = (0.0, 0.0, 0.0)
        for ref, own, truth, scale in zip(inner, measured.own, measured.truth, scales, strict=True):
            if ref in new:
                explained = np.broadcast_to(np.nan_to_num(rate * scale, nan=math.inf, posinf=math.inf), np.shape(truth))
                allowed = factor(before.spec(ref)) * (explained + lost)
                worst = max(worst, worst_element(new[ref], truth, own, explained, allowed), key=strain)
        if strain(worst) <= 1:
            break
    return worst


def opaque(region: Region, graph: Graph) -> bool:
    """Whether a region holds nodes whose terms are not known: they may cancel, and leave a small value with a large error; and of those
    that compute in one precision alone no error can be measured.
    """
    return any(graph.nodes[name].op not in VOCABULARY for name in region.names)


@attrs.frozen
class Known:
    """What the canonical nodes that stand for an opaque region tell of its rounding."""

    scales: Mapping[Ref, Wide] = attrs.field(factory=dict)
    """The magnitudes of its outputs."""
    rate: float = 0.0

    @classmethod
    def of(cls, after: Graph, evaluator: Evaluator, feeds: Mapping[Ref, Array], fetches: Mapping[Ref, Ref]) -> Known:
        """From the graph after a pass; `fetches` are the region's outputs, with what stands for each."""
        wanted = {ref: now for ref, now in fetches.items() if unit(after.spec(now)) and now not in feeds}
        found: set[str] = set()
        stack = [ref.node for ref in wanted.values()]
        while stack:
            name = stack.pop()
            if name not in found:
                found.add(name)
                stack += [ref.node for ref in after.nodes[name].inputs if ref not in feeds]
        names = [name for name in after.nodes if name in found]
        read = {ref for name in names for ref in after.nodes[name].inputs}
        fed = {ref: array for ref, array in feeds.items() if ref in read}
        scales = magnitudes(after, names, evaluator, fed, list(wanted.values()))
        measured = measure(after, names, fed, list(wanted.values()), evaluator, scales)
        return cls(dict(zip(wanted, scales, strict=True)), max(measured.rates, default=0.0))


def magnitudes(graph: Graph, names: Sequence[str], evaluator: Evaluator, feeds: Mapping[Ref, Array], fetches: Sequence[Ref]) -> list[Wide]:
    """The magnitude of every value of some nodes that is fetched."""
    absolute_graph, leaves = magnitude_graph(graph, names)
    leaves = [ref for ref in leaves if graph.spec(ref).dtype not in HIDDEN]
    own = evaluator.compile(graph, list(feeds), leaves)(feeds) if leaves else []
    absolute = {
        ref: np.abs(wide(array)) if unit(graph.spec(ref)) else array for ref, array in [*feeds.items(), *zip(leaves, own, strict=True)]
    }
    return [wide(array) for array in evaluator.compile(absolute_graph, list(absolute), fetches, "float64")(absolute)]


def worst_element(new: Array, truth: Array, own: Array, explained: Wide, allowed: Wide) -> tuple[float, float, float]:
    """Error, own error and bound where the error is the farthest beyond its bound. Where the original overflowed, or was NaN
    for another reason that float64 does not share, nothing is asked.
    """
    if np.shape(new) != np.shape(truth):
        return math.inf, 0.0, 0.0
    x, y = wide(new), wide(truth)
    agree = (x == y) | (np.isnan(x) & np.isnan(y)) | (~np.isfinite(wide(own)) & np.isfinite(y))
    error = np.zeros(x.shape)
    np.subtract(x, y, out=error, where=~agree)
    error = np.nan_to_num(np.abs(error), nan=math.inf, posinf=math.inf)
    if not error.size:
        return 0.0, 0.0, 0.0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        place = np.argmax(np.where(error > 0, error / allowed, 0.0))
    return float(error.flat[place]), float(explained.flat[place]), float(allowed.flat[place])


def strain(figures: tuple[float, float, float]) -> float:
    """The error in proportion to its bound."""
    error, _, bound = figures
    return error / bound if bound else math.inf if error else 0.0


def check_outputs(
    before: Graph, evaluator: Evaluator, inputs: Mapping[Ref, Array], new: Sequence[Array], told: Graph | None
) -> list[tuple[float, float, float]]:
    """Error, own error and bound of every graph output, given what they are after the pass: largest errors over the output. Where the
    graph before is opaque, the graph after, `told`, tells how large rounding makes them.
    """
    figures: list[tuple[float, float, float]] = []
    after = [0.0] * len(new) if told is None else own_errors(told, next(looks(told, evaluator, inputs)))
    for measured in looks(before, evaluator, inputs):
        figures = []
        errors = list(map(max, own_errors(before, measured), after))
        for ref, array, own, truth, error in zip(before.outputs, new, measured.own, measured.truth, errors, strict=True):
            spec = before.spec(ref)
            if unit(spec):
                explained = np.full(np.shape(truth), error)
                figures.append(worst_element(array, truth, own, explained, factor(spec) * explained))
            else:
                figures.append((distance(array, own), 0.0, 0.0))
        if all(strain(figure) <= 1 for figure in figures):
            break
    return figures


def looks(graph: Graph, evaluator: Evaluator, inputs: Mapping[Ref, Array]) -> Iterator[Measured]:
    """The outputs' rounding as measured by one run, and then, for who is not content with that, by more."""
    for more in (0, SECOND_LOOK):
        yield measure(graph, list(graph.nodes), inputs, graph.outputs, evaluator, [1.0] * len(graph.outputs), more)


def own_errors(graph: Graph, measured: Measured) -> list[float]:
    """What rounding explains at each output: the largest error that it has, at least the rounding of one result; 0 for integers."""
    units = [unit(graph.spec(ref)) for ref in graph.outputs]
    return [max(rate, u * largest(truth)) if u else 0.0 for u, truth, rate in zip(units, measured.truth, measured.rates, strict=True)]


def factor(spec: Spec) -> float:
    """`FACTOR`, and one more where the float64 reference is itself as far from the truth as the original."""
    return FACTOR + (spec.dtype == "float64")


def exact_verdict(name: str, where: str, own: Sequence[Array], new: Sequence[Array]) -> Verdict:
    """Whether an EXACT pass kept every bit, NaNs apart, which are all alike; the error is infinite where numbers cannot tell."""
    differing = [distance(a, b) or math.inf for a, b in zip(own, new, strict=True) if not same_bits(a, b)]
    return Verdict(name, where, max(differing, default=0.0), 0.0, 0.0)


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays are equal in dtype, shape and bits, one NaN being like another."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype == object:
        return bool(np.array_equal(a, b))
    if a.tobytes() == b.tobytes() or a.dtype.name not in UNITS:
        return a.tobytes() == b.tobytes()
    x, y = wide(a), wide(b)
    signs = np.signbit(x) == np.signbit(y)
    return bool(np.all((x == y) & signs | np.isnan(x) & np.isnan(y)))


def random_inputs(graph: Graph, seed: int = 0, batch: int = 2) -> dict[str, Array]:
    """Seeded inputs by input name: standard normal floats, zeros and ones for integers and booleans, two words for strings.

    An unknown batch dimension becomes `batch`, any other unknown dimension 32.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    inputs = {}
    for name in graph.inputs:
        spec = graph.nodes[name].specs[0]
        if spec.shape is None:
            raise GraphError(f"input {name}: its rank is not known, so no inputs can be drawn; give data (data=.., --data)")
        shape = tuple((batch if axis == 0 else DEFAULT_SIZE) if size is None else size for axis, size in enumerate(spec.shape))
        if "float" in spec.dtype:
            inputs[name] = generator.standard_normal(shape).astype(np.float32 if spec.dtype in ("float16", "bfloat16") else spec.dtype)
        else:
            whole = generator.integers(0, 2, shape)
            inputs[name] = (
                whole.astype("bool" if spec.dtype == "bool" else "int64") if spec.dtype != "string" else np.array(["", "a"])[whole]
            )
    return inputs
