"""The header of a quantized checkpoint: what a file says of itself, and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from edadm.artifacts import reading
from edadm.networks.weights import CheckpointError

FORMAT_VERSION = 3  # `edadm.deploy.checkpoint.versions` says what earlier ones were
Facts = dict[str, Any]


def digest(tensors: Mapping[str, Tensor], facts: Facts) -> str:
    """SHA-256 of a file's meaning.

    Hashed are its facts but `sha256` as sorted JSON, then each tensor's name, type, shape and bytes.
    """
    sha256 = hashlib.sha256(
        compact_json({key: value for key, value in facts.items() if key != "sha256"}).encode()
    )
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha256.update(
            compact_json([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]).encode()
        )
        sha256.update(tensor.flatten().view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def compact_json(content: Any) -> str:
    """JSON with sorted keys and no spaces."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _facts(path: Path) -> Facts:
    """What this package wrote into a file's metadata.

    Files with float weights have facts, too, but no `format_version`.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; name the checkpoint in it")
    if not path.is_file():
        raise CheckpointError(
            f"there is no file {path}; name a quantized checkpoint, as `edadm reconstruct` makes it"
        )
    with reading(path, refusal=CheckpointError), safe_open(path, "pt") as file:
        facts = json.loads((file.metadata() or {}).get("edadm", "{}"))
    return facts if isinstance(facts, dict) else {}


def read_metadata(path: Path) -> Facts:
    """The description inside a quantized checkpoint.

    Raises:
        CheckpointError: damaged, of another program, or of a newer format.
    """
    facts = _facts(path)
    version = facts.get("format_version")
    if not isinstance(version, int):
        raise CheckpointError(
            f"{path} is no quantized checkpoint of edadm; make one with `edadm reconstruct`"
        )
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format {version}, this edadm reads up to {FORMAT_VERSION}; upgrade edadm"
        )
    return facts


def is_quantized(path: Path) -> bool:
    """Whether a safetensors file is a quantized checkpoint of this package."""
    return "format_version" in _facts(path)
