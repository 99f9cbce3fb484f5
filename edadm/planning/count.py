"""What each stage will do, exactly: network evaluations, learning steps, images, and bytes on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edadm.config.layout import Variant
from edadm.config.methods import METHODS
from edadm.config.schema import Bits, Calibration, Config, Evaluation, Model, Reconstruction, Run
from edadm.learning.task import settings_of
from edadm.networks.unit import Unit
from edadm.planning.memory import Memory, collect_bytes, generate_bytes, ranges_bytes, reconstruct_bytes
from edadm.planning.network import FP32, Networks
from edadm.sampling.generate import shard_range
from edadm.sampling.schedule import sampler_timesteps

INT64 = 8
CHAIN = "chain-"  # before a precision: that of reconstruction, which fixes how convolutions compute
UNIT_ERRORS = 3  # how often all rows pass a unit beside learning: before it, with soft and with hard rounding
CORRECTIONS = 3  # and for its biases: the float unit, the quantized one, and the error afterwards

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
    """Learning steps of one unit: its kind, its floating-point operations per row, how many steps of how many rows."""

    unit: Unit
    flops: int
    steps: int
    rows: int


@dataclass(frozen=True)
class Stage:
    """What one stage of the workflow does for one model or variant.

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
        memory: of the device.
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
    memory: Memory = field(default_factory=Memory)
    bits: Bits | None = None
    settings: Reconstruction | None = None

    @property
    def evaluations(self) -> int:
        """Rows through the whole U-Net."""
        return sum(passes.rows for passes in self.passes)

    @property
    def learning_key(self) -> LearningKey:
        """What the time of a unit's learning step depends on, beside the unit: method, precision, rows per step."""
        assert self.settings is not None
        return self.settings.method, self.settings.precision, max(unit.rows for unit in self.learning)

    @property
    def steps(self) -> int:
        """Learning steps of all units."""
        return sum(unit.steps for unit in self.learning)


def rows_per_image(model: Model) -> int:
    """2 for a guided model, whose every image has an unconditional row, too."""
    return 2 if model.guidance != 1 else 1


def evaluations_per_run(model: Model) -> int:
    """Network calls of one sampler run: a call a step, and one more with PLMS (method, 1.1)."""
    return len(sampler_timesteps(model.sampler, model.schedule)) + (model.sampler.method == "plms")


def _sampling(
    model: Model,
    shards: Iterable[range],
    batch_size: int,
    kind: Literal["float", "simulated"],
    precision: str,
) -> Passes:
    """Sampler runs of all shards."""
    shards = list(shards)
    factor, each = rows_per_image(model), evaluations_per_run(model)
    total, calls = sum(map(len, shards)), sum(-(-len(shard) // batch_size) for shard in shards)
    return Passes(
        kind, precision, total * factor * each, min(batch_size, max(map(len, shards))) * factor, calls * each
    )


def _latent_elements(model: Model) -> int:
    channels, height, width = model.latent_shape
    return channels * height * width


def _context_elements(model: Model) -> int:
    tokens, channels = model.context_shape or (0, 0)
    return tokens * channels


def convert(name: str, networks: Networks) -> Stage:
    """`convert-checkpoint`, all parts."""
    parameters = networks.parameters + networks.decoder_parameters + networks.condition_parameters
    return Stage("convert-checkpoint", name, disk=parameters * FP32)


def collect(name: str, networks: Networks) -> Stage:
    """`collect-trajectories`, all shards; its bytes are those of states and contexts, in chunks of whole batches."""
    model, recorded = networks.model, networks.model.trajectories
    shards = [shard_range(recorded.count, recorded.shards, shard) for shard in range(recorded.shards)]
    passes = _sampling(model, shards, recorded.batch_size, "float", "fp32")
    steps = len(sampler_timesteps(model.sampler, model.schedule))
    padded = sum(-(-len(shard) // recorded.batch_size) * recorded.batch_size for shard in shards)
    disk = padded * (steps * _latent_elements(model) + _context_elements(model)) * FP32
    rows = min(recorded.feature_rows, recorded.batch_size, len(shards[0])) * rows_per_image(model)
    memory = collect_bytes(networks, passes.batch, evaluations_per_run(model) * rows)
    return Stage("collect-trajectories", name, (passes,), disk=disk, memory=memory)


def calibration_rows(model: Model, calibration: Calibration) -> int:
    """Rows of a calibration set, those held out included."""
    return (calibration.size + calibration.held_out) * rows_per_image(model)


def select(name: str, networks: Networks, calibration: Calibration) -> Stage:
    """`select-calibration`: every state is read with the chunk it lies in."""
    model = networks.model
    rows, latent = calibration_rows(model, calibration), _latent_elements(model)
    read = (calibration.size + calibration.held_out) * model.trajectories.batch_size * latent * FP32
    disk = rows * ((latent + _context_elements(model)) * FP32 + 2 * INT64)
    return Stage("select-calibration", name, read=read, disk=disk)


def set_ranges(name: str, networks: Networks, calibration: Calibration, bits: Bits) -> Stage:
    """`set-ranges`; its bytes are those of scales and zero points."""
    rows, quantized = calibration.size * rows_per_image(networks.model), networks.quantized(bits)
    batch = min(bits.range_batch_size, rows)
    passes = Passes("observed", "fp32", rows, batch, -(-rows // bits.range_batch_size))
    memory = ranges_bytes(networks, quantized, batch)
    weights, disk = quantized.weights, quantized.grid_bytes
    return Stage("set-ranges", name, (passes,), searched_weights=weights, disk=disk, memory=memory, bits=bits)


def reconstruct(
    name: str,
    networks: Networks,
    calibration: Calibration,
    bits: Bits,
    settings: Reconstruction,
    chosen: Sequence[Unit] | None = None,
) -> Stage:
    """`reconstruct`, with its parts where units are shared among jobs.

    Args:
        name: of the variant.
        networks: of the model.
        calibration, bits, settings: the variant's presets.
        chosen: units that are learned; all with quantized weights by default.
    """
    quantized, rows = networks.quantized(bits), calibration_rows(networks.model, calibration)
    units = networks.learned_units(settings, bits) if chosen is None else list(chosen)
    method = METHODS[settings.method]
    if not method.learns or not units:
        return Stage(
            "reconstruct", name, disk=quantized.bytes, memory=Memory(weights=networks.parameters * FP32)
        )
    batch = min(settings.chain_batch_size, rows)
    calls = -(-rows // settings.chain_batch_size)
    jobs = settings.jobs if method.independent else 1
    passes = [Passes("float", CHAIN + settings.precision, rows * jobs, batch, calls * jobs)]
    if not method.independent:
        passes.append(Passes("simulated", CHAIN + settings.precision, rows, batch, calls))
    flops = networks.flops
    share = sum(flops.get(unit.name, 0) for unit in units) / flops[""]
    repeats = UNIT_ERRORS + CORRECTIONS * settings.bias_correction
    errors = Passes(
        "simulated",
        CHAIN + settings.precision,
        round(repeats * rows * share),
        batch,
        round(repeats * calls * share),
    )
    own = [settings_of(unit, settings) for unit in units]
    size = min(settings.batch_size, calibration.size * rows_per_image(networks.model))
    learning = tuple(
        Learning(unit, flops.get(unit.name, 0), s.iterations, size)
        for unit, s in zip(units, own, strict=True)
    )
    memory = reconstruct_bytes(networks, quantized, settings, rows, [unit.name for unit in units])
    return Stage(
        "reconstruct",
        name,
        tuple(passes),
        (errors,),
        learning,
        disk=quantized.bytes,
        memory=memory,
        bits=bits,
        settings=settings,
    )


def generate(name: str, networks: Networks, evaluation: Evaluation, bits: Bits | None) -> Stage:
    """`generate`, all shards, with full-precision weights or, where bits are given, simulated ones."""
    model = networks.model
    shards = [shard_range(evaluation.images, evaluation.shards, shard) for shard in range(evaluation.shards)]
    passes = _sampling(
        model, shards, evaluation.batch_size, "simulated" if bits else "float", evaluation.precision
    )
    factor = model.autoencoder.factor if model.autoencoder else 1
    channels = model.autoencoder.image_channels if model.autoencoder else model.architecture.in_channels
    disk = evaluation.images * channels * (model.architecture.image_size * factor) ** 2
    memory = generate_bytes(networks, passes, networks.quantized(bits) if bits else None)
    decoded = evaluation.images if model.autoencoder else 0
    return Stage(
        "generate",
        name,
        (passes,),
        images=evaluation.images,
        decoded=decoded,
        disk=disk,
        memory=memory,
        bits=bits,
    )


def stages_of(run: Run, config: Config, networks: Networks | None = None) -> list[Stage]:
    """The stages of a run in order; what several variants share stands once."""
    model, evaluation = config.models[run.model], config.evaluations[run.evaluation]
    networks = networks or Networks(model)
    found: dict[tuple[str, str], Stage] = {}

    def add(stage: Stage) -> None:
        found.setdefault((stage.name, stage.of), stage)

    add(convert(run.model, networks))
    variants = [Variant(name) for name in run.variants]
    for presets in (variant.presets for variant in variants if variant.is_quantized):
        calibration, bits = config.calibrations[presets[0]], config.bits[presets[1]]
        add(collect(run.model, networks))
        add(select(f"{run.model}/{presets[0]}", networks, calibration))
        add(set_ranges(f"{run.model}/{presets[0]}/{presets[1]}", networks, calibration, bits))
        settings = config.reconstructions[presets[2]]
        add(reconstruct(f"{run.model}/{'/'.join(presets)}", networks, calibration, bits, settings))
    if any(variant.is_quantized for variant in variants):
        variants = [
            Variant("fp32"),
            *(variant for variant in variants if variant.is_quantized),
        ]  # to compare with
    for variant in variants:
        bits_of = config.bits[variant.presets[1]] if variant.is_quantized else None
        add(generate(f"{run.model}/{variant.name}", networks, evaluation, bits_of))
    for variant in variants:
        add(Stage("evaluate", f"{run.model}/{variant.name}", scored=evaluation.images))
    order = list(dict.fromkeys(stage.name for stage in found.values()))
    return sorted(found.values(), key=lambda stage: order.index(stage.name))
