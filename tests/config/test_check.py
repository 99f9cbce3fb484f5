"""Contradictions between presets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edadm.config.load import ConfigError, load_config


def settings(**changes: Any) -> dict[str, Any]:
    """A configuration that could start, and changes of its parts."""
    small = {
        "models": {
            "m": {
                "checkpoint": "x",
                "sampler": {"steps": 5},
                "trajectories": {"count": 8, "batch_size": 4, "feature_rows": 4, "shards": 2},
            }
        },
        "calibrations": {"c": {"size": 8}},
        "evaluations": {"e": {"images": 4, "shards": 2}},
        "runs": [{"model": "m", "variants": ["fp32", "c/w4a8/none"], "evaluation": "e"}],
    }
    for path, value in changes.items():
        place: Any = small
        *parents, last = path.split("__")
        for key in parents:
            place = place[int(key) if isinstance(place, list) else key]
        place[last] = value
    return small


def test_the_example_could_start() -> None:
    assert load_config(settings()).runs[0].model == "m"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"calibrations__c__size": 9},
            "calibrations.c: calibration size 9 exceeds the 8 recorded trajectories; "
            "lower calibrations.c.size or raise models.m.trajectories.count",
        ),
        (
            {"calibrations__c__size": 7, "calibrations__c__held_out": 2},
            "calibrations.c: calibration size 7 with 2 held-out rows exceeds the 8 recorded trajectories; "
            "lower calibrations.c.size or",
        ),
        (
            {"calibrations__c": {"selector": "uniform", "size": 8, "every": 6}},
            "calibrations.c: every 6 exceeds the 5 steps of models.m.sampler; lower calibrations.c.every",
        ),
        ({"runs__0__model": "cifar10_smal"}, "runs: there is no preset 'cifar10_smal' among models; did you mean 'cifar10_small'?"),
        ({"runs__0__variants": ["c/w4a9/none"]}, "runs: there is no preset 'w4a9' among bits; did you mean 'w4a8'?"),
        ({"runs__0__variants": ["zzz/w4a8/none"]}, "runs: there is no preset 'zzz' among calibrations; known are c, "),
        ({"runs__0__variants": ["fp16"]}, "runs: 'fp16' is no variant; write fp32, CALIBRATION/BITS/RECONSTRUCTION, or the same with /int"),
        ({"runs__0__variants": ["fp32/integer"]}, "runs: 'fp32/integer' is no variant; write fp32, CALIBRATION/BITS/RECONSTRUCTION, or"),
        ({"runs__0__variants": ["c/w4a8/none/int8"]}, "runs: 'c/w4a8/none/int8' is no variant; write fp32"),
        (
            {"runs__0__variants": ["c/w4a8/none/int8"]},
            "runs: 'c/w4a8/none/int8' is no variant; write fp32, CALIBRATION/BITS/RECONSTRUCTION, "
            "or the same with /integer or /onednn",
        ),
        (
            {"runs__0__variants": ["c/w4a8/none/cuda_int8"], "evaluations__e__precision": "bf16"},
            "evaluations.e: between layers of integers on a GPU, attention in floating point there is fp32, not "
            "bf16; set precision: fp32, or take /cuda_int8 off the variants",
        ),
        (
            {"runs__0__variants": ["c/w4a8/none/onednn"], "evaluations__e__precision": "bf16"},
            "evaluations.e: between layers of integers by oneDNN there is fp32, not bf16; set precision: fp32, "
            "or take /onednn off the variants",
        ),
        *(
            (
                {"runs__0__variants": [f"c/t/none/{backend}"], "bits": {"t": {"base": "w8a8", "linear": linear}}},
                f"runs: 'c/t/none/{backend}': bits.t.linear gives layers grids of tokens, rotations or branches, "
                f"which backend '{backend}' does not compute; take /{backend} off the variant",
            )
            for backend, linear in (
                ("cuda_int8", {"inputs": "dynamic"}),
                ("openvino", {"rotation": "hadamard"}),
                ("cuda_int8", {"rank": 8}),
            )
        ),
        ({"runs__0__variants": ["c/w4a9/none/integer"]}, "runs: there is no preset 'w4a9' among bits; did you mean 'w4a8'?"),
        (
            {"runs__0__variants": ["c/w4a8/none/integer"], "evaluations__e__precision": "bf16"},
            "evaluations.e: between layers of integers there is fp32, not bf16; set precision: fp32, or take "
            "/integer off the variants",
        ),
        ({"runs__0__evaluation": "quik"}, "runs: there is no preset 'quik' among evaluations; did you mean 'quick'?"),
        ({"models__m__trajectories__feature_rows": 5}, "models.m.trajectories: feature_rows 5 exceeds the 4 runs of the first shard;"),
        ({"evaluations__e__shards": 5}, "evaluations.e: 5 shards for 4 images; lower shards"),
        ({"evaluations__e__images": 1, "evaluations__e__shards": 1}, "evaluations.e: a Frechet distance needs at least 2 images"),
        (
            {"models__m__sampler": {"steps": 1000, "spacing": "uniform_from_one"}},
            "models.m.sampler: uniform_from_one spacing of 1000 timesteps has at most 999 steps; lower steps",
        ),
        (
            {"models__m__sampler": {"steps": 1001, "spacing": "uniform"}},
            "models.m.sampler: uniform spacing of 1000 timesteps has at most 1000 steps; lower steps",
        ),
        (
            {"models__m__sampler": {"method": "unipc", "steps": 25, "spacing": "uniform_from_one"}},
            "models.m.sampler: 25 steps of unipc with uniform_from_one spacing cannot lead from noise to an "
            "image over 1000 timesteps; "
            "set steps: 24 or 26, or spacing: trailing",
        ),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused_with_the_fix(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(settings(**changes))
    assert str(caught.value).startswith(sentence)


def test_families_that_a_backend_does_not_compute_are_refused_with_the_configuration() -> None:
    changes = {
        "models__m__base": "dit_xl2",
        "runs__0__variants": ["c/w8a8/none/openvino", "c/w8a8/none/onednn"],
    }
    with pytest.raises(ConfigError) as caught:
        load_config(settings(**changes))
    assert [line for line in str(caught.value).splitlines() if "openvino" in line or "onednn" in line] == [
        "runs: 'c/w8a8/none/openvino': backend 'openvino' computes no network of the family 'dit'; take "
        "/openvino off the variant"
    ]


@pytest.mark.parametrize(
    ("backend", "linear"),
    [("onednn", {"inputs": "dynamic", "rotation": "hadamard", "rank": 8}), ("cuda_int8", {"weights": 4})],
)
def test_schemes_are_left_to_backends_that_compute_them(backend: str, linear: dict[str, Any]) -> None:
    bits = {"t": {"base": "w8a8", "linear": linear}}
    config = load_config(settings(runs__0__variants=[f"c/t/none/{backend}"], bits=bits))
    assert config.bits["t"].linear is not None


def test_an_unknown_model_hides_no_mistake_of_the_next_run() -> None:
    runs = settings(evaluations__e__shards=5)
    runs["runs"] = [{"model": "absent", "variants": ["fp32"]}, *runs["runs"]]
    with pytest.raises(
        ConfigError, match=r"(?s)no preset 'absent' among models.*evaluations.e: 5 shards for 4 images"
    ):
        load_config(runs)


def test_a_model_in_two_runs_is_refused() -> None:
    twice = settings()
    twice["runs"] = twice["runs"] * 2
    with pytest.raises(
        ConfigError, match="runs: model 'm' stands in several runs; list all its variants in one"
    ):
        load_config(twice)


@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
def test_as_many_steps_as_timesteps_are_accepted_where_they_exist(spacing: str) -> None:
    config = load_config(settings(models__m__sampler={"steps": 1000, "spacing": spacing}))
    assert config.models["m"].sampler.steps == 1000


LABELS = {"kind": "classes", "classes": 3, "images_per_class": 2}
TRANSFORMER = {"family": "transformer", "heads": 1, "context_channels": 8}


def conditional(conditioning: dict[str, Any], images: int, trajectories: int = 4) -> dict[str, Any]:
    """The example with a condition."""
    changed = settings(
        models__m__architecture=TRANSFORMER,
        models__m__layout="compvis",
        models__m__conditioning=conditioning,
        evaluations__e__images=images,
    )
    changed["models"]["m"]["trajectories"] |= {"count": trajectories, "feature_rows": 2, "shards": 1}
    changed["calibrations"]["c"]["size"] = 2
    return changed


@pytest.mark.parametrize(("only", "labels"), [(None, 6), ([2], 2)])
def test_labels_last_for_all_images_and_trajectories(only: list[int] | None, labels: int) -> None:
    conditioning = LABELS | {"only": only}
    assert load_config(conditional(conditioning, labels, min(labels, 4) or 2))
    sentence = f"evaluations.e: {labels + 1} images exceed the {labels} labels of models.m.conditioning; raise images_per_class, or make fewer"
    with pytest.raises(ConfigError, match=sentence):
        load_config(conditional(conditioning, labels + 1, 2))
    with pytest.raises(
        ConfigError,
        match=f"models.m: 8 trajectories exceed the {labels} labels of models.m.conditioning; raise",
    ):
        load_config(conditional(conditioning, labels, 8))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("prompts.txt", "a boat\n\n  \na bus\nno end\n"),
        ("captions.json", json.dumps({"annotations": [{"caption": "x"}] * 3})),
    ],
)
def test_prompts_last_for_all_images(file: str, content: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(content)
    conditioning = {"kind": "text", "prompts": str(tmp_path / file), "encoder": {"channels": 8, "heads": 1}}
    assert load_config(conditional(conditioning, 3, 3))
    with pytest.raises(ConfigError, match="4 images exceed the 3 prompts of models"):
        load_config(conditional(conditioning, 4, 3))


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("captions.json", "", r"models\.m\.conditioning\.prompts: .*captions\.json is not valid JSON"),
        ("captions.json", "[]", "evaluations.e: 4 images exceed the 0 prompts of models.m.conditioning"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused(
    file: str, content: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(ConfigError, match=sentence):
        load_config(
            conditional(
                {"kind": "text", "prompts": str(tmp_path / file), "encoder": {"channels": 8, "heads": 1}}, 4
            )
        )


def test_prompts_that_are_not_there_yet_are_left_to_those_who_run(tmp_path: Path) -> None:
    absent = {"kind": "text", "prompts": str(tmp_path / "absent.txt"), "encoder": {"channels": 8, "heads": 1}}
    assert load_config(conditional(absent, 100))
