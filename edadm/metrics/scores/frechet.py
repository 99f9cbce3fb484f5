"""Gaussian statistics of features and the Frechet distance between them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from edadm.artifacts import reading, writing
from edadm.config.files.sources import file_sha256
from edadm.config.inputs.statistics import FEATURES, HELD_OUT

Statistics = dict[str, np.ndarray]
_AGAIN = "make them with `edadm reference-statistics`"


def statistics(features: Float[Tensor, "n d"]) -> Statistics:
    """Mean `mu` (d,) and covariance `sigma` (d, d), fp64."""
    return fid_features_to_statistics(features.double())


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) (FID, arXiv 1706.08500, eq. 6)."""
    return fid_statistics_to_metric(a, b, verbose=False)[KEY_METRIC_FID]


def save_statistics(
    path: Path,
    layers: Mapping[str, Statistics],
    facts: Mapping[str, Any],
    features: Float[np.ndarray, "n d"] | None = None,
    held_out: Float[np.ndarray, "m d"] | None = None,
) -> None:
    """Statistics of some layers in an HDF5 file, with facts about the images, and features of some.

    Facts are the images' number and the extractor; `held_out` are features of images that are not among them.
    """
    with writing(path) as partial, h5py.File(partial, "w") as file:
        file.attrs["facts"] = json.dumps(dict(facts), sort_keys=True)
        for layer, values in layers.items():
            for name, array in values.items():
                file.create_dataset(f"{layer}/{name}", data=array, track_times=False)
        for name, rows in ((FEATURES, features), (HELD_OUT, held_out)):
            if rows is not None:
                file.create_dataset(name, data=rows, track_times=False)


def load_statistics(path: Path) -> tuple[dict[str, Statistics], dict[str, Any]]:
    """What `save_statistics` wrote; the facts gain the file's `sha256`.

    Raises:
        EdadmError: not such a file.
    """
    with reading(path, _AGAIN, what="reference statistics"), h5py.File(path) as file:
        layers = {
            layer: {name: group[name][:] for name in ("mu", "sigma")}
            for layer, group in file.items()
            if layer not in (FEATURES, HELD_OUT)
        }
        facts = json.loads(file.attrs["facts"])
        return layers, facts | {"sha256": file_sha256(path)}


def load_features(path: Path, name: str = FEATURES) -> Float[Tensor, "n d"] | None:
    """The pooled features of some real images that `save_statistics` wrote, if it did, in fp32."""
    with reading(path, _AGAIN, what="reference statistics"), h5py.File(path) as file:
        return torch.from_numpy(file[name][:]).float() if name in file else None
