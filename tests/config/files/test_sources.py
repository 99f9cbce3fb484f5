"""Files behind `bundled:NAME` and paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from edadm.config.files.sources import BUNDLED, file_sha256, locate, locate_prompts, prompts_file
from edadm.config.load import load_config
from edadm.errors import EdadmError


def test_paths_are_taken_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "model.ckpt"
    file.write_bytes(b"")
    assert locate(str(file)) == file


def test_every_bundled_file_that_a_preset_names_is_there() -> None:
    config = load_config()
    for model in config.models.values():
        if model.checkpoint.startswith("bundled:"):
            assert locate(model.checkpoint).stat().st_size > 1000
    for evaluation in config.evaluations.values():
        if evaluation.reference.startswith("bundled:"):
            assert locate(evaluation.reference, ".h5").stat().st_size > 1000


def test_prompts_lie_in_the_package_or_where_the_path_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert prompts_file("~/cats.txt") == Path("/home/someone/cats.txt")
    assert prompts_file("bundled:prompts") == BUNDLED / "prompts.txt"
    model = load_config().models["sd14_coco"]
    told = model.conditioning.model_copy(update={"prompts": "bundled:prompts"})
    assert locate_prompts("m", model.model_copy(update={"conditioning": told})).is_file()


@pytest.mark.parametrize("source", ["bundled:absent", "/absent/model.ckpt"])
def test_an_absent_file_is_refused_with_those_that_exist(source: str) -> None:
    with pytest.raises(
        EdadmError, match=r"there is no file .*; put it there, or use one of .*bundled:cifar10_small"
    ):
        locate(source)


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
