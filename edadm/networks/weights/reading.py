"""Files of weights, told apart by their content, whatever they are called."""

from __future__ import annotations

import json
import os
import struct
import tarfile
import zipfile
import zlib
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from edadm.console import say
from edadm.networks.weights.containers import Averaged, chosen, weights_in
from edadm.networks.weights.errors import CheckpointError, unreadable
from edadm.networks.weights.known.identify import foreign_file, refuse_useless
from edadm.networks.weights.packed.comfy import dequantized
from edadm.networks.weights.packed.stored import Container, Stored
from edadm.networks.weights.packed.torch_files import open_legacy, open_zip

DAMAGE = (
    *(SafetensorError, zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error),
    *(
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        OSError,
        EOFError,
        RuntimeError,
        MemoryError,
    ),
)  # what readers raise where bytes are not what they should be
_DTYPES = {
    **{f"F{bits}": f"float{bits}" for bits in (64, 32, 16)},
    **{f"I{bits}": f"int{bits}" for bits in (64, 32, 16, 8)},
    **{f"U{bits}": f"uint{bits}" for bits in (64, 32, 16, 8)},
    **{
        "BF16": "bfloat16",
        "BOOL": "bool",
        "C64": "complex64",
        "F8_E4M3": "float8_e4m3fn",
        "F8_E5M2": "float8_e5m2",
    },
}


def read_state(path: Path, ema: Averaged = "auto") -> dict[str, Tensor]:
    """The tensors of a safetensors or torch checkpoint by name, on the CPU; no pickle is executed.

    What training programs put around and beside a network's state is taken off (`docs/checkpoints.md`).

    Args:
        path: of a file.
        ema: True for averaged weights, False for those as trained, "auto" for averages where there are any.

    Raises:
        CheckpointError: damaged, holding anything but tensors, or without what `ema` asks for.
    """
    container = open_container(path)
    try:
        weights = weights_in(container.content, path)
    except CheckpointError:
        refuse_useless(container, path)  # says what it is, if that is known
        raise
    state, line = chosen(weights, ema, path)
    try:
        tensors = {name: stored.load() for name, stored in state.items()}
    except DAMAGE as error:
        raise _unreadable(path, error) from None
    for told in filter(None, (line, container.note)):
        say(told)
    return tensors


def open_container(path: Path) -> Container:
    """What a file holds, with tensors that are not read yet.

    Raises:
        CheckpointError: no file of weights, or a damaged one.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(9)
        if start[:4] == b"PK\x03\x04":
            return open_zip(path)
        if start[8:] == b"{":
            return _open_safetensors(path)
        if start[:1] == b"\x80":
            return open_legacy(path)
        if error := foreign_file(path):
            raise error
        return open_legacy(path)  # pickles of protocol 0 begin with any letter
    except CheckpointError:
        raise
    except DAMAGE as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: BaseException) -> CheckpointError:
    """The error for a file of which a reader raised something."""
    if isinstance(error, OSError) and error.errno:
        because = os.strerror(error.errno).lower()
        return CheckpointError(f"{path} cannot be read ({because}); make it readable, or name another file")
    return unreadable(path, _reason(error))


def _reason(error: BaseException) -> str:
    """Half a sentence."""
    if isinstance(error, RecursionError | MemoryError):
        return "it is nested too deeply, or names impossible sizes"
    if isinstance(error, zipfile.BadZipFile) and "not a zip" in str(error):
        return "it is cut short: the end of its archive is missing"
    text = " ".join((str(error) or type(error).__name__).split()).split(". ")[0]
    return text.encode("unicode_escape").decode()[:200]


def _open_safetensors(path: Path) -> Container:
    """A safetensors file: its header says what is in it.

    Raises:
        SafetensorError, ValueError, KeyError, TypeError: damaged.
    """
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > path.stat().st_size:
            raise ValueError("it is cut short, or no safetensors file")
        header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", None) or {}
    whole = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if whole > path.stat().st_size:
        raise ValueError(f"it is cut short: {path.stat().st_size:,} of {whole:,} bytes are there")
    opened = safe_open(path, "pt")
    content = {
        name: Stored(
            _DTYPES.get(entry["dtype"], str(entry["dtype"]).lower()),
            tuple(entry["shape"]),
            partial(opened.get_tensor, name),
        )
        for name, entry in header.items()
    }
    told = {str(key): str(value) for key, value in metadata.items()}
    return dequantized(Container("a safetensors file", content, told), path)
