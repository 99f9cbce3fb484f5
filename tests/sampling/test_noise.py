"""One stream of random numbers per image."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edadm.sampling.noise import ImageNoise, keyed_generator


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=6, unique=True), st.integers(0, 100))
def test_an_image_gets_the_same_noise_in_whatever_batch_it_is(indices: list[int], seed: int) -> None:
    together = ImageNoise(seed, indices, (2, 3, 1))
    first, second = together.draw(), together.draw()
    for row, index in enumerate(indices):
        alone = ImageNoise(seed, [index], (2, 3, 1))
        assert torch.equal(alone.draw()[0], first[row])
        assert torch.equal(alone.draw()[0], second[row])


def test_images_seeds_and_draws_differ() -> None:
    noise = ImageNoise(0, [0, 1], (1, 8, 8))
    first, second = noise.draw(), noise.draw()
    other = ImageNoise(1, [0, 1], (1, 8, 8)).draw()
    rows = [*first, *second, *other]
    for position, row in enumerate(rows):
        assert all(not torch.equal(row, later) for later in rows[position + 1 :])


def test_noise_is_standard_normal() -> None:
    x = ImageNoise(0, range(8), (3, 32, 32)).draw()
    assert abs(x.mean().item()) < 0.02
    assert abs(x.std().item() - 1) < 0.02


def test_generators_of_different_keys_differ_and_of_equal_keys_agree() -> None:
    keys = [
        (0,),
        (1,),
        (0, "image"),
        (0, "image", 1),
        (0, "reconstruct", 1),
        (0, "image", 11),
        ("0/image", 2),
    ]
    seeds = [keyed_generator(*key).initial_seed() for key in keys]
    assert len(set(seeds)) == len(keys)
    assert keyed_generator(0, "image", 1).initial_seed() == keyed_generator(0, "image", 1).initial_seed()
