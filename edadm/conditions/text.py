"""A prompt for each image, and the hidden states that a CLIP text encoder makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edadm.conditions.order import shuffled
from edadm.conditions.words import merges_file, vocabulary_size
from edadm.config.files.sources import prompts_file
from edadm.config.inputs.prompts import prompts_in
from edadm.errors import EdadmError
from edadm.networks.settings.parts import Conditioning, TextEncoder

Padding = Literal["end_of_text", "zero"]


class TextCondition:
    """Image i has the i-th prompt.

    Args:
        encoder: with weights.
        prompts: one for each image.
        sizes: of the encoder, and how prompts are cut and padded.
    """

    def __init__(self, encoder: nn.Module, prompts: Sequence[str], sizes: TextEncoder):
        self._encoder, self.prompts, self._sizes = encoder, prompts, sizes

    def _rows(self, prompts: Sequence[str]) -> Float[Tensor, "n tokens channels"]:
        device = next(self._encoder.parameters()).device
        sizes = self._sizes
        ids = token_ids(prompts, sizes.tokens, sizes.padding, sizes.words).to(device)
        return self._encoder(ids).last_hidden_state

    @torch.no_grad()
    def rows(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The context of each image: the last hidden states of its prompt."""
        return {"context": self._rows([self.prompts[index] for index in indices])}

    @torch.no_grad()
    def unconditional(self) -> dict[str, Tensor]:
        """The context without a condition: the last hidden states of the empty prompt."""
        return {"context": self._rows([""])}


def token_ids(
    prompts: Sequence[str],
    length: int,
    padding: Padding = "end_of_text",
    words: tuple[str, ...] | None = None,
) -> Int[Tensor, "n length"]:
    """CLIP's byte-pair codes, padded to a length.

    With the end of text as Stable Diffusion v1 was trained, or with zeros as v2 and open_clip were.

    Args:
        prompts: to encode.
        length: of each.
        padding: behind its end.
        words: of another vocabulary than CLIP's.
    """
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer() if words is None else SimpleTokenizer(merges_file(words))
    ids = tokenizer(list(prompts), context_length=length)
    if padding == "zero":
        return ids
    end = vocabulary_size(words) - 1
    ended = (ids == end).cumsum(dim=1).bool()
    return ids.masked_fill(ended, end)


def read_prompts(path: Path, seed: int) -> list[str]:
    """All captions of a COCO annotation file in an order keyed by the seed; other prompts in their own.

    Raises:
        EdadmError: absent, or none of the forms of `edadm.config.inputs.prompts`.
    """
    found = prompts_in(path)
    if not found.annotations:
        return found.texts
    return [found.texts[index] for index in shuffled(len(found.texts), seed, "prompt")]


def encoder_config(sizes: TextEncoder, pooled_channels: int = 512) -> Any:
    """A text encoder's sizes as transformers has them; only a projected one uses `pooled_channels`."""
    from transformers import CLIPTextConfig  # seconds, for which classes need not wait

    vocabulary = vocabulary_size(sizes.words)
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=sizes.channels,
        intermediate_size=sizes.hidden_channels,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        max_position_embeddings=sizes.tokens,
        hidden_act=sizes.activation,
        projection_dim=pooled_channels,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
    )


def build(settings: Conditioning, context_channels: int) -> nn.Module:
    """The CLIP text encoder, randomly initialised."""
    from transformers import CLIPTextModel

    network: nn.Module = CLIPTextModel(encoder_config(settings.encoder))
    return network


def make(network: nn.Module, settings: Conditioning, images: int) -> TextCondition:
    """The prompts of the images 0 .. images - 1.

    Raises:
        EdadmError: there are fewer prompts.
    """
    return TextCondition(network, prompts_of(settings, images), settings.encoder)


def prompts_of(settings: Conditioning, images: int) -> list[str]:
    """The prompts of the images 0 .. images - 1, in order.

    Raises:
        EdadmError: there are fewer.
    """
    if settings.prompts is None:
        raise EdadmError(
            "conditioning by text needs prompts; set conditioning.prompts to a captions or text file"
        )
    prompts = read_prompts(prompts_file(settings.prompts), settings.seed)
    if len(prompts) < images:
        raise EdadmError(
            f"{images} images exceed the {len(prompts)} prompts of {settings.prompts}; add prompts or make "
            "fewer images"
        )
    return prompts[:images]
