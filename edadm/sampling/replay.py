"""Calls of a network that a GPU makes again without Python, which takes most of the time of small ones."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edadm.console import gib, say
from edadm.networks.inputs import Rows

EAGER_CALLS = 2  # before a capture: kernels get compiled, libraries make their handles
MOST_GRAPHS = 8  # of one network; other shapes than those seen first are computed call by call
Predict = Callable[[Rows], Tensor]


Again = Callable[[], object]  # does captured work again
Capture = Callable[[Callable[[], Tensor]], tuple[Again, Tensor] | None]


@dataclass(frozen=True)
class _Recorded:
    """A captured call, and the memory that it reads and writes at every replay."""

    again: Again
    rows: Rows
    output: Tensor
    noted: list[Tensor]


class Replay:
    """Makes calls of one network, those of a shape that was seen before by replaying a CUDA graph.

    A replay starts the kernels that the call itself would, in the same order on memory of the same layout, so
    that results are equal bit for bit. What cannot be captured is computed call by call.

    Args:
        capture: makes a function that does some work again, and says what that writes; None where it cannot.
    """

    def __init__(self, capture: Capture | None = None) -> None:
        self._capture = _CudaGraphs() if capture is None else capture
        self._calls: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, _Recorded | None] = {}
        self._noted: list[Tensor] = []
        self._listening: Hashable = None

    @contextmanager
    def noting(self, noted: list[Tensor], listening: Hashable) -> Iterator[None]:
        """While a hook of the network appends to a list at every call, replays append what it would.

        Args:
            noted: the list.
            listening: what tells this hook from others, which append something else.
        """
        self._noted, self._listening = noted, listening
        try:
            yield
        finally:
            self._noted, self._listening = [], None

    def __call__(self, predict: Predict, rows: Rows) -> Tensor:
        """The prediction for rows, in memory that no later call changes."""
        if any(0 in tensor.stride() for tensor in rows.tensors.values()):
            return predict(rows)  # one row stands for several, and there would be no such memory to copy to
        layout = [(name, t.shape, t.stride(), t.dtype) for name, t in rows.tensors.items()]
        key = (self._listening, *layout)
        self._calls[key] = self._calls.get(key, 0) + 1
        if self._calls[key] == EAGER_CALLS + 1 and len(self._recorded) < MOST_GRAPHS:
            self._recorded[key] = self._record(predict, rows)
        recorded = self._recorded.get(key)
        if recorded is None:
            return predict(rows)
        for name, tensor in rows.tensors.items():
            recorded.rows.tensors[name].copy_(tensor)
        recorded.again()
        self._noted.extend(tensor.clone() for tensor in recorded.noted)
        return recorded.output.clone()

    @property
    def graphs(self) -> int:
        """How many calls were captured."""
        return sum(recorded is not None for recorded in self._recorded.values())

    def _record(self, predict: Predict, rows: Rows) -> _Recorded | None:
        """The call, captured; its hooks run once meanwhile, on memory that replays write."""
        own = Rows({name: _alike(tensor) for name, tensor in rows.tensors.items()})
        before = len(self._noted)
        captured = self._capture(lambda: predict(own))
        noted = self._noted[before:]
        del self._noted[before:]
        return None if captured is None else _Recorded(captured[0], own, captured[1], noted)


def _alike(tensor: Tensor) -> Tensor:
    """A copy in the same layout of memory, on which kernels are chosen."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device).copy_(
        tensor
    )


class _CudaGraphs:
    """Captures work on the current GPU, all of it on one stream and in one pool of memory.

    A graph keeps the memory of its work. Work that takes so much of it that less than half of the GPU is left
    is bound by its kernels, not by Python, and stays without one.
    """

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Again, Tensor] | None:
        self._stream = self._stream or torch.cuda.Stream()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # The outer context gives the stream back where the inner one, after an error, does not.
        outer, inner = (
            torch.cuda.stream(torch.cuda.current_stream()),
            torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"),
        )
        try:
            with outer, inner:
                output = work()
        except RuntimeError as error:  # torch has many kinds of it, for what a stream or memory refuses
            _say_that_it_is_not_captured(str(error).strip().partition("\n")[0])
            torch.cuda.synchronize()
            return None
        free, total = torch.cuda.mem_get_info()
        if free < total / 2:
            graph.reset()
            _say_that_it_is_not_captured(f"beside one, {gib(free)} of the GPU's {gib(total)} would be free")
            return None
        return graph.replay, output


def _say_that_it_is_not_captured(reason: str) -> None:
    say(f"the network is computed call by call: it cannot be captured as a CUDA graph ({reason})")
