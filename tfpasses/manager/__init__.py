"""Passes and what runs them: contracts, registry, pipeline text, planning, observers, numeric verification. No TensorFlow."""

from tfpasses.manager.compare import OutputDifference, compare_outputs, worst_of
from tfpasses.manager.contract import Contract, Effect, Property
from tfpasses.manager.errors import DataError, PassError, PipelineError, RegistryError, VerificationError, WorkerError
from tfpasses.manager.manager import run_passes
from tfpasses.manager.named_pipelines import NamedPipeline, named_pipelines
from tfpasses.manager.numeric import NumericCheck, Verdict, random_inputs
from tfpasses.manager.observers import Journal, Observer, PassRecord, RemarkLog, ShapeCheck, StructureCheck, Timing
from tfpasses.manager.passes import Context, Pass, Remark, rule
from tfpasses.manager.pipeline import Pipeline, options_of, type_name
from tfpasses.manager.registry import find_pass, pass_names, register, registered_passes
from tfpasses.manager.samples import Samples, all_batches
from tfpasses.manager.workers import Workers

__all__ = [
    "Context",
    "Contract",
    "DataError",
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
    "Samples",
    "ShapeCheck",
    "StructureCheck",
    "Timing",
    "Verdict",
    "VerificationError",
    "WorkerError",
    "Workers",
    "all_batches",
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
    "worst_of",
]
