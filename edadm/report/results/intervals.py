"""Scores and their differences with the intervals that they lie in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edadm.report.results.records import VariantResult

LEVEL = 0.95
_MOVES_AS = {"fid_infinity": "fid"}  # their mean, which has the standard deviation of the score


@dataclass(frozen=True)
class Estimate:
    """A number, and half the width of its 95 % interval, where that is known."""

    value: float
    half: float | None = None

    @property
    def is_zero(self) -> bool:
        """Whether the interval holds 0, so that a difference shows nothing."""
        return self.half is not None and abs(self.value) <= self.half


def estimate(result: VariantResult, key: str) -> Estimate | None:
    """A score; its interval says how far other images would move it, and, of a mean, other seeds."""
    value = result.scores.get(key)
    return None if value is None else Estimate(value, _together(_half(_values(result, key)), key, result))


def difference(one: VariantResult, other: VariantResult, key: str) -> Estimate | None:
    """How much more `one` scores than `other`; what images of one noise share does not widen the interval."""
    ours, theirs = one.scores.get(key), other.scores.get(key)
    if ours is None or theirs is None:
        return None
    own, others = _values(one, key), _values(other, key)
    if own is None or others is None or len(own) != len(others):
        return Estimate(ours - theirs)
    return Estimate(ours - theirs, _together(_half(own - others), key, one, other))


def alike(results: list[VariantResult], key: str) -> list[VariantResult]:
    """The results that have the highest score, as far as their images can tell."""
    scored = [result for result in results if result.scores.get(key) is not None]
    if not scored:
        return []
    best = max(scored, key=lambda result: result.scores[key] or 0.0)
    apart = [(result, difference(result, best, key)) for result in scored if result is not best]
    return [best, *(result for result, found in apart if found and found.is_zero)]


def _together(of_images: float | None, key: str, *results: VariantResult) -> float | None:
    """Half an interval over images and over seeds, whose means are independent of each other."""
    squares = [of_images**2] if of_images is not None else []
    for result in results:
        if key in result.seed_spreads:
            quantile = _quantile(result.seeds - 1)
            squares.append((quantile * result.seed_spreads[key]) ** 2 / result.seeds)
    return float(sum(squares)) ** 0.5 if squares else None


def _values(result: VariantResult, key: str) -> np.ndarray | None:
    return result.resamples.get(_MOVES_AS.get(key, key))


def _half(pseudo_values: np.ndarray | None) -> float | None:
    """Student's t times the standard deviation of the mean of pseudo-values (`metrics.scores.jackknife`)."""
    if pseudo_values is None or len(pseudo_values) < 2:
        return None
    degrees = len(pseudo_values) - 1
    error = pseudo_values.std(ddof=1) / len(pseudo_values) ** 0.5
    return _quantile(degrees) * error


def _quantile(degrees: int) -> float:
    """That of Student's distribution which an interval reaches to."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + LEVEL) / 2))
