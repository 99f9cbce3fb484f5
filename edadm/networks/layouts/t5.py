"""T5's encoder as transformers saves it, alone or with its decoder, and the file of its tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from edadm.conditions.t5_tokens import JSON, SENTENCEPIECE
from edadm.networks.weights import CheckpointError

State = dict[str, Tensor]
TOKENIZER = "tokenizer"  # bytes of its file, a tensor beside the encoder's
_FILES = (JSON, SENTENCEPIECE)
_SHARED, _EMBEDDED = "shared.weight", "encoder.embed_tokens.weight"


def to_encoder(state: State) -> State:
    """Tensors of a T5 -> state dict of an encoder, whose embedding has one name.

    Raises:
        KeyError: a name that the layout does not have.
    """
    own = {_EMBEDDED if name == _SHARED else name: tensor for name, tensor in sorted(state.items())}
    if other := next(
        (name for name in own if not name.startswith(("encoder.", "decoder.", "lm_head."))), None
    ):
        raise KeyError(f"'{other}' is not a tensor of T5")
    return {name: tensor for name, tensor in own.items() if name.startswith("encoder.")}


def tokenizer_file(checkpoint: Path) -> Path:
    """The file of the tokenizer that lies in a pipeline's folder, or beside or in a text encoder's.

    Args:
        checkpoint: the folder of the pipeline or encoder, or a file in the latter.

    Raises:
        CheckpointError: there is none.
    """
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    places = [folder / "tokenizer", folder.parent / "tokenizer", folder]
    found = (place / name for place in places for name in _FILES)
    if file := next((file for file in found if file.is_file()), None):
        return file
    raise CheckpointError(
        f"{folder} holds no tokenizer of T5 (tokenizer/{_FILES[0]} or {_FILES[1]}); give the whole "
        "pipeline, or set conditioning.checkpoint to a folder with text_encoder and tokenizer"
    )


def as_tensor(file: Path) -> Tensor:
    """The bytes of a file."""
    return torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
