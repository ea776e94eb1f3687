import pytest

from graphs import node
from tfpasses.graph import TRAITS, VOCABULARY, has_trait, ops_with_trait


def relu(**config):
    return node("r", "Relu", config={"max_value": None, "threshold": 0, "negative_slope": 0, **config})


@pytest.mark.parametrize(
    ("config", "holds"), [({}, True), ({"negative_slope": 0.2}, True), ({"max_value": 6.0}, False), ({"threshold": 1}, False)]
)
def test_a_relu_is_positively_homogeneous_only_without_limit_and_threshold(config, holds):
    assert has_trait(relu(**config), "positively_homogeneous") is holds


@pytest.mark.parametrize("op", ["Dropout", "BatchNorm"])
@pytest.mark.parametrize("training", [False, True])
def test_what_depends_on_the_phase_is_channelwise_only_at_inference(op, training):
    assert has_trait(node("n", op, config={"training": training}), "channelwise") is not training


def test_dropout_in_training_is_no_identity():
    assert not has_trait(node("n", "Dropout", config={"training": True}), "inference_identity")


@pytest.mark.parametrize("trait", TRAITS)
def test_a_foreign_op_has_no_traits(trait):
    assert not has_trait(node("n", "keras.LSTM"), trait)


def test_the_linear_ops_are_those_with_a_kernel():
    with_kernel = {name for name, entry in VOCABULARY.items() if any("kernel" in slot for slot in entry.slots)}
    assert ops_with_trait("linear") == with_kernel


def test_an_op_with_a_trait_in_some_configurations_is_among_those_with_it():
    assert {"Relu", "Dropout", "Identity"} <= ops_with_trait("positively_homogeneous")


def test_multiply_is_not_positively_homogeneous():
    assert "Multiply" not in ops_with_trait("positively_homogeneous")  # (s·x)·(s·y) = s²·x·y


def test_an_unknown_trait_is_an_error():
    with pytest.raises(ValueError, match="unknown trait 'lineal'"):
        ops_with_trait("lineal")
