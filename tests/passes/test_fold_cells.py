"""Every kind of linear layer, with every padding, with groups and without, folds wherever a batch norm can stand to it.

How often each did is counted and asserted, so that a rule which no longer fires somewhere is missed.
"""

from __future__ import annotations

from collections import Counter

import attrs
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L

import zoo
from fold_check import assert_fold
from random_layers import Linear, linear_layer, linears, norm_layer, norms
from random_models import CHANNELS, FIRST, POLICIES, REPEATABLE, SIZES
from random_weights import season

AT_LEAST = 20
SEASONS = 2
"""With how many sets of weights a model is tried: building it takes longer than folding it."""
FLAVOURS = st.sampled_from(["plain", "positive", "negative", "some variances tiny", "some shifts zero", "large means"])
"""Those with which all folds: no scale is zero."""
PADDED = "behind, where zeros meet the kernel"
PLACES = {"behind", "before", "before a concatenation", "behind, with a reshape between"}
"""Where the linear layer stands to the batch norm."""


@attrs.frozen
class Cell:
    kind: str
    rank: int = 2
    padding: str = "valid"
    grouped: bool = False

    def __str__(self):
        return f"{self.kind}{self.rank} {self.padding}{' grouped' if self.grouped else ''}"


@attrs.frozen
class Variant:
    linear: Linear
    norms: tuple
    weights: tuple
    policy: str
    first: bool
    rank: int


CELLS = [
    *(Cell("Conv", rank, padding, grouped) for rank in SIZES for padding in ("valid", "same") for grouped in (False, True)),
    *(Cell("Conv", 1, "causal", grouped) for grouped in (False, True)),
    *(Cell(kind, rank, padding) for kind in ("DepthwiseConv", "SeparableConv") for rank in (1, 2) for padding in ("valid", "same")),
    *(Cell("ConvTranspose", rank, padding) for rank in SIZES for padding in ("valid", "same")),
]


def variants(cell):
    groups = st.sampled_from([2, 4]) if cell.grouped else 1
    norm = norms(axis=None, training=False, dtype=None)
    return st.builds(
        Variant,
        linears(kind=cell.kind, padding=cell.padding, groups=groups, kernel=st.sampled_from([3, 3, 3, 2]), activation=None),
        st.tuples(*[norm] * 3),
        st.tuples(*[st.tuples(FLAVOURS, st.integers(0, 2**16))] * SEASONS),
        st.sampled_from(["float32", "float32", "float32", "float64"]),
        st.sampled_from([False, True] if cell.kind in ("DepthwiseConv", "SeparableConv") else [False]),
        st.integers(0, 3) if cell.kind == "Dense" else st.just(cell.rank),
    )


@attrs.define
class Maker:
    """Makes a variant's layers."""

    variant: Variant
    norms: int = 0

    def input(self, name, *sizes):
        return keras.Input((CHANNELS, *sizes) if self.variant.first else (*sizes, CHANNELS), name=name, dtype=self.variant.policy)

    def norm(self, x):
        self.norms += 1
        step = self.variant.norms[self.norms % len(self.variant.norms)]
        return norm_layer(step, x.shape, self.variant.first, self.variant.policy)(x)

    def linear(self, name, step, x):
        return linear_layer(step, x.shape, self.variant.first, name=name, dtype=self.variant.policy)(x)

    def concat(self, *tensors):
        return L.Concatenate(axis=1 if self.variant.first else -1, dtype=self.variant.policy)(tensors)

    def reshape(self, x, shape):
        return L.Reshape(shape, dtype=self.variant.policy)(x)

    def flatten(self, x):
        return L.Flatten(dtype=self.variant.policy)(x)


def convolutions(cell, variant):
    """A model with convolutions in all places, and the place at which a rule is to change a layer."""
    make, sizes, wide = Maker(variant), (FIRST if variant.first else SIZES)[cell.rank], variant.linear
    transpose, valid = cell.kind == "ConvTranspose", cell.padding == "valid"
    exact = wide if valid and not transpose else attrs.evolve(wide, kernel=1, dilation=1, stride=1 if transpose else wide.stride)
    x, row = make.input("x", *sizes), make.input("row", int(np.prod(sizes)))
    a = make.linear("a", wide, make.norm(x))
    rule = ("scale", "a") if meets_zeros(cell, a) else ("forward", "a")
    places = {
        rule: PADDED if rule[0] == "scale" else "behind",
        ("concat", "a"): "before a concatenation",
        ("concat", "b"): "before a concatenation",
    }
    outputs = []
    if transpose:  # one into which a shift folds is not as large as the other
        b = make.linear("b", wide, x)
        outputs.append(make.linear("c", exact, make.norm(x)))
        places["forward", "c"] = "behind"
    else:
        b = make.linear("b", exact, make.norm(x))
        places["forward", "b"] = "behind"
    outputs.append(make.norm(make.concat(a, b)))
    outputs.append(make.norm(make.linear("d", exact, make.reshape(make.norm(row), x.shape[1:]))))
    places |= {("forward", "d"): "behind, with a reshape between", ("backward", "d"): "before"}
    return keras.Model([x, row], outputs), places


def dense(variant):
    """The same of dense layers, with a Flatten too."""
    make = Maker(variant)
    x = make.input("x", *SIZES.get(variant.rank, ()))
    a, b = (make.linear(name, variant.linear, make.norm(x)) for name in "ab")
    c = make.linear("c", variant.linear, make.flatten(make.norm(x)))
    d = make.linear("d", variant.linear, make.reshape(make.norm(x), (-1,)))
    places = {(rule, name): place for rule, place in (("forward", "behind"), ("concat", "before a concatenation")) for name in "ab"}
    places |= {("forward", "c"): "behind, with a flatten between", ("forward", "d"): "behind, with a reshape between"}
    return keras.Model([x], [make.norm(make.concat(a, b)), make.norm(c), d]), places | {("backward", "c"): "before"}


def meets_zeros(cell, tensor):
    """Whether the kernel of the layer that made a tensor meets zeros beside the image."""
    layer = tensor._keras_history.operation
    if cell.kind == "ConvTranspose":
        return True
    sizes = layer.input.shape[2:] if layer.data_format == "channels_first" else layer.input.shape[1:-1]
    windows = zip(sizes, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    return cell.padding == "causal" or (
        cell.padding == "same" and any((-(-n // s) - 1) * s + (k - 1) * d + 1 > n for n, k, s, d in windows)
    )


def sweep(cell, most):
    """How often a layer changed in each place, over so many models."""
    counts = Counter()

    @settings(REPEATABLE, max_examples=most)
    @given(variants(cell))
    def all_fold(variant):
        with zoo.fresh_names():
            model, places = dense(variant) if cell.kind == "Dense" else convolutions(cell, variant)
        x = [np.random.default_rng(0).normal(size=(2, *tensor.shape[1:])).astype(tensor.dtype) for tensor in model.inputs]
        for flavour, seed in variant.weights:
            result = assert_fold(season(model, flavour, seed), x, POLICIES[variant.policy], callers=False)
            fired = {(rewrite.rule, name) for rewrite in result.rewrites for name in rewrite.changed if name in "abcd"}
            assert fired == places.keys()
            assert not any(node.op == "BatchNorm" for node in result.graph.nodes.values())
            counts.update(places.values())

    all_fold()
    return counts


def assert_all_fold(cell, most, at_least):
    counts = sweep(cell, most)
    places = set(PLACES)
    if cell.kind == "ConvTranspose" or cell.padding != "valid":
        places.add(PADDED)
    if cell.kind == "Dense":
        places.add("behind, with a flatten between")
    assert {place for place, count in counts.items() if count >= at_least} == places, counts


@pytest.mark.parametrize("cell", [*CELLS, Cell("Dense")], ids=str)
def test_all_fold(cell):
    assert_all_fold(cell, 11, AT_LEAST)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [*CELLS, Cell("Dense")], ids=str)
def test_all_fold_in_many_variants(cell):
    assert_all_fold(cell, 100, 5 * AT_LEAST)
