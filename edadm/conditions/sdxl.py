"""A prompt for each image as Stable Diffusion XL is told it: by two text encoders, beside sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edadm.conditions.text import encoder_config, prompts_of, token_ids
from edadm.networks.settings.parts import Conditioning, TextEncoder


class TextEncoders(nn.Module):
    """Two CLIP text encoders, of which the second also projects the state of the whole text.

    Args:
        settings: with the sizes of both.
    """

    def __init__(self, settings: Conditioning):
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        super().__init__()
        assert settings.second_encoder is not None and settings.pooled_channels is not None
        self.first = CLIPTextModel(encoder_config(settings.encoder))
        projected = encoder_config(settings.second_encoder, settings.pooled_channels)
        self.second = CLIPTextModelWithProjection(projected)


class SdxlCondition:
    """Image i has the i-th prompt, and all have the same sizes.

    The context is what both encoders say of a token after all layers but the last one, beside each other;
    the pooled text is the second one's projection. Without a condition both are zeros, as the pipeline of the
    published model has it (`force_zeros_for_empty_prompt`), and the sizes stay.

    Args:
        encoders: with weights.
        prompts: one for each image.
        settings: how prompts are padded, and the sizes.
    """

    def __init__(self, encoders: TextEncoders, prompts: Sequence[str], settings: Conditioning):
        self._encoders, self.prompts, self._settings = encoders, prompts, settings

    def _said(self, encoder: Any, prompts: Sequence[str], sizes: TextEncoder) -> Any:
        """All that an encoder says of prompts."""
        device = next(encoder.parameters()).device
        ids = token_ids(prompts, sizes.tokens, sizes.padding, sizes.words).to(device)
        return encoder(ids, output_hidden_states=True)

    def _rows(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        settings = self._settings
        assert settings.second_encoder is not None and settings.time_ids is not None
        first = self._said(self._encoders.first, prompts, settings.encoder)
        second = self._said(self._encoders.second, prompts, settings.second_encoder)
        context: Float[Tensor, "n tokens channels"]
        context = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        sizes = torch.tensor(settings.time_ids, device=context.device).repeat(len(prompts), 1)
        return {"context": context, "pooled": second.text_embeds, "time_ids": sizes}

    @torch.no_grad()
    def rows(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """What the network is told of each image: `context`, `pooled` and `time_ids`."""
        return self._rows([self.prompts[index] for index in indices])

    @torch.no_grad()
    def unconditional(self) -> dict[str, Tensor]:
        """Zeros in place of a text, and the sizes of every image."""
        told = self._rows([""])
        return told | {name: torch.zeros_like(told[name]) for name in ("context", "pooled")}


def build(settings: Conditioning, context_channels: int) -> TextEncoders:
    """Both text encoders, randomly initialised."""
    return TextEncoders(settings)


def make(network: TextEncoders, settings: Conditioning, images: int) -> SdxlCondition:
    """The prompts of the images 0 .. images - 1.

    Raises:
        EdadmError: there are fewer prompts.
    """
    return SdxlCondition(network, prompts_of(settings, images), settings)
