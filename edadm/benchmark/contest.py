"""Networks that are timed in turns on one batch of one GPU, each compiled one as a CUDA graph."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edadm.benchmark.kernels import sentence
from edadm.networks.families import family_of, network_call
from edadm.networks.inputs import Rows

Results = dict[str, dict[str, Any]]  # a row each by the network's name


def weight_bytes(network: nn.Module) -> int:
    """Of parameters and buffers."""
    return sum(map(_bytes, (*network.parameters(), *network.buffers())))


def _bytes(tensor: Tensor | None) -> int:
    """Of a tensor, or of those that it is made of, as torchao's are."""
    if tensor is None:
        return 0
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.numel() * tensor.element_size()


def _milliseconds(network: nn.Module, inputs: Rows) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    network_call(network, inputs)
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


class Replayed(nn.Module):
    """A network evaluated once on a batch and then replayed as a CUDA graph, whatever its inputs.

    `torch.compile`'s own graphs are not used: they leave out what they do not know, and one would not see it.
    """

    @torch.no_grad()
    def __init__(self, network: nn.Module, inputs: Rows):
        super().__init__()
        self.network, self.family = network, family_of(network).name
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                network_call(network, inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.output = (network_call(network, inputs),)

    def forward(self, *inputs: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        self._graph.replay()
        return self.output


def _warm_bytes(network: nn.Module, inputs: Rows) -> int:
    """Memory that one evaluation takes beyond weights and inputs.

    What compiling and warming up took is not counted.
    """
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    network_call(network, inputs)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


class Contest:
    """Networks that take turns on the same batch.

    One that fails has a row that says why, and the others go on.

    Args:
        inputs: the batch.
        mode: of `torch.compile`.
        on_rows: told all rows so far whenever there is one more.
    """

    def __init__(
        self, inputs: Rows, mode: str = "default", on_rows: Callable[[Results], None] = lambda rows: None
    ):
        self.inputs, self.mode, self.on_rows = inputs, mode, on_rows
        self.entries: dict[str, tuple[nn.Module, Rows]] = {}
        self.rows: Results = {}

    @contextmanager
    def guarded(self, name: str, what: str = "failed") -> Iterator[None]:
        """Turns an exception into a sentence `what` in a network's row; the network takes no further part."""
        try:
            yield
        except (
            Exception
        ) as error:  # of memory, of a compiler, of another library: whatever it is, the others are measured
            self.entries.pop(name, None)
            self.rows[name] = self.rows.get(name, {}) | {what: sentence(error)}

    @torch.no_grad()
    def enter(
        self, name: str, make: Callable[[], nn.Module], dtype: torch.dtype, compiled: bool, **notes: str
    ) -> None:
        """Makes a network, warms it up, counts its bytes, times it, and keeps it for `rounds`.

        Args:
            name: of its row.
            make: makes the network, of type `dtype`.
            dtype: of its inputs.
            compiled: by `torch.compile`, and replayed.
            notes: for its row.
        """
        with self.guarded(name):
            network, inputs = make(), self.inputs.cast(dtype)
            self.rows[name] = {"weight_bytes": weight_bytes(network), **notes}
            if compiled:
                network.compile(mode=self.mode, dynamic=False)
            for _ in range(2):
                network_call(network, inputs)
            self.rows[name]["warm_evaluation_gib"] = _warm_bytes(network, inputs) / 2**30
            self.entries[name] = (Replayed(network, inputs) if compiled else network), inputs
        self._turns([name] if name in self.entries else [], 3)
        self.on_rows(self.rows)

    def rounds(self, repeats: int = 15) -> Results:
        """Alternates between the networks, so that all see the same clocks.

        Median milliseconds and images per second of each.
        """
        self._turns(list(self.entries), repeats)
        self.on_rows(self.rows)
        return self.rows

    @torch.no_grad()
    def _turns(self, names: list[str], repeats: int) -> None:
        times: dict[str, list[float]] = {name: [] for name in names}
        for name in names * repeats:
            if name in self.entries:
                with self.guarded(name):
                    _milliseconds(*self.entries[name])
                    times[name].append(_milliseconds(*self.entries[name]))
        for name, found in times.items():
            if name in self.entries:
                ms = statistics.median(found)
                self.rows[name] |= {
                    "ms": ms,
                    "fastest_ms": min(found),
                    "samples_per_second": 1000 * len(self.inputs) / ms,
                }

    @torch.no_grad()
    def profile(self, name: str, most: int = 25) -> list[dict[str, Any]]:
        """The kernels that take most of one evaluation: name, calls, milliseconds, share in [0, 1]."""
        network, inputs = self.entries[name]
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            _milliseconds(network, inputs)
        events = [event for event in profiler.key_averages() if event.self_device_time_total > 0]
        total = sum(event.self_device_time_total for event in events)
        events.sort(key=lambda event: -event.self_device_time_total)
        return [
            {
                "kernel": e.key[:90],
                "calls": e.count,
                "ms": e.self_device_time_total / 1000,
                "share": e.self_device_time_total / total,
            }
            for e in events[:most]
        ]
