"""Where every artifact lies: beneath exactly the decisions that shaped it, in the order of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edadm.config.backends import DEFAULT, variant_suffixes
from edadm.config.sharding.split import stated

FULL_PRECISION = "fp32"
SEED = "@"  # between a reconstruction's name and the number of its seed, from 2 on


@dataclass(frozen=True)
class Variant:
    """One model at one precision: `fp32`, or the names of a calibration, a bits and a reconstruction preset.

    The name of a backend may follow these, such as `/integer`: the same checkpoint, computed by that backend
    while it makes images.
    """

    name: str

    @property
    def is_quantized(self) -> bool:
        """Whether it has a calibration, bits and a reconstruction."""
        return self.name != FULL_PRECISION

    @property
    def presets(self) -> tuple[str, str, str]:
        """Names of its calibration, bits and reconstruction presets."""
        calibration, bits, reconstruction = self.name.split("/")[:3]
        return calibration, bits, reconstruction

    @property
    def seed(self) -> int:
        """Which learning of its reconstruction it is, from 1 (`edadm.config.seeds`)."""
        number = self.presets[2].partition(SEED)[2] if self.is_quantized else ""
        return int(number) if number else 1

    def of_seed(self, seed: int) -> Variant:
        """The same of another learning."""
        if not self.is_quantized:
            return self
        calibration, bits, reconstruction, *backend = self.name.split("/")
        named = reconstruction.partition(SEED)[0] + (f"{SEED}{seed}" if seed > 1 else "")
        return Variant("/".join((calibration, bits, named, *backend)))

    @property
    def backend(self) -> str:
        """The name of the backend that its images are made with; see `edadm.config.backends`."""
        last = self.name.rpartition("/")[2]
        return last if last in variant_suffixes() else DEFAULT

    @property
    def checkpoint(self) -> Variant:
        """The variant that has its weights: itself, or the one of the default backend."""
        return self if self.backend == DEFAULT else Variant(self.name.removesuffix(f"/{self.backend}"))


@dataclass(frozen=True)
class Layout:
    """Paths below a results folder."""

    root: Path

    def float_weights(self, model: str) -> Path:
        """The converted full-precision U-Net."""
        return self.part(model, "unet")

    def part(self, model: str, part: str) -> Path:
        """A converted part of the full-precision model: `unet`, `autoencoder` or `condition`."""
        return self.root / model / FULL_PRECISION / f"{part}.safetensors"

    def prompts(self, model: str) -> Path:
        """The prompts of a model's images."""
        return self.root / model / "prompts.json"

    def trajectories(self, model: str, shard: int | str) -> Path:
        """Recorded sampler runs of one shard."""
        return self.root / model / "trajectories" / f"{shard}.zarr"

    def calibration(self, model: str, calibration: str) -> Path:
        """The folder of a calibration set and its summary."""
        return self.root / model / calibration

    def variant(self, model: str, variant: Variant) -> Path:
        """The folder of a variant's images and scores, and, unless it names a backend, of its weights."""
        return self.root / model / variant.name

    def weights(self, model: str, variant: Variant) -> Path:
        """The file a variant's images are generated with."""
        return (
            self.variant(model, variant.checkpoint) / "quantized.safetensors"
            if variant.is_quantized
            else self.float_weights(model)
        )

    def losses(self, model: str, variant: Variant) -> Path:
        """What the reconstruction of a quantized variant says of each unit."""
        return self.variant(model, variant.checkpoint) / "losses.csv"

    def step_errors(self, model: str, variant: Variant) -> Path:
        """Where the report looks for what `edadm benchmark errors` measured of a quantized variant."""
        return self.variant(model, variant.checkpoint) / "errors.json"

    def samples(self, model: str, variant: Variant, shards: int | str) -> list[Path]:
        """All image files of a variant, in order.

        Where the preset names no number, so many as the first says that there are: others are of an earlier
        number. If it does not say, those that are there, or the first alone, which is to be made then.
        """
        folder = self.variant(model, variant) / "samples"
        if isinstance(shards, str):
            if division := stated(folder / "0.npy", "evaluation"):
                return self.samples(model, variant, division.shards)
            there = sorted(folder.glob("[0-9]*.npy"), key=lambda file: int(file.stem))
            return there or [folder / "0.npy"]
        return [folder / f"{shard}.npy" for shard in range(shards)]
