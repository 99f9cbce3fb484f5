"""Which edits make a stage run again."""

from __future__ import annotations

import ast
import json
import re
import shutil
import textwrap
from pathlib import Path

import pytest
import torch

from edadm.artifacts import facts, save_tensors
from edadm.config.backends import BACKENDS
from edadm.config.fingerprint import (
    PACKAGE,
    closure,
    content_digest,
    gpu_code,
    remember,
    stage_files,
    stage_fingerprint,
)
from edadm.config.fingerprint.closure import WITHOUT_RESULT
from edadm.config.fingerprint.meaning import meaning_of, serialised

STAGES = ("convert", "collect", "select", "set_ranges", "reconstruct", "generate", "evaluate")


def names(files: set[Path]) -> set[str]:
    """Files of the package by their places in it."""
    return {file.relative_to(PACKAGE).as_posix() for file in files}


def copied(folder: Path) -> Path:
    """A copy of the package, to be edited."""
    copy = folder / "edadm"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "bundled"))
    return copy


def changed(copy: Path, gpu: bool = False) -> set[str]:
    """The stages whose fingerprint is another in an edited copy of the package."""
    ours = {stage: stage_fingerprint(stage, gpu=gpu) for stage in STAGES}
    return {stage for stage in STAGES if stage_fingerprint(stage, copy, gpu=gpu) != ours[stage]}


def changed_stages(folder: Path, file: str, old: str, new: str) -> set[str]:
    """The stages whose fingerprint an edit in a copy of the package changes."""
    copy = copied(folder)
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    return changed(copy)


def test_stages_have_fingerprints_of_their_own() -> None:
    assert len({stage_fingerprint(stage) for stage in STAGES}) == len(STAGES)


def test_comments_formatting_and_docstrings_do_not_count(tmp_path: Path) -> None:
    copy = copied(tmp_path)
    text = (copy / "quant/affine.py").read_text()
    edited = text.replace("SMALLEST_SCALE = 1e-8", "\n\nSMALLEST_SCALE    =   1e-8  # tiny")
    edited = edited.replace('"""Values of integer codes."""', '"""What integer codes stand for."""')
    edited = edited.replace('"""Affine fake quantization', '"""Fake quantization')
    assert len(edited) != len(text)
    (copy / "quant/affine.py").write_text(edited)
    assert changed(copy) == set()


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("quant/ranges.py", "THRESHOLDS = 100", "THRESHOLDS = 99", {"set_ranges"}),
        ("calibration/tdac.py", "distance <= radius", "distance < radius", {"select"}),
        ("sampling/samplers/ddim.py", "0.5", "0.51", {"collect", "generate"}),
    ],
)
def test_an_edit_reruns_the_stages_that_import_it_and_no_others(
    file: str, old: str, new: str, stages: set[str], tmp_path: Path
) -> None:
    changed = changed_stages(tmp_path, file, old, new)
    assert stages <= changed
    assert not changed & ({"select", "evaluate", "convert"} - stages)


def test_code_of_a_backend_concerns_only_who_computes_with_it() -> None:
    files = {}
    for backend in ("simulated", "onednn", "cuda_int8"):
        also = () if backend == "simulated" else (BACKENDS[backend].module,)
        found = stage_files("generate", also=also)
        files[backend] = names(found)
    assert "deploy/checkpoint/read.py" in files["simulated"]
    on_cpu = files["onednn"] - files["simulated"]
    on_gpu = files["cuda_int8"] - files["simulated"]
    assert {"deploy/backends/onednn.py", "kernels/cpu/onednn.py"} <= on_cpu
    assert not on_gpu
    of_gpus = names(stage_files("generate", also=(BACKENDS["cuda_int8"].module,), gpu=True))
    assert {"deploy/backends/cuda_int8.py", "kernels/int8/products/convolution.py"} <= of_gpus
    assert not [file for file in on_cpu | files["simulated"] if file.startswith("kernels/int8/")]
    fingerprints = {stage_fingerprint("generate", also=also) for also in ((), (BACKENDS["onednn"].module,))}
    assert len(fingerprints) == 2


def test_another_backend_in_the_registry_reruns_nothing(tmp_path: Path) -> None:
    file = "config/backends.py"
    assert (
        changed_stages(tmp_path, file, "_ENTRIES = (\n", '_ENTRIES = (\n    BackendEntry("a", "b", "c"),\n')
        == set()
    )


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("generate.py", "indices = share", "assert True\n        indices = share", {"generate"}),
        ("collect.py", "rows = min(recorded", "rows = max(recorded", set()),  # what it costs
        ("generate.py", 'facts_of("prompts"', 'facts_of("words"', set()),  # of another subcommand
        ("inputs/unet.py", "return open_float(", "assert True\n    return open_float(", {"generate"}),
        ("inputs/task.py", "refuse_idle_patterns(units", "refuse_idle_patterns(units[:]", {"reconstruct"}),
    ],
)
def test_an_edit_of_a_stage_reruns_those_that_come_to_it(
    file: str, old: str, new: str, stages: set[str], tmp_path: Path
) -> None:
    assert changed_stages(tmp_path, f"stages/{file}", old, new) == stages


def test_the_closure_holds_indirect_imports_and_nothing_above() -> None:
    files = {str(file.relative_to(PACKAGE)) for file in stage_files("set_ranges")}
    assert {
        "passes/ranges.py",
        "quant/ranges.py",
        "nn/quantizer.py",
        "networks/unet/blocks/concat.py",
    } <= files
    assert not [file for file in files if file.startswith(("metrics", "report", "calibration", "cli"))]


def test_every_stage_that_a_rule_names_has_a_fingerprint() -> None:
    rules = PACKAGE.parent / "workflow" / "rules"
    named = {
        stage
        for file in rules.glob("*.smk")
        for stage in re.findall(r'stage_fingerprint\(\s*"([a-z_.]+)"[,)]', file.read_text())
    }
    assert set(STAGES) <= named
    for stage in named:
        assert re.fullmatch("[0-9a-f]{16}", stage_fingerprint(stage))


def test_an_unknown_stage_is_an_error() -> None:
    with pytest.raises(KeyError, match="there is no stage 'quantise'"):
        stage_fingerprint("quantise")
    with pytest.raises(KeyError, match=r"there is no stage 'generate\.videos'"):
        stage_fingerprint("generate.videos")


def meaning(code: str) -> str:
    """What counts of some code."""
    return serialised(meaning_of(ast.parse(textwrap.dedent(code))))


BEFORE = """
    from pydantic import Field
    class Preset(Strict):
        \"\"\"What.\"\"\"
        steps: int = Field(3, ge=1, description="steps")
        @model_validator(mode="after")
        def _checked(self):
            return self
        @property
        def twice(self):
            return 2 * self.steps
    def _hint(name):
        return f"did you mean {name}?"
    def work(x: int, path) -> int:
        where = f"in {path}" if path else "nowhere"
        if x < 0:
            raise EdadmError(f"{x} is below zero {where}; {_hint(path)}")
        say(f"at work on {x}")
        assert x != 5, "five"
        return table["key"] * x
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("What.", "Which.", id="docstring"),
        pytest.param('description="steps"', 'description="number of steps"', id="description"),
        pytest.param("ge=1", "ge=2", id="range of a setting"),
        pytest.param("return self\n", "raise ValueError('no')\n", id="validator"),
        pytest.param("did you mean {name}?", "perhaps {name}, or {len(name)}", id="sentence of a function"),
        pytest.param(
            'f"in {path}" if path else "nowhere"', 'f"at {path}" if path else ""', id="sentence in a variable"
        ),
        pytest.param("is below zero {where}", "is negative", id="message of an error"),
        pytest.param("at work on {x}", "working", id="line of a log"),
        pytest.param('"five"', '"5"', id="message of an assertion"),
        pytest.param("x: int, path) -> int", "x: float, path: str)", id="types"),
        pytest.param("return table", "# a remark\n        return table", id="remark"),
    ],
)
def test_other_words_change_nothing(old: str, new: str) -> None:
    assert old in BEFORE
    assert meaning(BEFORE.replace(old, new)) == meaning(BEFORE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("2 * self.steps", "3 * self.steps", id="what a preset computes"),
        pytest.param('table["key"] * x', 'table["other"] * x', id="text that is data"),
        pytest.param('table["key"] * x', 'table["key"] + x', id="formula"),
        pytest.param("x < 0", "x < 1", id="condition"),
        pytest.param("EdadmError(", "DamagedError(", id="kind of an error"),
        pytest.param('return table["key"]', 'return where, table["key"]', id="a sentence that is a result"),
    ],
)
def test_another_meaning_changes_the_code(old: str, new: str) -> None:
    assert old in BEFORE
    assert meaning(BEFORE.replace(old, new)) != meaning(BEFORE)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("config/schema/run.py", "images per sampler run", "images per run of the sampler"),
        ("config/schema/model.py", "kind: Literal[", "kind: str | Literal["),
        ("config/rules/wording.py", "there is no such setting", "this setting does not exist"),
        ("config/files/scoring.py", "needs weights, and", "wants weights, and"),
        ("networks/convert.py", "the preset's model has no", "this model is without"),
        ("errors.py", "class EdadmError", "class Unused(Exception): pass\nclass EdadmError"),
    ],
)
def test_a_reworded_sentence_reruns_nothing(file: str, old: str, new: str, tmp_path: Path) -> None:
    assert changed_stages(tmp_path, file, old, new) == set()


def test_code_of_gpus_is_a_part_of_its_own(tmp_path: Path) -> None:
    copy = copied(tmp_path)
    kernel, tiles = copy / "kernels/learning/rows.py", copy / "kernels/int8/tiles_h100.json"
    kernel.write_text(
        kernel.read_text().replace("triton.cdiv(row_size, BLOCK)", "triton.cdiv(row_size, 2 * BLOCK)")
    )
    tiles.write_text(tiles.read_text().replace("{", '{"1x1x1k1s1": [1, 1, 1, 1, 1], ', 1))
    assert changed(copy) == set()
    assert changed(copy, gpu=True) == {"set_ranges", "reconstruct", "generate"}
    module = (BACKENDS["cuda_int8"].module,)
    of_tiles = stage_fingerprint("generate", copy, module, gpu=True)
    tiles.write_text("{}")
    assert stage_fingerprint("generate", copy, module, gpu=True) != of_tiles


def made(folder: Path, device: str) -> Path:
    """Scales that were made on a device."""
    file = folder / f"{device[:4]}.safetensors"
    save_tensors(file, {"scale": torch.ones(1)}, facts("ranges", {}, device))
    return file


def test_code_of_gpus_concerns_what_a_gpu_made(tmp_path: Path) -> None:
    cpu, gpu, absent = made(tmp_path, "cpu"), made(tmp_path, "cuda (NVIDIA H100)"), tmp_path / "absent"
    first = gpu_code("set_ranges", absent, None)
    for artifact in (cpu, gpu):
        assert gpu_code("set_ranges", artifact, ["'other'", repr(first)]) == first
    copy = copied(tmp_path)
    kernel = copy / "kernels/learning/rows.py"
    kernel.write_text(
        kernel.read_text().replace("triton.cdiv(row_size, BLOCK)", "triton.cdiv(row_size, 2 * BLOCK)")
    )
    edited = gpu_code("set_ranges", absent, None, copy)
    assert edited != first
    assert gpu_code("set_ranges", cpu, [repr(first)], copy) == first  # as noted: nothing to do
    assert gpu_code("set_ranges", gpu, [repr(first)], copy) == edited
    # Made again on a GPU with the edited code, since a setting had changed, after it was planned for what a CPU had made.
    code = f"0123+{stage_fingerprint('set_ranges', copy, gpu=True)}"
    (tmp_path / ".cuda.safetensors.lock").write_text(json.dumps({"finished": "a key", "code": code}))
    assert gpu_code("set_ranges", gpu, [repr(first)], copy) == first


def test_modules_that_change_no_result_are_there_to_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = {name for stage in STAGES for name in names(stage_files(stage))}
    assert "config/schema/model.py" in counted
    assert not [name for name in counted for entry in WITHOUT_RESULT if name.startswith(entry)]
    monkeypatch.setattr(closure, "WITHOUT_RESULT", ())
    reached = {name for stage in STAGES for name in names(stage_files(stage))}
    assert not [entry for entry in WITHOUT_RESULT if not any(name.startswith(entry) for name in reached)]


def test_a_row_of_the_methods_counts_where_units_are_learned(tmp_path: Path) -> None:
    assert changed_stages(tmp_path, "config/methods.py", 'inputs="float"', "inputs=None") == {"reconstruct"}


def test_a_family_that_the_registry_names_counts_where_networks_are_built(tmp_path: Path) -> None:
    stages = {"convert", "collect", "set_ranges", "reconstruct", "generate"}
    assert changed_stages(tmp_path, "networks/unet/ldm.py", "FAMILY = Ldm()", "FAMILY = Ldm(1)") == stages


def test_readers_of_foreign_files_count_where_these_are_converted(tmp_path: Path) -> None:
    file = "networks/layouts/clip.py"
    assert changed_stages(tmp_path, file, "from __future__ import annotations", "EXTRA = 1") == {"convert"}


def test_fingerprints_are_kept_until_a_byte_of_the_package_changes(tmp_path: Path) -> None:
    copy, note = copied(tmp_path), tmp_path / "notes" / "fingerprints.json"
    remember(note, copy)
    first = stage_fingerprint("set_ranges", copy)
    assert first == stage_fingerprint("set_ranges")
    kept = json.loads(note.read_text())
    assert kept["stages"] == {"set_ranges": first}
    note.write_text(json.dumps(kept | {"stages": {"set_ranges": "from the note"}}))
    remember(note, copy)
    assert stage_fingerprint("set_ranges", copy) == "from the note"
    (copy / "quant/ranges.py").write_text((copy / "quant/ranges.py").read_text() + "\n# a remark\n")
    remember(note, copy)
    assert stage_fingerprint("set_ranges", copy) == first
    note.write_text("no JSON")
    remember(note, copy)
    assert stage_fingerprint("set_ranges", copy) == first


def test_a_moved_file_or_folder_has_the_same_content(tmp_path: Path) -> None:
    known = tmp_path / "notes.json"
    for name in ("first", "second"):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet/weights").write_bytes(b"abc")
        (tmp_path / name / ".hidden").write_text(name)
    first, second = tmp_path / "first", tmp_path / "second"
    assert (
        content_digest(first, known)
        == content_digest(second, known)
        == content_digest(first, known)
        == content_digest(first)
    )
    sha256_of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert content_digest(first / "unet/weights", known) == sha256_of_abc
    (second / "unet/weights").write_bytes(b"abcd")
    assert content_digest(second, known) != content_digest(first, known)
    (first / "unet/weights").rename(first / "unet/other")
    assert content_digest(first, known) == content_digest(first) != sha256_of_abc
