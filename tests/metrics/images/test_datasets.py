"""Images from shards and folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edadm.config.inputs.statistics import preparation
from edadm.errors import EdadmError
from edadm.metrics.images.datasets import ShardedImages, prepared
from edadm.metrics.images.pictures import cropped
from edadm.metrics.images.sets import FolderImages
from tests.metrics.drawn import random_images


def test_shards_are_one_sequence(tmp_path: Path) -> None:
    images = random_images(7)
    files = []
    for index, (start, end) in enumerate([(0, 3), (3, 3), (3, 7)]):
        files.append(tmp_path / f"{index}.npy")
        np.save(files[-1], images[start:end].numpy())
    found = ShardedImages(files)
    assert len(found) == 7
    assert torch.equal(torch.stack([found[index] for index in range(7)]), images)
    for index in (-1, 7):
        with pytest.raises(IndexError):
            found[index]


def test_shards_of_several_sizes_or_without_images_are_refused(tmp_path: Path) -> None:
    files = [tmp_path / f"{side}.npy" for side in (0, 4, 8)]
    for file in files:
        side = int(file.stem)
        np.save(file, np.zeros((min(side, 1), 3, side or 4, side or 4), np.uint8))
    with pytest.raises(EdadmError, match=r"hold images of several sizes \(4 x 4 and 8 x 8\)"):
        ShardedImages(files)
    with pytest.raises(EdadmError, match=r"0\.npy holds no images; generate them again"):
        ShardedImages(files[:1])


def test_the_centred_square_is_cut_before_resizing() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    square = np.asarray(cropped(Image.fromarray(wide), 5))
    assert square.shape == (5, 5, 3)
    assert (square == 200).all()
    assert np.array_equal(cropped(Image.fromarray(wide), 10), wide[:, 10:20])


def test_resizing_is_pillows_bicubic() -> None:
    pixels = random_images(1)[0]
    (found,) = (prepared(pixels[None], 20)[index] for index in range(1))
    expected = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((20, 20), Image.Resampling.BICUBIC)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), np.asarray(expected))
    assert torch.equal(prepared(pixels[None], 32)[0], pixels)
    assert preparation(20) == "centre crop to a square, bicubic to 20 px"


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    images = random_images(3)
    for name, pixels in zip(("b/0.png", "a/1.PNG", "a/0.png"), images, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / name)
    (tmp_path / "a" / "note.txt").write_text("no image")
    found = FolderImages(tmp_path, None)
    assert len(found) == 3
    assert torch.equal(torch.stack([found[index] for index in range(3)]), images.flip(0))
    assert FolderImages(tmp_path, 8)[0].shape == (3, 8, 8)
    before = found.digest()
    (tmp_path / "b" / "0.png").rename(tmp_path / "b" / "1.png")
    assert FolderImages(tmp_path, None).digest() != before


def test_grey_and_broken_files(tmp_path: Path) -> None:
    Image.new("L", (8, 6), 77).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"broken")
    with pytest.raises(
        EdadmError,
        match=r"b\.png cannot be read as an image to score \(it is no image\); replace or remove it$",
    ):
        FolderImages(tmp_path, 4)
    (tmp_path / "b.png").unlink()
    found = FolderImages(tmp_path, 4)
    assert torch.equal(found[0], torch.full((3, 4, 4), 77, dtype=torch.uint8))
    (tmp_path / "a.png").write_bytes(b"changed meanwhile")
    with pytest.raises(EdadmError, match=r"a\.png cannot be read as an image"):
        found[0]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdadmError, match=r"holds no images; put the reference images there as \.png"):
        FolderImages(tmp_path, 32)
