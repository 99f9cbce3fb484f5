"""A prompt for each image, and the hidden states that a CLIP text encoder makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edadm.conditions.order import shuffled
from edadm.config.inputs.prompts import prompts_in
from edadm.errors import EdadmError
from edadm.networks.settings.parts import Conditioning, TextEncoder

VOCABULARY = 49408
END_OF_TEXT = VOCABULARY - 1
Padding = Literal["end_of_text", "zero"]


class TextCondition:
    """Image i has the i-th prompt.

    Args:
        encoder: with weights.
        prompts: one for each image.
        tokens: length to which prompts are padded or cut.
        padding: what they are padded with.
    """

    def __init__(
        self, encoder: nn.Module, prompts: Sequence[str], tokens: int, padding: Padding = "end_of_text"
    ):
        self._encoder, self.prompts, self._tokens, self._padding = encoder, prompts, tokens, padding

    def _rows(self, prompts: Sequence[str]) -> Float[Tensor, "n tokens channels"]:
        device = next(self._encoder.parameters()).device
        return self._encoder(token_ids(prompts, self._tokens, self._padding).to(device)).last_hidden_state

    @torch.no_grad()
    def rows(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The context of each image: the last hidden states of its prompt."""
        return {"context": self._rows([self.prompts[index] for index in indices])}

    @torch.no_grad()
    def unconditional(self) -> dict[str, Tensor]:
        """The context without a condition: the last hidden states of the empty prompt."""
        return {"context": self._rows([""])}


def token_ids(
    prompts: Sequence[str], length: int, padding: Padding = "end_of_text"
) -> Int[Tensor, "n length"]:
    """CLIP's byte-pair codes, padded to a length.

    With the end of text as Stable Diffusion v1 was trained, or with zeros as v2 and open_clip were.
    """
    from open_clip.tokenizer import SimpleTokenizer

    ids = SimpleTokenizer()(list(prompts), context_length=length)
    if padding == "zero":
        return ids
    ended = (ids == END_OF_TEXT).cumsum(dim=1).bool()
    return ids.masked_fill(ended, END_OF_TEXT)


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

    return CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=sizes.channels,
        intermediate_size=sizes.hidden_channels,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        max_position_embeddings=sizes.tokens,
        hidden_act=sizes.activation,
        projection_dim=pooled_channels,
        bos_token_id=END_OF_TEXT - 1,
        eos_token_id=END_OF_TEXT,
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
    encoder = settings.encoder
    return TextCondition(network, prompts_of(settings, images), encoder.tokens, encoder.padding)


def prompts_of(settings: Conditioning, images: int) -> list[str]:
    """The prompts of the images 0 .. images - 1, in order.

    Raises:
        EdadmError: there are fewer.
    """
    if settings.prompts is None:
        raise EdadmError(
            "conditioning by text needs prompts; set conditioning.prompts to a captions or text file"
        )
    prompts = read_prompts(Path(settings.prompts).expanduser(), settings.seed)
    if len(prompts) < images:
        raise EdadmError(
            f"{images} images exceed the {len(prompts)} prompts of {settings.prompts}; add prompts or make "
            "fewer images"
        )
    return prompts[:images]
