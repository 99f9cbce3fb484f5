"""The work of a stage: network evaluations, learning steps, images, bytes on disk and on the device."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from edadm.config.schema import Bits, Calibration, Model, Reconstruction

if TYPE_CHECKING:
    from edadm.networks.units.unit import Unit

FP32 = 4  # bytes
INT64 = 8
CODE = 1
CHAIN = "chain-"  # before a precision: that of reconstruction, which fixes how convolutions compute

PassKey = tuple[str, str, int]
LearningKey = tuple[str, str, int]


@dataclass(frozen=True)
class Passes:
    """Evaluations of the U-Net of one kind.

    Attributes:
        kind: the float network; the one that simulates integers; or the latter while its activation ranges
            are searched.
        precision: arithmetic, `fp32`, `bf16` or `fp16` of the sampler, or `CHAIN` and the precision of a
            reconstruction.
        rows: evaluations of single rows; a guided model has two rows per image.
        batch: rows of a full batch.
        calls: batches.
    """

    kind: Literal["float", "simulated", "observed"]
    precision: str
    rows: int
    batch: int
    calls: int

    @property
    def key(self) -> PassKey:
        """What the time of a row depends on."""
        return self.kind, self.precision, self.batch


@dataclass(frozen=True)
class Learning:
    """Learning steps of one unit, its floating-point operations per row, and the rows of a step."""

    unit: Unit
    flops: int
    steps: int
    rows: int


@dataclass(frozen=True)
class Memory:
    """Bytes on the device.

    Attributes:
        weights: of all networks that are there.
        work: activations and temporaries of a batch or a learning step.
        kept: what reconstruction keeps between units: tables of the unit and paused passes, at the fullest
            unit.
    """

    weights: int = 0
    work: int = 0
    kept: int = 0

    @property
    def needed(self) -> int:
        """What must be on the device; what is kept can go elsewhere."""
        return self.weights + self.work

    @property
    def total(self) -> int:
        """All of it."""
        return self.needed + self.kept


@dataclass(frozen=True)
class Cost:
    """The cost of one stage of the workflow for one model or variant: what it does, keeps and writes.

    Attributes:
        name: of the stage.
        of: the presets it works on, as in the result's path.
        passes: evaluations of whole networks.
        unit_rows: rows through single units beside learning, in evaluations of a whole network.
        learning: units that are learned, with their steps.
        searched_weights: weights whose range is searched.
        images: that are made.
        decoded: images from the autoencoder.
        scored: images whose features are computed.
        read: bytes read from disk, where they take time.
        disk: bytes of the artifact.
        files: files and folders at most, locks and facts beside them counted.
        memory: of the device.
        shares: jobs that divide the work, or may.
        divides_itself: whether the machine decides among how many jobs, at most `shares`.
        bits, settings: the presets at work, where there are any.
    """

    name: str
    of: str
    passes: tuple[Passes, ...] = ()
    unit_rows: tuple[Passes, ...] = ()
    learning: tuple[Learning, ...] = ()
    searched_weights: int = 0
    images: int = 0
    decoded: int = 0
    scored: int = 0
    read: int = 0
    disk: int = 0
    files: int = 2
    memory: Memory = field(default_factory=Memory)
    shares: int = 1
    divides_itself: bool = False
    bits: Bits | None = None
    settings: Reconstruction | None = None

    def divided(self, shards: int | str, batches: int) -> Cost:
        """The same, divided among jobs as a preset says: so many, or as many as the machine wants."""
        return replace(
            self,
            shares=batches if isinstance(shards, str) else shards,
            divides_itself=isinstance(shards, str),
        )

    @property
    def evaluations(self) -> int:
        """Rows through the whole U-Net."""
        return sum(passes.rows for passes in self.passes)

    @property
    def learning_key(self) -> LearningKey:
        """What a learning step's time depends on beside the unit: method, precision, rows per step."""
        assert self.settings is not None
        return self.settings.method, self.settings.precision, max(unit.rows for unit in self.learning)

    @property
    def steps(self) -> int:
        """Learning steps of all units."""
        return sum(unit.steps for unit in self.learning)


def rows_per_image(model: Model) -> int:
    """2 for a guided model, whose every image has an unconditional row, too; 3 with one without an image."""
    if model.conditioning is not None and model.conditioning.drops_image:
        return 3
    return 2 if model.guidance != 1 else 1


def evaluations_per_run(model: Model) -> int:
    """Network calls of one sampler run: a call a step, and one more with PLMS (method, 1.1)."""
    from edadm.sampling.schedule import sampler_timesteps

    return len(sampler_timesteps(model.sampler, model.schedule)) + (model.sampler.method == "plms")


def sampling(
    model: Model,
    shards: Iterable[range],
    batch_size: int,
    kind: Literal["float", "simulated"],
    precision: str,
) -> Passes:
    """The evaluations of all shards' sampler runs."""
    shards = list(shards)
    factor, each = rows_per_image(model), evaluations_per_run(model)
    total, calls = sum(map(len, shards)), sum(-(-len(shard) // batch_size) for shard in shards)
    batch = min(batch_size, max(map(len, shards))) * factor
    return Passes(kind, precision, total * factor * each, batch, calls * each)


def latent_elements(model: Model) -> int:
    """Numbers in one state."""
    channels, height, width = model.latent_shape
    return channels * height * width


def condition_bytes(model: Model) -> int:
    """The bytes of what the network is told of one image; 0 without a condition."""
    from edadm.networks.inputs import WHOLE

    shapes = model.condition_shapes.items()
    return sum(math.prod(shape) * (INT64 if name in WHOLE else FP32) for name, shape in shapes)


def calibration_rows(model: Model, calibration: Calibration) -> int:
    """Rows of a calibration set, those held out included."""
    return (calibration.size + calibration.held_out) * rows_per_image(model)
