"""How well images fit their prompts, by CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from edadm.errors import EdadmError
from edadm.networks.weights import CheckpointError, read_state


def load_clip(name: str, weights: Path, device: torch.device | str) -> tuple[Any, Any, Any]:
    """A CLIP model of open_clip with weights from a file, its image preparation and its tokenizer.

    Args:
        name: open_clip's name; OpenAI's weights need a `-quickgelu` one. `local-dir:PATH` takes the
            configuration from a folder.
        weights: safetensors or a torch file of tensors, in open_clip's layout.

    Raises:
        CheckpointError: the weights cannot be read, or are of another model.
        EdadmError: open_clip has no such model.
    """
    state = read_state(weights)
    try:
        model, _, prepare = open_clip.create_model_and_transforms(name, pretrained=None, load_weights=False)
        tokenize = open_clip.get_tokenizer(name)
    except (RuntimeError, ValueError, FileNotFoundError) as error:
        raise EdadmError(
            f"open_clip has no model '{name}' ({str(error).splitlines()[0]}); mend `clip_model`"
        ) from None
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise CheckpointError(
            f"{weights} does not fit {name} ({reason}); mend `clip_model` or `clip_weights`"
        ) from None
    return model.to(device).eval().requires_grad_(False), prepare, tokenize


class ClipScore:
    """How well images fit their prompts by one model, a few at a time.

    Args:
        name, weights: as of `load_clip`.
        device: where the model computes.
        batch_size: images that it sees at once, with which the last bits of sums go.
    """

    def __init__(self, name: str, weights: Path, device: torch.device | str = "cpu", batch_size: int = 32):
        self.model, self._prepare, self.tokenize = load_clip(name, weights, device)
        self.device, self.batch_size = device, batch_size

    def prepare(self, pixels: UInt8[Tensor, "3 _ _"]) -> Float[Tensor, "3 h w"]:
        """An image as the model's own preparation makes it."""
        return self._prepare(Image.fromarray(pixels.permute(1, 2, 0).numpy()))

    @torch.no_grad()
    def __call__(self, ready: Float[Tensor, "n 3 h w"], prompts: Sequence[str]) -> Float[Tensor, " n"]:
        """100 times the cosine between each prepared image's and its prompt's embedding (arXiv 2104.08718).

        Without that paper's factor and clipping. The published runs use ViT-L/14 on the images at full size
        (method, 5.1).
        """
        scores = []
        for start in range(0, len(ready), self.batch_size):
            batch = slice(start, start + self.batch_size)
            tokens = self.tokenize(list(prompts[batch]))
            seen = self.model.encode_image(ready[batch].to(self.device), normalize=True)
            read = self.model.encode_text(tokens.to(self.device), normalize=True)
            scores.append((100 * (seen * read).sum(1)).float().cpu())
        return torch.cat(scores)
