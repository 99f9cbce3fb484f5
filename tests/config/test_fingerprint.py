"""Which edits make a stage run again."""

from __future__ import annotations

import ast
import json
import re
import shutil
import textwrap
from pathlib import Path

import pytest

from edadm.config.backends import BACKENDS
from edadm.config.fingerprint import PACKAGE, content_digest, remember, stage_files, stage_fingerprint
from edadm.config.fingerprint.closure import WITHOUT_RESULT
from edadm.config.fingerprint.meaning import meaning_of, serialised

STAGES = (
    "convert-checkpoint",
    "collect-trajectories",
    "select-calibration",
    "set-ranges",
    "reconstruct",
    "generate",
    "evaluate",
)


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
def test_an_edit_reruns_the_stages_that_import_it_and_no_others(
    file: str, old: str, new: str, stages: set[str], tmp_path: Path
) -> None:
    changed = changed_stages(tmp_path, file, old, new)
    assert stages <= changed
    assert not changed & ({"select-calibration", "evaluate", "convert-checkpoint"} - stages)


def test_code_of_a_backend_concerns_only_who_computes_with_it() -> None:
    files = {}
    for backend in ("simulated", "onednn", "cuda_int8"):
        also = () if backend == "simulated" else (BACKENDS[backend].module,)
        found = stage_files("generate", also=also)
        files[backend] = {file.relative_to(PACKAGE).as_posix() for file in found}
    assert "deploy/checkpoint/read.py" in files["simulated"]
    on_cpu = files["onednn"] - files["simulated"]
    on_gpu = files["cuda_int8"] - files["simulated"]
    assert {"deploy/backends/onednn.py", "kernels/onednn.py"} <= on_cpu - on_gpu
    assert {"deploy/backends/cuda_int8.py", "kernels/int8/products/convolution.py"} <= on_gpu - on_cpu
    assert not [file for file in on_cpu if file.startswith("kernels/int8/")]
    fingerprints = {stage_fingerprint("generate", also=also) for also in ((), (BACKENDS["onednn"].module,))}
    assert len(fingerprints) == 2


def test_another_backend_in_the_registry_reruns_nothing(tmp_path: Path) -> None:
    file = "config/backends.py"
    assert (
        changed_stages(tmp_path, file, "_ENTRIES = (\n", '_ENTRIES = (\n    BackendEntry("a", "b", "c"),\n')
        == set()
    )


def test_an_edit_of_one_command_reruns_that_command_only(tmp_path: Path) -> None:
    old = '"""Generate images, each from the noise of its own index."""\n'
    assert changed_stages(tmp_path, "commands/images.py", old, old + "    assert True\n") == {"generate"}


def test_an_edit_of_a_helper_reruns_the_commands_that_use_it(tmp_path: Path) -> None:
    changed = changed_stages(
        tmp_path,
        "commands/opening.py",
        "torch.set_num_threads(threads)",
        "torch.set_num_threads(threads + 0)",
    )
    assert changed == {"collect-trajectories", "set-ranges", "reconstruct", "generate", "evaluate"}


def test_the_closure_holds_indirect_imports_and_nothing_above() -> None:
    files = {str(file.relative_to(PACKAGE)) for file in stage_files("set-ranges")}
    assert {"passes/ranges.py", "quant/ranges.py", "nn/quantizer.py", "networks/unet/concat.py"} <= files
    assert not [file for file in files if file.startswith(("metrics", "report", "calibration", "cli"))]


def test_every_stage_that_a_rule_names_has_a_fingerprint() -> None:
    rules = PACKAGE.parent / "workflow" / "rules"
    named = {
        stage
        for file in rules.glob("*.smk")
        for stage in re.findall(r'stage_fingerprint\(\s*"([a-z-]+)"[,)]', file.read_text())
    }
    assert set(STAGES) <= named
    for stage in named:
        assert re.fullmatch("[0-9a-f]{16}", stage_fingerprint(stage))


def test_an_unknown_stage_is_an_error() -> None:
    with pytest.raises(KeyError, match="there is no subcommand 'quantise'"):
        stage_fingerprint("quantise")


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
        ("config/schema.py", "images per sampler run", "images per run of the sampler"),
        ("config/schema.py", "kind: Literal[", "kind: str | Literal["),
        ("config/rules/wording.py", "there is no such setting", "this setting does not exist"),
        ("config/scoring.py", "needs weights, and", "wants weights, and"),
        ("networks/convert.py", "the preset's model has no", "this model is without"),
        ("errors.py", "class EdadmError", "class Unused(Exception): pass\nclass EdadmError"),
    ],
)
def test_a_reworded_sentence_reruns_nothing(file: str, old: str, new: str, tmp_path: Path) -> None:
    assert changed_stages(tmp_path, file, old, new) == set()


def test_a_table_of_tiles_counts_where_a_gpu_computes_integers(tmp_path: Path) -> None:
    edit = ("kernels/int8/tiles_h100.json", "{", '{"1x1x1k1s1": [1, 1, 1, 1, 1], ')
    assert changed_stages(tmp_path, *edit) == set()
    same = []
    for name in ("onednn", "cuda_int8"):
        module = (BACKENDS[name].module,)
        edited = stage_fingerprint("generate", tmp_path / "edadm", module)
        same.append(edited == stage_fingerprint("generate", also=module))
    assert same == [True, False]


def test_modules_that_change_no_result_are_there_to_be_left_out() -> None:
    counted = {file.relative_to(PACKAGE).as_posix() for stage in STAGES for file in stage_files(stage)}
    assert not [
        file
        for file in counted
        for entry in WITHOUT_RESULT
        if file == entry or (entry[-1] == "/" and file.startswith(entry))
    ]
    assert "config/schema.py" in counted


def test_a_row_of_the_methods_counts_where_units_are_learned(tmp_path: Path) -> None:
    assert changed_stages(tmp_path, "config/methods.py", 'inputs="float"', "inputs=None") == {"reconstruct"}


def test_readers_of_foreign_files_count_where_these_are_converted(tmp_path: Path) -> None:
    file = "networks/layouts/clip.py"
    assert changed_stages(tmp_path, file, "from __future__ import annotations", "EXTRA = 1") == {
        "convert-checkpoint"
    }


def test_fingerprints_are_kept_until_a_byte_of_the_package_changes(tmp_path: Path) -> None:
    copy, note = tmp_path / "edadm", tmp_path / "notes" / "fingerprints.json"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "bundled"))
    remember(note, copy)
    first = stage_fingerprint("set-ranges", copy)
    assert first == stage_fingerprint("set-ranges")
    kept = json.loads(note.read_text())
    assert kept["stages"] == {"set-ranges": first}
    note.write_text(json.dumps(kept | {"stages": {"set-ranges": "from the note"}}))
    remember(note, copy)
    assert stage_fingerprint("set-ranges", copy) == "from the note"
    (copy / "quant/ranges.py").write_text((copy / "quant/ranges.py").read_text() + "\n# a remark\n")
    remember(note, copy)
    assert stage_fingerprint("set-ranges", copy) == first
    note.write_text("no JSON")
    remember(note, copy)
    assert stage_fingerprint("set-ranges", copy) == first


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
