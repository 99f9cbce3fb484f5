"""Real images to score against: statistics of ours (HDF5) or of others (npz), and how ours are made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edadm.config.files.sources import file_sha256
from edadm.config.inputs.statistics import HELD_OUT, SIZES, arrays_of_others, statistics_head
from edadm.errors import EdadmError
from edadm.metrics.extractors.extract import Advance, build_extractor, feature_batches
from edadm.metrics.images.datasets import Images
from edadm.metrics.scores.frechet import Statistics, load_features, load_statistics, save_statistics

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Reference:
    """Statistics by layer, pooled features of some real images if they were kept, and facts of the set.

    `held_out` are pooled features of real images that the statistics are not of, if there are any.

    `facts` has `set` and `sha256`, and of our own files `extractor`, `images`, and where known
    `weights_sha256` and `preparation`.
    """

    layers: dict[str, Statistics]
    features: Float[Tensor, "n d"] | None
    facts: dict[str, Any]
    held_out: Float[Tensor, "m d"] | None = None


def load_reference(path: Path) -> Reference:
    """Statistics in an `.h5` of `edadm reference-statistics`, or in an `.npz` with `mu` and `sigma`.

    The latter may hold `mu_s` and `sigma_s` as well.

    The latter are the files of pytorch-fid (`--save-stats`) and of guided-diffusion's reference batches,
    whose `_s` arrays are for sFID. They do not say by which network they were made, nor of how many images.

    Raises:
        EdadmError: neither of these.
    """
    if path.suffix != ".npz":
        layers, facts = load_statistics(path)
        return _sound(path, Reference(layers, load_features(path), facts, load_features(path, HELD_OUT)))
    facts = statistics_head(path).facts | {"sha256": file_sha256(path)}
    layers = {layer: {"mu": mu, "sigma": sigma} for layer, (mu, sigma) in arrays_of_others(path).items()}
    return _sound(path, Reference(layers, None, facts))


def _sound(path: Path, found: Reference) -> Reference:
    """The reference in fp64, if its numbers can be means, covariances and features.

    Raises:
        EdadmError: they cannot; says which.
    """
    layers = {}
    for layer, arrays in found.layers.items():
        for name, array in arrays.items():
            if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
                raise EdadmError(
                    f"{path}: {name} of {layer} holds {_kind(array)}; make or fetch these statistics again"
                )
        mu, sigma = (arrays[name].astype(np.float64) for name in ("mu", "sigma"))
        if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not _is_covariance(sigma):
            raise EdadmError(
                f"{path}: sigma of {layer} is no covariance of features {mu.shape}; make or fetch these "
                "statistics again"
            )
        layers[layer] = {"mu": mu, "sigma": sigma}
    for kept in (found.features, found.held_out):
        if kept is not None and (
            kept.ndim != 2 or kept.shape[1:] != layers["pooled"]["mu"].shape or not kept.isfinite().all()
        ):
            raise EdadmError(f"{path}: its kept features are damaged; make these statistics again")
    return replace(found, layers=layers)


def _kind(array: np.ndarray) -> str:
    return (
        "numbers that are not finite"
        if np.issubdtype(array.dtype, np.floating)
        else f"{array.dtype}, not floating-point numbers"
    )


def _is_covariance(sigma: np.ndarray) -> bool:
    """Symmetric, and no covariance above what its variances allow; to rounding of fp32."""
    variances = np.diagonal(sigma)
    scale = variances.max(initial=0.0) * TOLERANCE
    if (variances < -scale).any() or np.abs(sigma - sigma.T).max(initial=0.0) > scale:
        return False
    deviations = np.sqrt(variances.clip(min=0))
    return bool((np.abs(sigma) <= np.outer(deviations, deviations) * (1 + TOLERANCE) + scale).all())


class RunningStatistics:
    """Mean and covariance of features that come in batches, in fp64.

    Around the first batch's mean, so that digits survive.
    """

    def __init__(self) -> None:
        self.count = 0
        self.shift: Tensor | None = None

    def add(self, features: Float[Tensor, "n d"]) -> None:
        """Counts some more rows."""
        values = features.double()
        if self.shift is None:
            self.shift = values.mean(0)
            self.sums, self.products = (
                torch.zeros_like(self.shift),
                torch.zeros(len(self.shift), len(self.shift), dtype=torch.float64),
            )
        values = values - self.shift
        self.sums += values.sum(0)
        self.products += values.T @ values
        self.count += len(values)

    def result(self) -> Statistics:
        """Mean `mu` (d,) and covariance `sigma` (d, d), divided by n - 1.

        Raises:
            EdadmError: fewer than two rows.
        """
        if self.shift is None or self.count < 2:
            raise EdadmError(
                f"statistics need at least 2 images, here are {self.count}; add images to the reference set"
            )
        centred = self.products - torch.outer(self.sums, self.sums) / self.count
        return {
            "mu": (self.shift + self.sums / self.count).numpy(),
            "sigma": (centred / (self.count - 1)).numpy(),
        }


def write_reference(
    output: Path,
    images: Images,
    extractor: Any,
    weights: Path | None,
    facts: dict[str, Any],
    keep: int = 0,
    batch_size: int = 64,
    advance: Advance = lambda images: None,
    device: torch.device | str = "cpu",
) -> None:
    """Writes statistics of real images, batch by batch, to an HDF5 file with `facts`.

    The extractor and the hash of its weights are among these.

    Args:
        keep: pooled features of so many images, evenly spread over the set, are kept too, for KID, precision
            and recall.
        device: where features are computed.
    """
    layers = tuple(layer for layer in SIZES[extractor] if layer != "logits")
    network = build_extractor(extractor, weights, layers)
    running = {layer: RunningStatistics() for layer in layers}
    total = len(images)
    wanted = torch.zeros(total, dtype=torch.bool)
    if keep:
        wanted[torch.linspace(0, total - 1, min(keep, total)).round().long()] = True
    kept, done = [], 0
    for batch in feature_batches(images, network, batch_size, advance, device):
        for layer, statistics in running.items():
            statistics.add(batch[layer])
        rows = len(batch["pooled"])
        kept.append(batch["pooled"][wanted[done : done + rows]])
        done += rows
    known = {"extractor": extractor, "images": total} | (
        {} if weights is None else {"weights_sha256": file_sha256(weights)}
    )
    features = torch.cat(kept).numpy() if keep else None
    save_statistics(
        output, {layer: statistics.result() for layer, statistics in running.items()}, facts | known, features
    )
