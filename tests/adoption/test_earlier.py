"""Commands of an earlier version beside today's."""

from __future__ import annotations

import json
import os
import shlex
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest

from edadm.adoption.earlier import difference, parsed
from edadm.adoption.records import newer_input, planned_jobs

BEFORE = {
    "checkpoint": "a.ckpt",
    "sampler": {"method": "ddim", "steps": 20, "spacing": "uniform", "eta": 0.0},
}
NOW = {"checkpoint": "b.ckpt", "sampler": BEFORE["sampler"], "autoencoder": None}


def generate(model: dict[str, Any], weights: str = "w.safetensors", label: str = "x", **options: str) -> str:
    """A command as a rule has it."""
    more = "".join(f" --{name} {value}" for name, value in options.items())
    quoted = shlex.quote(json.dumps(model))
    return (
        f"python3 -m edadm generate --model {quoted} --weights {weights}{more} --label {label} 2>&1 | tee log"
    )


def sampler(**changes: Any) -> dict[str, Any]:
    """The model with another sampler."""
    return NOW | {"sampler": BEFORE["sampler"] | changes}


def why(before: str, now: str) -> str | None:
    return difference(parsed(before), parsed(now))


def test_a_command_is_its_stage_its_options_and_its_files() -> None:
    command = parsed(
        "python3 -m edadm select-calibration a b --calibration '{\"size\": 3}' --part=u --output c 2>&1 | "
        "tee 'l o g'"
    )
    assert command == (
        "select-calibration",
        {"calibration": '{"size": 3}', "part": "u", "output": "c"},
        ("a", "b"),
    )


def test_places_labels_and_settings_that_are_new_make_no_difference() -> None:
    assert why(generate(BEFORE), generate(NOW, label="'another one'", threads="4")) is None


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (generate(sampler(eta=1.0)), "it was made with another sampler.eta"),
        (generate(NOW | {"schedule": {"timesteps": 4000}}), "it was made with another schedule.timesteps"),
        (generate(NOW, weights="other"), "it was made with --weights w.safetensors, now it is other"),
        (generate(NOW, backend="integer"), "it was made with --backend None, now it is integer"),
        (generate(BEFORE).replace("generate", "evaluate"), "it was made from other files"),
    ],
)
def test_another_setting_or_file_is_named(now: str, reason: str) -> None:
    assert why(generate(BEFORE), now) == reason


@pytest.mark.parametrize(
    ("steps", "spacing", "same"),
    [
        (20, "uniform", True),
        (400, "uniform_from_one", False),
        (30, "uniform", False),
        (250, "uniform_from_one", True),
        (33, "quadratic", True),
    ],
)
def test_lists_of_timesteps_that_changed_are_not_kept(steps: int, spacing: str, same: bool) -> None:
    """550 steps of 1000 once began at t = 550."""
    command = generate(sampler(steps=steps, spacing=spacing))
    assert why(command, command) == (None if same else "its sampler visits other timesteps now")


def test_images_made_with_integers_are_not_kept_and_simulated_ones_are() -> None:
    """No record says whether the processor was one on which 0.1.0 divided its sums, which rounded them twice."""
    integer, simulated = (generate(NOW, backend=name) for name in ("integer", "simulated"))
    assert why(integer, integer) == "its integers may have been rounded otherwise than today's"
    assert why(simulated, simulated) is None


def test_prompts_that_are_read_otherwise_are_not_kept(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    conditioning = {"kind": "text", "prompts": str(prompts)}
    architecture = {"family": "transformer", "context_channels": 8, "heads": 2}
    command = generate(NOW | {"conditioning": conditioning, "architecture": architecture})
    prompts.write_text("a cat\n\na dog\n", encoding="utf-8")
    assert why(command, command) is None
    for others in ("a cat\u2028on a mat\n".encode(), "a caf\xe9\n".encode("latin-1")):
        prompts.write_bytes(others)
        assert why(command, command) == "its prompts are read otherwise now"


def test_jobs_come_after_those_whose_files_they_take() -> None:
    said = """
[Mon]
rule generate:
    input: b, c
    output: d
    reason: Missing output files: d
Shell command: python3 -m edadm generate --output d 2>&1 | tee log

[Mon]
rule convert_checkpoint:
    output: b
Shell command: python3 -m edadm convert-checkpoint --output b 2>&1 | tee log

[Mon]
rule all:
    input: d
Shell command: None
"""
    jobs = planned_jobs(said)
    assert [(job.rule, job.inputs, job.outputs) for job in jobs] == [
        ("convert_checkpoint", (), ("b",)),
        ("generate", ("b", "c"), ("d",)),
    ]
    assert jobs[1].command == "python3 -m edadm generate --output d 2>&1 | tee log"


def test_an_input_that_was_made_after_the_work_began_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands name files, not what they held: a calibration set made again leaves the command of its ranges as it was."""
    monkeypatch.chdir(tmp_path)
    records = tmp_path / ".snakemake/metadata"
    records.mkdir(parents=True)

    def record(output: str, begun: float, ended: float, *inputs: str) -> None:
        content = {"input": inputs, "starttime": begun, "endtime": ended}
        (records / urlsafe_b64encode(output.encode()).decode()).write_text(json.dumps(content))

    Path("prompts.txt").write_text("a cat")
    os.utime("prompts.txt", (50.0, 50.0))
    record("calibration", 100.0, 200.0)
    record("ranges", 200.1, 300.0, "calibration", "prompts.txt", "absent")
    assert newer_input("ranges") is None
    record("calibration", 400.0, 500.0)
    assert newer_input("ranges") == "calibration"
    record("calibration", 100.0, 200.0)
    os.utime("prompts.txt", (400.0, 400.0))
    assert newer_input("ranges") == "prompts.txt"
