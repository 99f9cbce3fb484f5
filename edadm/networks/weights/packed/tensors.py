"""Which calls in a pickle stand for tensors, and how a tensor is made of the numbers beside the pickle."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from edadm.networks.weights.packed.pickles import Name, make
from edadm.networks.weights.packed.stored import Stored

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
    "UntypedStorage": torch.uint8,
    "_UntypedStorage": torch.uint8,
}
_TENSOR = {Name("torch._utils", f"_rebuild_tensor{version}") for version in ("", "_v2", "_v3")}
_PARAMETER = {Name("torch._utils", f"_rebuild_parameter{kind}") for kind in ("", "_with_state")}
_PARAMETER |= {Name("torch._utils", "_rebuild_device_tensor_from_cpu_tensor")}
_OF_TYPE = Name("torch._tensor", "_rebuild_from_type_v2")
_PLAIN_TYPES = {
    Name("torch", "Tensor"),
    Name("torch._tensor", "Tensor"),
    Name("torch.nn.parameter", "Parameter"),
}
_PLAIN_TYPES |= {Name("torch.nn.parameter", "Buffer")}


@dataclass(frozen=True)
class Storage:
    """Numbers in a row, of which tensors are views; `first` counts from where `key` begins."""

    key: str
    dtype: torch.dtype
    count: int
    first: int = 0


def storage_named(identifier: Any, seen: dict[str, Storage]) -> Any:
    """What stands for an object outside the pickle: a storage or, before 1.6, the class of a module."""
    if not isinstance(identifier, tuple) or not identifier:
        raise TypeError("an object outside of the pickle that is no storage")
    if identifier[0] == "module":
        return identifier[1]
    kind, which, key, _, count, *views = identifier[:6]
    dtype = _DTYPES.get(which.name) if isinstance(which, Name) else None
    if kind != "storage" or dtype is None or not isinstance(count, int) or count < 0:
        raise TypeError(f"a storage of unknown type ({which if isinstance(which, Name) else 'no class'})")
    whole = seen.setdefault(str(key), Storage(str(key), dtype, count))
    if not views or views[0] is None:
        return whole
    _, first, count = views[0]
    if not (isinstance(first, int) and isinstance(count, int) and 0 <= first <= first + count <= whole.count):
        raise ValueError("a view beyond its storage")
    return Storage(whole.key, dtype, count, first)


def rebuilt(maker: Any, arguments: Any, fetch: Callable[[Storage], Tensor]) -> Any:
    """The tensor, dictionary or inert thing that a call in a pickle stands for."""
    known = isinstance(maker, Name) and isinstance(arguments, tuple)
    if known and maker == _OF_TYPE and len(arguments) == 4:
        of_type = arguments[1]
        plain = isinstance(of_type, Name) and of_type in _PLAIN_TYPES
        return rebuilt(arguments[0], arguments[2], fetch) if plain else make(maker, arguments)
    if known and maker in _PARAMETER and arguments and isinstance(arguments[0], Stored):
        return arguments[0]
    if not known or maker not in _TENSOR:
        return make(maker, arguments)
    storage, offset, size, stride = arguments[:4]
    third = maker.name.endswith("_v3")
    if any(arguments[7 if third else 6 :]) or not isinstance(storage, Storage):
        return make(maker, arguments)  # a lazily conjugated or negated one
    dtype = getattr(torch, str(getattr(arguments[6], "name", "")), None) if third else storage.dtype
    if not isinstance(dtype, torch.dtype):
        return make(maker, arguments)
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError("a tensor of impossible sizes")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    available = storage.count * storage.dtype.itemsize // dtype.itemsize
    if math.prod(size) and last >= available:
        raise ValueError("a tensor larger than what is stored of it")
    load = partial(_view, fetch, storage, dtype, tuple(size), tuple(stride), offset)
    return Stored(str(dtype).removeprefix("torch."), tuple(size), load)


def _view(
    fetch: Callable[[Storage], Tensor],
    storage: Storage,
    dtype: torch.dtype,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    offset: int,
) -> Tensor:
    """A tensor out of its storage."""
    if not math.prod(size):
        return torch.empty(size, dtype=dtype)
    raw = fetch(storage)
    if raw.data_ptr() % dtype.itemsize:
        raw = raw.clone()
    return raw.view(dtype).as_strided(size, stride, offset)


def part_of(mapped: mmap.mmap | bytearray, start: int, storage: Storage) -> Tensor:
    """The bytes of a storage, `start` being where its key's bytes begin."""
    width = storage.dtype.itemsize
    begin, length = start + storage.first * width, storage.count * width
    if begin + length > len(mapped):
        raise ValueError("it is cut short")
    return torch.frombuffer(mapped, dtype=torch.uint8, count=length, offset=begin)
