"""Stages on several GPUs, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from edadm.planning.schedule import in_words, on_gpus


def row(
    stage: str, of: str, seconds: float | None, shares: int = 1, divides_itself: bool = False
) -> dict[str, Any]:
    return {
        "stage": stage,
        "of": of,
        "seconds": seconds,
        "shares": shares,
        "files": 3,
        "divides_itself": divides_itself,
    }


def plan(model: str = "m") -> dict[str, Any]:
    """100 s until the first checkpoint on one GPU, two variants of which share all before it."""
    variants = [f"{model}/t/w/{name}" for name in ("a", "b")]
    rows = [
        row("convert-checkpoint", model, 5.0),
        row("collect-trajectories", model, 40.0, shares=2),
        row("select-calibration", f"{model}/t", 10.0),
        row("set-ranges", f"{model}/t/w", 20.0),
        *(row("reconstruct", variant, 60.0) for variant in variants),
        *(row("generate", name, 80.0, 100, True) for name in (f"{model}/fp32", *variants)),
        *(row("evaluate", name, None) for name in (f"{model}/fp32", *variants)),
    ]
    return {"model": model, "stages": rows}


def test_on_one_gpu_jobs_follow_each_other_and_stages_without_one_run_beside_them() -> None:
    total = on_gpus([plan()], 1)
    on_a_gpu = 40 + 20 + 2 * 60 + 3 * 80
    assert total["gpu_seconds"] == on_a_gpu
    assert total["seconds"] == 5 + on_a_gpu  # selection runs while full precision makes images
    assert total["files"] == 12 * 3
    assert total["not_estimated"] == [f"evaluate m/{name}" for name in ("fp32", "t/w/a", "t/w/b")]


def test_on_two_gpus_variants_and_shares_run_side_by_side() -> None:
    """Collection to 25; full precision to 65 while selection, to 35, is there; ranges to 85, both variants to 145."""
    total = on_gpus([plan()], 2)
    assert total["gpu_seconds"] == 40 + 20 + 2 * 60 + 3 * 80
    assert total["seconds"] == pytest.approx(65 + 20 + 60 + 80)


def test_more_gpus_than_jobs_help_as_far_as_stages_divide_themselves() -> None:
    """Two shares of trajectories to 25; then selection, ranges, a variant on a GPU, images on eight."""
    assert on_gpus([plan()], 8)["seconds"] == pytest.approx(25 + 10 + 20 + 60 + 2 * 80 / 8)


def timed(variants: list[str]) -> dict[str, Any]:
    """Images in 80 s and scores in 30 s of each variant, whose checkpoints are there; no conversion."""
    names = [f"m/{name}" for name in ("fp32", *variants)]
    rows = [row("generate", name, 80.0) for name in names] + [row("evaluate", name, 30.0) for name in names]
    return {"model": "m", "stages": rows}


def test_scores_take_a_gpu_and_wait_for_their_images_and_those_of_full_precision() -> None:
    """On two: images to 80; those of the second variant to 160, and beside them scores to 110 and 140."""
    total = on_gpus([timed(["t/w/a", "t/w/b"])], 2)
    assert total["gpu_seconds"] == 3 * 80 + 3 * 30
    assert total["seconds"] == 160 + 30
    assert total["not_estimated"] == []


def test_scores_of_images_that_other_jobs_looked_at_take_no_gpu() -> None:
    """Images to 80, four jobs on two GPUs to 120, and what puts them together."""
    rows = [row("generate", "m/fp32", 80.0), row("extract-features", "m/fp32", 80.0, 4, True)]
    total = on_gpus([{"model": "m", "stages": [*rows, row("evaluate", "m/fp32", 5.0)]}], 2)
    assert (total["gpu_seconds"], total["seconds"]) == (160, 125)


@pytest.mark.parametrize(
    ("backend", "on_a_gpu"), [("integer", False), ("onednn", False), ("openvino", False), ("cuda_int8", True)]
)
def test_images_of_variants_for_the_cpu_alone_take_no_gpu(backend: str, on_a_gpu: bool) -> None:
    """On one GPU these are made beside those of full precision, and their scores follow."""
    total = on_gpus([timed([f"t/w/a/{backend}"])], 1)
    assert total["gpu_seconds"] == 80 + 80 * on_a_gpu + 2 * 30
    assert total["seconds"] == (2 * 80 if on_a_gpu else 80) + 2 * 30


def test_models_share_the_gpus() -> None:
    one, two = on_gpus([plan()], 2), on_gpus([plan("m"), plan("n")], 2)
    assert two["gpu_seconds"] == 2 * one["gpu_seconds"]
    assert one["seconds"] < two["seconds"] < 2 * one["seconds"]


def test_the_words_name_hours_and_what_has_no_rate() -> None:
    total = {"gpus": 4, "seconds": 5400.0, "gpu_seconds": 19800.0, "files": 8214, "not_estimated": []}
    assert in_words(total) == "on 4 GPUs as fast as what was probed: 1.5 h, 5.5 GPU-hours, 8,214 files"
    said = in_words(total | {"gpus": 1, "not_estimated": ["evaluate m/fp32"]})
    assert said.startswith("on 1 GPU as fast")
    assert said.endswith(
        "5.5 GPU-hours, 8,214 files; without these, for which no rate was measured: evaluate m/fp32"
    )
