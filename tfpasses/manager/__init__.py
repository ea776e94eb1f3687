"""Passes and what runs them: contracts, registry, pipeline text, planning, observers, numeric verification. No TensorFlow."""

from tfpasses.manager.compare import OutputDifference, compare_outputs
from tfpasses.manager.contract import Contract, Effect, Property
from tfpasses.manager.errors import PassError, PipelineError, RegistryError, VerificationError
from tfpasses.manager.manager import run_passes
from tfpasses.manager.named_pipelines import NamedPipeline, named_pipelines
from tfpasses.manager.numeric import NumericCheck, Verdict, random_inputs
from tfpasses.manager.observers import Journal, Observer, PassRecord, RemarkLog, ShapeCheck, StructureCheck, Timing
from tfpasses.manager.passes import Context, Pass, Remark, rule
from tfpasses.manager.pipeline import Pipeline, options_of, type_name
from tfpasses.manager.registry import find_pass, pass_names, register, registered_passes

__all__ = [
    "Context",
    "Contract",
    "Effect",
    "Journal",
    "NamedPipeline",
    "NumericCheck",
    "Observer",
    "OutputDifference",
    "Pass",
    "PassError",
    "PassRecord",
    "Pipeline",
    "PipelineError",
    "Property",
    "RegistryError",
    "Remark",
    "RemarkLog",
    "ShapeCheck",
    "StructureCheck",
    "Timing",
    "Verdict",
    "VerificationError",
    "compare_outputs",
    "find_pass",
    "named_pipelines",
    "options_of",
    "pass_names",
    "random_inputs",
    "register",
    "registered_passes",
    "rule",
    "run_passes",
    "type_name",
]
