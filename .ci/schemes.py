"""Errors of the bundled latent model, linear layers of its transformers with a scheme, all else in fp32.

`.ci/schemes` makes the rows. Of each seed, the squared error of the prediction on rows that nothing was
calibrated on, divided by the square of the prediction in full precision.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from edadm.calibration.conditions import HELD_OUT
from edadm.config.load import load_config
from edadm.config.schema import Bits, LayerBits, Linear
from edadm.deploy.grids import quantized_copy
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.networks.load import load_network
from edadm.networks.units.trace import network_sites
from edadm.nn.insert import quantized_layers
from edadm.nn.quantizer import Quantizer
from edadm.passes.prepare import prepare

PATTERN = "*.transformer_blocks.*"
SEEDS = (1, 2, 3)
VARIANTS: dict[str, tuple[dict[str, object], float | None]] = {
    "W8A8 static": ({"weights": 8, "activations": 8}, None),
    "W8A8 tokens": ({"weights": 8, "activations": 8, "inputs": "dynamic"}, None),
    "W4A8 static": ({"activations": 8}, None),
    "W4A8 tokens": ({"activations": 8, "inputs": "dynamic"}, None),
    "W4A8 tokens, hadamard": ({"activations": 8, "inputs": "dynamic", "rotation": "hadamard"}, None),
    "W4A4 static": ({}, None),
    "W4A4 static, hadamard": ({"rotation": "hadamard"}, None),
    "W4A4 tokens": ({"inputs": "dynamic"}, None),
    "W4A4 tokens, smooth": ({"inputs": "dynamic"}, 0.5),
    "W4A4 tokens, hadamard": ({"inputs": "dynamic", "rotation": "hadamard"}, None),
    "W4A4 tokens, regular": ({"inputs": "dynamic", "rotation": "regular_hadamard"}, None),
    "W4A4 tokens, rank 8": ({"inputs": "dynamic", "rank": 8}, None),
    "W4A4 tokens, smooth, rank 8": ({"inputs": "dynamic", "rank": 8}, 0.5),
    "W4A4 tokens, smooth, rank 16": ({"inputs": "dynamic", "rank": 16}, 0.5),
    "W4A4 tokens, hadamard, rank 16": ({"inputs": "dynamic", "rotation": "hadamard", "rank": 16}, None),
    "W8A4 tokens": ({"weights": 8, "inputs": "dynamic"}, None),
    "W8A4 tokens, hadamard": ({"weights": 8, "inputs": "dynamic", "rotation": "hadamard"}, None),
}


def settings(network: nn.Module, linear: dict[str, object], smoothing: float | None) -> Bits:
    """Those of a variant: all layers outside of transformers in floating point."""
    names = {site.module for site in network_sites(network) if site.role == "weight"}
    others = {name for name in names if ".transformer_blocks." not in name}
    floats = {name: LayerBits(weights=None, activations=None) for name in others}
    told = Linear.model_validate({"layers": [PATTERN], "weights": 4, "activations": 4} | linear)
    smoothed = {} if smoothing is None else {PATTERN: smoothing}
    return Bits(layers=floats, smoothing_layers=smoothed, linear=told, range_batch_size=32)


@torch.no_grad()
def main(folder: Path) -> None:
    """Prints the errors of all variants, times 10^5, of each seed."""
    network = load_network(
        load_config().models["cifar10_latent"].architecture,
        folder / "unet.safetensors",
        torch.device("cpu"),
    )
    for name, variant in VARIANTS.items():
        found = []
        for seed in SEEDS:
            tensors = load_file(folder / f"calibration_{seed}.safetensors")
            rows, held_out = Rows.of(tensors)[:32], Rows.of(tensors, HELD_OUT)[::3]
            expected = torch.cat([network_call(network, batch) for batch in held_out.split(24)])
            bits = settings(network, *variant)
            quantized = quantized_copy(network, bits)
            prepare(quantized, rows, bits)
            layers = {id(part) for layer in quantized_layers(quantized).values() for part in layer.modules()}
            for module in quantized.modules():
                if isinstance(module, Quantizer) and id(module) not in layers:
                    module.enabled = False  # operands of attention
            predicted = torch.cat([network_call(quantized, batch) for batch in held_out.split(24)])
            error = (predicted - expected).square().sum() / expected.square().sum()
            found.append(f"{1e5 * error.item():6.1f}")
        sys.stdout.write(f"{name:32}{'  '.join(found)}\n")
        sys.stdout.flush()


main(Path(sys.argv[1]))
