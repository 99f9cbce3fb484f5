"""Storage trackers find the memory that operations made and that somebody still refers to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def storages(values: Any) -> Iterator[torch.UntypedStorage]:
    """The storages of all tensors in nested lists, tuples and dicts."""
    return (leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


class StorageTracker(TorchDispatchMode):
    """A storage tracker notes every operation's new storages inside its context, without keeping them alive.

    Memory that an operation only refers to (views, results in place, weights, inputs of the network) is
    somebody else's. The passes that greenlets hold back keep their tensors in suspended Python frames; this
    is how they are found there.
    """

    def __init__(self) -> None:
        super().__init__()
        # By address, which a weak reference keeps from being used again.
        self._made: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = list(storages((args, kwargs)))
        self.use(given)
        result = func(*args, **(kwargs or {}))
        known = {storage._cdata for storage in given}
        for storage in storages(result):
            if storage._cdata not in known:
                self._made[storage._cdata] = StorageWeakRef(storage)
        self.done()
        return result

    def use(self, given: Sequence[torch.UntypedStorage]) -> None:
        """Told which storages an operation is about to read or change."""

    def done(self) -> None:
        """Told when an operation is over and its new storages are noted."""

    def alive(self) -> dict[int, torch.UntypedStorage]:
        """Storages made inside the context that are still referred to, by their address, the oldest first."""
        found = {
            address: torch.UntypedStorage._new_with_weak_ptr(ref.cdata) for address, ref in self._made.items()
        }
        self._made = {address: ref for address, ref in self._made.items() if found[address] is not None}
        return {address: storage for address, storage in found.items() if storage is not None}

    def bytes_alive(self) -> int:
        """Bytes of the storages that are still referred to."""
        return sum(storage.nbytes() for storage in self.alive().values())


class PeakTracker(StorageTracker):
    """A storage tracker that remembers the most bytes that were alive at once."""

    most = 0

    def done(self) -> None:
        self.most = max(self.most, self.bytes_alive())
