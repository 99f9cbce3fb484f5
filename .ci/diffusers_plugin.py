"""A pytest plugin: diffusers' own tests with a quantized network in place of theirs (`.ci/diffusers_suite`).

`EDADM` is a back-end, or `plain` for their own network. What a test builds is quantized to W8A8 of random
inputs, written to a file, and loaded again. A tiny tokenizer that tests would fetch is made here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from transformers import CLIPTokenizer

import edadm
from edadm.config.schema import Bits
from edadm.deploy.checkpoint import save_quantized
from edadm.deploy.diffusers import QuantizedUNet2DConditionModel, QuantizedUNet2DModel
from edadm.deploy.grids import quantized_copy
from edadm.errors import EdadmError
from edadm.networks.build import build_network
from edadm.networks.inputs import Rows
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.unet_config import unet_architecture
from edadm.nn.insert import quantized_layers
from edadm.passes.ranges import set_ranges
from edadm.quant import ranges

BACKEND = os.environ.get("EDADM", "simulated")
FILES = Path(tempfile.mkdtemp())
W8A8 = Bits(weights=8, activations=8, range_bins=64, range_batch_size=4)
TOKENIZER = "hf-internal-testing/tiny-random-clip"


@dataclass(frozen=True)
class Expected:
    """Tests that fail, and why they may.

    Args:
        reason: why.
        names: of the tests, as a regular expression for the end of their ids.
        raises: the error, by which refusals are told from other failures.
        is_certain: whether they fail everywhere, and not by how this processor rounds.
        backends: on which.
    """

    reason: str
    names: str
    raises: type[Exception] = EdadmError
    is_certain: bool = True
    backends: tuple[str, ...] = ("simulated", "integer")


EXPECTED = (
    Expected(
        "pixels of the network in full precision, to 1e-2",
        r"StableDiffusionPipeline::test_stable_diffusion_(ddim|ddim_factor_8|pndm|k_lms|k_euler_ancestral"
        r"|k_euler|negative_prompt)",
        AssertionError,
        is_certain=False,
    ),
    Expected("fetches a pipeline from a hub", "::test_stable_diffusion_no_safety_checker", OSError),
    Expected("refused: random weights from a configuration", "::test_stable_diffusion_height_width_opt"),
    Expected("refused: query, key and value have grids of their own", "::test_fused_qkv_projections"),
    Expected("refused: an IP-Adapter's attention has no grids", "PipelineIPAdapter::test_ip_adapter.*"),
    Expected("refused: integers on a CPU stay in fp32", "::test_to_dtype", backends=("integer",)),
    Expected(
        "refused: integers are not saved, the network that is simulated is",
        "::test_(save_load_local|save_load_optional_components|serialization_with_variants"
        "|loading_with_variants|loading_with_incorrect_variants_raises_error|torch_dtype_dict)",
        backends=("integer",),
    ),
)


@torch.no_grad()
def quantized_file(plain: Any) -> Path:
    """The file of the quantized copy of a network; skips the test where edadm builds no such network."""
    config = json.loads(plain.to_json_string()) | {"_class_name": type(plain).__name__}
    try:
        settings, _ = unet_architecture(config, Path("the test's network"))
        architecture = Architecture.model_validate(settings)
        network = build_network(architecture)
        network.load_state_dict(plain.state_dict())
    except (EdadmError, ValueError, RuntimeError) as error:
        pytest.skip(f"edadm has no such architecture: {' '.join(str(error).split())[:200]}")
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for tensor in plain.state_dict().values():
        digest.update(tensor.detach().float().contiguous().numpy().tobytes())
    path = FILES / f"{digest.hexdigest()}.safetensors"
    if path.exists():
        return path
    quantized = quantized_copy(network.eval().requires_grad_(False), W8A8)
    set_ranges(quantized, _rows(architecture), W8A8)
    for layer in quantized_layers(quantized).values():
        layer.set_codes(layer.nearest_codes())
    side = architecture.image_size
    save_quantized(quantized, path, architecture, W8A8, {}, (side, side))
    return path


def _rows(architecture: Architecture) -> Rows:
    """Random inputs of a network."""
    generator, side = torch.Generator().manual_seed(2), architecture.image_size
    tensors = {
        "latents": torch.randn(4, architecture.in_channels, side, side, generator=generator),
        "timesteps": torch.tensor([9, 400, 700, 990]),
    }
    if width := architecture.context_channels:
        tensors["context"] = torch.randn(4, 5, width, generator=generator)
    return Rows(tensors)


def in_place_of(plain_class: Any, ours: Any) -> type:
    """A class that makes and loads quantized networks, where tests make and load their own."""

    def make(cls: type, *args: Any, **named: Any) -> Any:
        named.pop("quantization_config", None)
        plain = plain_class(*args, **named)
        with torch.random.fork_rng(devices=[]):
            return edadm.load(quantized_file(plain), backend=BACKEND)

    def load(path: Any, **named: Any) -> Any:
        return ours.from_pretrained(path, **({"backend": BACKEND} | named))

    return type(ours)(ours.__name__, (ours,), {"__new__": make, "from_pretrained": staticmethod(load)})


OURS = {
    "UNet2DModel": in_place_of(UNet2DModel, QuantizedUNet2DModel),
    "UNet2DConditionModel": in_place_of(UNet2DConditionModel, QuantizedUNet2DConditionModel),
}


@cache
def tokenizer() -> str:
    """The folder of a tokenizer that knows single bytes alone."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    tokens = ["<|startoftext|>", "!!pad", "<|endoftext|>", *letters, *(f"{one}</w>" for one in letters)]
    folder = FILES / "tokenizer"
    named = {token: number for number, token in enumerate(tokens)}
    made = CLIPTokenizer(vocab=named, merges=[], model_max_length=77, pad_token="<|endoftext|>")
    made.save_pretrained(folder)
    return str(folder)


def pytest_configure() -> None:
    """Puts the tokenizer in the place of the one that would be fetched, and makes ranges cheap."""
    ranges.THRESHOLDS = 10
    fetch = CLIPTokenizer.from_pretrained

    def from_pretrained(name: Any, *args: Any, **named: Any) -> Any:
        return fetch(tokenizer() if str(name) == TOKENIZER else name, *args, **named)

    CLIPTokenizer.from_pretrained = from_pretrained


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the classes into the modules of tests."""
    for module in {item.module for item in items} if BACKEND != "plain" else ():  # type: ignore[attr-defined]
        for value in vars(module).values():
            told = vars(value).get("model_class") if isinstance(value, type) else None
            if isinstance(told, property) and told.fget and (ours := OURS.get(told.fget(None).__name__)):
                value.model_class = property(lambda _, ours=ours: ours)
        for kind, ours in OURS.items():
            if "pipelines" in module.__name__ and hasattr(module, kind):
                setattr(module, kind, ours)
    for item in items:
        for one in EXPECTED:
            if BACKEND in one.backends and re.search(rf"(?:{one.names})(?:\[.*)?$", item.nodeid):
                mark = pytest.mark.xfail(reason=one.reason, raises=one.raises, strict=one.is_certain)
                item.add_marker(mark)
