"""Which images a gallery shows, and maps of their errors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edadm.report.gallery.images import (
    BUDGET,
    COLORS,
    LEVELS,
    Chosen,
    chosen,
    count_images,
    heat_map,
    images_at,
    legend,
    pictures,
)

from ..test_figures import pixels


@pytest.mark.parametrize(
    ("images", "size", "variants", "expected"),
    [
        (3, (32, 32), 6, Chosen([0, 1, 2], 3, 1)),
        (256, (32, 32), 6, Chosen(list(range(0, 256, 16)), 256, 1)),
        (50_000, (256, 256), 3, Chosen([index * 5_000 for index in range(10)], 50_000, 1)),
        (50_000, (512, 512), 6, Chosen([index * 10_000 for index in range(5)], 50_000, 2)),
        (50_000, (512, 512), 20, Chosen([index * 50_000 // 6 for index in range(6)], 50_000, 4)),
        (8, (64, 256), 1, Chosen(list(range(8)), 8, 1)),
    ],
)
def test_noises_are_spread_evenly_and_fit_a_page(images, size, variants, expected):
    found = chosen(images, size, variants)
    assert found == expected
    height, width = (side // found.reduced for side in size)
    assert 3 * height * width * variants * len(found.indices) <= BUDGET


def test_images_come_from_whichever_file_has_them(tmp_path: Path):
    images = np.arange(10 * 12, dtype=np.uint8).reshape(10, 3, 2, 2)
    files = [tmp_path / f"{shard}.npy" for shard in range(3)]
    for file, part in zip(files, (images[:4], images[4:5], images[5:]), strict=True):
        np.save(file, part)
    assert count_images(files) == 10
    np.testing.assert_array_equal(images_at(files, [0, 3, 4, 9]), images[[0, 3, 4, 9]])


def test_a_color_stands_for_each_doubling_of_the_error():
    error = np.array([[0, 0.99, 1, 2, 3.9, 4], [8, 16, 32, 63.9, 64, 255]])
    shown = np.asarray(heat_map(error).convert("RGB")).tolist()
    bands = [[0, 0, 1, 2, 2, 3], [4, 5, 6, 6, 7, 7]]
    assert shown == [[list(COLORS[band]) for band in row] for row in bands]
    assert [one["words"] for one in legend()][:3] == ["below 1", "1 to 2", "2 to 4"]
    assert len(legend()) == len(LEVELS) + 1 == len({one["color"] for one in legend()})


def test_errors_are_measured_before_images_are_reduced():
    reference = np.full((1, 3, 4, 4), 100, np.uint8)
    image = reference.copy()
    image[0, :, ::2] += 8  # rows above and below differ in sign, and would average out
    image[0, :, 1::2] -= 8
    (found,) = pictures(image, reference, reduced=2)
    assert found.mean == 8
    assert found.psnr == pytest.approx(10 * math.log10(255**2 / 64))
    assert pixels(found.uri).shape == (2, 2, 3)
    assert set(pixels(found.uri).flat) == {100}
    np.testing.assert_array_equal(pixels(found.heat), np.full((2, 2), 4))


def test_without_full_precision_there_are_no_errors():
    image = np.zeros((1, 3, 4, 4), np.uint8)
    (found,) = pictures(image, None, 1)
    assert (found.heat, found.mean, found.psnr) == ("", None, None)
    (same,) = pictures(image, image, 1)
    assert (same.mean, same.psnr) == (0, math.inf)
