"""Recording sampler runs: every state the network was given, and how its features change over steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edadm.config.rules.timesteps import Timestep

Features = Float[Tensor, "rows channels *s"]

PIECE = 2**24  # numbers that are in fp64 at once, twice or three times


class StepRecorder:
    """An `on_step` listener that keeps the latents at the beginning of every step.

    Args:
        calls: a list to which someone else appends at every network call, to be sorted by steps afterwards.
    """

    def __init__(self, calls: list[Tensor] | None = None) -> None:
        self.latents: list[Tensor] = []
        self._calls = calls if calls is not None else []
        self._begins: list[int] = []

    def __call__(self, step: int, timestep: Timestep, latents: Float[Tensor, "n c h w"]) -> None:
        self.latents.append(latents.cpu())
        self._begins.append(len(self._calls))

    def stacked(self) -> Float[Tensor, "n steps c h w"]:
        """Trajectories, noisiest step first."""
        return torch.stack(self.latents, dim=1)

    def last_of_each_step(self) -> list[Tensor]:
        """The last call of every step: PLMS evaluates the network twice at step 0 (quirk Q11).

        The second evaluation counts.
        """
        return [self._calls[end - 1] for end in [*self._begins[1:], len(self._calls)]]


@contextmanager
def recording_inputs(module: nn.Module, rows: int, runs: int | None = None) -> Iterator[list[Tensor]]:
    """Collects the first rows of the module's input at every call inside the context, channels first.

    Args:
        module: the one to listen to.
        rows: how many rows to keep, of each part of the batch.
        runs: rows of such a part, if the batch has several: with guidance, unconditional rows and conditional
            ones.
    """
    calls: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        given = (*inputs, *named.values())[0].detach()
        if given.dim() == 3:  # a transformer's tokens, channels last
            given = given.transpose(1, 2)
        parts = given.split(runs or len(given))
        calls.append(torch.cat([part[:rows] for part in parts]))

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def step_matrices(
    features: list[Features],
) -> tuple[Float[Tensor, "steps steps"], Float[Tensor, "steps steps"]]:
    """How far the features of any two steps lie apart, as sums over rows, so that batches add up.

    With f_i the features of step i as one vector and g_i the same with every position normalised over
    channels, the first matrix is `|f_i - f_j|^2` and the second `sum of (1 - cosine over channels)` over rows
    and positions. Both come from Gram matrices, not from a loop over pairs (method, 2.3), in fp64, which the
    features become piece by piece.
    """
    rows = max(1, PIECE // (len(features) * features[0][0].numel()))
    gram = features[0].new_zeros(2, len(features), len(features), dtype=torch.float64)
    for pieces in zip(*(f.split(rows) for f in features), strict=True):
        for total, vectors in zip(gram, (pieces, _normalised(pieces)), strict=True):
            flat = torch.stack([vector.double().flatten() for vector in vectors])
            total += flat @ flat.T
    squares = gram[0].diagonal()
    distance = (squares[:, None] + squares[None, :] - 2 * gram[0]).clamp(min=0).fill_diagonal_(0)
    positions = features[0].numel() // features[0].shape[1]
    return distance, (positions - gram[1]).clamp(min=0).fill_diagonal_(0)


def _normalised(features: Iterable[Features]) -> Iterator[Features]:
    """Every position with norm 1 over channels, in fp64."""
    return (f.double() / f.double().norm(dim=1, keepdim=True).clamp(min=1e-6) for f in features)
