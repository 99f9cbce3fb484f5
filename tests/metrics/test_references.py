"""Statistics of real images, ours and others'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edadm.errors import EdadmError
from edadm.metrics.extractors.cifar import NAME
from edadm.metrics.extractors.extract import extract_features
from edadm.metrics.references import RunningStatistics, load_reference, write_reference
from edadm.metrics.scores.frechet import save_statistics, statistics
from tests.metrics.drawn import random_images


def test_running_statistics_are_those_of_all_rows() -> None:
    features = 1e4 + torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    running = RunningStatistics()
    for part in features.split(7):
        running.add(part)
    found, expected = running.result(), statistics(features)
    np.testing.assert_allclose(found["mu"], expected["mu"], rtol=1e-12)
    np.testing.assert_allclose(found["sigma"], expected["sigma"], rtol=1e-9, atol=1e-9)


def test_a_single_image_has_no_statistics() -> None:
    running = RunningStatistics()
    running.add(torch.zeros(1, 3))
    with pytest.raises(EdadmError, match="at least 2 images, here are 1"):
        running.result()


def test_what_is_written_is_found_again(tmp_path: Path) -> None:
    images, told = random_images(11), []
    facts = {"set": "noise", "preparation": "none"}
    write_reference(tmp_path / "r.h5", images, NAME, None, facts, keep=4, batch_size=3, advance=told.append)
    found = load_reference(tmp_path / "r.h5")
    features = extract_features(images, NAME)
    assert sum(told) == 11
    for layer in ("pooled", "spatial"):
        np.testing.assert_allclose(
            found.layers[layer]["sigma"], statistics(features[layer])["sigma"], rtol=1e-4, atol=1e-5
        )
    assert found.features is not None
    torch.testing.assert_close(found.features, features["pooled"][[0, 3, 7, 10]], rtol=1e-4, atol=1e-4)
    assert {key: found.facts[key] for key in ("extractor", "images", "set", "preparation")} == {
        "extractor": NAME,
        "images": 11,
        **facts,
    }


def test_features_are_kept_only_on_request(tmp_path: Path) -> None:
    write_reference(tmp_path / "r.h5", random_images(5), NAME, None, {"set": "noise"})
    assert load_reference(tmp_path / "r.h5").features is None


def test_statistics_of_others_are_read(tmp_path: Path) -> None:
    arrays = {
        "mu": np.arange(3.0),
        "sigma": np.eye(3, dtype=np.float32),
        "mu_s": np.zeros(2),
        "sigma_s": np.eye(2),
    }
    np.savez(tmp_path / "adm.npz", arr_0=np.zeros((2, 4, 4, 3), np.uint8), **arrays)
    np.savez(tmp_path / "fid.npz", mu=arrays["mu"], sigma=arrays["sigma"])
    adm, fid = load_reference(tmp_path / "adm.npz"), load_reference(tmp_path / "fid.npz")
    assert set(adm.layers) == {"pooled", "spatial"}
    assert set(fid.layers) == {"pooled"}
    assert np.array_equal(adm.layers["spatial"]["sigma"], arrays["sigma_s"])
    assert (adm.facts["set"], adm.facts["images"], adm.facts["extractor"]) == ("adm", None, None)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"images": np.zeros(3)}, "has no arrays `mu` and `sigma`"),
        ({"mu": np.array([{}]), "sigma": np.eye(2)}, "cannot be read as an .npz"),
    ],
)
def test_other_archives_are_refused_and_no_pickle_is_executed(
    arrays: dict, sentence: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(EdadmError, match=sentence):
        load_reference(tmp_path / "x.npz")
    (tmp_path / "x.npz").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(
        EdadmError,
        match=r"cannot be read as an \.npz archive \(it is empty, cut short, or a web page or Git-LFS "
        r"pointer",
    ):
        load_reference(tmp_path / "x.npz")


def covariance(size: int) -> np.ndarray:
    """A covariance of some features."""
    features = np.random.default_rng(0).normal(size=(50, size))
    return np.cov(features, rowvar=False)


def changed(sigma: np.ndarray, row: int, column: int, value: float) -> np.ndarray:
    """The matrix with one other entry."""
    other = sigma.copy()
    other[row, column] = value
    return other


@pytest.mark.parametrize(
    ("mu", "sigma", "sentence"),
    [
        (np.array([0.0, np.nan, 0.0]), covariance(3), "mu of pooled holds numbers that are not finite"),
        (
            np.zeros(3),
            changed(covariance(3), 0, 1, np.inf),
            "sigma of pooled holds numbers that are not finite",
        ),
        (np.zeros(3, np.int64), covariance(3), "mu of pooled holds int64, not floating-point numbers"),
        (np.zeros(3, np.complex128), covariance(3), "mu of pooled holds complex128"),
        (np.zeros(4), covariance(3), r"sigma of pooled is no covariance of features \(4,\)"),
        (np.zeros((3, 1)), covariance(3), "sigma of pooled is no covariance"),
        (np.zeros(3), changed(covariance(3), 0, 1, 0.5), "sigma of pooled is no covariance"),
        (np.zeros(3), changed(covariance(3), 1, 1, -1.0), "sigma of pooled is no covariance"),
        (np.zeros(3), 5 - 4 * np.eye(3), "sigma of pooled is no covariance"),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_numbers_that_are_no_statistics_are_refused(
    mu: np.ndarray, sigma: np.ndarray, sentence: str, suffix: str, tmp_path: Path
) -> None:
    file = tmp_path / f"x{suffix}"
    if suffix == ".npz":
        np.savez(file, mu=mu, sigma=sigma)
    else:
        save_statistics(
            file, {"pooled": {"mu": mu, "sigma": sigma}}, {"extractor": NAME, "images": 3, "set": "x"}
        )
    with pytest.raises(EdadmError, match=sentence):
        load_reference(file)


def test_fp32_statistics_of_few_images_are_a_covariance(tmp_path: Path) -> None:
    """Rank 4 of 100, rounded to fp32: eigenvalues and entries are off by rounding, as in published files."""
    features = np.random.default_rng(0).normal(size=(5, 100)) * np.logspace(-4, 2, 100)
    np.savez(
        tmp_path / "x.npz",
        mu=features.mean(0).astype(np.float32),
        sigma=np.cov(features, rowvar=False).astype(np.float32),
    )
    assert load_reference(tmp_path / "x.npz").layers["pooled"]["sigma"].dtype == np.float64


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x89HDF\r\n\x1a\n" + bytes(200)])
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_files_of_another_kind_are_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"x{suffix}").write_bytes(content)
    with pytest.raises(
        EdadmError,
        match=rf"x\{suffix} (cannot be read as an \.npz archive|cannot be read as reference statistics)",
    ):
        load_reference(tmp_path / f"x{suffix}")
