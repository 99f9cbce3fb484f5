"""Recorded full-precision sampler runs on disk, with digests by which damage is found."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float
from torch import Tensor

from edadm.artifacts import Facts, placing
from edadm.artifacts.digest import canonical, sha256_of
from edadm.artifacts.metadata import KEY, stamped
from edadm.config.rules.timesteps import Timestep
from edadm.networks.inputs import TOLD
from edadm.sampling.trajectory import Features, step_matrices


def unconditional_array(name: str) -> str:
    """The array that holds what an input of a network is without a condition."""
    return "unconditional" if name == "context" else f"unconditional_{name}"


_ROWS = ("latents", *TOLD)  # arrays with a row per run
_SUMS = ("distance", "dissimilarity", "feature_rows", "feature_elements")  # and with one per batch
_NOTHING = tuple(unconditional_array(name) for name in TOLD)
_OTHERS = ("timesteps", *_NOTHING, "finished", "digests")


class TrajectoryStore:
    """A zarr group, filled batch by batch; a batch counts once its mark in `finished` is set.

    Arrays: with a condition whatever runs are told, by name of the input, such as `context` (runs, tokens,
        channels) fp32, and with guidance `unconditional` (tokens, channels), of other inputs
        `unconditional_NAME`; always `latents` (runs, steps, c, h, w) fp32, `timesteps` (steps,), `finished`
        (batches,), `digests` (batches, 32), and per batch the sums `distance` and `dissimilarity` (batches,
        steps, steps) of `step_matrices` over `feature_elements` and `feature_rows`. Attributes: `first_run`,
        `batch_size`, and, once all batches are there, `edadm`. The states of a batch are one
        file, a shard of zarr, with a chunk for each step; in stores of edadm 0.2 each chunk is a file. Zarr
        keeps no chunk that is all zero, and reads an absent one as zeros: only digests tell a lost one.
    """

    def __init__(self, path: Path, mode: str = "r"):
        self.path, self.group = path, zarr.open_group(path, mode=mode)
        self.batch_digests: list[str] = []  # once `content` was read
        self._whole: dict[
            int, bytes
        ] = {}  # digests of batches that this process wrote, or read and found whole

    @classmethod
    def create(
        cls,
        path: Path,
        first_run: int,
        runs: int,
        batch_size: int,
        timesteps: list[Timestep],
        shape: tuple[int, int, int],
        nothing: Mapping[str, Tensor] | None = None,
        is_guided: bool = False,
        kept: Mapping[str, Tensor] | None = None,
    ) -> TrajectoryStore:
        """An empty store for `runs` trajectories of latents of `shape` (c, h, w).

        Args:
            nothing: by name of the input, what a run without a condition is told; runs are told as much.
            is_guided: whether that is kept.
            kept: like `nothing`, but with no row that guidance puts in its place.
        """
        steps, batches = len(timesteps), -(-runs // batch_size)
        group = zarr.create_group(path, attributes={"first_run": first_run, "batch_size": batch_size})

        def per_batch(name: str, dtype: str, *own: int) -> None:
            group.create_array(name, shape=(batches, *own), chunks=(1, *own), dtype=dtype, fill_value=0)

        chunk, file = (batch_size, 1, *shape), (batch_size, steps, *shape)
        layout: dict[str, Any] = {"chunks": chunk, "shards": file, "compressors": None}
        group.create_array("latents", shape=(runs, steps, *shape), dtype="float32", **layout)
        kind = "int64" if all(isinstance(timestep, int) for timestep in timesteps) else "float32"
        group.create_array("timesteps", data=np.asarray(timesteps, dtype=kind))
        per_batch("finished", "uint8")
        per_batch("digests", "uint8", 32)
        per_batch("distance", "float64", steps, steps)
        per_batch("dissimilarity", "float64", steps, steps)
        per_batch("feature_rows", "int64")
        per_batch("feature_elements", "int64")
        for name, told in {**(nothing or {}), **(kept or {})}.items():
            rows, whole = (batch_size, *told.shape), (runs, *told.shape)
            dtype = "float32" if told.is_floating_point() else "int64"
            group.create_array(name, shape=whole, chunks=rows, dtype=dtype, compressors=None)
            if is_guided and name not in (kept or {}):
                group.create_array(unconditional_array(name), data=told.cpu().numpy())
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

    @property
    def batches(self) -> int:
        """Number of batches, of which the last may have fewer trajectories."""
        return int(self.group["finished"].shape[0])

    def write(
        self,
        batch: int,
        latents: Float[Tensor, "n steps c h w"],
        features: list[Features],
        told: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Stores a batch, its digest and its mark last.

        Args:
            batch: which.
            latents: the states of its runs.
            features: one tensor per step, or nothing.
            told: what each run is told, by name of the input.
        """
        steps = latents.shape[1]
        content: dict[str, Any] = {"latents": latents.numpy(), "feature_rows": 0, "feature_elements": 0}
        content |= {name: np.zeros((steps, steps)) for name in ("distance", "dissimilarity")}
        content |= {name: rows.cpu().numpy() for name, rows in (told or {}).items()}
        if features:
            distance, dissimilarity = step_matrices(features)
            content |= {"distance": distance.cpu().numpy(), "dissimilarity": dissimilarity.cpu().numpy()}
            content |= {"feature_rows": len(features[0]), "feature_elements": features[0].numel()}
        with placing(self.path):
            self._remove(batch)
            for name, array in content.items():
                self.group[name][self._place(name, batch)] = array
            digest = self._digest(content)
            self.group["digests"][batch] = np.frombuffer(digest, dtype="uint8")
            self.group["finished"][batch] = 1
        self._whole[batch] = digest

    def unfinished(self) -> list[int]:
        """Batches still to be collected.

        Those without a mark, and those whose content is not what was written.
        """
        left = []
        for batch in range(self.batches):
            try:
                digest = self.digest_of(batch) if self.group["finished"][batch] == 1 else b""
                whole = bool(digest) and digest == self._stated(batch)
            except Exception:  # zarr and its codecs raise many kinds
                whole = False
            if whole:
                self._whole[batch] = digest
            else:
                self._whole.pop(batch, None)
                left.append(batch)
        return left

    def digest_of(self, batch: int) -> bytes:
        """The digest of what the store holds of a batch; raises whatever zarr raises."""
        names = [name for name in (*_ROWS, *_SUMS) if name in self.group]
        return self._digest({name: self.group[name][self._place(name, batch)] for name in names})

    def stated(self) -> Facts | None:
        """What a finished store says of itself; None of edadm 0.1.0's, which say nothing."""
        found = self.group.attrs.get(KEY)
        return found if isinstance(found, dict) else None

    def content(self) -> str:
        """The digest of all that the store holds, read batch by batch; raises whatever zarr raises."""
        return self._content(self.digest_of)

    def _content(self, digest_of: Callable[[int], bytes]) -> str:
        self.batch_digests = [digest_of(batch).hex() for batch in range(self.batches)]
        timesteps = self.group["timesteps"][:].tolist()
        head = [self.first_run, self.batch_size, self.arrays(), timesteps, *self._of_nothing()]
        return sha256_of([head, self.batch_digests])

    def common(self) -> list[Any]:
        """What all shards of a collection have in common, however many there are."""
        arrays = {name: [shape[1:], dtype] for name, (shape, dtype) in self.arrays().items()}
        return [self.batch_size, arrays, self.group["timesteps"][:].tolist(), *self._of_nothing()]

    def _of_nothing(self) -> list[str]:
        """The digests of what says nothing, where trajectories are guided."""
        there = (self.group[name][:] for name in _NOTHING if name in self.group)
        return [hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() for array in there]

    def arrays(self) -> dict[str, Any]:
        """Shape and type of each array."""
        names = sorted(name for name in (*_ROWS, *_SUMS, *_OTHERS) if name in self.group)
        found = {name: self.group[name] for name in names}  # Snakemake puts a file of its own beside them
        return {name: [list(array.shape), str(array.dtype)] for name, array in found.items()}

    def seal(self, known: Facts) -> str:
        """Writes into the store what it is and what it holds, when all batches are there.

        Batches that this process wrote or found whole are not read again; whoever uses the store reads all.
        Returns the digest of its content.
        """
        content = self._content(lambda batch: self._whole.get(batch) or self.digest_of(batch))
        with placing(self.path):
            self.group.attrs[KEY] = stamped(known | {"arrays": self.arrays()}, content)
        return content

    def _stated(self, batch: int) -> bytes:
        return bytes(self.group["digests"][batch].tobytes())

    def _place(self, name: str, batch: int) -> Any:
        if name not in _ROWS:
            return batch
        start = batch * self.batch_size
        return slice(start, min(start + self.batch_size, self.runs))

    def _digest(self, content: dict[str, Any]) -> bytes:
        """Of a batch's arrays, each as it is stored."""
        digest = hashlib.sha256()
        for name in sorted(content):
            array = np.ascontiguousarray(content[name], dtype=self.group[name].dtype)
            shape = list(np.shape(content[name]))
            digest.update(canonical([name, str(array.dtype), shape]).encode())
            digest.update(array.reshape(-1).view("uint8").data)
        return digest.digest()

    def _remove(self, batch: int) -> None:
        """Removes the chunks of a batch: zarr would read a damaged one before it writes to a part of it."""
        for name in (*_ROWS, *_SUMS, "digests", "finished"):
            chunk = self.path / name / "c" / str(batch)
            shutil.rmtree(chunk, ignore_errors=True)
            with suppress(OSError):
                chunk.unlink()
