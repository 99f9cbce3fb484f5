"""`edadm show` says what any file is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edadm.artifacts import facts, save_tensors, writing_json
from edadm.cli import app_with, main
from edadm.config.schema import Bits
from edadm.deploy.checkpoint import save_quantized
from edadm.networks.described.told import lines_on

from .networks.families import calibrated, original_checkpoint, tiny


def shown(capsys: pytest.CaptureFixture[str], *paths: Path) -> str:
    app_with()(["show", *map(str, paths)], standalone_mode=False)
    return capsys.readouterr().out


def test_a_foreign_checkpoint_is_told_with_what_can_be_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, state = tmp_path / "m.ckpt", original_checkpoint(tiny("sd14_coco"))
    torch.save({"state_dict": state, "epoch": 3}, path)
    assert shown(capsys, path).splitlines() == [
        str(path),
        "  what it is: a whole model in CompVis' layout, with conditions",
        f"  packed as: a PyTorch file of {path.stat().st_size:,} bytes",
        f"  tensors: {len(state) - 2:,}, in all {sum(tensor.numel() for tensor in state.values()) - 2:,} "
        "numbers; "
        f"float32 ({len(state) - 3}), int64 (1)",
        "  averaged weights: 'model_ema'; `ema: auto` or `true` takes them, `false` those as trained",
        f"  with edadm: set layout: compvis; `edadm describe {path}` prints the whole entry under `models:`",
    ]


def test_files_of_any_kind_are_told_in_one_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pointer, lora, unknown = tmp_path / "pointer", tmp_path / "lora.safetensors", tmp_path / "unknown.bin"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\n")
    save_file({"lora_unet_mid.lora_up.weight": torch.zeros(2, 2)}, lora, {"modelspec.title": "a\n\u2028é"})
    torch.save({"blob.a": torch.zeros(2, 3), "step": 4}, unknown)
    text = shown(capsys, pointer, lora, unknown)
    assert "what it is: a Git-LFS pointer" in text
    assert "what it is: a LoRA (low-rank changes of a U-Net), not a U-Net" in text
    assert r"says of itself: modelspec.title 'a\n\u2028\xe9'" in text
    assert "with edadm: merge it into its U-Net" in text
    assert "what it is: nothing known here; its first tensors are 'blob.a' (2, 3)" in text
    assert text.isascii()


def test_a_quantized_checkpoint_is_told_with_bits_layers_and_method(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, quantized, _ = calibrated("ldm4_bedroom", Bits(weights=4))
    provenance = {"reconstruction": {"method": "fbr", "iterations": 3}, "edadm": "0.2.0"}
    save_quantized(
        quantized, tmp_path / "q.safetensors", tiny("ldm4_bedroom").architecture, Bits(weights=4), provenance
    )
    text = shown(capsys, tmp_path / "q.safetensors")
    assert "what it is: a quantized U-Net of edadm (format 3, written by edadm 0.2.0)" in text
    assert "network: family ldm, image_size 8, in_channels 3, channels 16, multipliers [1,2]" in text
    assert "bits: weights 4, activations 8, softmax 8" in text
    assert "layers: 51 quantized; weights of 4 bits in 49, 8 bits in 2" in text
    assert "layers of other bits: conv_out, time_embedding.linear_1" in text
    assert '"method":"fbr"' in text


def test_artifacts_are_told_with_what_they_were_made_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = facts("ranges", {"bits": {"weights": 4}, "inputs": {"unet": "0123456789abcdef"}})
    save_tensors(tmp_path / "ranges.safetensors", {"a.scale": torch.ones(1)}, known)
    writing_json(tmp_path / "metrics.json", {"fid": 1.0}, facts("metrics", {"evaluation": {"images": 8}}))
    text = shown(capsys, tmp_path / "ranges.safetensors", tmp_path / "metrics.json")
    assert "what it is: activation ranges of edadm (format 1" in text
    assert 'made from bits: {"weights":4}' in text
    assert "made from the file unet: digest 0123456789ab\n" in text
    assert 'made from evaluation: {"images":8}' in text


def test_a_folder_is_told_file_by_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("unet", "vae"):
        (tmp_path / part).mkdir()
    names = {
        "conv_in.weight": (2, 4, 3, 3),
        "time_embedding.linear_1.weight": (2, 2),
        "conv_out.weight": (4, 2, 3, 3),
    }
    save_file(
        {name: torch.zeros(size) for name, size in names.items()},
        tmp_path / "unet/diffusion_pytorch_model.safetensors",
    )
    (tmp_path / "vae/diffusion_pytorch_model.bin").write_bytes(b"")
    (tmp_path / "vae/config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/x.bin").write_bytes(b"")
    lines = shown(capsys, tmp_path).splitlines()
    assert lines == [
        f"{tmp_path}: 2 files of weights or of edadm",
        "  unet/diffusion_pytorch_model.safetensors: a U-Net in diffusers' layout, without conditions",
        "  vae/diffusion_pytorch_model.bin: an empty file",
    ]


def test_damaged_files_and_empty_folders_end_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"a.weight": torch.zeros(300)}, tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:900])
    (tmp_path / "empty").mkdir()
    for name, told in (
        ("cut.pt", "it is cut short"),
        ("empty", "holds no file of weights and nothing that edadm made"),
    ):
        monkeypatch.setattr(sys, "argv", ["edadm", "show", str(tmp_path / name)])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1


def test_a_store_without_a_word_is_told_by_its_arrays(tmp_path: Path) -> None:
    (tmp_path / "latents").mkdir()
    for folder in (tmp_path, tmp_path / "latents"):
        (folder / "zarr.json").write_text("{}")
    assert "arrays: 'latents'" in lines_on(tmp_path)[1]


def test_it_needs_neither_a_locale_nor_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "page.ckpt").write_text("<!doctype html>é", encoding="utf-8")
    command = [sys.executable, "-m", "edadm", "show", str(tmp_path / "page.ckpt")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0, done.stderr
    assert "what it is: a web page" in done.stdout
