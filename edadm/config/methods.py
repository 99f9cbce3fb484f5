"""Reconstruction methods by name: the passes that each consists of, and its needs; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Inputs = Literal["chain", "float"]
TEMPORAL = "temporal"  # the name of the unit of all layers that see nothing but the timestep


@dataclass(frozen=True)
class Method:
    """A reconstruction method is a list of passes and the needs that planning, checks and memory ask for.

    Attributes:
        passes: names in `PASSES` (`edadm.passes.methods`), in the order in which they run.
        description: what it does, in a few words.
        inputs: activations from which a unit learns: `chain`, those that the finished units before it let
            through; `float`, those of the float network; None where nothing is learned.
        by_layer: a unit is a single convolution or linear layer instead of a block.
        layer_errors: a unit's inner layers have reconstruction errors of their own.
        weighs_rows: each unit's rows get weights before it learns.
        temporal: layers that see nothing but the timestep are a unit of their own, before all others.
    """

    passes: tuple[str, ...]
    description: str
    inputs: Inputs | None = None
    by_layer: bool = False
    layer_errors: bool = False
    temporal: bool = False
    weighs_rows: bool = False

    @property
    def learns(self) -> bool:
        """Whether rounding and step sizes are learned at all."""
        return self.inputs is not None

    @property
    def independent(self) -> bool:
        """Whether no unit waits for another, so that jobs can share the units."""
        return self.inputs == "float"

    @property
    def networks(self) -> int:
        """How many networks' paused passes are kept: the float one's, and in a chain the quantized one's."""
        return {None: 0, "float": 1, "chain": 2}[self.inputs]

    def units(self, blocks: Mapping[str, Iterable[str]]) -> list[str]:
        """The names of its units in a U-Net.

        Args:
            blocks: names of the layers of every block, and of every layer outside of blocks.
        """
        if self.by_layer:
            return [layer for layers in blocks.values() for layer in layers]
        if not self.temporal:
            return list(blocks)
        return [TEMPORAL, *(name for name in blocks if not name.startswith("time_embedding."))]


METHODS = {
    "fbr": Method(("reconstruct", "correct_bias"), description="EDA-DM", inputs="chain", layer_errors=True),
    "block": Method(("reconstruct", "correct_bias"), description="BRECQ", inputs="chain"),
    "layer": Method(("reconstruct", "correct_bias"), description="AdaRound", inputs="chain", by_layer=True),
    "tfmq": Method(
        ("learn_temporal", "reconstruct", "correct_bias"),
        description="TFMQ-DM",
        inputs="chain",
        temporal=True,
    ),
    "fbr_float_inputs": Method(
        ("reconstruct_from_float", "correct_bias"),
        description="fbr with units independent",
        inputs="float",
        layer_errors=True,
    ),
    "gac": Method(
        ("weigh_rows", "reconstruct", "correct_bias"),
        description="fbr with rows weighted by Gradient-Aligned Calibration",
        inputs="chain",
        layer_errors=True,
        weighs_rows=True,
    ),
    "none": Method(("round_to_nearest",), description="nearest"),
}
INDEPENDENT = tuple(name for name, method in METHODS.items() if method.independent)


@dataclass(frozen=True)
class SamplerCorrection:
    """A correction in the sampler is a description and what it asks of a sampler.

    Attributes:
        description: what it does, in a few words.
        of_steps: it changes what a step makes of state and prediction, which only steps of DDIM say linearly.
    """

    description: str
    of_steps: bool = False


CORRECTIONS = {
    "ptqd": SamplerCorrection(
        "PTQD's: a factor and a bias at each timestep, and less noise where the sampler adds some"
    ),
    "d2_dpm": SamplerCorrection("D2-DPM's: at each timestep the mean noise given the prediction, likewise"),
    "q_sched": SamplerCorrection("Q-Sched's two coefficients of state and prediction", of_steps=True),
}
