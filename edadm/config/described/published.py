"""What stands in no file, from the published run of the same network or as a guess."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edadm.config.described.entry import Description
from edadm.config.rules.steps import step_problem
from edadm.config.schema import Model, Sampler
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.reading import Settings

_STEPS = (50, 100, 20, 25, 40, 200, 10, 5, 4, 2, 1)


def completed(description: Description, presets: Mapping[str, Model]) -> Description:
    """The entry with a sampler, trajectories and what else no file says.

    Where the network is a preset's, these are the preset's.
    """
    settings, left_open = dict(description.settings), list(description.left_open)
    architecture = Architecture.model_validate(settings["architecture"])
    name, preset = next(((n, m) for n, m in presets.items() if m.architecture == architecture), (None, None))
    if preset is not None:
        taken = [key for key in ("sampler", "trajectories", "pixels") if key not in settings]
        settings |= {
            key: getattr(preset, key) if key == "pixels" else getattr(preset, key).model_dump(mode="json")
            for key in taken
        }
        left_open.append(
            f"{', '.join(taken)}: as in the preset {name}, whose network is the same"
        ) if taken else None
    if "sampler" not in settings:
        settings["sampler"] = {
            "method": "ddim",
            "steps": 50,
            "spacing": "uniform_from_one" if "autoencoder" in settings else "uniform",
        }
        left_open.append("the sampler and its number of steps stand in no file")
    settings["sampler"] = _reaching(settings["sampler"], settings["schedule"].get("timesteps", 1000))
    settings.setdefault("trajectories", {"count": 1024, "batch_size": 64, "feature_rows": 64})
    return Description(settings, left_open)


def _reaching(sampler: Settings, timesteps: int) -> Settings:
    """The sampler with a number of steps that leads from noise to an image, its own if that does."""
    for steps in (sampler["steps"], *_STEPS):
        changed: dict[str, Any] = sampler | {"steps": steps}
        if steps <= timesteps and step_problem(Sampler.model_validate(changed), timesteps) is None:
            return changed
    return sampler
