"""Recording full-precision sampler runs: every state the network was given, and how its features change over steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import zarr
from jaxtyping import Float
from torch import Tensor, nn

Features = Float[Tensor, "rows channels i j"]

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

    def __call__(self, step: int, timestep: int, latents: Float[Tensor, "n c h w"]) -> None:
        self.latents.append(latents.cpu())
        self._begins.append(len(self._calls))

    def stacked(self) -> Float[Tensor, "n steps c h w"]:
        """Trajectories, noisiest step first."""
        return torch.stack(self.latents, dim=1)

    def last_of_each_step(self) -> list[Tensor]:
        """Of every step the last of its calls: PLMS evaluates the network twice at step 0, and the second counts (quirk Q11)."""
        return [self._calls[end - 1] for end in [*self._begins[1:], len(self._calls)]]


@contextmanager
def recording_inputs(module: nn.Module, rows: int, runs: int | None = None) -> Iterator[list[Tensor]]:
    """Collects the first rows of the module's input at every call inside the context.

    Args:
        module: the one to listen to.
        rows: how many rows to keep, of each part of the batch.
        runs: rows of such a part, if the batch has several: with guidance, unconditional rows and conditional ones.
    """
    calls: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        parts = inputs[0].detach().split(runs or len(inputs[0]))
        calls.append(torch.cat([part[:rows] for part in parts]))

    handle = module.register_forward_pre_hook(keep)
    try:
        yield calls
    finally:
        handle.remove()


def step_matrices(features: list[Features]) -> tuple[Float[Tensor, "steps steps"], Float[Tensor, "steps steps"]]:
    """How far the features of any two steps lie apart, as sums over rows, so that batches add up.

    With f_i the features of step i as one vector and g_i the same with every position normalised over channels, the
    first matrix is `|f_i - f_j|^2` and the second `sum of (1 - cosine over channels)` over rows and positions. Both come
    from Gram matrices, not from a loop over pairs (method, 2.3), in fp64, which the features become piece by piece.
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


class TrajectoryStore:
    """A zarr group, filled batch by batch; a batch counts once its mark in `finished` is set.

    Arrays: with a condition `context` (runs, tokens, channels) fp32, and with guidance `unconditional` (tokens, channels);
    always `latents` (runs, steps, c, h, w) fp32, `timesteps` (steps,), `finished` (batches,), and per batch the sums
    `distance` and `dissimilarity` (batches, steps, steps) of `step_matrices` over `feature_elements` and
    `feature_rows`. Attributes: `first_run`, `batch_size`.
    """

    def __init__(self, path: Path, mode: str = "r"):
        self.group = zarr.open_group(path, mode=mode)

    @classmethod
    def create(
        cls,
        path: Path,
        first_run: int,
        runs: int,
        batch_size: int,
        timesteps: list[int],
        shape: tuple[int, int, int],
        context_shape: tuple[int, int] | None = None,
        unconditional: Float[Tensor, "tokens width"] | None = None,
    ) -> TrajectoryStore:
        """An empty store for `runs` trajectories of latents of `shape` (c, h, w), under contexts of `context_shape`."""
        steps, batches = len(timesteps), -(-runs // batch_size)
        group = zarr.create_group(path, attributes={"first_run": first_run, "batch_size": batch_size})
        chunk = (batch_size, 1, *shape)
        group.create_array("latents", shape=(runs, steps, *shape), chunks=chunk, dtype="float32", compressors=None)
        group.create_array("timesteps", data=np.asarray(timesteps, dtype="int64"))
        group.create_array("finished", shape=(batches,), chunks=(1,), dtype="uint8", fill_value=0)
        for name in ("distance", "dissimilarity"):
            group.create_array(name, shape=(batches, steps, steps), chunks=(1, steps, steps), dtype="float64", fill_value=0)
        group.create_array("feature_rows", shape=(batches,), chunks=(1,), dtype="int64", fill_value=0)
        group.create_array("feature_elements", shape=(batches,), chunks=(1,), dtype="int64", fill_value=0)
        if context_shape is not None:
            rows = (batch_size, *context_shape)
            group.create_array("context", shape=(runs, *context_shape), chunks=rows, dtype="float32", compressors=None)
        if unconditional is not None:
            group.create_array("unconditional", data=unconditional.cpu().numpy())
        return cls(path, mode="r+")

    @property
    def first_run(self) -> int:
        """Index of the store's first trajectory among all shards'."""
        return int(self.group.attrs["first_run"])

    @property
    def batch_size(self) -> int:
        """Trajectories per batch."""
        return int(self.group.attrs["batch_size"])

    @property
    def runs(self) -> int:
        """Number of trajectories."""
        return int(self.group["latents"].shape[0])

    def write(
        self,
        batch: int,
        latents: Float[Tensor, "n steps c h w"],
        features: list[Features],
        context: Float[Tensor, "n tokens width"] | None = None,
    ) -> None:
        """Stores a batch, its mark last; `features` holds one tensor per step, or nothing."""
        start = batch * self.batch_size
        if context is not None:
            self.group["context"][start : start + len(context)] = context.cpu().numpy()
        self.group["latents"][start : start + len(latents)] = latents.numpy()
        if features:
            distance, dissimilarity = step_matrices(features)
            self.group["distance"][batch] = distance.cpu().numpy()
            self.group["dissimilarity"][batch] = dissimilarity.cpu().numpy()
            self.group["feature_rows"][batch] = len(features[0])
            self.group["feature_elements"][batch] = features[0].numel()
        self.group["finished"][batch] = 1

    def unfinished(self) -> list[int]:
        """Batches still to be collected."""
        return [int(batch) for batch in np.flatnonzero(self.group["finished"][:] == 0)]
