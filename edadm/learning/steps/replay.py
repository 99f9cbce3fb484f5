"""Replaying the learning steps of a unit as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch

from edadm.kernels.dispatch import has_kernels
from edadm.learning.steps.descent import Descent

GRAPH_WARM_UP = 3  # steps before a capture: kernels get compiled, the optimizer makes its state


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all units: cuBLAS keeps 32 MiB for each stream that it ever saw."""
    return torch.cuda.Stream(device)


@contextmanager
def stepping(descent: Descent, graphs: bool = True) -> Iterator[Callable[[], None]]:
    """A function that makes one learning step: a replayed CUDA graph where possible, else `Descent.iterate`.

    The capture covers rows, masks, forward, backward, both Adam updates and the schedules; rows of tables
    that are not on the device are brought before each replay. Steps made to warm up are undone, so that both
    ways learn the same from the same stream.
    """

    def after_bringing(iterate: Callable[[], None]) -> Callable[[], None]:
        def step() -> None:
            descent.bring()
            iterate()

        return step

    eager = after_bringing(descent.iterate)
    if not (graphs and has_kernels(descent.step)):
        yield eager
        return
    parameters = [*descent.alphas, *descent.sizes.parameters]
    kept = [parameter.detach().clone() for parameter in parameters]
    side = _side_stream(descent.step.device)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(min(GRAPH_WARM_UP, descent.settings.iterations)):
            eager()
    torch.cuda.current_stream().wait_stream(side)
    descent.optimizer.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        descent.iterate()
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)
    descent.restart()
    try:
        yield after_bringing(graph.replay)
    finally:
        graph.reset()
