"""What a network is told about image i: the embedding of a class, or of a prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edadm.config.inputs.prompts import prompts_in
from edadm.errors import EdadmError
from edadm.networks.settings.parts import Conditioning

VOCABULARY = 49408
END_OF_TEXT = VOCABULARY - 1
Padding = Literal["end_of_text", "zero"]


@runtime_checkable
class Condition(Protocol):
    """Rows of context by image index; a row is a sequence of tokens."""

    def rows(self, indices: Sequence[int]) -> Float[Tensor, "n tokens channels"]:
        """The context of each image."""

    def unconditional(self) -> Float[Tensor, "1 tokens channels"]:
        """The context that says nothing."""


def shuffled(count: int, *key: int | str) -> list[int]:
    """0 .. count - 1 in an order that is a function of the key alone, on any machine and version."""
    prefix = "/".join(map(str, key))
    return sorted(range(count), key=lambda index: hashlib.sha256(f"{prefix}/{index}".encode()).digest())


class ClassEmbedding(nn.Module):
    """One row for each class and a last one for none (CompVis' `ClassEmbedder` with 1001 classes)."""

    def __init__(self, classes: int, channels: int):
        super().__init__()
        self.embedding = nn.Embedding(classes + 1, channels)


class ClassCondition:
    """Image i has the i-th of a shuffled list in which every class stands equally often.

    Args:
        embedding: with weights.
        settings: classes, how often each stands in the list, and the seed of its order.
    """

    def __init__(self, embedding: ClassEmbedding, settings: Conditioning):
        self._embedding = embedding.embedding
        classes = settings.only or tuple(range(settings.classes))
        order = shuffled(len(classes) * settings.images_per_class, settings.seed, "label")
        self.labels = [classes[place % len(classes)] for place in order]
        self._none = settings.classes

    def _rows(self, labels: Sequence[int]) -> Float[Tensor, "n 1 channels"]:
        return self._embedding(torch.tensor(labels, dtype=torch.long, device=self._embedding.weight.device))[
            :, None
        ]

    @torch.no_grad()
    def rows(self, indices: Sequence[int]) -> Float[Tensor, "n 1 channels"]:
        """The embedding of each image's class, as one token."""
        return self._rows([self.labels[index] for index in indices])

    @torch.no_grad()
    def unconditional(self) -> Float[Tensor, "1 1 channels"]:
        """The embedding that stands for no class."""
        return self._rows([self._none])


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
    def rows(self, indices: Sequence[int]) -> Float[Tensor, "n tokens channels"]:
        """The last hidden states of each image's prompt."""
        return self._rows([self.prompts[index] for index in indices])

    @torch.no_grad()
    def unconditional(self) -> Float[Tensor, "1 tokens channels"]:
        """The last hidden states of the empty prompt."""
        return self._rows([""])


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


def build_condition_network(settings: Conditioning, context_channels: int) -> nn.Module:
    """The class embedding, or the CLIP text encoder, randomly initialised."""
    if settings.kind == "classes":
        return ClassEmbedding(settings.classes, context_channels)
    from transformers import CLIPTextConfig, CLIPTextModel  # seconds, for which classes need not wait

    sizes = settings.encoder
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=sizes.channels,
            intermediate_size=sizes.hidden_channels,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            max_position_embeddings=sizes.tokens,
            hidden_act=sizes.activation,
            bos_token_id=END_OF_TEXT - 1,
            eos_token_id=END_OF_TEXT,
        )
    )


def make_condition(network: nn.Module, settings: Conditioning, images: int) -> Condition:
    """The condition of the images 0 .. images - 1.

    Raises:
        EdadmError: the label list or the prompts do not last for so many images.
    """
    if isinstance(network, ClassEmbedding):
        condition = ClassCondition(network, settings)
        if len(condition.labels) < images:
            raise EdadmError(
                f"{images} images exceed the {len(condition.labels)} labels; raise "
                "conditioning.images_per_class"
            )
        return condition
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
