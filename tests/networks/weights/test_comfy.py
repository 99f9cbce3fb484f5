"""Layers in ComfyUI's int8 layout, in files made by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from edadm.networks.weights import CheckpointError, read_state
from edadm.networks.weights.known.identify import identify
from edadm.networks.weights.reading import open_container

CODES = torch.arange(-8, 8, dtype=torch.int8).reshape(2, 8)


def file(folder: Path, facts: Any, **tensors: Tensor | None) -> Path:
    """A file of one layer, and of a bias."""
    mark = torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8)
    layer = {"weight": CODES, "weight_scale": torch.tensor(0.5), "comfy_quant": mark} | tensors
    state = {f"a.b.{name}": tensor for name, tensor in layer.items() if tensor is not None}
    save_file(state | {"a.b.bias": torch.ones(2)}, folder / "file")
    return folder / "file"


@pytest.mark.parametrize(
    "scale",
    [torch.tensor(0.5), torch.tensor([0.5]), torch.tensor([[0.5], [-2.0]]), torch.tensor([0.5, -2.0])],
)
def test_codes_become_their_values(scale: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read_state(file(tmp_path, {"format": "int8_tensorwise"}, weight_scale=scale))
    factors = [0.5, 0.5 if scale.numel() == 1 else -2.0]
    assert found.keys() == {"a.b.weight", "a.b.bias"}
    assert found["a.b.weight"].tolist() == [
        [code * factor for code in row] for row, factor in zip(CODES.tolist(), factors, strict=True)
    ]
    assert "1 layers are int8 (ComfyUI's layout), and were taken as the values" in capsys.readouterr().err
    assert "with 1 int8 layers of ComfyUI's" in open_container(tmp_path / "file").kind


@pytest.mark.parametrize("nested", [False, True])
def test_rotated_channels_are_rotated_back(nested: bool, tmp_path: Path) -> None:
    """A row of one group of four that is all ones was (1, 1, 1, 1) before, whose products with the rows of the matrix are all 2 / 2."""
    told = {"convrot": True, "convrot_groupsize": 4}
    facts = {"format": "int8_tensorwise"} | ({"params": told} if nested else told)
    codes = torch.tensor([[1, 1, 1, 1, 4, 0, 0, 0], [0, 0, 0, 4, 0, 0, 2, 0]], dtype=torch.int8)
    found = read_state(file(tmp_path, facts, weight=codes, weight_scale=torch.tensor(1.0)))
    assert found["a.b.weight"].tolist() == [[1, 1, 1, 1, 2, 2, 2, -2], [-2, 2, 2, 2, 1, -1, 1, 1]]


@pytest.mark.parametrize(
    ("facts", "tensors", "told"),
    [
        ({}, {"weight_scale": None}, "its codes or their scale are missing"),
        ({}, {"weight": CODES.float()}, "its codes are float32 of (2, 8)"),
        ({}, {"weight_scale": torch.ones(3)}, "its scale of (3,) does not fit codes of (2, 8)"),
        ({"convrot": True}, {}, "its 8 channels are rotated in groups that do not fit"),
        (
            {"convrot": True, "convrot_groupsize": 2},
            {},
            "its 8 channels are rotated in groups that do not fit",
        ),
    ],
)
def test_layers_that_are_none_are_refused(
    facts: dict[str, Any], tensors: dict[str, Tensor | None], told: str, tmp_path: Path
) -> None:
    path = file(tmp_path, {"format": "int8_tensorwise"} | facts, **tensors)
    with pytest.raises(CheckpointError, match=re.escape(f"'a.b' is no int8 layer of ComfyUI's: {told}")):
        read_state(path)


@pytest.mark.parametrize("facts", [{"format": "nvfp4"}, {}, [], "int8_tensorwise", {"format": "x" * 5000}])
def test_other_formats_are_left_to_be_refused(facts: Any, tmp_path: Path) -> None:
    found = identify(open_container(file(tmp_path, facts)), tmp_path / "file")
    assert found.kind is not None
    assert "ComfyUI" in found.kind.what
    assert found.kind.advice.endswith("edadm quantizes them itself")
