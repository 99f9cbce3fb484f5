"""The plan of a run: counts of its stages and, where a device is given, times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edadm.config.schema import Config, Evaluation, Run
from edadm.errors import EdadmError
from edadm.planning.count import stages_of
from edadm.planning.network import Networks
from edadm.planning.probe import Probe, Rates
from edadm.planning.show import as_values, gib

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
                f"{probe.rates.device} has too little memory to measure the run of {run.model}, whose largest stage, {largest.name}, needs "
                f"about {gib(largest.memory.needed)} there; lower its batch sizes, plan with --device cpu, or without times by --no-probe"
            ) from None
    return as_values(run.model, networks, stages, rates)
