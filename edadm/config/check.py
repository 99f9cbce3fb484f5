"""What must hold between presets before any work starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edadm.config.backends import (
    DEFAULT,
    backend_label,
    computes_family,
    computes_transforms,
    precisions_of,
    variant_suffixes,
)
from edadm.config.layout import FULL_PRECISION, Variant
from edadm.config.methods import CORRECTIONS, METHODS
from edadm.config.rules.evaluations import mistakes_in_evaluation
from edadm.config.rules.models import mistakes_in_model, mistakes_in_networks
from edadm.config.rules.wording import nearest
from edadm.config.schema import EULERS, FLOW, Config, Run
from edadm.errors import EdadmError
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
        found += absent or mistakes_in_model(run, config)
        twice = [name for name in dict.fromkeys(run.variants) if run.variants.count(name) > 1]
        found += [
            f"runs: '{name}' stands twice among the variants of '{run.model}'; remove one" for name in twice
        ]
        for name in dict.fromkeys(run.variants):
            found += _of_variant(run, name, config)
    return found


def _of_presets(config: Config) -> list[str]:
    """Contradictions inside single presets, whether a run uses them or not."""
    found = []
    for name, model in config.models.items():
        found += mistakes_in_networks(name, model)
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
    return found + _of_correction(run, names[2], config) + _of_backend(run, variant, config)


def _of_patterns(run: Run, bits: str, reconstruction: str, config: Config) -> list[str]:
    """Patterns that match no layer or unit of the model, and more jobs than it has units.

    Neither would show in a result.
    """
    units = unit_layers(config.models[run.model].architecture)
    if units is None:
        return []
    layers = [layer for names in units.values() for layer in names]
    settings, where = config.reconstructions[reconstruction], f"reconstructions.{reconstruction}"
    known = METHODS[settings.method].units(units)
    preset = config.bits[bits]
    told = preset.learned_scales
    of_scales: Sequence[str] = () if told is None else (*told.layers, *told.voted)
    found = [
        f"bits.{bits}.{setting}: the pattern '{pattern}' matches no layer of '{run.model}'; {hint}"
        for setting, given in (
            ("layers", preset.layers),
            ("smoothing_layers", preset.smoothing_layers),
            ("learned_scales", of_scales),
            ("linear.layers", () if preset.linear is None else preset.linear.layers),
        )
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


def _of_correction(run: Run, name: str, config: Config) -> list[str]:
    """Whether the model's sampler can be corrected in this way."""
    correction, sampler = config.reconstructions[name].correction, config.models[run.model].sampler
    if correction is not None and sampler.method == FLOW:
        return [
            f"reconstructions.{name}: the correction '{correction}' is of a predicted noise, and "
            f"models.{run.model} predicts a flow; remove `correction`"
        ]
    if correction is None or not CORRECTIONS[correction].of_steps or sampler.method in ("ddim", *EULERS):
        return []
    return [
        f"reconstructions.{name}: the correction '{correction}' changes steps of DDIM, and "
        f"models.{run.model} has the sampler '{sampler.method}'; set its method: ddim, or take another "
        "correction"
    ]


def _of_backend(run: Run, variant: Variant, config: Config) -> list[str]:
    """Whether the images of a variant can be made with its backend."""
    name, evaluation = variant.backend, config.evaluations.get(run.evaluation)
    if name == DEFAULT:
        return []
    try:
        precisions = precisions_of(name)
    except EdadmError as error:
        return [f"runs: '{variant.name}': {error}"]
    family = config.models[run.model].architecture.family
    if not computes_family(name, family):
        return [
            f"runs: '{variant.name}': backend '{name}' computes no network of the family '{family}'; take "
            f"/{name} off the variant"
        ]
    bits = variant.presets[1]
    linear = config.bits[bits].linear
    if linear is not None and linear.transforms and not computes_transforms(name):
        return [
            f"runs: '{variant.name}': bits.{bits}.linear gives layers grids of tokens, rotations or "
            f"branches, which backend '{name}' does not compute; take /{name} off the variant"
        ]
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
