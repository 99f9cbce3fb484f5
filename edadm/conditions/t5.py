"""A prompt for each image, and the hidden states that T5's encoder makes of it; padding does not count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edadm.conditions.t5_tokens import fitted, tokenizer_of
from edadm.conditions.text import prompts_of
from edadm.errors import EdadmError
from edadm.networks.settings.parts import Conditioning, T5Encoder


class T5TextEncoder(nn.Module):
    """T5's encoder, and the file of its tokenizer.

    Args:
        sizes: of the encoder.

    Attributes:
        tokenizer: content of a `tokenizer.json` or of a SentencePiece model; converted weights hold it.
    """

    def __init__(self, sizes: T5Encoder):
        from transformers import T5Config, T5EncoderModel  # seconds, for which classes need not wait

        super().__init__()
        config = T5Config(
            vocab_size=sizes.vocabulary,
            d_model=sizes.channels,
            d_kv=sizes.head_channels,
            d_ff=sizes.hidden_channels,
            num_layers=sizes.layers,
            num_heads=sizes.heads,
            relative_attention_num_buckets=sizes.buckets,
            feed_forward_proj=sizes.feed_forward,
        )
        self.encoder = T5EncoderModel(config).encoder
        self.tokenizer = b""


class T5Condition:
    """Image i has the i-th prompt, in lower case and without spaces around it, as in PixArt's pipelines.

    Without a condition it has the empty prompt, which is the end of a text alone.

    Args:
        network: with weights and tokenizer.
        prompts: one for each image.
        settings: length to which prompts are padded or cut, and the size that networks are told.

    Raises:
        EdadmError: the tokenizer cannot be read.
    """

    def __init__(self, network: T5TextEncoder, prompts: Sequence[str], settings: Conditioning):
        assert settings.t5 is not None
        self._encoder: Any = network.encoder
        self.prompts, self._size = prompts, settings.time_ids
        self._tokenizer = fitted(tokenizer_of(network.tokenizer), settings.t5.tokens)
        if (most := self._tokenizer.get_vocab_size()) > settings.t5.vocabulary:
            raise EdadmError(
                f"the tokenizer has {most} tokens, and T5's encoder {settings.t5.vocabulary}; take the "
                "tokenizer that belongs to it"
            )

    def _rows(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        device = next(self._encoder.parameters()).device
        encoded = self._tokenizer.encode_batch([prompt.lower().strip() for prompt in prompts])
        ids, mask = (
            torch.tensor([getattr(one, name) for one in encoded], device=device)
            for name in ("ids", "attention_mask")
        )
        context = self._encoder(ids, attention_mask=mask).last_hidden_state
        told = {"context": context, "context_mask": mask.to(context.dtype)}
        if self._size is not None:
            told["time_ids"] = torch.tensor(self._size, device=device).repeat(len(prompts), 1)
        return told

    @torch.no_grad()
    def rows(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The last hidden states of each image's prompt, which of them count, and perhaps a size."""
        return self._rows([self.prompts[index] for index in indices])

    @torch.no_grad()
    def unconditional(self) -> dict[str, Tensor]:
        """The same of the empty prompt."""
        return self._rows([""])


def build(settings: Conditioning, context_channels: int) -> T5TextEncoder:
    """T5's encoder, randomly initialised."""
    assert settings.t5 is not None
    return T5TextEncoder(settings.t5)


def make(network: T5TextEncoder, settings: Conditioning, images: int) -> T5Condition:
    """The prompts of the images 0 .. images - 1.

    Raises:
        EdadmError: there are fewer prompts, or the tokenizer cannot be read.
    """
    return T5Condition(network, prompts_of(settings, images), settings)
