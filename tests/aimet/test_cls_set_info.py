"""AIMET's `ClsSetInfo`: what it holds, when two are equal, and how a list of them is made."""

from __future__ import annotations

import numpy as np
import pytest

from tfpasses.passes.aimet.cls_sets import ClsSetInfo, create_cls_set_info_list

Pair = ClsSetInfo.ClsSetLayerPairInfo


def pair(**changes):
    fields = {"layer1": "a", "layer2": "b", "scale_factor": np.array([1.0, 2.0]), "relu_activation_between_layers": True}
    return Pair(**{**fields, **changes})


def test_pairs_are_equal_where_layers_and_flags_are_the_same_and_scales_close():
    assert pair() == pair(scale_factor=[1.0 + 1e-9, 2.0])
    assert ClsSetInfo(pair()) == ClsSetInfo(pair())
    assert ClsSetInfo(pair(), pair(layer1="b")) == ClsSetInfo(pair(), pair(layer1="b"))


@pytest.mark.parametrize(
    "changes",
    [
        {"layer1": "c"},
        {"layer2": "c"},
        {"scale_factor": np.array([1.0, 2.1])},
        {"scale_factor": np.array([1.0, 2.0, 3.0])},
        {"relu_activation_between_layers": False},
    ],
)
def test_pairs_that_differ_in_anything_are_not_equal(changes):
    assert pair() != pair(**changes)
    assert ClsSetInfo(pair()) != ClsSetInfo(pair(**changes))


def test_neither_is_equal_to_something_else():
    assert pair() != "pair"
    assert ClsSetInfo(pair()) != pair()
    assert ClsSetInfo(pair()) != ClsSetInfo(pair(), pair(layer1="b"))


def test_a_set_holds_one_pair_or_two():
    assert ClsSetInfo(pair()).cls_pair_info_list == [pair()]
    assert len(ClsSetInfo(pair(), pair()).cls_pair_info_list) == 2


def test_a_list_is_made_of_sets_scales_and_flags():
    scales = np.array([1.0, 2.0]), (np.array([3.0]), np.array([4.0]))
    infos = create_cls_set_info_list([("a", "b"), ("c", "d", "e")], scales, [True, (False, True)])
    assert infos == [
        ClsSetInfo(Pair("a", "b", scales[0], True)),
        ClsSetInfo(Pair("c", "d", scales[1][0], False), Pair("d", "e", scales[1][1], True)),
    ]


@pytest.mark.parametrize(
    ("sets", "scales", "flags", "why"),
    [
        ([("a", "b")], [np.ones(2)], [], "^there are 1 sets, 1 scale factors and 0 ReLU flags"),
        ([("a", "b")], [], [True], "^there are 1 sets, 0 scale factors and 1 ReLU flags"),
        ([("a", "b", "c")], [(np.ones(2), np.ones(2))], [True], "^set 0 has 3 layers"),
        ([("a", "b"), ("a", "b", "c")], [np.ones(2), (np.ones(2),)], [True, (True, True)], "^set 1 has 3 layers"),
        ([("a", "b")], [np.ones(2)], [(True, False)], "^set 0 has 2 layers"),
        ([("a",)], [np.ones(2)], [True], "^set 0 has 1 layers"),
    ],
)
def test_what_does_not_fit_together_is_an_error(sets, scales, flags, why):
    with pytest.raises(ValueError, match=why):
        create_cls_set_info_list(sets, scales, flags)
