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
from collections import Counter
from contextlib import suppress
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
from edadm.networks.settings.configs.unet import unet_architecture
from edadm.nn.insert import quantized_layers
from edadm.passes.ranges import set_ranges
from edadm.quant import ranges

BACKEND = os.environ.get("EDADM", "simulated")
FILES = Path(tempfile.mkdtemp())
W8A8 = Bits(weights=8, activations=8, range_bins=64, range_batch_size=4)
TOKENIZER = "hf-internal-testing/tiny-random-clip"
HUB = "fetches from a hub, as it does with the test's own network"
NOT_SAID = "edadm has no such architecture"
PIXELS = "pixels of the network in full precision"
REFUSED = "refused"
TRAINING = "training of a frozen network"


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
    raises: type[Exception] | tuple[type[Exception], ...] = EdadmError
    is_certain: bool = True
    backends: tuple[str, ...] = ("simulated", "integer")


EXPECTED = (
    Expected(
        PIXELS,
        r"::test_stable_diffusion_(ddim|ddim_factor_8|pndm|k_lms|k_euler_ancestral|k_euler|negative_prompt"
        r"|img2img_(default_case|negative_prompt|multiple_init_images|k_lms|tiny_autoencoder))",
        AssertionError,
        is_certain=False,
    ),
    Expected(
        HUB,
        "::test_(stable_diffusion_no_safety_checker|from_pretrained_hub|output_pretrained|output_pretrained_ve_large)",
        (OSError, EdadmError),
    ),
    Expected(HUB, r"HubLoading::test_load_sharded_checkpoint_device_map_from_hub_\w+", (OSError, EdadmError)),
    Expected(f"{REFUSED}: random weights from a configuration", "::test_stable_diffusion_height_width_opt"),
    Expected(
        f"{REFUSED}: query, key and value have grids of their own",
        "::test_(fused_qkv_projections|fuse_unfuse_qkv_projections)",
    ),
    Expected(
        f"{REFUSED}: attention keeps the processors that hold its grids",
        "::test_(attention_processor_dict|special_attn_proc)",
    ),
    Expected(
        f"{REFUSED}: attention keeps its processors, however many are given, and the sentence says so",
        "::test_attention_processor_count_mismatch_raises_error",
        AssertionError,  # the test looks for diffusers' words in it
    ),
    Expected(
        f"{REFUSED}: an IP-Adapter's attention has no grids",
        r"::test_(ip_adapter\w*|load_ip_adapter)",
    ),
    Expected(
        f"{REFUSED}: what half precision rounded is not saved",
        r"::test_(from_save_pretrained_dtype|from_pretrained_dtype_alias)\[(fp16|bf16)\]",
    ),
    Expected(
        f"{REFUSED}: a folder without the file asked for, in words that the test does not know",
        "::test_from_save_pretrained_variant",
    ),
    Expected(
        f"{REFUSED}: one file, which is smaller than the shards into which the test would have it cut",
        "::test_sharded_checkpoints_with_parallel_loading",
        AssertionError,
        backends=("simulated",),
    ),
    Expected(
        f"{REFUSED}: layerwise casting, and tensors that are no LoRA",
        r"::test_(lora_layerwise_casting_inference|logs_info_when_no_lora_keys_found)"
        r"|::ControlNetPipelineFastTests::test_layerwise_casting_inference",
    ),
    Expected(
        f"{TRAINING}: no LoRA is made beside it to be learned and saved",
        r"LoRA::test_(save_load_lora_adapter|lora_wrong_adapter_name_raises_error|lora_B_bias"
        r"|lora_adapter_metadata_is_loaded_correctly|lora_adapter_wrong_metadata_raises_error"
        r"|lora_low_cpu_mem_usage_with_loading|correct_lora_configs_with_different_ranks"
        r"|lora_missing_keys_warning|lora_unexpected_keys_warning|lora_layerwise_casting_peft_input_autocast)",
    ),
    Expected(TRAINING, "Training::test_(training|training_with_ema|mixed_precision_training)"),
    Expected(
        f"{TRAINING}: it comes in inference mode, and the test asks for the other",
        "Training::test_gradient_checkpointing_equivalence",
        AssertionError,
    ),
    Expected(
        f"{TRAINING}: processors that are learned are not taken",
        "::test_custom_diffusion_(processors|save_load)",
        backends=("simulated",),
    ),
    Expected(
        f"{TRAINING}: the test looks up projections in full precision, which integers have none of",
        "::test_custom_diffusion_(processors|save_load)",
        KeyError,
        backends=("integer",),
    ),
    Expected(f"{REFUSED}: integers on a CPU stay in fp32", "::test_to_dtype", backends=("integer",)),
    Expected(
        f"{REFUSED}: integers are not saved, the network that is simulated is",
        r"::test_(save_load_local|serialization_with_variants|loading_with_variants|dtype_alias|dtype_dict"
        r"|loading_with_incorrect_variants_raises_error|torch_dtype_dict|pipeline_with_accelerator_device_map"
        r"|from_save_pretrained|(from_save_pretrained_dtype|from_pretrained_dtype_alias)\[fp32\]"
        r"|sharded_checkpoints_with_parallel_loading|save_pretrained_raise_not_implemented_exception)"
        r"|(StableDiffusion|ControlNet)\w*::test_save_load_optional_components",
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
        pytest.skip(f"{NOT_SAID}: {' '.join(str(error).split())[:200]}")
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


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints a table of files: what passed, what is listed by reason, what cannot be said, what failed."""
    kinds: dict[str, Counter[str]] = {}
    for outcome, reports in terminalreporter.stats.items():
        for report in (
            reports if outcome in ("passed", "xfailed", "xpassed", "skipped", "failed", "error") else ()
        ):
            kind = outcome
            if outcome == "xfailed":
                kind = f"listed ({report.wasxfail.removeprefix('reason: ').partition(':')[0]})"
            if outcome == "skipped" and NOT_SAID in str(report.longrepr):
                kind = NOT_SAID
            kinds.setdefault(report.nodeid.partition("::")[0], Counter())[kind] += 1
    for file, counts in kinds.items():
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        terminalreporter.write_line(f"{BACKEND} {file}: {told}")


def _tested(value: Any) -> str:
    """The name of the network whose tests a class configures; empty if it is no such class."""
    told = vars(value).get("model_class") if isinstance(value, type) else None
    with suppress(NotImplementedError):  # diffusers' base of all such classes
        return str(told.fget(None).__name__) if isinstance(told, property) and told.fget else ""
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the classes into the modules of tests."""
    for module in {item.module for item in items} if BACKEND != "plain" else ():  # type: ignore[attr-defined]
        for value in vars(module).values():
            if ours := OURS.get(_tested(value)):
                value.model_class = property(lambda _, ours=ours: ours)
        for kind, ours in OURS.items():
            if "pipelines" in module.__name__ and hasattr(module, kind):
                setattr(module, kind, ours)
    for item in items:
        for one in EXPECTED:
            if BACKEND in one.backends and re.search(rf"(?:{one.names})(?:\[.*)?$", item.nodeid):
                mark = pytest.mark.xfail(reason=one.reason, raises=one.raises, strict=one.is_certain)
                item.add_marker(mark)
