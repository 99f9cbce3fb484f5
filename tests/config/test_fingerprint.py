"""Which edits make a stage run again."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from edadm.config.fingerprint import PACKAGE, stage_files, stage_fingerprint

STAGES = ("convert-checkpoint", "collect-trajectories", "select-calibration", "set-ranges", "reconstruct", "generate", "evaluate")


def changed_stages(folder: Path, file: str, old: str, new: str) -> set[str]:
    """The stages whose fingerprint an edit in a copy of the package changes."""
    copy = folder / "edadm"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "bundled"))
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    return {stage for stage in STAGES if stage_fingerprint(stage, copy) != stage_fingerprint(stage)}


def test_stages_have_fingerprints_of_their_own() -> None:
    assert len({stage_fingerprint(stage) for stage in STAGES}) == len(STAGES)


def test_comments_formatting_and_docstrings_do_not_count(tmp_path: Path) -> None:
    copy = tmp_path / "edadm"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "bundled"))
    text = (copy / "quant/affine.py").read_text()
    edited = text.replace("SMALLEST_SCALE = 1e-8", "\n\nSMALLEST_SCALE    =   1e-8  # tiny")
    edited = edited.replace('"""Values of integer codes."""', '"""What integer codes stand for."""')
    edited = edited.replace('"""Affine fake quantization', '"""Fake quantization')
    assert len(edited) != len(text)
    (copy / "quant/affine.py").write_text(edited)
    assert {stage for stage in STAGES if stage_fingerprint(stage, copy) != stage_fingerprint(stage)} == set()


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("quant/ranges.py", "THRESHOLDS = 100", "THRESHOLDS = 99", {"set-ranges"}),
        ("calibration/tdac.py", "distance <= radius", "distance < radius", {"select-calibration"}),
        ("sampling/ddim.py", "0.5", "0.51", {"collect-trajectories", "generate"}),
    ],
)
def test_an_edit_reruns_the_stages_that_import_it_and_no_others(file: str, old: str, new: str, stages: set[str], tmp_path: Path) -> None:
    changed = changed_stages(tmp_path, file, old, new)
    assert stages <= changed
    assert not changed & ({"select-calibration", "evaluate", "convert-checkpoint"} - stages)


def test_code_of_integers_concerns_only_who_computes_with_them() -> None:
    names = {file.relative_to(PACKAGE).as_posix() for file in stage_files("generate")}
    simulated = {file.relative_to(PACKAGE).as_posix() for file in stage_files("generate", without="open_integers")}
    assert {"deploy/cpu.py", "deploy/lower.py", "kernels/onednn.py", "kernels/int8_convolution.py"} <= names - simulated
    assert "deploy/checkpoint.py" in simulated
    assert stage_fingerprint("generate") != stage_fingerprint("generate", without="open_integers")


def test_an_edit_of_one_command_reruns_that_command_only(tmp_path: Path) -> None:
    old = '"""Generate images, each from the noise of its own index."""\n'
    assert changed_stages(tmp_path, "commands/images.py", old, old + "    assert True\n") == {"generate"}


def test_an_edit_of_a_helper_reruns_the_commands_that_use_it(tmp_path: Path) -> None:
    changed = changed_stages(tmp_path, "commands/opening.py", "torch.set_num_threads(threads)", "torch.set_num_threads(threads + 0)")
    assert changed == {"collect-trajectories", "set-ranges", "reconstruct", "generate", "evaluate"}


def test_the_closure_holds_indirect_imports_and_nothing_above() -> None:
    files = {str(file.relative_to(PACKAGE)) for file in stage_files("set-ranges")}
    assert {"reconstruction/observe.py", "quant/ranges.py", "nn/quantizer.py", "models/skips.py"} <= files
    assert not [file for file in files if file.startswith(("metrics", "report", "calibration", "cli"))]


def test_every_stage_that_a_rule_names_has_a_fingerprint() -> None:
    rules = PACKAGE.parent / "workflow" / "rules"
    named = {stage for file in rules.glob("*.smk") for stage in re.findall(r'stage_fingerprint\("([a-z-]+)"[,)]', file.read_text())}
    assert set(STAGES) <= named
    for stage in named:
        assert re.fullmatch("[0-9a-f]{16}", stage_fingerprint(stage))


def test_an_unknown_stage_is_an_error() -> None:
    with pytest.raises(KeyError, match="there is no subcommand 'quantise'"):
        stage_fingerprint("quantise")
