"""What must hold between presets before any work starts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from edadm.config.layout import FULL_PRECISION, INTEGER, Variant
from edadm.config.networks import Conditioning
from edadm.config.schema import Config, Model, Run
from edadm.config.sources import count_prompts
from edadm.config.steps import step_problem

_KINDS = ("calibrations", "bits", "reconstructions")


def problems(config: Config) -> list[str]:
    """One sentence per contradiction, each naming the fix; empty if the runs can start."""
    models = [run.model for run in config.runs]
    found = [
        f"runs: model '{name}' stands in several runs; list all its variants in one"
        for name in sorted(set(models))
        if models.count(name) > 1
    ]
    for run in config.runs:
        absent = _missing("models", run.model, config.models) + _missing("evaluations", run.evaluation, config.evaluations)
        found += absent or _of_model(run, config)
        for name in run.variants:
            found += _of_variant(run, name, config)
    return found


def _missing(kind: str, name: str, known: Iterable[str]) -> list[str]:
    known = list(known)
    if name in known:
        return []
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(sorted(known))}; add yours under `{kind}`"
    return [f"runs: there is no preset '{name}' among {kind}; {hint}"]


def _of_model(run: Run, config: Config) -> list[str]:
    found = _of_parts(run.model, config.models[run.model])
    recorded, evaluation = config.models[run.model].trajectories, config.evaluations[run.evaluation]
    sampler, timesteps = config.models[run.model].sampler, config.models[run.model].schedule.timesteps
    if problem := step_problem(sampler, timesteps):
        found.append(f"models.{run.model}.sampler: {problem}")
    first_shard = recorded.count // recorded.shards
    if recorded.feature_rows > first_shard:
        found.append(
            f"models.{run.model}.trajectories: feature_rows {recorded.feature_rows} exceeds the {first_shard} runs of the first shard; "
            "lower feature_rows or shards, or raise count"
        )
    if evaluation.shards > evaluation.images:
        found.append(f"evaluations.{run.evaluation}: {evaluation.shards} shards for {evaluation.images} images; lower shards")
    found += _of_condition(run, config)
    if evaluation.images < 2:
        found.append(f"evaluations.{run.evaluation}: a Frechet distance needs at least 2 images; raise images")
    return found


def _of_condition(run: Run, config: Config) -> list[str]:
    """Whether labels or prompts last for all trajectories and images; prompts only where their file can be read."""
    model, evaluation = config.models[run.model], config.evaluations[run.evaluation]
    if model.conditioning is None:
        return []
    where = f"models.{run.model}.conditioning"
    have, kind, fix = _conditions(model.conditioning)
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
    """How many labels or prompts there are, what they are called, and how to get more; None where that cannot be known yet."""
    if conditioning.kind == "classes":
        classes = len(conditioning.only or ()) or conditioning.classes
        return classes * conditioning.images_per_class, "labels", "raise images_per_class"
    return count_prompts(conditioning), "prompts", "add prompts to its file"


def _of_parts(name: str, model: Model) -> list[str]:
    """Whether architecture, layout, autoencoder and conditioning of a model belong together; stages see only some of them."""
    family, layout, where, found = model.architecture.family, model.layout, f"models.{name}", []
    if (family == "ddim") != (layout == "ddim"):
        wanted = "ddim" if family == "ddim" else "compvis"
        found.append(f"{where}: checkpoints of the family '{family}' have the layout '{wanted}', not '{layout}'; set layout: {wanted}")
    if (family == "transformer") != (model.conditioning is not None):
        fix = "remove conditioning" if model.conditioning else "add conditioning"
        found.append(f"{where}: the family 'transformer' takes a condition, the others take none; {fix}")
    if model.autoencoder and model.autoencoder.latent_channels != model.architecture.in_channels:
        channels = (model.autoencoder.latent_channels, model.architecture.in_channels)
        found.append(f"{where}: the autoencoder's latents have {channels[0]} channels, the U-Net's {channels[1]}; make them equal")
    if model.conditioning and model.conditioning.kind == "text" and model.conditioning.prompts is None:
        found.append(f"{where}.conditioning: text needs prompts; set prompts to a captions file, or to a text file with one per line")
    return found


def _of_variant(run: Run, name: str, config: Config) -> list[str]:
    if name == FULL_PRECISION:
        return []
    variant = Variant(name)
    if variant.checkpoint.name.count("/") != 2:
        return [f"runs: '{name}' is no variant; write {FULL_PRECISION}, CALIBRATION/BITS/RECONSTRUCTION, or the same with /{INTEGER}"]
    names = variant.presets
    found = [sentence for kind, preset in zip(_KINDS, names, strict=True) for sentence in _missing(kind, preset, getattr(config, kind))]
    if found or run.model not in config.models:
        return found
    return _of_calibration(run, names[0], config) + (_of_integers(run, config) if variant.backend == INTEGER else [])


def _of_integers(run: Run, config: Config) -> list[str]:
    """Whether the images of a variant can be made with integers."""
    found, evaluation = [], config.evaluations.get(run.evaluation)
    if evaluation and evaluation.precision != "fp32":
        found.append(
            f"evaluations.{run.evaluation}: between layers of integers there is fp32, not {evaluation.precision}; set precision: fp32, "
            f"or take /{INTEGER} off the variants"
        )
    return found


def _of_calibration(run: Run, name: str, config: Config) -> list[str]:
    calibration, recorded, steps = config.calibrations[name], config.models[run.model].trajectories, config.models[run.model].sampler.steps
    found = []
    if calibration.size + calibration.held_out > recorded.count:
        held_out = f" with {calibration.held_out} held-out rows" if calibration.held_out else ""
        found.append(
            f"calibrations.{name}: calibration size {calibration.size}{held_out} exceeds the {recorded.count} recorded trajectories; "
            f"lower calibrations.{name}.size or raise models.{run.model}.trajectories.count"
        )
    if calibration.selector == "uniform" and calibration.every > steps:
        found.append(
            f"calibrations.{name}: every {calibration.every} exceeds the {steps} steps of models.{run.model}.sampler; "
            f"lower calibrations.{name}.every"
        )
    return found
