"""A results folder as four variants leave it, small and with plausible numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MODEL = "cifar10_small"
VARIANTS = ["fp32", "tdac/w8a8/fbr_w8", "tdac/w4a8/fbr_w4", "uniform/w4a8/none"]
SCORES = {  # fid, sfid, inception score, psnr, bytes, seconds per step
    "fp32": (24.314, 31.271, 7.4216, None, 13_410_000, 0.4001),
    "tdac/w8a8/fbr_w8": (24.498, 31.509, 7.4102, 34.8231, 3_530_000, 0.6154),
    "tdac/w4a8/fbr_w4": (27.012, 34.880, 7.1544, 22.4567, 1_880_000, 0.6250),
    "uniform/w4a8/none": (61.740, 70.113, 5.2201, 14.0125, 1_879_000, 0.6211),
}
CONDITIONS = {
    "images": 256,
    "extractor": "cifar10_classifier",
    "inception_score_splits": 1,
    "reference_images": 50_000,
    "reference_set": "cifar10_train",
    "reference_sha256": "1a2b3c4d5e6f" + "0" * 52,
}
UNITS = {  # before, soft, after, flipped, scale drift
    "conv_in": (4e-3, 1.0e-3, 1.1e-3, 0.05, 0.01),
    "down_blocks.0.resnets.0": (1.6e-1, 3.9e-2, 4.0e-2, 0.08, 0.02),
    "mid_block.attentions.0": (2.0e-2, 2.2e-2, 2.5e-2, 0.02, 0.03),
    "conv_out": (3e-3, 1.0e-3, 1.2e-3, 0.11, 0.04),
}
HELD_OUT = {
    "conv_in": (5e-3, 2e-3),
    "down_blocks.0.resnets.0": (1.7e-1, 4.5e-2),
    "mid_block.attentions.0": (2e-2, 2.8e-2),
}
PRESETS: dict[str, Any] = {
    "model": {
        "checkpoint": "bundled:cifar10_small",
        "architecture": {"multipliers": [1, 2, 3, 5]},
        "sampler": {"method": "ddim", "steps": 8},
    },
    "calibrations": {
        "tdac": {"selector": "tdac", "size": 64, "lambda_": 1.2},
        "uniform": {"selector": "uniform", "size": 64},
    },
    "bits": {
        "w8a8": {"weights": 8, "activations": 8, "split_shortcuts": True},
        "w4a8": {"weights": 4, "activations": 8, "range_bins": None},
    },
    "reconstructions": {
        "fbr_w8": {"method": "fbr"},
        "fbr_w4": {"method": "fbr", "iterations": 4321},
        "none": {"method": "none"},
    },
}


class Fake(NamedTuple):
    """A results folder and the runs that made it."""

    results: Path
    runs: list[dict[str, Any]]

    def file(self, *parts: str) -> Path:
        """A file of the model."""
        return self.results.joinpath(MODEL, *parts)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def write_variant(folder: Path, name: str, images: np.ndarray) -> None:
    fid, sfid, inception, psnr, *_ = SCORES[name]
    scores = {"fid": fid, "sfid": sfid, "inception_score": inception, "psnr": psnr, "conditions": CONDITIONS}
    write(folder / "metrics.json", scores)
    if name != "fp32":
        rows = (
            []
            if name.endswith("none")
            else [f"{unit},layer,1,{','.join(map(repr, errors))}" for unit, errors in UNITS.items()]
        )
        header = "unit,kind,layers,before,soft,after,flipped,scale_drift"
        if name.endswith("fbr_w4"):  # the other one learned without held-out rows; a unit may have none, too
            header += ",held_out_before,held_out_after"
            rows = [
                f"{row},{','.join(map(repr, HELD_OUT.get(row.split(',')[0], ('', ''))))}".replace("''", "")
                for row in rows
            ]
        write(folder / "losses.csv", "\n".join([header, *rows, ""]))
    for shard, part in enumerate(np.array_split(images, 2)):
        (folder / "samples").mkdir(exist_ok=True)
        np.save(folder / "samples" / f"{shard}.npy", part)


def write_speed(folder: Path, names: list[str], integer: float | None = None) -> None:
    """With `integer`, seconds of every quantized network with integers, and half of them for full precision in bf16."""
    measured: dict[str, Any] = {
        name: {"bytes": SCORES[name][4], "seconds": SCORES[name][5], "fastest": 0.3, "slowest": 0.9}
        for name in names
    }
    if integer:
        for name in names:
            parity = {"mean": 0.002, "max": 0.05, "spread": 0.5}
            quantized = {"integer": {"seconds": integer, "fastest": 0.1, "slowest": 0.8, "parity": parity}}
            measured[name] |= {"bf16": {"seconds": integer / 2}} if name == "fp32" else quantized
    write(folder / "speed.json", {"batch_size": 32, "threads": 2, "device": "cpu", "variants": measured})


def add_integers(fake: Fake, name: str) -> dict[str, Any]:
    """Images of a variant made with integers, a little brighter; the run that has them, too."""
    folder = fake.file(*name.split("/"))
    metrics = json.loads((folder / "metrics.json").read_text())
    parity = {"psnr": 44.56, "difference": 1.25, "bound": 3.5, "worst": 0.75}
    write(
        folder / "integer" / "metrics.json",
        metrics | {"fid": metrics["fid"] + 0.5, "psnr": 22.5, "parity": parity},
    )
    (folder / "integer" / "samples").mkdir()
    for file in (folder / "samples").iterdir():
        np.save(folder / "integer" / "samples" / file.name, np.load(file) + np.uint8(1))
    return fake.runs[0] | {"variants": [*VARIANTS, f"{name}/integer"]}


def make_results(results: Path) -> Fake:
    random = np.random.default_rng(0)
    images = random.integers(40, 200, (20, 3, 8, 8), dtype=np.uint8)
    for index, name in enumerate(VARIANTS):
        write_variant(results / MODEL / name, name, images + np.uint8(index))
    write_speed(results / MODEL, VARIANTS)
    timesteps = [980, 720, 500, 320, 180, 80, 20, 0]
    density, variety = np.linspace(1, 0, 8).round(3).tolist(), np.linspace(0.2, 1, 8).round(3).tolist()
    curves = {"density": density, "variety": variety, "weight": density}
    tdac = {"counts": [11, 10, 9, 8, 8, 7, 6, 5], "timesteps": timesteps, "curves": curves}
    write(results / MODEL / "tdac" / "selection.json", tdac)
    write(
        results / MODEL / "uniform" / "selection.json",
        {"counts": [8] * 8, "timesteps": timesteps, "curves": {"weight": [1.0] * 8}},
    )
    header = "s\th:m:s\tmax_rss\tmax_vms\n"
    write(results / "times" / "generate" / MODEL / "fp32" / "0.tsv", f"{header}100.5\t0:01:40\t900.2\t1\n")
    write(results / "times" / "generate" / MODEL / "fp32" / "1.tsv", f"{header}99.5\t0:01:39\t1234.4\t1\n")
    write(results / "times" / "convert-checkpoint" / f"{MODEL}.tsv", f"{header}0.8\t0:00:00\tNA\t-\n")
    run = {"model": MODEL, "variants": VARIANTS, "evaluation": "quick", "presets": PRESETS}
    return Fake(results, [run | {"evaluation_settings": {"images": 256, "shards": 2, "seed": 7}}])
