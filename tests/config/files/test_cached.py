"""Files that other programs have downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from edadm.config.files.cached import cached
from edadm.config.files.downloads import DOWNLOADS
from edadm.config.files.scoring import scoring
from edadm.config.schema import Evaluation
from edadm.errors import EdadmError


def test_the_caches_of_the_hub_and_of_torch_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)
    settings = Evaluation(scores=("lpips",))
    with pytest.raises(
        EdadmError, match="lpips needs weights, and `vgg_weights` is not set: put torchvision"
    ):
        scoring(settings)
    dino = DOWNLOADS["dinov2_vit_l_14"].url
    assert cached(dino) is None
    repository = tmp_path / "hub/models--timm--vit_large_patch14_dinov2.lvd142m"
    for name, text in (("refs/main", "abc"), ("snapshots/abc/model.safetensors", "x")):
        (repository / name).parent.mkdir(parents=True)
        (repository / name).write_text(text)
    assert cached(dino) == repository / "snapshots/abc/model.safetensors"
    checkpoints = tmp_path / "torch/hub/checkpoints"
    checkpoints.mkdir(parents=True)
    for name in ("vgg16-397923af.pth", "vgg.pth"):
        (checkpoints / name).write_text("x")
    assert scoring(settings).perceptual == {
        "vgg16": checkpoints / "vgg16-397923af.pth",
        "lpips": checkpoints / "vgg.pth",
    }
    assert cached("https://huggingface.co/other") is None
