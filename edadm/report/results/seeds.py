"""Several learnings of a variant as one result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edadm.report.results.records import VariantResult


def as_one(learnings: Sequence[VariantResult]) -> VariantResult:
    """The first learning, with the means over all of scores and of their pseudo-values.

    Its images, unit errors and speed stay its own. Pseudo-values of a mean are means of pseudo-values, since
    all learnings are scored on images of the same noise.
    """
    first = learnings[0]
    if len(learnings) == 1:
        return first
    scores, spreads = dict(first.scores), {}
    for key in scores:
        known = [one.scores[key] for one in learnings]
        values = [value for value in known if value is not None]
        if len(values) < len(known):
            scores[key] = None
            continue
        scores[key], spreads[key] = float(np.mean(values)), float(np.std(values, ddof=1))
    shared = set.intersection(*(set(one.resamples) for one in learnings))
    resamples = {
        key: np.mean([one.resamples[key] for one in learnings], axis=0)
        for key in first.resamples
        if key in shared and len({len(one.resamples[key]) for one in learnings}) == 1
    }
    label = f"{first.label}, {len(learnings)} seeds"
    return replace(
        first,
        label=label,
        scores=scores,
        resamples=resamples,
        seed_spreads=spreads,
        learnings=tuple(learnings),
    )
