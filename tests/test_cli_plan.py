"""`edadm plan` and `edadm benchmark families` as commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edadm.pilot import full_size

from .test_cli import edadm

PUBLISHED = Path(__file__).parents[1] / "workflow" / "published"


def test_a_plan_of_a_published_run_needs_no_checkpoint_and_counts_its_stages(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert edadm("plan", "--config", PUBLISHED / "ddim_cifar10.yaml", "--no-probe", "--json") == 0
    (plan,) = json.loads(capsys.readouterr().out)
    assert plan["model"] == "ddim_cifar10"
    assert (
        sum(stage["unet_evaluations"] for stage in plan["stages"])
        == 102_400 + 2 * 1024 + 2 * 2048 + 3 * 5_000_000
    )
    assert plan["probe"] is None


def test_a_plan_is_a_table_of_the_models_that_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no earlier run tells what it took
    config = tmp_path / "config.yaml"
    config.write_text(
        "runs: [{model: cifar10_small, variants: [fp32]}, {model: ddim_cifar10, variants: [fp32]}]"
    )
    assert edadm("plan", "--config", config, "--no-probe", "--model", "cifar10_small") == 0
    said = capsys.readouterr().out
    assert said.startswith("cifar10_small: U-Net of 4,624,515 parameters")
    assert "ddim_cifar10" not in said
    assert said.splitlines()[3].split() == [
        "generate",
        "fp32",
        "5,120",
        "256",
        "786",
        "kB",
        "4",
        "0.1",
        "GiB",
    ]


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        (
            "runs: [{model: cifar10_smal, variants: [fp32]}]",
            (),
            "there is no preset 'cifar10_smal' among models; did you mean",
        ),
        ("runs: []", (), "edadm: the configuration has no runs; add some under `runs`"),
        (
            "runs: [{model: cifar10_small, variants: [fp32]}]",
            ("--model", "x"),
            "edadm: the configuration has no run of model 'x'; it has",
        ),
        (
            "runs: [{model: cifar10_small, variants: [fp32]}]",
            ("--device", "cuda:99"),
            "edadm: this machine has no device 'cuda:99'",
        ),
        (None, (), "edadm: there is no configuration file"),
    ],
)
def test_a_wrong_plan_ends_with_a_sentence(
    content: str | None,
    options: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    assert edadm("plan", "--config", tmp_path / "config.yaml", *options) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


def test_families_are_written_one_by_one_and_unknown_ones_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        full_size,
        "family_pass",
        lambda model, presets, scale, folder, device: {"failed": f"{scale.rows} rows"},
    )
    output = tmp_path / "families.json"
    assert edadm("benchmark", "families", "--family", "sd14_coco", "--rows", 7, "--output", output) == 0
    assert json.loads(output.read_text())["families"] == {"sd14_coco": {"failed": "7 rows"}}
    assert capsys.readouterr().out.splitlines()[-1] == "| sd14_coco | 7 rows | | | |"
    assert edadm("benchmark", "families", "--family", "sd15", "--output", output) == 2
    assert (
        "there is no published model 'sd15'; known are ddim_cifar10, ldm4_bedroom" in capsys.readouterr().err
    )
