"""Generate: images, each from the noise of its own index; and the prompts of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edadm.config.backends import DEFAULT, modules_of, resolved
from edadm.config.schema import Bits, Evaluation, Model
from edadm.config.stated import OF_NOISE, settings_of
from edadm.console import progress_bar, say
from edadm.errors import EdadmError
from edadm.stages.cost.work import CODE, FP32, Cost, Memory, Passes, sampling
from edadm.stages.inputs.model import open_condition, open_decoder, open_prediction
from edadm.stages.inputs.provenance import code_of, digests, facts_of
from edadm.stages.inputs.unet import backend_meant, open_correction, open_network

if TYPE_CHECKING:
    import torch

    from edadm.stages.cost.networks import Networks, Quantized

MODEL = ("architecture", "autoencoder", "conditioning", "schedule", "sampler", "prediction", "pixels")
EVALUATION = OF_NOISE  # settings of either


def run(
    model: Model,
    evaluation: Evaluation,
    weights: Path,
    parts: dict[str, Path | None],
    backend: str,
    shard: int,
    output: Path,
    device: torch.device,
    label: str,
    graphs: bool = True,
) -> None:
    """Generates the images of a shard.

    Args:
        model, evaluation: the presets.
        weights: of the float network, or a quantized checkpoint.
        parts: weights of the `autoencoder` and the `condition`, where the model has them.
        backend: by which a quantized network is computed (`edadm.config.backends`), or `auto`.
        shard: which part of the images, from 0.
        output: the images.
        device: where.
        label: what progress lines call this run.
        graphs: whether a GPU replays the network's calls; a compiled network's it does not.
    """
    import numpy as np

    from edadm.artifacts import making
    from edadm.config.files.sources import locate_images, locate_prompts
    from edadm.config.sharding.shares import settled, share
    from edadm.sampling.denoiser import Denoiser
    from edadm.sampling.generate import generate_images
    from edadm.sampling.replay import Replay

    evaluation = settled(evaluation)
    arithmetic = backend_meant(weights, backend, device, evaluation.batch_size)
    if arithmetic != backend:
        say(f"{label}: by {arithmetic}, the fastest exact backend for this machine and network")
    made_from = _made_from(model, evaluation, weights, (backend, arithmetic), shard, device)
    given = {"prompts": locate_prompts("given", model), "images": locate_images("given", model)}
    others = digests(**parts, **given)
    made_from["inputs"] = digests(weights=weights) | others
    known = facts_of("samples", made_from, device)
    with making([output], known, code_of("generate", device, modules_of(arithmetic))) as work:
        if work is None:
            return
        told = open_condition(model, parts["condition"], evaluation.images, device)
        decode = open_decoder(model, parts["autoencoder"], device)
        network = open_network(model.architecture, weights, device, arithmetic)
        if evaluation.compiled:
            network.compile()
        prediction = open_prediction(model)
        replay = Replay() if graphs and device.type == "cuda" and not evaluation.compiled else None
        correction = open_correction(model, weights, device)
        how = (evaluation.precision, prediction, replay, correction)
        denoise = Denoiser(network, told, model.guidance, *how)
        indices = share(evaluation, shard)
        sampling = (model.sampler, model.schedule, indices, model.latent_shape)
        noise = (*sampling, evaluation.seed, evaluation.batch_size, device)
        with progress_bar(label, len(indices), "images") as advance:
            images = generate_images(denoise, *noise, advance, decode, model.pixels)
        with work.publishing(beside=known) as partial, open(partial, "wb") as file:
            np.save(file, images.numpy())


def _made_from(
    model: Model,
    evaluation: Evaluation,
    weights: Path,
    backend: tuple[str, str],
    shard: int,
    device: torch.device,
) -> dict[str, Any]:
    """The settings that images are made from, those of a quantized checkpoint among them.

    Of a backend the name that was given, and the one that it means on this machine.
    """
    from edadm.artifacts import describe

    made_from: dict[str, Any] = {"model": settings_of(model, *MODEL), "shard": shard, "backend": backend[0]}
    if backend[0] != DEFAULT:
        made_from["resolved_backend"] = resolved(backend[1], device.type).name
    made_from["evaluation"] = settings_of(evaluation, *EVALUATION)
    quantized = (describe(weights) or {}).get("made_from", {})
    return made_from | {name: quantized[name] for name in ("bits", "reconstruction") if name in quantized}


def write_prompts(model: Model, evaluation: Evaluation, output: Path) -> None:
    """Writes the prompts of all images of an evaluation in order, as a JSON list.

    Raises:
        EdadmError: the model takes none.
    """
    from edadm.artifacts import as_json, making
    from edadm.conditions.text import prompts_of
    from edadm.config.files.sources import locate_prompts

    if model.conditioning is None or not model.conditioning.has_prompts:
        raise EdadmError("this model takes no prompts; name one with conditioning.kind: text")
    made_from = {"model": settings_of(model, "conditioning"), "evaluation": settings_of(evaluation, "images")}
    made_from["inputs"] = digests(prompts=locate_prompts("given", model))
    known = facts_of("prompts", made_from)
    with making([output], known, code_of("generate.write_prompts")) as work:
        if work is None:
            return
        with work.publishing(beside=known) as partial:
            partial.write_text(as_json(prompts_of(model.conditioning, evaluation.images)))


def cost(name: str, networks: Networks, evaluation: Evaluation, bits: Bits | None) -> Cost:
    """The cost of all shards, with full-precision weights or, where bits are given, simulated ones."""
    from edadm.config.sharding.shares import number, shares

    model = networks.model
    kind: Literal["float", "simulated"] = "simulated" if bits else "float"
    passes = sampling(model, shares(evaluation), evaluation.batch_size, kind, evaluation.precision)
    factor = model.autoencoder.factor if model.autoencoder else 1
    channels = model.autoencoder.image_channels if model.autoencoder else model.architecture.in_channels
    disk = evaluation.images * channels * (model.architecture.image_size * factor) ** 2
    whole = Cost(
        "generate",
        name,
        (passes,),
        images=evaluation.images,
        decoded=evaluation.images if model.autoencoder else 0,
        disk=disk,
        files=1 + 3 * number(evaluation.shards),
        memory=memory(networks, passes, networks.quantized(bits) if bits else None),
        bits=bits,
    )
    return whole.divided(evaluation.shards, -(-evaluation.images // evaluation.batch_size))


def memory(networks: Networks, passes: Passes, quantized: Quantized | None) -> Memory:
    """The device memory of a batch; in half precision, autocast keeps a smaller copy of the weights."""
    half = passes.precision != "fp32"
    codes = quantized.weights * CODE if quantized else 0
    unet = networks.parameters * (FP32 + (2 if half else 0)) + codes
    weights = unet + (networks.decoder_parameters + networks.condition_parameters) * FP32
    work = max(passes.batch * networks.forward_bytes // (2 if half else 1), networks.decode_bytes)
    return Memory(weights, work)
