"""Runs all stages of tiny models with the package on PYTHONPATH: `stages.py FOLDER [MODEL...]`.

The folder holds `presets.yaml` and `originals`; what comes out lies below it, a folder a model; all models
without names. Only the command line and `edadm.load` are used, because modules move.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import DDIMPipeline, DDIMScheduler

import edadm
from edadm.cli import main

PRESETS = Path("presets.yaml")
BY_NAME = "ddim"  # the model whose presets are named; others get theirs as JSON, which is read faster
SHARES = 2


class Tiny:
    """The stages of one model."""

    def __init__(self, name: str, presets: dict[str, Any]):
        self.name, self.presets = name, presets
        self.settings = presets["models"][name]
        present = {
            "unet": True,
            "autoencoder": "autoencoder" in self.settings,
            "condition": "conditioning" in self.settings and "classes" not in self.settings["architecture"],
        }
        self.parts = tuple(part for part, given in present.items() if given)
        self.condition = self.options("condition")

    def run(self, command: str, *arguments: object) -> None:
        """A command as a shell would run it; one that fails ends everything."""
        config = ("--config", PRESETS) if self.name == BY_NAME and command != "export" else ()
        sys.argv = ["edadm", command, *map(str, (*arguments, *config))]
        try:
            main()
        except SystemExit as end:
            if end.code:
                sys.exit(f"golden: this failed: {' '.join(sys.argv)}")

    def preset(self, option: str, name: str) -> tuple[str, str]:
        """The option that hands over a preset."""
        settings = self.presets[f"{option}s" if option != "bits" else option][name]
        return f"--{option}", name if self.name == BY_NAME else json.dumps(settings)

    def model(self) -> tuple[object, ...]:
        """Options for the model and its float weights."""
        return *self.preset("model", self.name), "--unet", f"{self.name}/unet.safetensors"

    def options(self, *parts: str) -> tuple[object, ...]:
        """Options for the weights beside the U-Net's, of those parts that the model has."""
        own = [part for part in parts if part in self.parts]
        return tuple(option for part in own for option in (f"--{part}", self.path(part)))

    def path(self, part: str) -> str:
        """Where the float weights of a part are."""
        return f"{self.name}/{part}.safetensors"

    def convert(self) -> None:
        """Float weights of all parts."""
        for part in self.parts:
            told = (*self.preset("model", self.name), "--part", part)
            self.run("convert-checkpoint", *told, "--output", self.path(part))

    def calibrate(self) -> None:
        """Trajectories in two shards, and what selectors choose of them."""
        stores = [f"{self.name}/{shard}.zarr" for shard in range(2)]
        for shard, store in enumerate(stores):
            paths = ("--shard", shard, "--output", store, "--progress", f"{self.name}/.{shard}")
            self.run("collect-trajectories", *self.model(), *self.condition, *paths)
        for selector in ("tdac", "uniform", *(("normal", "random") if self.name == BY_NAME else ())):
            paths = (
                "--output",
                f"{self.name}/{selector}.safetensors",
                "--summary",
                f"{self.name}/{selector}.json",
            )
            self.run("select-calibration", *stores, *self.preset("calibration", f"tiny_{selector}"), *paths)

    def quantize(self) -> None:
        """Ranges of two widths, and checkpoints of all methods."""
        for selector, bits in (("tdac", "w4a8"), ("uniform", "w8a6")):
            own = f"tiny_{self.name}_{bits}"  # of a network whose layers have other names
            rows = (
                *self.preset("bits", own if own in self.presets["bits"] else f"tiny_{bits}"),
                "--calibration-set",
                f"{self.name}/{selector}.safetensors",
            )
            ranges = f"{self.name}/{bits}.ranges.safetensors"
            self.run("set-ranges", *self.model(), *rows, "--output", ranges)
            known = (*self.model(), *rows, "--ranges", ranges)
            for method in ("layer", "block", "fbr") if bits == "w4a8" else ("none",):
                self.reconstruct(known, bits, method)
            if bits == "w4a8":
                self.share(known, bits)

    def reconstruct(self, known: tuple[object, ...], bits: str, method: str, *units: object) -> None:
        """A checkpoint and its losses."""
        stem = f"{self.name}/{bits}.{method}"
        files = ("--output", f"{stem}.quantized.safetensors", "--losses", f"{stem}.losses.csv")
        paths = (*files, "--progress", f"{self.name}/.{method}")
        self.run("reconstruct", *known, *self.preset("reconstruction", f"tiny_{method}"), *paths, *units)

    def share(self, known: tuple[object, ...], bits: str) -> None:
        """The method whose units are independent, in shares put together; of one model also whole."""
        units: list[str] = []
        for part in range(SHARES):
            folder = f"{self.name}/units{part}"
            units += ["--part", folder]
            paths = ("--part", part, "--output", folder, "--progress", f"{self.name}/.part{part}")
            self.run("reconstruct-part", *known, *self.preset("reconstruction", "tiny_shared"), *paths)
        self.reconstruct(known, bits, "shared", *units)
        if self.name == BY_NAME:
            self.reconstruct(known, bits, "fbr_float_inputs")

    def generate(self) -> None:
        """Images of the float network, of the learned one on its grids in two shards, and with integers."""
        told = (
            *self.preset("model", self.name),
            *self.preset("evaluation", "tiny_few"),
            *self.options("autoencoder", "condition"),
        )
        learned = f"{self.name}/w4a8.fbr.quantized.safetensors"
        self.run(
            "generate",
            *told,
            "--weights",
            f"{self.name}/unet.safetensors",
            "--output",
            f"{self.name}/fp32.npy",
        )
        for shard in range(2):
            paths = ("--shard", shard, "--output", f"{self.name}/simulated.{shard}.npy")
            self.run("generate", *told, "--weights", learned, *paths)
        self.run(
            "generate",
            *told,
            "--weights",
            learned,
            "--backend",
            "integer",
            "--output",
            f"{self.name}/integer.npy",
        )

    def export(self) -> None:
        """Folders, and a graph where the package onnx is installed."""
        learned = f"{self.name}/w4a8.fbr.quantized.safetensors"
        unet = edadm.load(learned)
        unet.save_pretrained(f"{self.name}/saved")
        if self.name == BY_NAME:
            DDIMPipeline(unet, DDIMScheduler()).save_pretrained(f"{self.name}/pipeline")
        architecture = self.settings["architecture"]
        by_heads = architecture.get("family") == "ldm" and "heads" in architecture
        if not by_heads:  # for which diffusers has no setting
            self.run("export", learned, "--output", f"{self.name}/diffusers", "--precision", "fp32")
        if find_spec("onnx") and "classes" not in architecture:
            self.run("export", learned, "--output", f"{self.name}/graph.onnx", "--format", "onnx")


def go(folder: Path, names: list[str]) -> None:
    """The models, one after the other; says how long each took."""
    package = Path(edadm.__file__).parent
    if str(package.parent) != os.environ.get("PYTHONPATH"):
        sys.exit(f"golden: PYTHONPATH is to name the folder of the package, but {package} was imported")
    os.chdir(folder)
    torch.set_num_threads(1)
    presets = yaml.safe_load(PRESETS.read_text())
    if names:  # an older package may not know the families of others
        presets["models"] = {name: presets["models"][name] for name in names}
        PRESETS.write_text(yaml.safe_dump(presets))
    for name in presets["models"]:
        begin = time.monotonic()
        Path(name).mkdir()
        tiny = Tiny(name, presets)
        for stage in (tiny.convert, tiny.calibrate, tiny.quantize, tiny.generate, tiny.export):
            stage()
        sys.stderr.write(f"golden: {folder.name}: {name} took {time.monotonic() - begin:.0f} s\n")


if __name__ == "__main__":
    go(Path(sys.argv[1]), sys.argv[2:])
