"""Files that are whole or absent, and pieces that survive a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edadm.artifacts import BusyError, DamagedError, finished, holding, read_tensors, same_work, writing, writing_json


def test_a_file_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with writing(path) as partial:
        partial.write_text("content")
        assert not path.exists()
    assert path.read_text() == "content"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_block_leaves_the_old_file_and_no_pieces(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail() -> None:
        with writing(path) as partial:
            partial.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_what_safetensors_wrote(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with writing(tmp_path / "a.safetensors") as partial:
        save_file({"a": torch.zeros(1)}, partial)
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_tensors_are_read_or_it_is_said_how_to_make_them_again(tmp_path: Path) -> None:
    path = tmp_path / "ranges.safetensors"
    with pytest.raises(DamagedError, match=r"ranges\.safetensors cannot be read .*; remove it, and make it again with `edadm set-ranges`"):
        read_tensors(path, "set-ranges")
    save_file({"a": torch.ones(3)}, path)
    assert read_tensors(path, "set-ranges", ("a",))["a"].tolist() == [1, 1, 1]
    with pytest.raises(DamagedError, match=r"has no tensor 'latents', so it is not from `edadm select-calibration`; name the file that is"):
        read_tensors(path, "select-calibration", ("a", "latents"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError, match=r"ranges\.safetensors cannot be read .*`edadm set-ranges`"):
        read_tensors(path, "set-ranges")


def test_json_keeps_its_order_and_ends_with_a_newline(tmp_path: Path) -> None:
    writing_json(tmp_path / "facts.json", {"b": 1, "a": [1, 2]})
    text = (tmp_path / "facts.json").read_text()
    assert list(json.loads(text)) == ["b", "a"]
    assert text.endswith("}\n")


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with holding(tmp_path / "pieces") as folder, pytest.raises(BusyError, match="another process is still writing"), holding(folder):
        pass
    with holding(tmp_path / "pieces") as again:
        assert again.is_dir()


def test_the_lock_dies_with_its_process_and_the_pieces_stay(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom edadm.artifacts import holding\n"
        "with holding(Path(sys.argv[1])) as folder:\n    (folder / 'piece').write_text('1')\n"
        "    print('held', flush=True)\n    time.sleep(60)\n"
    )
    folder = tmp_path / "pieces"
    process = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(BusyError), holding(folder):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with holding(folder):
        assert (folder / "piece").read_text() == "1"


def test_pieces_of_the_same_work_stay_and_those_of_other_work_go(tmp_path: Path) -> None:
    with holding(tmp_path) as folder:
        same_work(folder, "first")
        (folder / "piece").write_text("1")
        (folder / "store.zarr").mkdir()
        (folder / "store.zarr" / "0").write_text("1")
        same_work(folder, "first")
        assert {"piece", "store.zarr"} <= {entry.name for entry in folder.iterdir()}
        same_work(folder, "second")
        assert {entry.name for entry in folder.iterdir()} == {".lock", "description.txt"}
        with pytest.raises(BusyError), holding(folder):
            pass


def test_pieces_without_a_description_are_of_other_work(tmp_path: Path) -> None:
    (tmp_path / "piece").write_text("1")
    same_work(tmp_path, "first")
    assert not (tmp_path / "piece").exists()


def test_finished_work_leaves_nothing(tmp_path: Path) -> None:
    with holding(tmp_path / "pieces") as folder:
        (folder / "piece").write_text("1")
    finished(tmp_path / "pieces")
    finished(tmp_path / "pieces")
    assert list(tmp_path.iterdir()) == []
