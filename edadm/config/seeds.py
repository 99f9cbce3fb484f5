"""Several learnings of a variant: its reconstruction preset with other seeds, under names of their own.

The first keeps the preset's name, so that one seed is what it always was. Others have `@` and their number
behind it, which no preset of a user can have: tdac/w4a8/fbr_w4@2 has the seed of `fbr_w4` plus 1. Full
precision and whatever lies above a reconstruction are shared by all.
"""

from __future__ import annotations

from collections.abc import Iterable

from edadm.config.layout import SEED, Variant
from edadm.config.methods import METHODS
from edadm.config.schema import Config, Reconstruction, Run


def with_seeds(config: Config) -> Config:
    """The configuration with a variant and a preset for every seed of its runs."""
    presets: dict[str, Reconstruction] = {}
    runs = []
    for run in config.runs:
        names: dict[str, None] = {}
        for variant in map(Variant, run.variants):
            names[variant.name] = None
            for seed in _further_seeds(run, variant, config):
                preset = config.reconstructions[variant.presets[2]]
                other = variant.of_seed(seed)
                presets[other.presets[2]] = preset.model_copy(update={"seed": preset.seed + seed - 1})
                names[other.name] = None
        runs.append(run.model_copy(update={"variants": tuple(names)}))
    learned = config.reconstructions | presets
    return config.model_copy(update={"runs": tuple(runs), "reconstructions": learned})


def without_seeds(config: Config) -> Config:
    """The configuration as it was before `with_seeds`, for whoever reads it again."""
    kept = {name: preset for name, preset in config.reconstructions.items() if SEED not in name}
    runs = (run.model_copy(update={"variants": tuple(first_seeds(run.variants))}) for run in config.runs)
    return config.model_copy(update={"runs": tuple(runs), "reconstructions": kept})


def first_seeds(names: Iterable[str]) -> list[str]:
    """The variants of which others are further seeds."""
    return [name for name in names if SEED not in name]


def _further_seeds(run: Run, variant: Variant, config: Config) -> range:
    """What is not learned comes out the same for every seed, and is made once."""
    if not variant.is_quantized or not METHODS[config.reconstructions[variant.presets[2]].method].learns:
        return range(0)
    return range(2, run.seeds + 1)
