"""The colour in the middle of an image."""

from __future__ import annotations

import pytest
import torch

from edadm.training.latent.colours import COLOURS, colours_of

PAINTED = {
    "black": [(20, 20, 20), (70, 75, 72), (60, 0, 0)],
    "white": [(250, 250, 250), (160, 155, 158), (220, 190, 200)],
    "grey": [(120, 125, 122), (100, 100, 112)],
    "red": [(200, 30, 30), (150, 40, 60)],
    "orange": [(230, 130, 20), (240, 120, 30)],
    "brown": [(110, 75, 40), (160, 130, 100)],
    "yellow": [(200, 180, 40), (140, 130, 90)],
    "green": [(40, 160, 50), (120, 125, 70)],
    "blue": [(40, 60, 200), (100, 130, 160)],
    "purple": [(130, 50, 180), (140, 90, 150)],
}


@pytest.mark.parametrize("name", COLOURS)
def test_painted_images_have_the_colour_they_were_painted_in(name: str) -> None:
    images = torch.tensor(PAINTED[name], dtype=torch.uint8)[:, :, None, None].repeat(1, 1, 8, 8)
    assert [COLOURS[index] for index in colours_of(images)] == [name] * len(images)


def test_only_the_middle_counts() -> None:
    image = torch.zeros(1, 3, 8, 12, dtype=torch.uint8)
    image[:, 2] = 200
    image[:, :, 2:6, 3:9] = torch.tensor([200, 20, 20], dtype=torch.uint8)[:, None, None]
    assert COLOURS[colours_of(image)[0]] == "red"
    assert COLOURS[colours_of(image.flip(3))[0]] == "red"
