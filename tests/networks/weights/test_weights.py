"""Reading checkpoints without trusting them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from edadm.config.schema import Model
from edadm.networks.convert import convert_checkpoint
from edadm.networks.load import load_network
from edadm.networks.settings.architecture import Architecture
from edadm.networks.weights import CheckpointError, check_fit, read_state

from ...conftest import reinitialise
from ..original import OriginalUNet


class Hostile:
    """Runs a command when unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="module")
def original(architecture: Architecture) -> dict[str, torch.Tensor]:
    network = OriginalUNet(architecture)
    reinitialise(network, 9)
    return network.state_dict()


def test_a_hostile_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    path, marker = tmp_path / "model.ckpt", tmp_path / "executed"
    torch.save({"conv_in.weight": Hostile(marker)}, path)
    with pytest.raises(CheckpointError, match=r"model\.ckpt cannot be read as a checkpoint") as caught:
        read_state(path)
    assert not marker.exists()
    assert re.search(
        r"\(it asks to call \w+\.system, as no file of weights does; nothing was executed\)",
        str(caught.value),
    )
    torch.load(path, weights_only=False)
    assert marker.exists(), "the pickle must be one that would have done harm"


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"\x80\x02"])
@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
def test_a_damaged_file_is_refused_in_a_sentence(content: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        read_state(path)


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: [s, "optimizer"], lambda s: {"state_dict": s}, lambda s: {"model": s}]
)
def test_known_wrappings_of_a_state_dict_are_taken_off(wrap: Any, tmp_path: Path) -> None:
    state = {"module.a.weight": torch.arange(3.0)}
    torch.save(wrap(state), tmp_path / "model.ckpt")
    read = read_state(tmp_path / "model.ckpt")
    assert list(read) == ["a.weight"]
    assert torch.equal(read["a.weight"], state["module.a.weight"])


def test_anything_but_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="holds no plain dictionary of tensors"):
        read_state(tmp_path / "model.ckpt")


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_an_original_checkpoint_becomes_a_network(
    suffix: str, original: dict[str, torch.Tensor], model: Model, tmp_path: Path
) -> None:
    path = tmp_path / f"model.{suffix}"
    torch.save(original, path) if suffix == "ckpt" else save_file(original, path)
    state = convert_checkpoint(model.model_copy(update={"checkpoint": str(path)}))
    save_file(state, tmp_path / "unet.safetensors")
    unet = load_network(model.architecture, tmp_path / "unet.safetensors")
    x, t = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 700])
    network = OriginalUNet(model.architecture).eval()
    network.load_state_dict(original)
    assert (unet(x, t).sample - network(x, t)).abs().max() < 1e-5
    assert not any(parameter.requires_grad for parameter in unet.parameters())
    again = convert_checkpoint(model.model_copy(update={"checkpoint": str(tmp_path / "unet.safetensors")}))
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_half_precision_is_widened(original: dict[str, torch.Tensor], model: Model, tmp_path: Path) -> None:
    save_file({name: tensor.half() for name, tensor in original.items()}, tmp_path / "half.safetensors")
    state = convert_checkpoint(model.model_copy(update={"checkpoint": str(tmp_path / "half.safetensors")}))
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


def test_a_checkpoint_of_another_width_is_refused_with_the_tensor_and_both_shapes(
    original: dict[str, torch.Tensor], model: Model, tmp_path: Path
) -> None:
    save_file(original, tmp_path / "model.safetensors")
    wider = model.architecture.model_copy(update={"channels": 32})
    preset = model.model_copy(
        update={"checkpoint": str(tmp_path / "model.safetensors"), "architecture": wider}
    )
    with pytest.raises(
        CheckpointError,
        match=r"'conv_in\.weight' has shape \(16, 3, 3, 3\), the preset's network \(32, 3, 3, 3\)",
    ):
        convert_checkpoint(preset)


def test_missing_and_surplus_tensors_are_named() -> None:
    expected = {"a": torch.zeros(2), "b": torch.zeros(3)}
    with pytest.raises(CheckpointError, match=r"lacks the tensor 'b' \(3,\)"):
        check_fit({"a": torch.zeros(2)}, expected, Path("file"))
    with pytest.raises(CheckpointError, match="holds 'c', which the preset's network lacks"):
        check_fit({**expected, "c": torch.zeros(1)}, expected, Path("file"))


def test_a_foreign_layout_is_refused_by_name(model: Model, tmp_path: Path) -> None:
    save_file({"time_embed.0.weight": torch.zeros(1)}, tmp_path / "ldm.safetensors")
    with pytest.raises(CheckpointError, match=r"is not in the 'ddim' layout but in 'compvis'"):
        convert_checkpoint(model.model_copy(update={"checkpoint": str(tmp_path / "ldm.safetensors")}))
