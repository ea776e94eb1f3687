"""AIMET's `aimet_tensorflow.bias_correction`: biases corrected for what quantized weights add, in sessions of TensorFlow 1."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from tfpasses.graph import TfpassesError
from tfpasses.passes.aimet.conv_bn import ConvBnInfoType, conv_bn_infos, convs_with_norms, named_layers
from tfpasses.passes.aimet.corrected import context_of, corrected_graph, evaluator_of, ignored_nodes
from tfpasses.passes.aimet.defs import ActivationType, QuantScheme
from tfpasses.passes.aimet.one_layer import OneLayer, analytical_shift, measured_shift
from tfpasses.passes.aimet.quant_params import BiasCorrectionParams, QuantParams
from tfpasses.passes.aimet.sessions import INFERENCE, Names, load, new_session, read, read_around, with_biases
from tfpasses.passes.aimet.statistics import with_statistics

__all__ = ["ActivationType", "BiasCorrection", "BiasCorrectionParams", "ConvBnInfoType", "QuantParams", "QuantScheme"]

CALLER = 3
REMEDY = "correct_bias gives a new session"


class BiasCorrection:
    """Biases corrected for what quantized weights add to each layer's output on average."""

    @staticmethod
    def correct_bias(
        reference_model: Any,
        bias_correct_params: BiasCorrectionParams,
        quant_params: QuantParams,
        data_set: Any,
        conv_bn_dict: Mapping[Any, Any] | None = None,
        perform_only_empirical_bias_corr: bool = True,
    ) -> Any:
        """Correct the biases of all convolutions and matrix products between some operations. Gives a new session with a float graph in
        which each of these has a bias; the given one is as it was.

        Empirical, on data: b' = b - mean(y_quantized - y_float), before activations, weights quantized symmetrically, layer by layer, each
        with all those before it corrected. With `perform_only_empirical_bias_corr=False`, analytical where a convolution reads what a batch
        norm gives: b' = b - (sum over the taps of Wq - W)·E[x], weights quantized asymmetrically. Which those are, `conv_bn_dict` says, or
        without it `find_all_convs_bn_with_activation`; the numbers are those of this session: of its batch norms, or what it remembers of
        those that were folded, scaled since or not. Where it knows none, that layer is corrected on data, with a warning.

        `data_set` is whatever `tfpasses.data.samples_of` takes, a `tf.data.Dataset` first of all, batched or not, one element an input, in
        their order. Layers that `ops_to_ignore` names are neither quantized nor corrected; nor are those that share their weights.

        Raises `ValueError` for arguments that are none, `TfpassesError`, one line, for names that are not there, a dict of another graph,
        data that are empty or do not fit.
        """
        checked(bias_correct_params, quant_params)
        inputs, outputs = bias_correct_params.input_op_names, bias_correct_params.output_op_names
        graph = with_biases(with_statistics(read(reference_model, inputs, outputs), reference_model))
        ignored = ignored_nodes(quant_params, reference_model, graph)
        named: Iterable[str] = () if conv_bn_dict is None else named_layers(conv_bn_dict, graph)
        if perform_only_empirical_bias_corr:
            named = ()
        elif conv_bn_dict is None:
            named = [conv.name for conv, _, _ in convs_with_norms(graph)]
        context = context_of(graph, data_set)
        after, warned = corrected_graph(graph, context, bias_correct_params, quant_params, ignored, set(named))
        warn(warned)
        return new_session(after)

    @staticmethod
    def bias_correction_per_layer(
        reference_model: Any,
        corrected_model: Any,
        bias_correct_params: BiasCorrectionParams,
        layer_name_to_be_corrected: str,
        data_set: Any,
        quant_params: QuantParams | None = None,
    ) -> Any:
        """Correct one layer's bias on data, in `corrected_model` itself, which is given back: by the mean, over samples and places, of what
        it gives more there than in `reference_model`, before activations.

        With `quant_params` the weights of that layer are quantized symmetrically for the measuring; they stay as they are in the session,
        and both may be the same session. Without, `corrected_model` is one whose weights are quantized. `quant_params` may also stand
        before `data_set`, as in AIMET's older versions. A bias that several operations add is corrected by the mean over all of them.

        Raises `ValueError` for arguments that are none and for a name that is no layer's; `TfpassesError`, one line, where the layer has no
        bias in `corrected_model`, or that is no variable, and where the two models compute the same.
        """
        if isinstance(data_set, QuantParams):
            data_set, quant_params = quant_params, data_set
        checked(bias_correct_params, QuantParams() if quant_params is None else quant_params)
        inputs, outputs = bias_correct_params.input_op_names, bias_correct_params.output_op_names
        model, reference = (read(session, inputs, outputs) for session in (corrected_model, reference_model))
        one = OneLayer.of(Named(layer_name_to_be_corrected), corrected_model, model).correctable()
        quantizer = None
        if quant_params is not None:
            refuse_ignored(quant_params, corrected_model, one)
            quantizer = quant_params.quantizer(symmetric=True)
        context, evaluator = context_of(model, data_set), evaluator_of(reference)
        shift, warned = measured_shift(one, reference, quantizer, context, evaluator, bias_correct_params.samples)
        load(corrected_model, model, one.corrected(shift), REMEDY)
        warn(warned)
        return corrected_model

    @staticmethod
    def analytical_bias_correction_per_layer(
        corrected_model: Any, layer: Any, preceeding_bn_layer_info: Any, quant_params: QuantParams, is_first_conv: bool = False
    ) -> Any:
        """Correct one layer's bias without data, in `corrected_model` itself, which is given back: b' = b - (sum over the taps of
        Wq - W)·E[x], weights quantized asymmetrically for the reckoning; they stay as they are in the session.

        E[x] follows from the statistics of the batch norm before the layer, as the session has them or remembers them, and from what lies
        between, as its graph has it: `preceeding_bn_layer_info` says that there is one, and may be from before cross-layer equalization.
        The first convolution (`is_first_conv`, without that) reads 0 on average, so that its bias stays.

        Raises `ValueError` for arguments that are none, an operation that is part of no layer, and where neither is said; `TfpassesError`,
        one line, where the layer has no bias, or that is no variable, and where the statistics are not known.
        """
        checked(None, quant_params)
        if not hasattr(layer, "name"):
            raise ValueError(f"{layer!r} is no operation; give a convolution or matrix product of the session")
        graph = with_statistics(read_around(corrected_model, [layer], INFERENCE), corrected_model)
        one = OneLayer.of(layer, corrected_model, graph).correctable()
        refuse_ignored(quant_params, corrected_model, one)
        if getattr(preceeding_bn_layer_info, "input_bn", None) is None:
            if not is_first_conv:
                raise ValueError(f"{layer.name}: preceeding_bn_layer_info names no batch norm, and it is not the first convolution")
            return corrected_model
        shift = analytical_shift(one, quant_params.quantizer(symmetric=False))
        load(corrected_model, graph, one.corrected(shift), REMEDY)
        return corrected_model

    @staticmethod
    def find_all_convs_bn_with_activation(model: Any, start_op_names: Names, output_op_names: Names) -> dict[Any, ConvBnInfoType]:
        """The convolutions between some operations that read what a batch norm gives, as it is or by way of a ReLU or ReLU6: a dict from
        the operation to what stands before it. Where folding gave a convolution a bias, its operation is the addition, which has its name.

        Batch norms that were folded count where the session remembers them. Raises `TfpassesError`, one line, where there are no operations
        of these names.
        """
        return conv_bn_infos(with_statistics(read(model, start_op_names, output_op_names), model), model.graph)


class Named:
    """What has a name, as an operation has."""

    def __init__(self, name: Any) -> None:
        self.name = getattr(name, "name", name)


def checked(params: Any, quant_params: Any) -> None:
    """Raise `ValueError` for arguments of other types, such as those in another order."""
    if params is not None and not isinstance(params, BiasCorrectionParams):
        raise ValueError(f"bias_correct_params is of type {type(params).__name__}; give a BiasCorrectionParams")
    if not isinstance(quant_params, QuantParams):
        raise ValueError(f"quant_params is of type {type(quant_params).__name__}; give a QuantParams")


def refuse_ignored(quant_params: QuantParams, session: Any, one: OneLayer) -> None:
    """Raise `TfpassesError` where the one layer that is to be corrected is to be ignored."""
    ignored = ignored_nodes(quant_params, session, one.graph)
    if one.layer is not None and any(node in ignored for node in one.layer.nodes):
        raise TfpassesError(f"{one.name} is to be corrected, and ops_to_ignore names it")


def warn(lines: Iterable[str]) -> None:
    """Warn whoever called."""
    for line in lines:
        warnings.warn(line, stacklevel=CALLER)
