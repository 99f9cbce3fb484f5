"""The plan of a run: counts of its stages and, where a device is given, times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edadm.config.layout import Variant
from edadm.config.schema import Config, Evaluation, Run
from edadm.console import gib
from edadm.errors import EdadmError
from edadm.planning.probe import Probe
from edadm.planning.rates import Rates
from edadm.planning.show import as_values
from edadm.stages import collect, convert, evaluate, generate, reconstruct, select, set_ranges
from edadm.stages.cost.networks import Networks
from edadm.stages.cost.work import Cost

Extract = Callable[[Tensor], object]
FeatureNetwork = Callable[[Evaluation], Extract | None]


def chosen_runs(config: Config, models: Sequence[str] | None = None) -> list[Run]:
    """The runs of a configuration, or those of some models.

    Raises:
        EdadmError: there are none, or none of a model that is named.
    """
    known = [run.model for run in config.runs]
    if not known:
        raise EdadmError(
            "the configuration has no runs; add some under `runs`, or name a file that has with --config"
        )
    if absent := [name for name in models or () if name not in known]:
        raise EdadmError(f"the configuration has no run of model '{absent[0]}'; it has {', '.join(known)}")
    return [run for run in config.runs if not models or run.model in models]


def stages_of(run: Run, config: Config, networks: Networks | None = None) -> list[Cost]:
    """The stages of a run in order; what several variants share stands once."""
    model, evaluation = config.models[run.model], config.evaluations[run.evaluation]
    networks = networks or Networks(model)
    found: dict[tuple[str, str], Cost] = {}

    def add(stage: Cost) -> None:
        found.setdefault((stage.name, stage.of), stage)

    add(convert.cost(run.model, networks))
    variants = [Variant(name) for name in run.variants]
    for presets in (variant.presets for variant in variants if variant.is_quantized):
        calibration, bits = config.calibrations[presets[0]], config.bits[presets[1]]
        add(collect.cost(run.model, networks))
        add(select.cost(f"{run.model}/{presets[0]}", networks, calibration))
        add(set_ranges.cost(f"{run.model}/{presets[0]}/{presets[1]}", networks, calibration, bits))
        settings = config.reconstructions[presets[2]]
        add(reconstruct.cost(f"{run.model}/{'/'.join(presets)}", networks, calibration, bits, settings))
    if any(variant.is_quantized for variant in variants):
        compared = [variant for variant in variants if variant.is_quantized]
        variants = [Variant("fp32"), *compared]
    for variant in variants:
        bits_of = config.bits[variant.presets[1]] if variant.is_quantized else None
        add(generate.cost(f"{run.model}/{variant.name}", networks, evaluation, bits_of))
    for variant in variants:
        for stage in evaluate.costs(f"{run.model}/{variant.name}", evaluation):
            add(stage)
    order = list(dict.fromkeys(stage.name for stage in found.values()))
    return sorted(found.values(), key=lambda stage: order.index(stage.name))


def plan_run(
    run: Run,
    config: Config,
    device: torch.device | None,
    feature_network: FeatureNetwork = lambda evaluation: None,
) -> dict[str, Any]:
    """The plan as plain values (see `show.as_values`).

    Args:
        run: one of the configuration's.
        config: with its presets.
        device: where to measure; None leaves times out.
        feature_network: gives the network that scores images, or None where its weights are not at hand.

    Raises:
        EdadmError: the device has too little memory for the batches of the plan.
    """
    model = config.models[run.model]
    networks = Networks(model)
    stages = stages_of(run, config, networks)
    rates: Rates | None = None
    if device is not None:
        probe = Probe(networks, device)
        try:
            rates = probe.measure(stages)
            probe.time_disk(Path(config.results))
            if extract := feature_network(config.evaluations[run.evaluation]):
                factor = model.autoencoder.factor if model.autoencoder else 1
                probe.time_scoring(extract, 3, model.architecture.image_size * factor)
        except torch.OutOfMemoryError:
            largest = max(stages, key=lambda stage: stage.memory.needed)
            raise EdadmError(
                f"{probe.rates.device} has too little memory to measure the run of {run.model}, whose "
                f"largest stage, {largest.name}, needs "
                f"about {gib(largest.memory.needed)} there; lower its batch sizes, plan with --device cpu, "
                "or without times by --no-probe"
            ) from None
    return as_values(run.model, networks, stages, rates, Path(config.results))
