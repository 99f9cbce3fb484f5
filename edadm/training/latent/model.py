"""Both trainings of a latent diffusion model, one after the other, and a look at what it draws."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from safetensors.torch import load_file
from torch import Tensor

from edadm.conditions.text import TextCondition
from edadm.conditions.words import write_tokenizer
from edadm.config.files.sources import locate
from edadm.config.schema import Model
from edadm.errors import EdadmError
from edadm.networks.autoencoder import LatentDecoder, build_autoencoder
from edadm.networks.build import build_network
from edadm.networks.classifier import CLASSES, CifarClassifier
from edadm.sampling.denoiser import Denoiser
from edadm.sampling.generate import generate_images
from edadm.sampling.schedule import alphas_cumprod
from edadm.training.classifier import accuracy
from edadm.training.files import State, in_compvis_layout, inside, rounded
from edadm.training.latent import kl, vq
from edadm.training.latent.classes import ToldClasses
from edadm.training.latent.colours import colours_of
from edadm.training.latent.prompts import ToldPrompts
from edadm.training.latent.told import Told
from edadm.training.latent.unet import LatentTrainer
from edadm.training.trainer import Training, train

Say = Callable[[str], None]
Keep = Callable[[State, dict[str, Any]], None]
_FIRST_STAGES: dict[str, Any] = {"vq": vq, "kl": kl}  # modules, by kind of autoencoder
_TOLD: dict[str, Any] = {"classes": ToldClasses, "text": ToldPrompts}  # by kind of condition
_LOOKED_AT = 2000  # images, for numbers on the first stage
_PAUSE = 60.0  # seconds between two writings
_BATCH = 500
SIDE = 32  # of the classifier's images


@dataclass(frozen=True)
class Shown:
    """Shares of images, in [0, 1], that show what they were asked for.

    Attributes:
        classes: by the bundled classifier.
        colours: measured as the training set's; None where no colours are told.
    """

    classes: float
    colours: float | None = None


class LatentModel:
    """A latent diffusion model that is told classes or prompts, while it is trained.

    Args:
        model: the preset, of the family `transformer`.
        images, labels: the training set, on the device that trains; images in [0, 255].
        names: of the classes.
        say: told losses and speed.

    Raises:
        EdadmError: the preset is of another kind.
    """

    def __init__(
        self,
        model: Model,
        images: UInt8[Tensor, "n 3 h w"],
        labels: Int[Tensor, " n"],
        names: Sequence[str],
        say: Say,
    ):
        first, told = model.autoencoder, model.conditioning
        is_told = told is not None and told.kind in _TOLD and model.architecture.family == "transformer"
        if first is None or told is None or not is_told or (first.kind == "vq" and first.scale != 1.0):
            raise EdadmError(
                "this trains a U-Net of the family 'transformer' that is told classes or prompts, on an "
                "autoencoder of kind kl, or of kind vq and scale 1; take such a model, as 'cifar10_latent' is"
            )
        side = model.architecture.image_size * first.factor
        if images.shape[-2:] != (side, side):
            height, width = images.shape[-2:]
            raise EdadmError(
                f"images have {height} x {width} pixels, the model's {side} x {side}; resize them"
            )
        self.model, self.images, self.say = model, images, say
        self.told: Told = _TOLD[told.kind](model, images, labels, names)
        self.facts: dict[str, Any] = {}
        self._compiled = images.device.type == "cuda"
        self._settings, self._kind = first, _FIRST_STAGES[first.kind]
        self._first: Any = None
        self._scale = 1.0
        self._trainer: LatentTrainer | None = None

    def train_first_stage(
        self, settings: Training, minutes: float | None = None, known: State | None = None
    ) -> None:
        """Trains the first stage, whose weights become numbers of fp16.

        Args:
            settings, minutes: of the training.
            known: weights of one that was trained before, by diffusers' names, which is taken as it is.
        """
        network: Any = build_autoencoder(self._settings)
        looked_at = self.images[:_LOOKED_AT]
        if known is None:
            trainer = self._kind.AutoencoderTrainer(network, self.images, settings, self._compiled)
            loss = train(trainer, minutes, self.say)
            self.facts["first_stage"] = asdict(trainer.settings) | {"step": trainer.step, "loss": loss}
            network.load_state_dict(trainer.average)
            network.requires_grad_(False)
            self._kind.settle(network, self._kind.encode(network, looked_at))
            known = network.state_dict()
        network.load_state_dict(rounded(known))
        self._first = network.to(self.images.device).eval().requires_grad_(False)
        latents = self._kind.encode(network, looked_at)
        error = (self._kind.decode(network, latents).float() - looked_at.float()).square().mean()
        scale = self._settings.scale or 1 / latents.float().std()
        self._scale = torch.as_tensor(scale).half().item()
        seen = latents.float() * self._scale
        self.say(
            f"first stage: {10 * torch.log10(255**2 / error).item():.2f} dB of {len(looked_at)} images, "
            f"{self._kind.about(network, latents)}latents times {self._scale:.5g} of mean "
            f"{seen.mean().item():.3f} and variance {seen.var().item():.3f}"
        )

    def train_unet(self, settings: Training, minutes: float | None, keep: Keep) -> None:
        """Trains the U-Net on latents of the images and of their mirror images.

        Args:
            settings, minutes: of the training.
            keep: given all weights, averaged, and facts on the training once a minute and in the end.
        """
        both = [self._kind.encode(self._first, images) for images in (self.images, self.images.flip(3))]
        latents, unet = torch.cat(both) * self._scale, build_network(self.model.architecture)
        alphas = alphas_cumprod(self.model.schedule)
        trainer = LatentTrainer(unet, self.told, latents, alphas, settings, self._compiled)
        self._trainer, kept = trainer, time.monotonic()

        def on_step(step: int) -> None:
            nonlocal kept
            if time.monotonic() - kept > _PAUSE:
                keep(self._named(trainer.average), self.facts | asdict(trainer.settings) | {"step": step})
                kept = time.monotonic()

        loss = train(trainer, minutes, self.say, on_step=on_step)
        self.facts |= asdict(trainer.settings) | {"step": trainer.step, "loss": loss}
        keep(self._named(trainer.average), self.facts)

    def prompts(self, count: int) -> list[str]:
        """So many prompts, as images are asked for.

        Raises:
            EdadmError: the model is told classes.
        """
        condition = self.told.asked(count).condition
        if not isinstance(condition, TextCondition):
            raise EdadmError("this model is told classes, not prompts; leave out --prompts")
        return list(condition.prompts)

    def write_tokenizer(self, folder: Path) -> None:
        """Writes the tokenizer of its words for other tools.

        Raises:
            EdadmError: it is told classes, or has CLIP's vocabulary.
        """
        told = self.model.conditioning
        if told is None or not told.has_prompts or told.encoder.words is None:
            raise EdadmError("this model has no words of its own; leave out --tokenizer")
        write_tokenizer(told.encoder.words, told.encoder.tokens, folder)

    def checkpoint(self) -> tuple[State, State, Float[Tensor, " timesteps"], int]:
        """The weights as trained and averaged, alpha-bar of every timestep, and the step."""
        assert self._trainer is not None
        trained = {name: p.detach() for name, p in self._trainer.network.named_parameters()}
        averaged = self._named(self._trainer.average)
        raw = self._named(trained)
        return raw, averaged, alphas_cumprod(self.model.schedule), self._trainer.step

    def _named(self, network: State) -> State:
        """All weights by CompVis' names."""
        condition = self.told.weights(inside(network, "condition."))
        own = (inside(network, "unet."), condition, self._first.state_dict())
        named = in_compvis_layout(*own, self.model.architecture)
        if self._settings.scale is None:
            named["scale_factor"] = torch.tensor(self._scale)
        return {name: tensor.float().cpu() for name, tensor in named.items()}

    def shown(self, guidances: Sequence[float], images: int) -> dict[float, Shown]:
        """How many images show what they were asked for, by guidance scale.

        None where the classifier knows other classes or another size.

        Args:
            guidances: scales.
            images: how many are made for each, by the preset's sampler and the averaged weights.
        """
        assert self._trainer is not None
        device, unet = self.images.device, self._trainer.network["unet"]
        asked = self.told.asked(images)
        if self.told.classes != len(CLASSES) or self.images.shape[-1] != SIDE:
            return {}
        average = rounded(self._trainer.average)
        unet.load_state_dict(inside(average, "unet."))
        self.told.network.load_state_dict(inside(average, "condition."))
        classifier = bundled_classifier().to(device)
        found = {}
        for guidance in guidances:
            drawn = generate_images(
                Denoiser(unet.eval(), asked.condition, guidance, "bf16" if self._compiled else "fp32"),
                self.model.sampler,
                self.model.schedule,
                range(images),
                self.model.latent_shape,
                seed=0,
                batch_size=_BATCH,
                device=device,
                decode=LatentDecoder(self._first, self._scale),
            ).to(device)
            share = accuracy(classifier, drawn, asked.labels.to(device))
            colours = asked.colours
            same = None if colours is None else (colours_of(drawn).cpu() == colours).float().mean().item()
            found[guidance] = Shown(share, same)
        return found


def bundled_classifier() -> CifarClassifier:
    """The classifier inside the package."""
    classifier = CifarClassifier()
    state = load_file(locate("bundled:cifar10_classifier"))
    classifier.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in state.items()})
    return classifier.eval().requires_grad_(False)
