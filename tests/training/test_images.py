"""Folders of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edadm.errors import EdadmError
from edadm.training.images import read_image_folder


def write(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (4, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), colour, dtype="uint8")).save(path)


def test_classes_are_sorted_folders(tmp_path: Path) -> None:
    write(tmp_path / "dog" / "b.png", (1, 2, 3))
    write(tmp_path / "cat" / "a.png", (4, 5, 6))
    write(tmp_path / "dog" / "a.png", (7, 8, 9))
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    images, labels, classes = read_image_folder(tmp_path)
    assert classes == ["cat", "dog"]
    assert labels.tolist() == [0, 1, 1]
    assert images.shape == (3, 3, 3, 4)
    assert images[:, :, 0, 0].tolist() == [[4, 5, 6], [7, 8, 9], [1, 2, 3]]


def test_an_empty_or_absent_folder_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(EdadmError, match="holds no images; give a folder with one sub-folder"):
            read_image_folder(folder)


def test_images_of_different_sizes_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png", (0, 0, 0))
    write(tmp_path / "a" / "2.png", (0, 0, 0), (5, 5))
    with pytest.raises(EdadmError, match="have different sizes; resize them to one size first"):
        read_image_folder(tmp_path)
