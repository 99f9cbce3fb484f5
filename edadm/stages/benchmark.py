"""Benchmark: times of network evaluations and bytes of files; and how far predictions lie apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edadm.config.backends import DEFAULT, INTEGER, resolved
from edadm.config.schema import Bits, Model
from edadm.config.stated import settings_of
from edadm.console import say
from edadm.errors import EdadmError
from edadm.stages.inputs.provenance import digests, facts_of
from edadm.stages.inputs.unet import open_network, open_unet

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


def errors(
    model: Model,
    unet: Path,
    quantized: Path,
    condition: Path | None,
    trajectories: Path,
    backends: Sequence[str],
    rows: int,
    output: Path,
    device: torch.device,
) -> None:
    """Compares predictions of a quantized network with full precision's on recorded states, at every step.

    Args:
        model: the preset.
        unet, quantized: weights of full precision, and the checkpoint.
        condition: weights of what the model is told, if it is told anything.
        trajectories: a shard of recorded states.
        backends: by which the checkpoint is computed, `simulated` among them if that is asked for.
        rows: states of each step.
        output: the errors.
        device: where.

    Raises:
        EdadmError: fewer trajectories were recorded in that shard.
    """
    import torch

    from edadm.artifacts import writing_json
    from edadm.benchmark.errors import prediction_errors
    from edadm.sampling.denoiser import Denoiser
    from edadm.sampling.shards import open_whole
    from edadm.stages.inputs.model import open_condition, open_prediction

    store, content = open_whole(trajectories)
    if rows > store.runs:
        raise EdadmError(f"{trajectories} holds {store.runs} trajectories, not {rows}; lower --rows")
    runs = range(store.first_run, store.first_run + rows)
    told, prediction = open_condition(model, condition, runs.stop, device), open_prediction(model)

    def denoiser(weights: Path, backend: str) -> Denoiser:
        network = open_network(model.architecture, weights, device, backend)
        return Denoiser(network, told, model.guidance, prediction=prediction).on(runs)

    full = denoiser(unet, DEFAULT)
    rivals = {name: denoiser(quantized, name) for name in backends}
    latents, timesteps = store.group["latents"], store.group["timesteps"][:].tolist()
    states = (
        (torch.from_numpy(latents[:rows, step]).to(device).float(), timestep)
        for step, timestep in enumerate(timesteps)
    )
    steps = prediction_errors(full, rivals, states)
    inputs = digests(unet=unet, quantized=quantized)
    told = {"rows": rows, "device": str(device), "inputs": inputs | {"trajectories": content}, "steps": steps}
    writing_json(output, told, facts_of("errors", {"inputs": inputs}, device))


def sensitivity(
    model: Model,
    bits: Bits,
    unet: Path,
    condition: Path | None,
    images: int,
    share: float,
    output: Path,
    device: torch.device,
) -> None:
    """Measures how far images move when one layer's weights alone are quantized, for every layer.

    Args:
        model, bits: the presets.
        unet, condition: weights of full precision, and of what the model is told, if it is told anything.
        images: how many, those with the first trajectories' noise.
        share: of the weights' bytes, that may be spent on layers with 8 bits.
        output: the costs, and the layers worth 8 bits.
        device: where.
    """
    from edadm.artifacts import writing_json
    from edadm.benchmark.sensitivity import layer_costs, worth_sparing
    from edadm.console import progress_bar
    from edadm.deploy.grids import quantized_copy
    from edadm.networks.load import load_network
    from edadm.nn.insert import quantized_layers
    from edadm.sampling.denoiser import Denoiser
    from edadm.sampling.generate import run_sampler
    from edadm.sampling.noise import ImageNoise
    from edadm.stages.inputs.model import open_condition, open_prediction

    network = quantized_copy(load_network(model.architecture, unet, device), bits)
    told, prediction = open_condition(model, condition, images, device), open_prediction(model)

    def sample(chosen: Any) -> torch.Tensor:
        noise = ImageNoise(model.trajectories.seed, range(images), model.latent_shape, device)
        denoiser = Denoiser(chosen, told, model.guidance, prediction=prediction).on(range(images))
        return run_sampler(denoiser, model.sampler, model.schedule, noise)

    with progress_bar("sensitivity", len(quantized_layers(network)), "layers") as advance:
        costs = layer_costs(network, sample, advance)
    chosen = worth_sparing(costs, share)
    for name in chosen:
        say(f"{name}: {{weights: 8, activations: {bits.activations}}}")
    layers = [{"name": c.name, "weights": c.weights, "bits": c.bits, "error": c.error} for c in costs]
    inputs = digests(unet=unet)
    told_of = {"images": images, "share": share, "device": str(device), "inputs": inputs}
    writing_json(output, told_of | {"layers": layers, "chosen": chosen})
