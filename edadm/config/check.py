"""What must hold between presets before any work starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from edadm.config.backends import DEFAULT, backend_label, precisions_of, variant_suffixes
from edadm.config.inputs.prompts import prompts_in
from edadm.config.layout import FULL_PRECISION, Variant
from edadm.config.methods import METHODS
from edadm.config.rules.evaluations import mistakes_in_evaluation, mistakes_in_images
from edadm.config.rules.sizes import mistakes_in_autoencoder, mistakes_in_encoder, mistakes_in_unet
from edadm.config.rules.steps import step_problem
from edadm.config.rules.wording import nearest
from edadm.config.schema import Config, Model, Run
from edadm.config.sharding.shares import number
from edadm.errors import EdadmError
from edadm.networks.settings.families import FAMILIES
from edadm.networks.settings.parts import Conditioning
from edadm.networks.settings.unit_names import idle_patterns, unit_layers

_KINDS = ("calibrations", "bits", "reconstructions")


def problems(config: Config) -> list[str]:
    """One sentence per contradiction, each naming the fix; empty if the runs can start."""
    models = [run.model for run in config.runs]
    found = [
        f"runs: model '{name}' stands in several runs; list all its variants in one"
        for name in sorted(set(models))
        if models.count(name) > 1
    ]
    found += _of_presets(config)
    for run in config.runs:
        absent = _missing("models", run.model, config.models) + _missing(
            "evaluations", run.evaluation, config.evaluations
        )
        found += absent or _of_model(run, config)
        twice = [name for name in dict.fromkeys(run.variants) if run.variants.count(name) > 1]
        found += [
            f"runs: '{name}' stands twice among the variants of '{run.model}'; remove one" for name in twice
        ]
        for name in dict.fromkeys(run.variants):
            found += _of_variant(run, name, config)
    return found


def _of_sizes(name: str, model: Model) -> list[str]:
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


def _of_presets(config: Config) -> list[str]:
    """Contradictions inside single presets, whether a run uses them or not."""
    found = []
    for name, model in config.models.items():
        found += _of_sizes(name, model)
    for name, evaluation in config.evaluations.items():
        found += [f"evaluations.{name}: {text}" for text in mistakes_in_evaluation(evaluation)]
    return found


def _missing(kind: str, name: str, known: Iterable[str]) -> list[str]:
    known = list(known)
    if name in known:
        return []
    hint = nearest(name, known)
    add = "" if hint.endswith("?") else f"; add yours under `{kind}`"
    return [f"runs: there is no preset '{name}' among {kind}{hint}{add}"]


def _of_model(run: Run, config: Config) -> list[str]:
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
    if not (_of_parts(run.model, model) or _of_sizes(run.model, model)):
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
    file = Path(conditioning.prompts or "").expanduser()
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
    if model.architecture.has_context != (model.conditioning is not None):
        fix = "remove conditioning" if model.conditioning else "add conditioning"
        takes = "the family 'transformer' takes a condition, the others take none"
        if model.architecture.diffusers is not None:
            takes = "a UNet2DConditionModel takes a condition, a UNet2DModel none"
        found.append(f"{where}: {takes}; {fix}")
    elif model.conditioning and (kind := model.conditioning.kind) not in entry.conditions:
        known = " or ".join(entry.conditions)
        found.append(f"{where}.conditioning: the family '{family}' takes no {kind}; set kind: {known}")
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
    found += [f"{where}.conditioning: {text}" for text in _of_conditioning(model)]
    if model.schedule.start > model.schedule.end:
        found.append(
            f"{where}.schedule: start {model.schedule.start} exceeds end {model.schedule.end}; noise grows, "
            "so swap them"
        )
    return found


def _of_conditioning(model: Model) -> Iterator[str]:
    """Settings of the other kind of condition, which would be without effect, and sizes that do not meet."""
    told, context = model.conditioning, model.architecture.context_channels
    if told is None:
        return
    if not told.has_prompts and told.prompts is not None:
        yield "classes take no prompts; remove them, or set kind: text"
    if told.has_prompts and told.only is not None:
        yield "prompts have no classes to draw from; remove `only`, or set kind: classes"
    if told.only is not None and len(set(told.only)) != len(told.only):
        yield "only names a class twice; remove one"
    if told.only == ():
        yield "only names no class; write some, or remove it to draw from all"
    if told.has_prompts and context not in (None, told.text_channels):
        giving = "text encoders give" if told.second_encoder else "text encoder gives"
        yield f"the {giving} {told.text_channels} channels, the U-Net takes {context}; make them equal"
    if told.pooled_channels and model.architecture.pooled_channels not in (None, told.pooled_channels):
        yield (
            f"pooled_channels is {told.pooled_channels}, the U-Net adds {model.architecture.pooled_channels} "
            "to its embedding of time; make them equal"
        )


def _of_variant(run: Run, name: str, config: Config) -> list[str]:
    if name == FULL_PRECISION:
        return []
    variant = Variant(name)
    if variant.checkpoint.name.count("/") != 2:
        known = " or ".join(f"/{suffix}" for suffix in variant_suffixes())
        return [
            f"runs: '{name}' is no variant; write {FULL_PRECISION}, CALIBRATION/BITS/RECONSTRUCTION, "
            f"or the same with {known}"
        ]
    names = variant.presets
    found = [
        sentence
        for kind, preset in zip(_KINDS, names, strict=True)
        for sentence in _missing(kind, preset, getattr(config, kind))
    ]
    if found or run.model not in config.models:
        return found
    found = _of_calibration(run, names[0], config) + _of_patterns(run, names[1], names[2], config)
    return found + _of_backend(run, variant, config)


def _of_patterns(run: Run, bits: str, reconstruction: str, config: Config) -> list[str]:
    """Patterns that match no layer or unit of the model, and more jobs than it has units.

    Neither would show in a result.
    """
    units = unit_layers(config.models[run.model].architecture)
    if units is None:
        return []
    layers = [layer for names in units.values() for layer in names]
    settings, where = config.reconstructions[reconstruction], f"reconstructions.{reconstruction}"
    known = layers if METHODS[settings.method].by_layer else list(units)
    preset = config.bits[bits]
    found = [
        f"bits.{bits}.{setting}: the pattern '{pattern}' matches no layer of '{run.model}'; {hint}"
        for setting, given in (("layers", preset.layers), ("smoothing_layers", preset.smoothing_layers))
        for pattern, hint in idle_patterns(given, layers)
    ]
    found += [
        f"{where}.unit_iterations: the pattern '{pattern}' matches no unit of '{run.model}'; {hint}"
        for pattern, hint in idle_patterns(settings.unit_iterations, known)
    ]
    if settings.jobs > len(known):
        found.append(
            f"{where}: {settings.jobs} jobs share the {len(known)} units of '{run.model}'; lower jobs"
        )
    return found


def _of_backend(run: Run, variant: Variant, config: Config) -> list[str]:
    """Whether the images of a variant can be made with its backend."""
    name, evaluation = variant.backend, config.evaluations.get(run.evaluation)
    if name == DEFAULT:
        return []
    try:
        precisions = precisions_of(name)
    except EdadmError as error:
        return [f"runs: '{variant.name}': {error}"]
    if not precisions or evaluation is None or evaluation.precision in precisions:
        return []
    return [
        f"evaluations.{run.evaluation}: between layers of {backend_label(name)} there is {precisions[0]}, "
        f"not {evaluation.precision}; set precision: {precisions[0]}, or take /{name} off the variants"
    ]


def _of_calibration(run: Run, name: str, config: Config) -> list[str]:
    calibration, recorded, steps = (
        config.calibrations[name],
        config.models[run.model].trajectories,
        config.models[run.model].sampler.steps,
    )
    found = []
    if calibration.size + calibration.held_out > recorded.count:
        held_out = f" with {calibration.held_out} held-out rows" if calibration.held_out else ""
        found.append(
            f"calibrations.{name}: calibration size {calibration.size}{held_out} exceeds the "
            f"{recorded.count} recorded trajectories; "
            f"lower calibrations.{name}.size or raise models.{run.model}.trajectories.count"
        )
    if calibration.selector == "uniform" and calibration.every > steps:
        found.append(
            f"calibrations.{name}: every {calibration.every} exceeds the {steps} steps of "
            f"models.{run.model}.sampler; "
            f"lower calibrations.{name}.every"
        )
    return found
