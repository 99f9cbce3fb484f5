"""A full-size pass: a family's network with random weights through all stages.

With the time and memory of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import zarr
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edadm.calibration.conditions import with_conditions
from edadm.calibration.select import select
from edadm.conditions.condition import Condition, build_condition_network, make_condition
from edadm.deploy.checkpoint import load_quantized, save_quantized
from edadm.deploy.grids import grids, quantized_copy, set_grids
from edadm.errors import EdadmError
from edadm.learning.task import Task
from edadm.learning.unit_store import FolderUnitStore
from edadm.networks.autoencoder import LatentDecoder
from edadm.networks.families import family_of
from edadm.networks.inputs import Rows
from edadm.networks.random_weights import random_autoencoder, random_network, randomised
from edadm.networks.units.unit import Unit
from edadm.nn.insert import quantized_layers
from edadm.passes.methods import run_method
from edadm.passes.prepare import prepare
from edadm.pilot.measured import Measured, RandomCondition, psnr_of_all_pixels
from edadm.pilot.scaled import ScaledRun
from edadm.sampling.collect import collect, open_store
from edadm.sampling.denoiser import Denoiser, Precision, Prediction
from edadm.sampling.generate import generate_images

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")


class FamilyPass:
    """One family's stages in sequence, on files in a folder as the workflow has them.

    Args:
        run: the presets.
        units: that are learned; the others are rounded to nearest.
        folder: for artifacts.
        device: where.
    """

    def __init__(self, run: ScaledRun, units: Sequence[Unit], folder: Path, device: torch.device):
        self.run, self.units, self.folder, self.device = run, units, folder, device
        self.measured = Measured(device)

    def condition(self, images: int) -> Condition | None:
        """A condition with random embeddings."""
        model = self.run.model
        channels = model.architecture.context_channels
        if model.conditioning is None or channels is None:
            return None
        if model.conditioning.has_prompts:
            kept = () if model.conditioning.drops_image else ("image",)
            return RandomCondition(model.condition_shapes, self.device, kept)
        with torch.device("meta"):
            embedding = build_condition_network(model.conditioning, channels)
        return make_condition(randomised(embedding, self.device), model.conditioning, images)

    def _prediction(self) -> Prediction:
        return Prediction.of(self.run.model)

    def collect(self) -> None:
        """`collect-trajectories`."""
        model = self.run.model
        network, condition = random_network(model, self.device), self.condition(model.trajectories.count)
        with self.measured.stage("collect-trajectories"):
            store = open_store(self.folder / "store.zarr", model, 0, condition)
            denoise = Denoiser(network, condition, model.guidance, prediction=self._prediction())
            collect(
                denoise,
                family_of(network).feature_module(network),
                model,
                store,
                self.device,
                told=condition,
            )

    def select(self) -> None:
        """`select-calibration`."""
        with self.measured.stage("select-calibration"):
            groups = [zarr.open_group(self.folder / "store.zarr", mode="r")]
            chosen, _ = select(groups, self.run.calibration)
            save_arrays(with_conditions(chosen, groups), self.folder / "calibration.safetensors")

    def set_ranges(self) -> None:
        """`set-ranges`."""
        network = quantized_copy(random_network(self.run.model, self.device), self.run.bits)
        with self.measured.stage("set-ranges"):
            rows = load_file(self.folder / "calibration.safetensors", device=str(self.device))
            prepare(network, Rows.of(rows), self.run.bits)
            save_file(
                {name: tensor.cpu() for name, tensor in grids(network).items()},
                self.folder / "ranges.safetensors",
            )

    def reconstruct(self) -> None:
        """`reconstruct`, of some units."""
        network, settings = random_network(self.run.model, self.device), self.run.reconstruction
        quantized = quantized_copy(network, self.run.bits)
        set_grids(quantized, load_file(self.folder / "ranges.safetensors", device=str(self.device)))
        self._round_others(quantized)
        units = self.folder / "units"
        units.mkdir(exist_ok=True)
        with self.measured.stage("reconstruct"):
            rows = load_file(self.folder / "calibration.safetensors", device=str(self.device))
            task = Task(network, quantized, self.units, Rows.of(rows), 0, settings, FolderUnitStore(units))
            run_method(task)
            save_quantized(quantized, self.file, self.run.model.architecture, self.run.bits, {})

    def _round_others(self, quantized: nn.Module) -> None:
        learned = {
            f"{unit.name}.{name}"
            for unit in self.units
            for name in quantized_layers(quantized.get_submodule(unit.name))
        }
        learned |= {unit.name for unit in self.units}
        for name, layer in quantized_layers(quantized).items():
            if name not in learned:
                layer.set_codes(layer.nearest_codes())

    @property
    def file(self) -> Path:
        """The packed checkpoint."""
        return self.folder / "quantized.safetensors"

    def generate(self) -> dict[str, Any]:
        """`generate`, by the float and the reloaded network in each precision; differences of images to fp32.

        Returns:
            By network and precision: `psnr` to the same network's fp32 images in dB, None where they are
                equal or it is fp32 itself;
            or `failed`, a sentence.
        """
        found: dict[str, Any] = {}
        model, settings = self.run.model, self.run.evaluation
        condition, decode = self.condition(settings.images), self._decoder()
        run = (
            model.sampler,
            model.schedule,
            range(settings.images),
            model.latent_shape,
            settings.seed,
            settings.batch_size,
            self.device,
        )
        for kind in ("float", "simulated"):
            network, first = self._network(kind), None
            for precision in PRECISIONS:
                name = f"generate {kind} {precision}"
                denoise = Denoiser(network, condition, model.guidance, precision, self._prediction())
                try:
                    with self.measured.stage(name):
                        images = generate_images(denoise, *run, decode=decode, pixels=model.pixels)
                except EdadmError as error:
                    found[name] = {"failed": str(error)}
                    continue
                first = images if first is None else first
                found[name] = {"psnr": psnr_of_all_pixels(images, first)}
            del network, denoise
        return found

    def _network(self, kind: str) -> nn.Module:
        if kind == "float":
            return random_network(self.run.model, self.device)
        with self.measured.stage("reload"):
            return load_quantized(self.file, self.device)

    def _decoder(self) -> Callable[[Tensor], Tensor]:
        autoencoder = self.run.model.autoencoder
        if autoencoder is None:
            return lambda latents: latents
        return LatentDecoder(random_autoencoder(self.run.model, self.device), autoencoder.scale or 1.0)
