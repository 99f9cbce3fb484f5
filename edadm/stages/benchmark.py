"""Benchmark: the time of one network evaluation of every variant, and the bytes of their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edadm.config.backends import INTEGER, resolved
from edadm.config.schema import Model
from edadm.config.stated import settings_of
from edadm.console import say
from edadm.stages.inputs.provenance import digests, facts_of
from edadm.stages.inputs.unet import open_unet

if TYPE_CHECKING:
    import torch

MODEL = ("architecture", "conditioning")  # settings of it


def run(
    model: Model,
    files: Mapping[str, Path],
    backends: Sequence[str],
    batch_size: int,
    threads: int,
    output: Path,
    device: torch.device,
) -> None:
    """Times one network evaluation of every variant in one run.

    On a CPU quantized variants are timed with integers as well, and full precision with bf16.

    Args:
        model: the preset.
        files: the weights of each variant, full precision (`fp32`) among them.
        backends: on a CPU, by which quantized variants are timed as well; by integers they always are.
        batch_size: rows of an evaluation.
        threads: of the CPU, as they were set.
        output: the times.
        device: where.
    """
    from edadm.artifacts import writing_json
    from edadm.benchmark.cpu import HALF, cpu_rivals, parity, shares_of_time, slower_arithmetic
    from edadm.benchmark.unet import step_latency
    from edadm.networks.inputs import InputSpec

    made_from = {"model": settings_of(model, *MODEL), "inputs": digests(timed=list(files.values()))}
    networks = {variant: open_unet(model.architecture, file, device) for variant, file in files.items()}
    asked = (INTEGER, *backends) if device.type == "cpu" else ()
    timed_by = {name: resolved(name, device.type).name for name in asked}
    rivals = cpu_rivals(networks, timed_by) if device.type == "cpu" else {}
    spec = InputSpec.of(model)
    times = step_latency(networks | rivals, spec, batch_size)
    variants: dict[str, Any] = {
        variant: {"bytes": file.stat().st_size} | times[variant] for variant, file in files.items()
    }
    for name, rival in rivals.items():
        variant, _, arithmetic = name.rpartition("/")
        found = times[name] | {"shares": shares_of_time(rival, spec, batch_size)}
        if arithmetic != HALF:
            found["parity"] = parity(networks[variant], rival, spec, batch_size)
            found["resolved_backend"] = timed_by[arithmetic]
        variants[variant][arithmetic] = found
    for sentence in slower_arithmetic(variants):
        say(sentence)
    timed = {"batch_size": batch_size, "threads": threads, "device": str(device), "variants": variants}
    writing_json(output, timed, facts_of("speed", made_from, device))
