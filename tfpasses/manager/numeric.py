"""Numeric verification: every rewrite that claims to keep the function is made to prove it.

After a pass, rewrites that touch one another are put together into regions. Each region is run before and after, on the
values that really cross its border (from one run of the whole graph), against the region before in float64. The bound is
the design's: the error after is at most `FACTOR` times the error that the region had before, both against float64. Then
the graph's outputs are compared in the same way. An EXACT pass must give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import attrs
import numpy as np

from tfpasses.graph import Array, Evaluator, Graph, LinearView, Ref, Rewrite, Spec, follow, has_trait
from tfpasses.manager.contract import Effect
from tfpasses.manager.errors import VerificationError
from tfpasses.manager.observers import Observer, PassRecord

__all__ = ["FACTOR", "NumericCheck", "Verdict", "compare_outputs", "random_inputs"]

FACTOR = 4.0
DEFAULT_SIZE = 32


@attrs.frozen
class Verdict:
    """How far one region, or the whole graph, moved. Errors are the largest absolute ones over all outputs."""

    pass_name: str
    where: str
    """The rewrites' roots, or `outputs`."""
    error: float
    """After the pass, against the float64 reference."""
    own_error: float
    """Before the pass, against the same."""
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
        effect = record.pass_.contract.effect
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
    feeds: tuple[Ref, ...]
    fetches: tuple[Ref, ...]
    inner: tuple[Ref, ...]
    """Every value computed in it, for the scale of rounding."""


def verify(record: PassRecord, evaluator: Evaluator, inputs: Mapping[str, Array]) -> Iterable[Verdict]:
    """One verdict a region, and one for the outputs."""
    before, after = record.before, record.after
    moved = dict(pair for rewrite in record.journal for pair in rewrite.redirects)
    found = [region for region in regions(before, record.journal) if comparable(region, before, after, moved)]
    fed = {Ref(name): array for name, array in inputs.items()}
    border = list(dict.fromkeys(ref for region in found for ref in region.feeds))
    values = dict(zip(border, evaluator.compile(before, list(fed), border)(fed), strict=True)) if border else {}
    exact = record.pass_.contract.effect is Effect.EXACT
    everything = Region(("outputs",), tuple(fed), tuple(dict.fromkeys(before.outputs)), ())
    for region, feeds in [*((region, {ref: values[ref] for ref in region.feeds}) for region in found), (everything, fed)]:
        yield compare(record.pass_.name, region, before, after, moved, evaluator, feeds, exact)


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
    members: dict[str, list[str]] = {}
    for name in graph.nodes:
        if name in parent:
            members.setdefault(top(name), []).append(name)
    roots: dict[str, list[str]] = {}
    for rewrite in journal:
        roots.setdefault(top(rewrite.root), []).append(rewrite.root)
    return [border(graph, names, tuple(roots[key])) for key, names in members.items()]


def border(graph: Graph, names: Sequence[str], roots: tuple[str, ...]) -> Region:
    inside = set(names)
    feeds = dict.fromkeys(ref for name in names for ref in graph.nodes[name].inputs if ref.node not in inside)
    leaving = {Ref(name, index) for name in names for (user, _), index in graph.users.get(name, {}).items() if user not in inside}
    leaving |= {ref for ref in graph.outputs if ref.node in inside}
    inner = [Ref(name, index) for name in names for index in range(len(graph.nodes[name].specs))]
    return Region(roots, tuple(feeds), tuple(ref for ref in inner if ref in leaving), tuple(inner))


def comparable(region: Region, before: Graph, after: Graph, moved: Mapping[Ref, Ref]) -> bool:
    """Whether the region's outputs can be computed after the pass from the same values at its border.

    Where not (a rewrite moved work across the border), the comparison of the graph's outputs has to speak for it.
    """
    fed = {follow(ref, moved) for ref in region.feeds}
    stack = [ref for ref in (follow(ref, moved) for ref in region.fetches) if ref.node in after.nodes]
    if not stack:
        return False
    limit, seen = 8 * (len(region.inner) + len(region.feeds)) + 64, set(stack)
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


def compare(
    pass_name: str,
    region: Region,
    before: Graph,
    after: Graph,
    moved: Mapping[Ref, Ref],
    evaluator: Evaluator,
    feeds: Mapping[Ref, Array],
    exact: bool,
) -> Verdict:
    """Run a region before and after, and in float64."""
    kept = [ref for ref in region.fetches if follow(ref, moved).node in after.nodes]
    sources = list(feeds)
    own = evaluator.compile(before, sources, [*kept, *region.inner])(feeds)
    new = evaluator.compile(after, [follow(ref, moved) for ref in sources], [follow(ref, moved) for ref in kept])(
        {follow(ref, moved): array for ref, array in feeds.items()}
    )
    reference = own if exact else evaluator.compile(before, sources, kept, "float64")(feeds)
    error = own_error = bound = 0.0
    where = ", ".join(dict.fromkeys(region.roots))
    scale = max((largest(value) for value in own[len(kept) :]), default=0.0)
    for ref, mine, theirs, truth in zip(kept, own, new, reference, strict=False):
        own_error, error = max(own_error, distance(mine, truth)), max(error, distance(theirs, truth))
        bound = max(bound, rounding(before.spec(ref), max(scale, largest(truth)), fan_in(before, region)))
    if exact:
        return Verdict(pass_name, where, error, 0.0, 0.0)
    return Verdict(pass_name, where, error, own_error, FACTOR * max(own_error, bound))


def compare_outputs(
    graph: Graph, ours: Sequence[Array], theirs: Sequence[Array], truth: Sequence[Array] | None, tolerance: float | None
) -> Iterable[tuple[float, float, float, float]]:
    """For each output of two models: largest and mean difference, scale, and what is allowed.

    Allowed is `tolerance` times the scale; without one, with e the first model's error against the float64 `truth` (at least the
    rounding of a result), the second may be `FACTOR`·e from the truth, hence (`FACTOR` + 1)·e from the first.
    """
    for number, (ref, a, b) in enumerate(zip(graph.outputs, ours, theirs, strict=True)):
        x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
        scale = largest(x)
        if tolerance is not None:
            allowed = tolerance * scale
        else:
            exact = truth[number] if truth is not None else x
            terms = fan_in(graph, Region((), (), (), ()))
            allowed = (FACTOR + 1) * max(distance(x, exact), rounding(graph.spec(ref), scale, terms))
        finite = np.isfinite(x) & np.isfinite(y)
        mean = float(np.mean(np.abs(x - y), where=finite)) if finite.any() else 0.0
        yield distance(x, y), mean, scale, allowed


def rounding(spec: Spec, scale: float, terms: int) -> float:
    """The least error that a computation at this scale must be granted: the rounding of one result. Where the values are
    float64 already there is no better reference, so it is the expected error of a sum of `terms` rounded terms.
    """
    if spec.dtype == "float64":
        return float(np.finfo(np.float64).eps) * scale * math.sqrt(terms + 1)
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(spec.dtype, 2.0**-24)
    return unit * scale


def fan_in(graph: Graph, region: Region) -> int:
    """The most terms that an output of a linear node in the region sums up."""
    nodes = [graph.nodes[ref.node] for ref in region.inner] or list(graph.nodes.values())
    views = [LinearView.of(node, graph) for node in nodes if has_trait(node, "linear")]
    return max((view.kernel.size // max(view.out_channels, 1) for view in views), default=1)


def distance(a: Array, b: Array) -> float:
    """Largest absolute difference; infinite where one has a NaN or infinity that the other has not."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape:
        return math.inf
    strange = ~(np.isfinite(x) & np.isfinite(y))
    if strange.any() and not np.array_equal(x[strange], y[strange], equal_nan=True):
        return math.inf
    return float(np.max(np.abs(x - y), where=~strange, initial=0.0))


def largest(value: Array) -> float:
    array = np.abs(np.asarray(value, np.float64))
    return float(np.max(array, where=np.isfinite(array), initial=0.0))


def random_inputs(graph: Graph, seed: int = 0, batch: int = 2) -> dict[str, Array]:
    """Seeded inputs by input name: standard normal floats, zeros and ones for integers and booleans.

    An unknown batch dimension becomes `batch`, any other unknown dimension 32.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    inputs = {}
    for name in graph.inputs:
        spec = graph.nodes[name].specs[0]
        shape = tuple((batch if axis == 0 else DEFAULT_SIZE) if size is None else size for axis, size in enumerate(spec.shape))
        if "float" in spec.dtype:
            inputs[name] = generator.standard_normal(shape).astype(np.float32 if spec.dtype in ("float16", "bfloat16") else spec.dtype)
        else:
            inputs[name] = generator.integers(0, 2, shape).astype("bool" if spec.dtype == "bool" else "int64" if "int" in spec.dtype else spec.dtype)
    return inputs
