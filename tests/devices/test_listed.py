"""Which GPUs a process may use, by what `nvidia-smi -L` and its surroundings say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edadm.devices.listed import Gpu, listing, visible_gpus
from edadm.errors import EdadmError

KIND = "NVIDIA H200"
FOUR = "".join(f"GPU {index}: {KIND} (UUID: GPU-{index}{index}-c0)\n" for index in range(4))
DIVIDED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef)
  MIG 3g.20gb     Device  1: (UUID: MIG-a1b2c3d4)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-1e8d12a3)
"""
OLD_MIG = "GPU 0: A100 (UUID: GPU-e8)\n  MIG 1g.5gb Device 0: (UUID: MIG-GPU-e8/7/0)\n"
MIXED = f"GPU 0: NVIDIA T400 (UUID: GPU-aa)\nGPU 1: {KIND} (UUID: GPU-bb)\nGPU 2: {KIND} (UUID: GPU-cc)\n"
PCI = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def places(said: str, **environment: str) -> list[str]:
    return [gpu.place for gpu in visible_gpus(said, environment)]


@pytest.mark.parametrize(
    ("named", "indices"),
    [
        ("3,1", [3, 1]),
        (" 2 , 0", [2, 0]),
        ("GPU-22-c0,GPU-0", [2, 0]),  # beginnings of UUIDs
        ("1,9,2", [1]),  # CUDA stops at what is not there
        ("0,-1,1", [0]),
        ("-1", []),
        ("", []),
        ("NoDevFiles", []),
        ("GPU-", []),  # means several
        ("1,1", []),
        ("0,GPU-00-c0", []),
    ],
)
def test_what_cuda_is_allowed_to_see_is_all_there_is(named: str, indices: list[int]) -> None:
    assert places(FOUR, CUDA_VISIBLE_DEVICES=named) == [f"GPU {index}" for index in indices]


def test_without_a_word_all_are_there() -> None:
    assert visible_gpus(FOUR, {})[2] == Gpu("GPU 2", KIND, "GPU-22-c0")
    assert str(visible_gpus(FOUR, {})[2]) == "GPU 2 (NVIDIA H200, GPU-22-c0)"
    assert len(visible_gpus(FOUR, {})) == 4
    assert visible_gpus("No devices found.\n", {}) == []


@pytest.mark.parametrize(
    ("variables", "indices"),
    [
        ({"SLURM_JOB_GPUS": "1,3"}, [1, 3]),
        ({"SLURM_JOB_GPUS": "1-2"}, [1, 2]),
        ({"SLURM_JOB_GPUS": "1,3", "SLURM_STEP_GPUS": "3"}, [3]),
        ({"SLURM_JOB_GPUS": "4-7"}, [0, 1, 2, 3]),  # of eight, and the job sees its four
        ({"SLURM_JOB_GPUS": "1,3", "CUDA_VISIBLE_DEVICES": "0"}, [0]),
        ({"SLURM_JOB_GPUS": ""}, [0, 1, 2, 3]),
    ],
)
def test_a_job_of_slurm_has_what_slurm_gave_it(variables: dict[str, str], indices: list[int]) -> None:
    assert places(FOUR, **variables) == [f"GPU {index}" for index in indices]


@pytest.mark.parametrize(
    ("named", "uuids"),
    [
        ("MIG-a1b2c3d4,MIG-c6d4f1ef", ["MIG-a1b2c3d4", "MIG-c6d4f1ef"]),
        ("MIG-a1", ["MIG-a1b2c3d4"]),
        ("0", ["MIG-c6d4f1ef", "MIG-a1b2c3d4"]),
        ("GPU-5d", ["MIG-c6d4f1ef", "MIG-a1b2c3d4"]),
        ("1,GPU-5d", ["GPU-1e8d12a3", "MIG-c6d4f1ef", "MIG-a1b2c3d4"]),
    ],
)
def test_of_a_divided_gpu_the_instances_are_devices(named: str, uuids: list[str]) -> None:
    assert [gpu.uuid for gpu in visible_gpus(DIVIDED, {"CUDA_VISIBLE_DEVICES": named})] == uuids


def test_an_instance_says_of_which_gpu_and_size_it_is() -> None:
    assert (
        str(visible_gpus(DIVIDED, {})[1])
        == "GPU 0, instance 1 (NVIDIA A100-SXM4-40GB MIG 3g.20gb, MIG-a1b2c3d4)"
    )
    assert [gpu.uuid for gpu in visible_gpus(OLD_MIG, {"CUDA_VISIBLE_DEVICES": "MIG-GPU-e8/7/0"})] == [
        "MIG-GPU-e8/7/0"
    ]


def test_numbers_of_gpus_of_several_kinds_need_an_order() -> None:
    with pytest.raises(EdadmError, match=r"several kinds \(NVIDIA T400, NVIDIA H200\).*by their UUIDs"):
        places(MIXED, CUDA_VISIBLE_DEVICES="1")
    assert places(MIXED, CUDA_VISIBLE_DEVICES="1", **PCI) == ["GPU 1"]
    assert places(MIXED, CUDA_VISIBLE_DEVICES="GPU-cc,GPU-bb") == ["GPU 2", "GPU 1"]


def test_a_machine_is_asked_once_and_may_have_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert listing() == ""
    for script, said in (("echo GPU 0; exit 1", ""), ("echo GPU 0", "GPU 0\n")):
        (tmp_path / "nvidia-smi").write_text(f"#!{os.path.realpath('/bin/sh')}\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        assert listing() == said
