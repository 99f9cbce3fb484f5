"""A prompt for each image as Stable Diffusion 3 is told it by two CLIP text encoders, without the third."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.conditions.text import encoder_config, prompts_of, token_ids
from edadm.networks.settings.parts import Conditioning, TextEncoder


class ProjectedEncoders(nn.Module):
    """Two CLIP text encoders, each with a projection of the whole text as wide as its own states.

    Args:
        settings: with the sizes of both.
        context_channels: of a token that the network is told.
    """

    def __init__(self, settings: Conditioning, context_channels: int):
        from transformers import CLIPTextModelWithProjection

        super().__init__()
        first, second = settings.encoder, settings.second_encoder
        assert second is not None
        self.context_channels = context_channels
        self.first = CLIPTextModelWithProjection(encoder_config(first, first.channels))
        self.second = CLIPTextModelWithProjection(encoder_config(second, second.channels))


class Sd3Condition:
    """Image i has the i-th prompt, and an image without a condition the empty one.

    The context is what both encoders say of a token after all layers but the last one, beside each other and
    before zeros, as wide as the network takes it; behind it stand tokens of zeros, which diffusers' pipeline
    tells in place of T5's with `text_encoder_3=None`. The pooled text is both projections.

    Args:
        encoders: with weights.
        prompts: one for each image.
        settings: how prompts are padded, and how many tokens of zeros there are.
    """

    def __init__(self, encoders: ProjectedEncoders, prompts: Sequence[str], settings: Conditioning):
        self._encoders, self.prompts, self._settings = encoders, prompts, settings

    def _said(self, encoder: Any, prompts: Sequence[str], sizes: TextEncoder) -> Any:
        """All that an encoder says of prompts."""
        device = next(encoder.parameters()).device
        ids = token_ids(prompts, sizes.tokens, sizes.padding).to(device)
        return encoder(ids, output_hidden_states=True)

    def _rows(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        settings = self._settings
        assert settings.second_encoder is not None and settings.empty_tokens is not None
        first = self._said(self._encoders.first, prompts, settings.encoder)
        second = self._said(self._encoders.second, prompts, settings.second_encoder)
        tokens: Float[Tensor, "n tokens channels"]
        tokens = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        missing = self._encoders.context_channels - tokens.shape[-1]
        context = F.pad(tokens, (0, missing, 0, settings.empty_tokens))
        return {"context": context, "pooled": torch.cat([first.text_embeds, second.text_embeds], -1)}

    @torch.no_grad()
    def rows(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """What the network is told of each image: `context` and `pooled`."""
        return self._rows([self.prompts[index] for index in indices])

    @torch.no_grad()
    def unconditional(self) -> dict[str, Tensor]:
        """The same of the empty prompt."""
        return self._rows([""])


def build(settings: Conditioning, context_channels: int) -> ProjectedEncoders:
    """Both text encoders, randomly initialised."""
    return ProjectedEncoders(settings, context_channels)


def make(network: ProjectedEncoders, settings: Conditioning, images: int) -> Sd3Condition:
    """The prompts of the images 0 .. images - 1.

    Raises:
        EdadmError: there are fewer prompts.
    """
    return Sd3Condition(network, prompts_of(settings, images), settings)
