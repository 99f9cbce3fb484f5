"""Numbers of steps that lead from noise to an image, for every number there is."""

from __future__ import annotations

from itertools import pairwise
from math import ceil
from typing import get_args

import pytest

from edadm.config.rules.steps import step_problem
from edadm.config.rules.timesteps import visited
from edadm.config.schema import Sampler

PUBLISHED = (20, 50, 100, 200, 500)


@pytest.mark.parametrize("total", [1000, 37, 3])
@pytest.mark.parametrize(("spacing", "first"), [("uniform", 0), ("uniform_from_one", 1)])
def test_equal_spacing_reaches_from_the_noisiest_timesteps_to_the_least_noisy(
    spacing: str, first: int, total: int
) -> None:
    for steps in range(2, total + 1):
        sampler = Sampler.model_construct(method="plms", spacing=spacing, steps=steps)
        problem = step_problem(sampler, total)
        if steps == total and first:
            assert (
                problem
                == f"uniform_from_one spacing of {total} timesteps has at most {total - 1} steps; lower steps"
            )
            continue
        assert problem is None
        listed = visited(sampler, total)
        assert len(listed) == steps
        assert total > listed[0] == total - ceil(total / steps) + first
        assert listed[-1] == first
        assert {a - b for a, b in pairwise(listed)} <= {total // steps, ceil(total / steps)}
        if total % steps == 0:
            assert listed[::-1] == list(range(first, total + first, total // steps))


@pytest.mark.parametrize("steps", PUBLISHED)
def test_published_lists_stay(steps: int) -> None:
    listed = visited(Sampler(steps=steps, spacing="uniform_from_one"), 1000)
    assert listed[::-1] == [timestep + 1 for timestep in range(0, 1000, 1000 // steps)]


def test_many_steps_begin_where_an_image_is_noise() -> None:
    starts = {
        steps: visited(Sampler(steps=steps, spacing="uniform_from_one"), 1000)[0]
        for steps in (30, 150, 400, 550, 999)
    }
    assert starts == {30: 967, 150: 994, 400: 998, 550: 999, 999: 999}


@pytest.mark.parametrize("method", ["dpm_solver++", "unipc"])
@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_usual_numbers_of_solver_steps_begin_at_the_last_timestep(method: str, spacing: str) -> None:
    for steps in (1, 8, 10, 20, 25, 28, 30, 50, 100):
        sampler = Sampler(method=method, spacing=spacing, steps=steps)
        assert step_problem(sampler, 1000) is None
        assert visited(sampler, 1000)[0] == 999


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 20, "spacing": "uniform_from_one"}, "set steps: 19 or 24, or spacing: trailing"),
        ({"steps": 550, "spacing": "uniform"}, "set steps: 499 or 998, or spacing: trailing"),
        ({"steps": 61, "spacing": "trailing"}, "set steps: 60 or 62, or spacing: linspace"),
        ({"steps": 999, "spacing": "uniform_from_one"}, "set steps: 998, or spacing: trailing"),
        (
            {"steps": 1, "spacing": "uniform"},
            "1 step of dpm_solver++ with uniform spacing cannot lead from noise to an image over 1000",
        ),
        (
            {"steps": 1000, "spacing": "linspace"},
            "linspace spacing of 1000 timesteps has at most 999 steps; lower steps",
        ),
        ({"steps": 1, "method": "plms", "spacing": "uniform"}, "over 1000 timesteps; set steps: 2"),
        ({"steps": 1, "method": "ddim", "spacing": "quadratic"}, "over 1000 timesteps; set steps: 2"),
        (
            {"steps": 1001, "method": "ddim", "spacing": "quadratic"},
            "quadratic spacing of 1000 timesteps has at most 1000 steps",
        ),
    ],
)
def test_what_cannot_be_names_the_nearest_that_can(settings: dict, sentence: str) -> None:
    assert sentence in (step_problem(Sampler(**{"method": "dpm_solver++"} | settings), 1000) or "")


def test_every_spacing_belongs_to_some_method() -> None:
    spacings = get_args(Sampler.model_fields["spacing"].annotation)
    for spacing in spacings:
        for method in ("ddim",) if spacing == "quadratic" else ("dpm_solver++", "unipc"):
            assert Sampler(method=method, spacing=spacing).spacing == spacing
