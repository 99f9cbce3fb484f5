"""What must hold of a model before any work starts, and of what is said of its images."""

from __future__ import annotations

from collections.abc import Iterator

from edadm.config.files.sources import prompts_file
from edadm.config.inputs.prompts import prompts_in
from edadm.config.rules.evaluations import mistakes_in_images
from edadm.config.rules.sizes import mistakes_in_autoencoder, mistakes_in_encoder, mistakes_in_unet
from edadm.config.rules.steps import step_problem
from edadm.config.schema import FLOW, Config, Model, Run
from edadm.config.sharding.shares import number
from edadm.errors import EdadmError
from edadm.networks.settings.families import FAMILIES
from edadm.networks.settings.parts import Conditioning


def mistakes_in_networks(name: str, model: Model) -> list[str]:
    """Whether the networks of a model can be built."""
    where, told = f"models.{name}", model.conditioning
    found = [f"{where}.architecture: {text}" for text in mistakes_in_unet(model.architecture)]
    if model.autoencoder:
        found += [f"{where}.autoencoder: {text}" for text in mistakes_in_autoencoder(model.autoencoder)]
    if told and told.has_prompts:
        found += [f"{where}.conditioning.encoder: {text}" for text in mistakes_in_encoder(told.encoder)]
    if told and (second := told.second_encoder):
        found += [f"{where}.conditioning.second_encoder: {text}" for text in mistakes_in_encoder(second)]
    return found


def mistakes_in_model(run: Run, config: Config) -> list[str]:
    """One sentence for each mistake in the model of a run, and in what the run asks of it."""
    model = config.models[run.model]
    found = _of_parts(run.model, model)
    recorded, evaluation = model.trajectories, config.evaluations[run.evaluation]
    sampler, timesteps = model.sampler, model.schedule.timesteps
    if problem := step_problem(sampler, timesteps):
        found.append(f"models.{run.model}.sampler: {problem}")
    first_shard = recorded.count // number(recorded.shards)
    if recorded.feature_rows > first_shard:
        found.append(
            f"models.{run.model}.trajectories: feature_rows {recorded.feature_rows} exceeds the "
            f"{first_shard} runs of the first shard; "
            "lower feature_rows or shards, or raise count"
        )
    if number(evaluation.shards) > evaluation.images:
        found.append(
            f"evaluations.{run.evaluation}: {evaluation.shards} shards for {evaluation.images} images; lower "
            "shards"
        )
    found += _of_condition(run, config)
    if not (_of_parts(run.model, model) or mistakes_in_networks(run.model, model)):
        found += [f"models.{run.model}: {text}" for text in mistakes_in_images(model, evaluation)]
    if evaluation.images < 2:
        found.append(
            f"evaluations.{run.evaluation}: a Frechet distance needs at least 2 images; raise images"
        )
    return found


def _of_condition(run: Run, config: Config) -> list[str]:
    """Whether labels or prompts last for all trajectories and images.

    Prompts are counted only where their file can be read.
    """
    model, evaluation = config.models[run.model], config.evaluations[run.evaluation]
    if model.conditioning is None:
        return []
    where = f"models.{run.model}.conditioning"
    try:
        have, kind, fix = _conditions(model.conditioning)
    except EdadmError as error:
        return [f"{where}.prompts: {error}"]
    if have is None:
        return []
    wanted = (
        (f"evaluations.{run.evaluation}", "images", evaluation.images),
        (f"models.{run.model}", "trajectories", model.trajectories.count),
    )
    return [
        f"{preset}: {count} {what} exceed the {have} {kind} of {where}; {fix}, or make fewer {what}"
        for preset, what, count in wanted
        if count > have
    ]


def _conditions(conditioning: Conditioning) -> tuple[int | None, str, str]:
    """The number of labels or prompts, what they are called, and how to get more.

    None where that cannot be known yet.
    """
    if not conditioning.has_prompts:
        classes = len(conditioning.only or ()) or conditioning.classes
        return classes * conditioning.images_per_class, "labels", "raise images_per_class"
    file = prompts_file(conditioning.prompts or "")
    have = len(prompts_in(file).texts) if file.is_file() else None
    return have, "prompts", "add prompts to its file"


def _of_parts(name: str, model: Model) -> list[str]:
    """Whether architecture, layout, autoencoder and conditioning of a model belong together.

    Stages see only some of them.
    """
    family, layout, where, found = model.architecture.family, model.layout, f"models.{name}", []
    entry = FAMILIES[family]
    if (wanted := entry.layout) not in (None, layout):
        found.append(
            f"{where}: checkpoints of the family '{family}' have the layout '{wanted}', not '{layout}'; set "
            f"layout: {wanted}"
        )
    if model.architecture.is_told != (model.conditioning is not None):
        fix = "remove conditioning" if model.conditioning else "add conditioning"
        takes = "the family 'transformer' takes a condition, the others take none"
        if model.architecture.patch is not None:
            takes = f"the family '{family}' takes {entry.conditions[0]}"
        if model.architecture.diffusers is not None:
            takes = "a UNet2DConditionModel takes a condition, a UNet2DModel none"
        found.append(f"{where}: {takes}; {fix}")
    elif model.conditioning and (kind := model.conditioning.kind) not in entry.conditions:
        known = " or ".join(entry.conditions)
        found.append(f"{where}.conditioning: the family '{family}' takes no {kind}; set kind: {known}")
    if problem := _of_flow(model):
        found.append(f"{where}: {problem}")
    if model.prediction not in entry.predictions:
        found.append(
            f"{where}: the family '{family}' predicts a {entry.predictions[0]}, not {model.prediction}; set "
            f"prediction: {entry.predictions[0]}"
        )
    if model.autoencoder and model.autoencoder.latent_channels != model.architecture.in_channels:
        channels = (model.autoencoder.latent_channels, model.architecture.in_channels)
        found.append(
            f"{where}: the autoencoder's latents have {channels[0]} channels, the U-Net's {channels[1]}; "
            "make them equal"
        )
    if model.conditioning and model.conditioning.has_prompts and model.conditioning.prompts is None:
        found.append(
            f"{where}.conditioning: text needs prompts; set prompts to a captions file, or to a text file "
            "with one per line"
        )
    encodes = model.autoencoder is not None and model.autoencoder.kind == "kl"
    if model.conditioning and model.conditioning.encodes_images and not encodes:
        found.append(
            f"{where}: images are given as latents of an autoencoder of the kind kl; set autoencoder to the "
            "model's own"
        )
    found += [f"{where}.conditioning: {text}" for text in _of_conditioning(model)]
    if model.schedule.start > model.schedule.end:
        found.append(
            f"{where}.schedule: start {model.schedule.start} exceeds end {model.schedule.end}; noise grows, "
            "so swap them"
        )
    return found


def _of_flow(model: Model) -> str | None:
    """Whether noise schedule, sampler and prediction are a flow's, all three or none."""
    of_flow = {
        "prediction: flow": model.prediction == "flow",
        "schedule.kind: flow": model.schedule.kind == "flow",
        f"sampler.method: {FLOW}": model.sampler.method == FLOW,
    }
    if all(of_flow.values()) or not any(of_flow.values()):
        return None
    have, lack = ([name for name, is_so in of_flow.items() if is_so is want] for want in (True, False))
    return (
        f"a flow is predicted, scheduled and sampled as one: there is {' and '.join(have)}; set "
        f"{' and '.join(lack)}, too, or neither"
    )


def _of_conditioning(model: Model) -> Iterator[str]:
    """Settings of the other kind of condition, which would be without effect, and sizes that do not meet."""
    told, context = model.conditioning, model.architecture.context_channels
    if told is None:
        return
    if model.architecture.classes not in (None, told.classes):
        embedded = model.architecture.classes
        yield f"classes is {told.classes}, and the network embeds {embedded}; make them equal"
    if not told.has_prompts and told.prompts is not None:
        yield "classes take no prompts; remove them, or set kind: text"
    if told.has_prompts and told.only is not None:
        yield "prompts have no classes to draw from; remove `only`, or set kind: classes"
    if told.only is not None and len(set(told.only)) != len(told.only):
        yield "only names a class twice; remove one"
    if told.only == ():
        yield "only names no class; write some, or remove it to draw from all"
    if told.kind == "sd3":
        if context is not None and context < told.text_channels:
            yield f"text encoders give {told.text_channels} channels, the network takes {context}; mend them"
        elif told.pooled_channels != told.text_channels:
            yield (
                f"pooled_channels is {told.pooled_channels}, and the text encoders' projections have "
                f"{told.text_channels} together; make them equal"
            )
    elif told.has_prompts and context not in (None, told.text_channels):
        giving = "text encoders give" if told.second_encoder else "text encoder gives"
        yield f"the {giving} {told.text_channels} channels, the U-Net takes {context}; make them equal"
    if model.architecture.size_told and told.time_ids is None:
        yield "the network is told the size of images; set time_ids to their height and width in pixels"
    if told.t5 is not None and told.time_ids is not None and not model.architecture.size_told:
        yield "the network is told no size of images; remove time_ids, or set architecture.size_told: true"
    if told.pooled_channels and model.architecture.pooled_channels not in (None, told.pooled_channels):
        yield (
            f"pooled_channels is {told.pooled_channels}, the U-Net adds {model.architecture.pooled_channels} "
            "to its embedding of time; make them equal"
        )
