"""Schemes of all linear layers of transformers' blocks, in simulation and by integers on a CPU (docs/families.md)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from edadm.config.schema import Bits
from edadm.deploy.backends.onednn import lower_for_cpu
from edadm.deploy.checkpoint import load_quantized, save_quantized
from edadm.deploy.grids import quantized_copy
from edadm.networks.build import build_network
from edadm.networks.convert import convert_checkpoint
from edadm.networks.families import network_call
from edadm.nn.insert import quantized_layers
from edadm.passes.prepare import prepare

from .. import dit, pixart

BLOCKS = "transformer_blocks.*"
LINEAR: dict[str, Any] = {"layers": [BLOCKS], "weights": 4, "activations": 4, "inputs": "dynamic"}
EIGHT = {"weights": 8, "activations": 8}
SCHEMES: dict[str, dict[str, Any]] = {
    "w8a8": {},
    "w4a8": {"weights": 4},
    "smoothed": {"smoothing": 0.5},
    "tokens_w8a8": {"linear": LINEAR | EIGHT},
    "tokens_w4a4": {"linear": LINEAR},
    "quarot_w4a4": {"linear": LINEAR | {"rotation": "hadamard"}},
    "convrot_w4a4": {"linear": LINEAR | {"rotation": "regular_hadamard"}},
    "svdquant_w4a4": {"smoothing_layers": {BLOCKS: 0.5}, "linear": LINEAR | {"rank": 8}},
}
LAST = {dit: "proj_out_2", pixart: "proj_out"}
CASES = [
    pytest.param(family, name, marks=() if (family, name) == (pixart, "svdquant_w4a4") else pytest.mark.long)
    for family in LAST
    for name in SCHEMES
]


@pytest.mark.parametrize(("family", "name"), CASES)
@torch.no_grad()
def test_integers_on_a_cpu_are_the_simulated_network(family: ModuleType, name: str, tmp_path: Path) -> None:
    family.write_pipeline(tmp_path / "pipeline")
    model, rows = family.described(tmp_path / "pipeline"), family.rows_of(4)
    network = build_network(model.architecture)
    network.load_state_dict(convert_checkpoint(model))
    layers = {"pos_embed.proj": EIGHT, LAST[family]: {"weights": 8, "activations": None}}
    bits = Bits.model_validate({**EIGHT, "range_bins": 64, "layers": layers, **SCHEMES[name]})
    quantized = quantized_copy(network.eval(), bits)
    prepare(quantized, rows, bits)
    for layer in quantized_layers(quantized).values():
        layer.set_codes(layer.nearest_codes())
    save_quantized(quantized, tmp_path / "q.safetensors", model.architecture, bits, {}, (8, 8))
    simulated = load_quantized(tmp_path / "q.safetensors")
    exact, expected = network_call(network, rows), network_call(simulated, rows)
    apart = (expected - exact).abs().mean()
    assert 0 < apart < exact.std() / 5
    assert (network_call(lower_for_cpu(simulated), rows) - expected).abs().mean() < apart / 5
