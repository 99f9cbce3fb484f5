"""CIFAR-10's own files, whose pickles are read and not executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from edadm.errors import EdadmError
from edadm.metrics.images.opening import open_images
from tests.metrics.drawn import random_images
from tests.metrics.images.kinds import in_folder, in_tar

IMAGES = random_images(12)
NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def batch(number: int, protocol: int = 2) -> bytes:
    """Two images of twelve, as in the authors' files."""
    rows = IMAGES[2 * number : 2 * number + 2].reshape(2, -1).numpy()
    return pickle.dumps({"data": rows, "labels": [1, 2], "batch_label": "x"}, protocol)


def taken(path: Path) -> torch.Tensor:
    found = open_images([path], None)
    return torch.stack([found[index] for index in range(len(found))])


def test_training_images_come_from_the_archive_the_folder_and_the_binary_files(tmp_path: Path) -> None:
    files = {f"cifar-10-batches-py/{name}": batch(number) for number, name in enumerate(NAMES)}
    files["cifar-10-batches-py/batches.meta"] = b"not looked at"
    shuffled = dict(reversed(files.items()))
    assert torch.equal(taken(in_tar(tmp_path / "cifar-10-python.tar.gz", shuffled)), IMAGES[:10])
    folder = in_folder(tmp_path, files) / "cifar-10-batches-py"
    assert torch.equal(taken(folder), IMAGES[:10])
    assert torch.equal(taken(folder / "test_batch"), IMAGES[10:])
    binary = {
        f"{name}.bin": np.hstack([[[1]] * 2, IMAGES[2 * number : 2 * number + 2].reshape(2, -1).numpy()])
        .astype(np.uint8)
        .tobytes()
        for number, name in enumerate(NAMES)
    }
    assert torch.equal(taken(in_folder(tmp_path / "binary", binary)), IMAGES[:10])


def test_later_protocols_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(batch(3, protocol=4))
    assert torch.equal(taken(tmp_path / "test_batch"), IMAGES[6:8])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (batch(0)[:-3000], "cannot be read as a batch of CIFAR-10"),
        (pickle.dumps({"labels": [1]}), "it holds no array `data`"),
        (pickle.dumps({"data": np.zeros((2, 5), np.uint8)}, 2), r"is not uint8 \(n, 3072\)"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.float32)}, 2), r"is not uint8 \(n, 3072\)"),
    ],
)
def test_other_pickles_are_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(EdadmError, match=rf"data_batch_1 .*{sentence}|{sentence}"):
        open_images([tmp_path / "data_batch_1"], None)


def test_all_training_batches_must_be_there(tmp_path: Path) -> None:
    in_folder(tmp_path, {name: batch(0) for name in NAMES if name != "data_batch_4"})
    with pytest.raises(EdadmError, match="lacks data_batch_4 of CIFAR-10's training images"):
        open_images([tmp_path], None)
