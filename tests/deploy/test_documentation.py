"""What README and docs show is run as it stands there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from diffusers import DDIMPipeline
from diffusers.utils import logging
from torch import nn

from edadm.config.schema import Bits, Model
from edadm.deploy.checkpoint import load_quantized, save_quantized
from edadm.deploy.diffusers import QuantizedUNet2DModel
from edadm.nn.insert import quantized_layers

logging.set_verbosity_error()
ROOT = Path(__file__).parents[2]


def example(document: str, heading: str) -> str:
    """The one block of Python in a section."""
    section = (ROOT / document).read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return block


def test_the_readme_uses_a_checkpoint_in_diffusers(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program = example("README.md", "Use it in diffusers").replace(
        "num_inference_steps=20", "num_inference_steps=2"
    )
    (named,) = re.findall(r'edadm\.load\("(.*)"\)', program)
    Path(named).parent.mkdir(parents=True)
    shutil.copy(saved, named)
    names: dict[str, object] = {}
    exec(program, names)
    assert Path("image.png").stat().st_size > 100
    assert isinstance(names["pipeline"], DDIMPipeline)
    assert isinstance(names["pipeline"].unet, QuantizedUNet2DModel)
    assert (
        Path("cifar10_w4a8/unet") / "diffusion_pytorch_model.safetensors"
    ).read_bytes() == saved.read_bytes()


@pytest.mark.parametrize("one_sided", [False, True])
def test_numpy_reads_the_weights_as_the_format_says(
    one_sided: bool,
    folded: nn.Module,
    model: Model,
    bits: Bits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layers = quantized_layers(folded)
    grid = layers["down_blocks.0.resnets.0.conv1"].weight_quantizer
    if one_sided:
        grid.set_grid(grid.scale, grid.zero_point * 0)
    save_quantized(folded, tmp_path / "quantized.safetensors", model.architecture, bits, {})
    monkeypatch.chdir(tmp_path)
    names: dict[str, dict[str, np.ndarray]] = {}
    exec(example("docs/checkpoint_format.md", "Read it with NumPy"), names)
    loaded = quantized_layers(load_quantized(tmp_path / "quantized.safetensors"))
    assert names["weights"].keys() == loaded.keys()
    assert any(len(layer.weight_quantizer.segments) == 2 for layer in loaded.values())
    for name, layer in loaded.items():
        assert np.array_equal(names["weights"][name], layer.weight.numpy()), name
