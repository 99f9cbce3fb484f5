"""What a configuration names goes to the shell as one word."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edadm.stages import collect, reconstruct

from .toy import CONFIG, REPOSITORY, Toy

RULES = sorted((REPOSITORY / "workflow" / "rules").glob("*.smk"))
SHELL = re.compile(r"^    shell:\n((?:        .*\n?)+)", re.MULTILINE)


def renamed(folder: Path, name: str) -> Toy:
    """The toy project with another name for its model."""
    toy = Toy(folder, REPOSITORY)
    (run,) = CONFIG["runs"]
    named = {"runs": [run | {"model": name}], "models": {name: CONFIG["models"]["toy"]}}
    (folder / "config.yaml").write_text(json.dumps(CONFIG | named))
    return toy


def test_every_value_in_every_command_is_quoted() -> None:
    commands = [command for file in RULES for command in SHELL.findall(file.read_text())]
    assert len(commands) == sum(
        file.read_text().count("\nrule ") + file.read_text().startswith("rule ") for file in RULES
    )
    for command in commands:
        assert "'" not in command, command  # nothing is quoted by hand
        values = re.findall(r"\{[^{}]*\}", command)
        assert values
        assert [value for value in values if not value.endswith(":q}")] == [], command


@pytest.mark.workflow
def test_a_name_of_all_allowed_characters_is_a_name(tmp_path: Path) -> None:
    target = "results/My_model-1.5+b/fp32/unet.safetensors"
    status, said = renamed(tmp_path, "My_model-1.5+b").run(target)
    assert status == 0, said
    assert (tmp_path / target).stat().st_size > 0


@pytest.mark.workflow
def test_a_name_runs_no_command(tmp_path: Path) -> None:
    """Other such names are refused in `tests/config`, without Snakemake."""
    name = "a'; touch pwned; $(touch pwned) `touch pwned`"
    _, said = renamed(tmp_path, name).run(f"results/{name}/fp32/unet.safetensors")
    assert not list(tmp_path.rglob("pwned"))
    assert "Traceback" not in said


def test_what_a_command_is_told_of_a_model_is_what_counts() -> None:
    """`model_with` is not compared with the last run, since there are paths in it; `model_settings` is.

    What calibration rows depend on, which are an input of the same rule, makes it run again by itself.
    """
    for file in RULES:
        told = re.findall(r"model_with\(([^)]*)\),", file.read_text())
        told = [names.removesuffix(", *reconstruct_stage.SAMPLED") for names in told]
        counted = re.findall(r"settings=model_settings\(([^)]*)\),", file.read_text())
        assert told == counted
    assert set(reconstruct.SAMPLED) <= set(collect.MODEL)
