"""What a configuration may say: every setting with its range, its default and its unit."""

from edadm.config.schema.model import AUTO, EULERS, FLOW, SOLVERS, Model, NoiseSchedule, Sampler, Trajectories
from edadm.config.schema.quantization import (
    Bits,
    Calibration,
    LayerBits,
    LearnedScales,
    Linear,
    Reconstruction,
)
from edadm.config.schema.run import Config, Evaluation, Extractor, Memory, Run, json_schema

__all__ = [
    "AUTO",
    "EULERS",
    "FLOW",
    "SOLVERS",
    "Bits",
    "Calibration",
    "Config",
    "Evaluation",
    "Extractor",
    "LayerBits",
    "LearnedScales",
    "Linear",
    "Memory",
    "Model",
    "NoiseSchedule",
    "Reconstruction",
    "Run",
    "Sampler",
    "Trajectories",
    "json_schema",
]
