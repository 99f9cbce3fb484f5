"""Digests of what files mean.

Settings count as sorted JSON; tensors by name, type, shape and bytes, in any order.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edadm.artifacts.errors import DamagedError
from edadm.artifacts.failures import reading

_PIECE = 1 << 22
_ROWS = 256  # read at once
_LONGEST_HEADER = 100_000_000  # bytes; the library's own bound
_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"}
_NAMES |= {f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)}
_NAMES |= {f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)}
_NAMES |= {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "C64": "complex64"}


class Header(NamedTuple):
    """The head of a safetensors file: its metadata, its entries by tensor name, and where numbers begin."""

    metadata: dict[str, str]
    entries: dict[str, dict[str, Any]]
    start: int


def canonical(content: Any) -> str:
    """JSON with sorted keys and no spaces: equal content gives equal text."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def sha256_of(content: Any) -> str:
    """The digest of what JSON can say."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """The digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_digest(tensors: Mapping[str, Any], prefix: str = "") -> str:
    """The digest of torch tensors, as `safetensors_digest` finds it in a file that holds them."""
    import torch

    sha256 = hashlib.sha256(prefix.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha256.update(_entry(name, str(tensor.dtype).removeprefix("torch."), tensor.shape))
        sha256.update(tensor.flatten().view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def rows_digest(files: Sequence[Path]) -> str:
    """The digest of the rows of `.npy` files in order, in however many files they lie.

    Raises:
        DamagedError: a file is no such file.
    """
    import numpy as np

    stacks = []
    for file in files:
        with reading(file, "make it again"):
            stacks.append(np.load(file, mmap_mode="r", allow_pickle=False))
    shape = [sum(map(len, stacks)), *stacks[0].shape[1:]] if stacks else []
    sha256 = hashlib.sha256(canonical([str(stacks[0].dtype) if stacks else "", shape]).encode())
    for stack in stacks:
        for begin in range(0, len(stack), _ROWS):
            sha256.update(np.ascontiguousarray(stack[begin : begin + _ROWS]).data)
    return sha256.hexdigest()


def safetensors_digest(path: Path, prefix: str = "") -> str:
    """The digest of the tensors of a safetensors file, read piece by piece; its metadata does not count.

    Args:
        prefix: text that counts before the tensors; a quantized checkpoint's own digest begins with its
            facts.

    Raises:
        DamagedError: no whole safetensors file.
    """
    header = read_header(path)
    sha256 = hashlib.sha256(prefix.encode())
    with reading(path), open(path, "rb") as file:
        for name in sorted(header.entries):
            entry = header.entries[name]
            sha256.update(_entry(name, _NAMES.get(entry["dtype"], entry["dtype"].lower()), entry["shape"]))
            begin, end = entry["data_offsets"]
            file.seek(header.start + begin)
            while begin < end:
                piece = file.read(min(_PIECE, end - begin))
                if not piece:
                    raise DamagedError(f"{path} became shorter while it was read; make it again")
                sha256.update(piece)
                begin += len(piece)
    return sha256.hexdigest()


def read_header(path: Path) -> Header:
    """The head of a safetensors file, whose tensors must fill the rest of the file without gaps.

    Raises:
        DamagedError: absent, or not so.
    """
    with reading(path):
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(size - 8, _LONGEST_HEADER):
                raise ValueError("it is no safetensors file, or cut off in its header")
            entries = json.loads(file.read(length))
        metadata = entries.pop("__metadata__", {})
        spans = sorted(tuple(map(int, entry["data_offsets"])) for entry in entries.values())
        ends = [0, *(end for _, end in spans)]
        gaps = any(begin != end for (begin, _), end in zip(spans, ends, strict=False))
        if gaps or any(end < begin for begin, end in spans):
            raise ValueError("its tensors overlap or leave gaps")
        if ends[-1] != size - 8 - length:
            raise ValueError(f"its tensors take {ends[-1]} bytes, it has {size - 8 - length}")
        if not all(
            isinstance(entry["dtype"], str) and math.prod(entry["shape"]) >= 0 for entry in entries.values()
        ):
            raise ValueError("its header is not in order")
        return Header(metadata, entries, 8 + length)


def _entry(name: str, dtype: str, shape: Any) -> bytes:
    return canonical([name, dtype, list(shape)]).encode()
