"""A prompt beside sizes and a score, and an image to begin from, as SDXL's refiner is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edadm.conditions.image import TextAndImage, images_of, pixels_of
from edadm.conditions.text import encoder_config, prompts_of, token_ids
from edadm.networks.settings.parts import Conditioning


class RefinerCondition:
    """Image i has the i-th prompt and begins from the i-th image; all have the same sizes and scores.

    The context is what the text encoder says of a token after all layers but the last one, the pooled text
    its projection. Without a condition the prompt is empty and the score the lower one, as the pipeline of
    the published model has it.

    Args:
        network: with weights.
        prompts: one for each image.
        files: of images, as many.
        settings: how prompts are padded, the sizes and the scores.
    """

    def __init__(
        self, network: TextAndImage, prompts: Sequence[str], files: Sequence[Path], settings: Conditioning
    ):
        self._network, self.prompts, self._files, self._settings = network, prompts, files, settings

    def _rows(self, prompts: Sequence[str], score: float) -> dict[str, Tensor]:
        sizes, encoder = self._settings.time_ids, self._settings.second_encoder
        assert sizes is not None and encoder is not None
        device = next(self._network.parameters()).device
        ids = token_ids(prompts, encoder.tokens, encoder.padding, encoder.words).to(device)
        said = self._network.text(ids, output_hidden_states=True)
        told = {"context": said.hidden_states[-2], "pooled": said.text_embeds}
        told["time_ids"] = torch.tensor(sizes, device=device).repeat(len(prompts), 1)
        return told | {"score": torch.full((len(prompts), 1), score, device=device)}

    @torch.no_grad()
    def rows(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """What the network is told of each image: `context`, `pooled`, `time_ids` and `score`."""
        assert self._settings.scores is not None
        return self._rows([self.prompts[index] for index in indices], self._settings.scores[0])

    @torch.no_grad()
    def unconditional(self) -> dict[str, Tensor]:
        """The empty prompt, the sizes of every image, and the lower score."""
        assert self._settings.scores is not None
        return self._rows([""], self._settings.scores[1])

    @torch.no_grad()
    def starts(self, indices: Sequence[int]) -> Tensor:
        """The latents of the images that runs begin from: the means of what the autoencoder says, scaled."""
        side = self._network.side * self._network.factor
        pixels = torch.stack([pixels_of(self._files[index], side) for index in indices])
        device = next(self._network.parameters()).device
        return self._network.latents(pixels.to(device)) * self._network.scale


def build_both(settings: Conditioning, context_channels: int, autoencoder: Any, side: int) -> TextAndImage:
    """Text encoder with its projection, and image encoder, randomly initialised."""
    from transformers import CLIPTextModelWithProjection

    assert settings.second_encoder is not None and settings.pooled_channels is not None
    text = CLIPTextModelWithProjection(encoder_config(settings.second_encoder, settings.pooled_channels))
    return TextAndImage(text, autoencoder, side)


def make(network: TextAndImage, settings: Conditioning, images: int) -> RefinerCondition:
    """The prompts and images 0 .. images - 1.

    Raises:
        EdadmError: there are fewer, or captions are drawn from an order that images do not have.
    """
    return RefinerCondition(network, prompts_of(settings, images), images_of(settings, images), settings)
