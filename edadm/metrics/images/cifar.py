"""CIFAR-10 as its authors publish it: batches of 10,000 images, read without executing their pickles."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from edadm.artifacts import reading
from edadm.config.inputs.sets import CIFAR_TRAINING, is_batch
from edadm.errors import EdadmError
from edadm.metrics.images.pictures import Stored
from edadm.networks.weights.packed.pickles import Name, Thing, read_pickle

SIDE = 32
_VALUES = 3 * SIDE * SIDE
_MAKERS = {Name(module, "_reconstruct") for module in ("numpy.core.multiarray", "numpy._core.multiarray")}


def batches_of(files: Sequence[Stored], place: Path) -> list[Stored]:
    """The five training batches among files, in order; or the one file that there is.

    Raises:
        EdadmError: not all five are there.
    """
    by_name = {Path(str(file)).name.removesuffix(".bin"): file for file in files}
    if len(by_name) == 1:
        return list(by_name.values())
    if missing := [name for name in CIFAR_TRAINING if name not in by_name]:
        raise EdadmError(f"{place} lacks {missing[0]} of CIFAR-10's training images; fetch the archive again")
    return [by_name[name] for name in CIFAR_TRAINING]


def read_batch(file: Stored) -> UInt8[np.ndarray, "n 3 32 32"]:
    """The images of a batch, `data_batch_1` or `data_batch_1.bin`.

    Raises:
        DamagedError: no such file, or a damaged one.
    """
    with reading(Path(str(file)), "fetch it again", what="a batch of CIFAR-10"), file.open("rb") as stored:
        content = stored.read()
        rows = _binary(content) if str(file).endswith(".bin") else _pickled(content)
    return rows.reshape(-1, 3, SIDE, SIDE)


def _binary(content: bytes) -> np.ndarray:
    if not content or len(content) % (1 + _VALUES):
        raise ValueError("it is cut short")
    return np.frombuffer(content, np.uint8).reshape(-1, 1 + _VALUES)[:, 1:]


def _pickled(content: bytes) -> np.ndarray:
    found: Any = read_pickle(io.BytesIO(content), _nothing)
    data = found.get("data") if isinstance(found, dict) else None
    if not (isinstance(data, Thing) and data.maker in _MAKERS and isinstance(data.state, tuple)):
        raise ValueError("it holds no array `data`")
    _, shape, dtype, _, values = data.state
    if isinstance(values, Thing) and values.maker == Name("_codecs", "encode"):
        values = values.arguments[0]  # as Python 3 writes bytes in old protocols
    octets = values.encode("latin-1") if isinstance(values, str) else values
    plain = isinstance(dtype, Thing) and dtype.arguments[:1] == ("u1",)
    if not plain or len(shape) != 2 or shape[1] != _VALUES or len(octets) != shape[0] * _VALUES:
        raise ValueError(f"its array `data` is not uint8 (n, {_VALUES})")
    return np.frombuffer(octets, np.uint8).reshape(shape)


def _nothing(_: Any) -> None:
    """CIFAR-10 names no object outside its pickles."""


def is_cifar(names: Sequence[str]) -> bool:
    """Whether files by these names are CIFAR-10's."""
    return any(is_batch(Path(name).name) for name in names)
