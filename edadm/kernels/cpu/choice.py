"""The route of a convolution of integers on this processor: one that is exact, the faster one where both are.

`edadm.kernels.cpu.onednn` multiplies integers, `edadm.kernels.cpu.floats` the same integers as floating-point
numbers. Both turn the sum into fp32, multiply by the row's scale and add the bias, each with one rounding.
Where the sum of all parts cannot reach 2^24, both therefore give the same bits, on every processor; where it
can, oneDNN may round sum and zero point apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.errors import EdadmError
from edadm.kernels.cpu.floats import FloatConvolution, exact_parts
from edadm.kernels.cpu.geometry import Problem
from edadm.kernels.cpu.onednn import PackedConvolution, packed_is_exact

_ROUNDS = 3  # of each route when they are timed

Route = Callable[[Tensor, Tensor | None], Tensor]


class ExactConvolution:
    """The convolution of a problem by an exact route, the faster one where both give the same bits.

    That is timed at the first input of each shape. While `torch.compile` looks, there is no clock, and
    integers are the route.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        self.packed = PackedConvolution(problem) if packed_is_exact(problem.weight) else None
        self.floating = None if self.packed else FloatConvolution(problem)
        # no zero point has larger sums than 0
        self.interchangeable = len(exact_parts(problem.weight, 0)) == 2
        self.fastest: dict[torch.Size, Route] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> ExactConvolution:
        """Itself, as `PackedConvolution`."""
        return self

    def __reduce__(self) -> Any:
        """Refuses to be pickled, as what oneDNN packed cannot be.

        Raises:
            EdadmError: always.
        """
        raise EdadmError(
            "integers packed for this processor cannot be pickled; pickle a network with backend "
            "'simulated', or load the file again where it is needed"
        )

    @property
    def packed_bytes(self) -> int:
        """The bytes of the weight as it was given, as oneDNN packed it, and as floating-point numbers."""
        count = self.problem.weight.numel()
        return count * (1 + (self.packed is not None) + 4 * (self.floating is not None))

    def __call__(
        self, integers: Float[Tensor, "n c h w"], bias: Float[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "n rows p q"]:
        """The convolution plus the bias; spoils the integers: codes minus zero point, channels last."""
        return self._route(integers, bias)(integers, bias)

    def _route(self, integers: Tensor, bias: Tensor | None) -> Route:
        """The route for an input of this shape."""
        if self.packed is None:
            assert self.floating is not None
            return self.floating
        if not self.interchangeable or torch.compiler.is_compiling():
            return self.packed
        if integers.shape not in self.fastest:
            self.floating = self.floating or FloatConvolution(self.problem)
            routes: tuple[Route, ...] = (self.packed, self.floating)
            self.fastest[integers.shape] = min(routes, key=lambda route: _seconds(route, integers, bias))
            if self.floating not in self.fastest.values():
                self.floating = None  # four bytes a weight
        return self.fastest[integers.shape]


def _seconds(route: Route, integers: Tensor, bias: Tensor | None) -> float:
    """The least time of some rounds, after one that does not count."""
    times = []
    for _ in range(_ROUNDS + 1):
        spoiled = integers.clone()
        begin = time.perf_counter()
        route(spoiled, bias)
        times.append(time.perf_counter() - begin)
    return min(times[1:])
