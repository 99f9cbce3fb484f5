"""`edadm run`: what Snakemake is told, wherever the package is."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import pytest

from edadm import cli
from edadm.commands.workflow import PROJECT

SNAKEMAKE = [
    sys.executable,
    "-m",
    "snakemake",
    "--snakefile",
    str(PROJECT / "Snakefile"),
    "--workflow-profile",
]
SETTINGS = "runs: [{model: cifar10_small, variants: [fp32]}]\n"
DEFAULT = str(PROJECT / "workflow" / "profiles" / "default")


def told(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """The command that takes the place of `edadm run`."""
    commands: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", ["edadm", "run", *words])
    monkeypatch.setattr(os, "execv", lambda program, command: commands.append(command))
    with contextlib.suppress(SystemExit):
        cli.main()
    return commands[0] if commands else []


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_an_empty_folder_gets_the_main_job(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    assert told(monkeypatch) == [*SNAKEMAKE, DEFAULT, "--configfile", str(PROJECT / "config.yaml")]
    assert "there is no config.yaml here, so this runs the main job of the package" in capfd.readouterr().err


def test_a_configuration_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.yaml").write_text(SETTINGS)
    given = ("mine.yaml", "-np", "--cores", "2", "--", "results/x")
    assert told(monkeypatch, *given) == [*SNAKEMAKE, DEFAULT, "--configfile", "mine.yaml", *given[1:]]
    Path("config.yaml").write_text(SETTINGS)
    assert told(monkeypatch, *given)[-6:-5] == ["--replace-workflow-config"]
    assert told(monkeypatch, "-n", "--cores", "2") == [*SNAKEMAKE, DEFAULT, "-n", "--cores", "2"]


def test_a_profile_is_one_of_the_package_or_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("config.yaml").write_text(SETTINGS)
    gpu = str(PROJECT / "workflow" / "profiles" / "gpu")
    assert told(monkeypatch, "-n", "--profile", "gpu") == [*SNAKEMAKE, gpu, "-n"]
    Path("own").mkdir()
    Path("own/config.yaml").touch()
    assert told(monkeypatch, "--profile=own") == [*SNAKEMAKE, "own"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("absent.yaml",),
            "edadm: there is no configuration file absent.yaml; name one as `edadm run CONFIG`, or leave it "
            "out",
        ),
        (
            ("--profile", "x"),
            "edadm: there is no profile 'x'; use default, gpu, kubernetes, slurm, or the folder of one",
        ),
        *(
            (
                words,
                f"edadm: {named}: edadm run takes one configuration, and takes it first; write `edadm run CONFIG`, "
                "and then what Snakemake is told",
            )
            for words, named in (
                (("config.yaml", "--configfile", "mine.yaml"), "--configfile"),
                (("-n", "mine.yaml"), "mine.yaml"),
            )
        ),
    ],
)
def test_what_is_absent_is_named(
    words: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    Path("config.yaml").write_text(SETTINGS)
    assert told(monkeypatch, *words) == []
    assert capfd.readouterr().err == f"{sentence}\n"


def test_the_workflow_of_the_package_is_that_of_the_repository() -> None:
    repository = Path(__file__).parents[1]
    for name in (
        "Snakefile",
        "config.yaml",
        "requirements.lock",
        "envs/edadm.yaml",
        "workflow/rules/common.smk",
    ):
        assert (PROJECT / name).read_bytes() == (repository / name).read_bytes()
