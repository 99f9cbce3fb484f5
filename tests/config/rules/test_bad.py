"""Every bad configuration is refused in one line that says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from edadm.commands.workflow import run_workflow
from edadm.config.load import ConfigError, load_config, load_runs

from .bad import FILES, MODEL, VALUES


def changed(change: str) -> dict[str, Any]:
    """The example with one value put at a place, whose parts with dots stand in quotes."""
    settings = yaml.safe_load(MODEL)
    place, _, value = change.partition(": ")
    quotes = {"'", '"'}
    parts, quote = [""], ""
    for letter in place:
        if letter == quote or (not quote and letter in quotes):
            quote = "" if quote else letter
        elif letter == "." and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    inside = settings
    *above, last = [yaml.safe_load(part) if part.isalnum() else part.replace("\\n", "\n") for part in parts]
    for part in above:
        inside = inside.setdefault(part, {})
    inside[last] = yaml.safe_load(value.replace("1e400", ".inf"))
    return settings


def test_the_example_is_right() -> None:
    assert load_runs(yaml.safe_load(MODEL)).runs[0].model == "m"


@pytest.mark.parametrize(("change", "line"), VALUES, ids=[change for change, _ in VALUES])
def test_a_bad_value_is_refused_in_one_line(change: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_runs(changed(change))
    said = str(caught.value)
    assert line in said
    assert len(said.splitlines()) == 1, said


def test_a_correction_of_steps_wants_steps_of_ddim() -> None:
    settings = changed("runs: [{model: m, variants: [c/w4a8/q_sched], evaluation: e}]")
    assert load_runs(settings).runs
    settings["models"]["m"]["sampler"] = {"method": "plms", "spacing": "uniform", "steps": 5}
    with pytest.raises(
        ConfigError,
        match=r"^reconstructions.q_sched: the correction 'q_sched' changes steps of DDIM, and models.m has the "
        "sampler 'plms'; set its method: ddim",
    ):
        load_runs(settings)


def test_images_smaller_than_a_window_have_no_ssim() -> None:
    settings = changed("evaluations.e.scores: [ssim]")
    settings["models"]["m"]["architecture"] |= {"image_size": 8, "attention_resolutions": [8]}
    with pytest.raises(
        ConfigError, match=r"^models.m: ssim looks at windows of 11 px, and its images have 8; take"
    ):
        load_runs(settings)


@pytest.mark.parametrize(("content", "line"), FILES)
def test_a_bad_file_is_refused_in_one_line(content: bytes, line: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "mine.yaml")
    said = str(caught.value)
    assert said.startswith(str(tmp_path / "mine.yaml"))
    assert line in said
    assert len(said.splitlines()) == 1, said


def test_a_base_says_its_mistake_once_and_every_other_gets_its_line() -> None:
    settings = yaml.safe_load(MODEL)
    settings["evaluations"] |= {
        "a": {"images": 0, "shards": "1"},
        "b": {"base": "a"},
        "c": {"base": "b", "images": -1},
    }
    with pytest.raises(ConfigError) as caught:
        load_runs(settings)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [
        "evaluations.a.images",
        "evaluations.a.shards",
        "evaluations.c.images",
    ]


def test_what_the_command_line_says_is_what_snakemake_says_and_torch_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("results: a\nresults: b\n")
    checked = (
        "import sys; from edadm.cli import main; from edadm.commands import app; sys.argv[1:] = ['plan', "
        "'--config', 'mine.yaml']\n"
        "try: main()\nfinally: print('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", checked], cwd=tmp_path, capture_output=True, text=True)
    sentence = (
        "mine.yaml is not valid YAML: line 2: the key 'results' stands twice in one place; remove one of them"
    )
    assert (told.returncode, told.stderr, told.stdout) == (2, f"edadm: {sentence}\n", "False\n")


def test_edadm_run_reads_its_file_before_snakemake_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("Snakemake was started"))
    for name, given in (("mine.yaml", ["mine.yaml"]), ("config.yaml", [])):
        (tmp_path / name).write_bytes(b"results: \xe9\n")
        with pytest.raises(ConfigError, match=rf"^{name} is not UTF-8 text; save it as UTF-8$"):
            run_workflow(given)
