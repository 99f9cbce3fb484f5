"""A gallery of the fake results, with weights and errors by timestep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from edadm.artifacts import intact
from edadm.report.page import write_page

from ..fakes import VARIANTS, Fake, make_results, write

NAMES = ("conv_in", "down_blocks.0.resnets.0.conv1", "down_blocks.0.resnets.0.conv2", "conv_out")


def add_weights(fake: Fake) -> None:
    """Files of weights: 100 bytes a layer in full precision, 25 of codes in int8 or 13 in int4, and a bias."""
    floats = {f"{name}.weight": np.zeros(25, np.float32) for name in NAMES}
    save_file(floats, fake.file("fp32", "unet.safetensors"))
    for name in VARIANTS[1:]:
        bits = 8 if "w8" in name else 4
        codes = {f"{layer}.codes": np.zeros(25 if bits == 8 else 13, np.uint8) for layer in NAMES[:3]}
        rest = {"conv_out.weight": np.zeros(25, np.float32), "grids.weight_scales": np.zeros(9, np.float32)}
        sites = ", ".join(f'"{layer}.weight": [1, [], [5, 5]]' for layer in NAMES[:3])
        schemes = f'[{{"format": "int8"}}, {{"format": "int{bits}"}}]'
        facts = f'{{"schemes": {schemes}, "sites": {{{sites}, "conv_in.input": [0, []]}}}}'
        save_file(codes | rest, fake.file(name, "quantized.safetensors"), {"edadm": facts})


def add_errors(fake: Fake, name: str, of: str = "") -> Path:
    """What `edadm benchmark errors` would say of a variant, or of other weights than are there."""
    digest = of or intact(fake.file(name, "quantized.safetensors"))
    steps = [
        {"timestep": timestep, "errors": {"simulated": {"error": error}}}
        for timestep, error in ((980, 0.00125), (500, 0.004), (0, 0.5))
    ]
    path = fake.file(name, "errors.json")
    write(path, {"rows": 8, "inputs": {"quantized": digest}, "steps": steps})
    return path


def gallery_of(fake: Fake) -> Path:
    """The page that a report of a results folder leaves."""
    write_page(fake.results, fake.runs, fake.results / "report" / "index.html")
    return fake.results / "report" / "gallery.html"


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page that tests only look at."""
    fake = make_results(tmp_path_factory.mktemp("gallery") / "results")
    add_weights(fake)
    add_errors(fake, "tdac/w4a8/fbr_w4")
    return gallery_of(fake)
