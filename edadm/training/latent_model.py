"""Both trainings of a latent diffusion model, one after the other, and a look at what it draws."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from safetensors.torch import load_file
from torch import Tensor

from edadm.conditions.classes import ClassEmbedding, make
from edadm.config.files.sources import locate
from edadm.config.schema import Model
from edadm.errors import EdadmError
from edadm.networks.autoencoder import LatentDecoder, build_autoencoder
from edadm.networks.build import build_network
from edadm.networks.classifier import CLASSES, CifarClassifier
from edadm.sampling.denoiser import Denoiser
from edadm.sampling.generate import generate_images
from edadm.sampling.schedule import alphas_cumprod
from edadm.training.autoencoder import AutoencoderTrainer, decode, encode, nearest, standardise
from edadm.training.classifier import accuracy
from edadm.training.files import State, in_compvis_layout, inside, rounded
from edadm.training.latent import LatentTrainer
from edadm.training.trainer import Training, train

Say = Callable[[str], None]
Keep = Callable[[State, dict[str, Any]], None]
GUIDANCES = (1.0, 1.5, 3.0)
_LOOKED_AT = 2000  # images, for numbers on the first stage
_PAUSE = 60.0  # seconds between two writings
_BATCH = 500
SIDE = 32  # of the classifier's images


class LatentModel:
    """A class-conditional latent diffusion model while it is trained.

    Args:
        model: the preset, of the family `transformer`, with a vector-quantized first stage and classes.
        images, labels: the training set, on the device that trains; images in [0, 255].
        say: told losses and speed.

    Raises:
        EdadmError: the preset is of another kind.
    """

    def __init__(self, model: Model, images: UInt8[Tensor, "n 3 h w"], labels: Int[Tensor, " n"], say: Say):
        first, told = model.autoencoder, model.conditioning
        is_vq = first is not None and first.kind == "vq" and first.scale == 1.0
        has_classes = told is not None and told.kind == "classes"
        if first is None or not is_vq or not has_classes or model.architecture.family != "transformer":
            raise EdadmError(
                "this trains a U-Net of the family 'transformer' that is told classes, on an autoencoder of "
                "kind vq and scale 1; take such a model, as 'cifar10_latent' is"
            )
        side = model.architecture.image_size * first.factor
        if images.shape[-2:] != (side, side):
            height, width = images.shape[-2:]
            raise EdadmError(
                f"images have {height} x {width} pixels, the model's {side} x {side}; resize them"
            )
        self.model, self.images, self.labels, self.say = model, images, labels, say
        self.facts: dict[str, Any] = {}
        self._compiled = images.device.type == "cuda"
        self._first: Any = None
        self._trainer: LatentTrainer | None = None

    def train_first_stage(
        self, settings: Training, minutes: float | None = None, known: State | None = None
    ) -> None:
        """Trains the first stage, whose weights become numbers of fp16.

        Args:
            settings, minutes: of the training.
            known: weights of one that was trained before, by diffusers' names, which is taken as it is.
        """
        assert self.model.autoencoder is not None
        network: Any = build_autoencoder(self.model.autoencoder)
        if known is None:
            trainer = AutoencoderTrainer(network, self.images, settings, self._compiled)
            loss = train(trainer, minutes, self.say)
            self.facts["first_stage"] = asdict(trainer.settings) | {"step": trainer.step, "loss": loss}
            network.load_state_dict(trainer.average)
            network.requires_grad_(False)
            standardise(network, encode(network, self.images[:_LOOKED_AT]))
            known = network.state_dict()
        network.load_state_dict(rounded(known))
        self._first = network.to(self.images.device).eval().requires_grad_(False)
        looked_at = self.images[:_LOOKED_AT]
        latents = encode(network, looked_at)
        codes = nearest(latents.float(), network.quantize.embedding.weight).unique()
        error = (decode(network, latents).float() - looked_at.float()).square().mean()
        self.say(
            f"first stage: {10 * torch.log10(255**2 / error).item():.2f} dB of {len(looked_at)} images, "
            f"{len(codes)} of {self.model.autoencoder.codes} codes in use by them, latents of mean "
            f"{latents.float().mean().item():.3f} and variance {latents.float().var().item():.3f}"
        )

    def train_unet(self, settings: Training, minutes: float | None, keep: Keep) -> None:
        """Trains the U-Net on latents of the images and of their mirror images.

        Args:
            settings, minutes: of the training.
            keep: given all weights, averaged, and facts on the training once a minute and in the end.
        """
        told, channels = self.model.conditioning, self.model.architecture.context_channels
        assert told is not None and channels is not None
        latents = torch.cat([encode(self._first, images) for images in (self.images, self.images.flip(3))])
        unet, embedding = build_network(self.model.architecture), ClassEmbedding(told.classes, channels)
        data = (latents, self.labels.repeat(2), alphas_cumprod(self.model.schedule))
        trainer = LatentTrainer(unet, embedding, *data, settings, self._compiled)
        self._trainer, kept = trainer, time.monotonic()

        def on_step(step: int) -> None:
            nonlocal kept
            if time.monotonic() - kept > _PAUSE:
                keep(self._named(trainer.average), self.facts | asdict(trainer.settings) | {"step": step})
                kept = time.monotonic()

        loss = train(trainer, minutes, self.say, on_step=on_step)
        self.facts |= asdict(trainer.settings) | {"step": trainer.step, "loss": loss}
        keep(self._named(trainer.average), self.facts)

    def checkpoint(self) -> tuple[State, State, Float[Tensor, " timesteps"], int]:
        """The weights as trained and averaged, alpha-bar of every timestep, and the step."""
        assert self._trainer is not None
        trained = {name: p.detach() for name, p in self._trainer.network.named_parameters()}
        averaged = self._named(self._trainer.average)
        raw = self._named(trained)
        return raw, averaged, alphas_cumprod(self.model.schedule), self._trainer.step

    def _named(self, network: State) -> State:
        """All weights by CompVis' names."""
        own = (inside(network, "unet."), inside(network, "condition."), self._first.state_dict())
        return {
            name: tensor.float().cpu()
            for name, tensor in in_compvis_layout(*own, self.model.architecture).items()
        }

    def class_accuracies(self, guidances: Sequence[float], images: int) -> dict[float, float]:
        """The share of images that the bundled classifier takes for the class asked for, by guidance scale.

        None where the classifier knows other classes or another size.

        Args:
            guidances: scales.
            images: how many are made for each, by the preset's sampler and the averaged weights.
        """
        assert self._trainer is not None and self.model.conditioning is not None
        device, settings = self.images.device, self.model.conditioning
        if settings.classes != len(CLASSES) or self.images.shape[-1] != SIDE:
            return {}
        unet, embedding = self._trainer.network["unet"], self._trainer.network["condition"]
        average = rounded(self._trainer.average)
        unet.load_state_dict(inside(average, "unet."))
        embedding.load_state_dict(inside(average, "condition."))
        each = -(-images // settings.classes)
        condition = make(embedding, settings.model_copy(update={"images_per_class": each}), images)
        labels = torch.tensor(condition.labels[:images], device=device)
        classifier = _classifier().to(device)
        found = {}
        for guidance in guidances:
            drawn = generate_images(
                Denoiser(unet.eval(), condition, guidance, "bf16" if self._compiled else "fp32"),
                self.model.sampler,
                self.model.schedule,
                range(images),
                self.model.latent_shape,
                seed=0,
                batch_size=_BATCH,
                device=device,
                decode=LatentDecoder(self._first, 1.0),
            )
            found[guidance] = accuracy(classifier, drawn.to(device), labels)
        return found


def _classifier() -> CifarClassifier:
    """The bundled classifier."""
    classifier = CifarClassifier()
    state = load_file(locate("bundled:cifar10_classifier"))
    classifier.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in state.items()})
    return classifier.eval().requires_grad_(False)
