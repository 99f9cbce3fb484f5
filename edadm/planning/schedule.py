"""What a plan takes on several GPUs: jobs side by side, each after those it needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edadm.config.backends import computes_on
from edadm.config.layout import Variant
from edadm.console import duration

_WITHOUT_GPU = ("convert-checkpoint", "select-calibration")
_NEEDS = {  # the stage before, and how many presets of the path below the model it shares
    "collect-trajectories": ("convert-checkpoint", 0),
    "select-calibration": ("collect-trajectories", 0),
    "set-ranges": ("select-calibration", 1),
    "reconstruct": ("set-ranges", 2),
}
_QUANTIZED = 3  # presets that name a quantized checkpoint
_FULL_PRECISION = "fp32"
_FEATURES = "extract-features"
Key = tuple[str, str]


@dataclass
class _Stage:
    key: Key
    needs: list[Key]
    jobs: list[float]  # seconds of those that wait
    on_gpu: bool
    ends: float = 0.0


def on_gpus(plans: Sequence[dict[str, Any]], gpus: int) -> dict[str, Any]:
    """Seconds until all is done on so many GPUs, seconds that jobs have one each, and what is not in them.

    A job starts when what it needs is there and a GPU is free, the first of the plan first.

    Args:
        plans: from `show.as_values`; they share the GPUs.
        gpus: of the speed of what was probed.
    """
    stages = [stage for plan in plans for stage in _stages(plan["stages"], gpus)]
    done: dict[Key, _Stage] = {}
    waiting, free, occupied = list(stages), [0.0] * gpus, 0.0
    while waiting:
        starts = [
            (_ready(stage, done, free), stage)
            for stage in waiting
            if all(map(done.__contains__, stage.needs))
        ]
        begin, stage = min(starts, key=lambda start: start[0])
        seconds = stage.jobs.pop()
        stage.ends = max(stage.ends, begin + seconds)
        if stage.on_gpu:
            free[free.index(min(free))] = begin + seconds
            occupied += seconds
        if not stage.jobs:
            waiting.remove(stage)
            done[stage.key] = stage
    unknown = [
        f"{row['stage']} {row['of']}" for plan in plans for row in plan["stages"] if row["seconds"] is None
    ]
    ends = max((stage.ends for stage in stages), default=0.0)
    files = sum(row["files"] for plan in plans for row in plan["stages"])
    return {"gpus": gpus, "seconds": ends, "gpu_seconds": occupied, "files": files, "not_estimated": unknown}


def in_words(total: dict[str, Any]) -> str:
    """What plans take on several GPUs, as lines; values as from `on_gpus`."""
    many = "1 GPU" if total["gpus"] == 1 else f"{total['gpus']} GPUs"
    hours, files = f"{total['gpu_seconds'] / 3600:.3g} GPU-hours", f"{total['files']:,} files"
    said = f"on {many} as fast as what was probed: {duration(total['seconds'])}, {hours}, {files}"
    if not total["not_estimated"]:
        return said
    return f"{said}; without these, for which no rate was measured: {', '.join(total['not_estimated'])}"


def _stages(rows: Sequence[dict[str, Any]], gpus: int) -> Iterator[_Stage]:
    """Stages of a plan, each with the seconds of its jobs and what they wait for."""
    known = {(row["stage"], row["of"]) for row in rows}
    for row in rows:
        name, of = row["stage"], row["of"]
        jobs = min(row["shares"], gpus) if row["divides_itself"] else row["shares"]
        seconds = (row["seconds"] or 0.0) / jobs
        needs = [key for key in _needed(name, of) if key in known]
        looked_at = name == "evaluate" and (_FEATURES, of) in known  # by other jobs, which have the GPUs
        yield _Stage((name, of), needs, [seconds] * jobs, takes_a_gpu(name, of) and not looked_at)


def takes_a_gpu(name: str, of: str) -> bool:
    """Whether jobs of a stage have a GPU each, as the workflow's have.

    Args:
        name: of the stage.
        of: the model and the presets it is about; of images, the variant whose backend makes them.
    """
    _, _, variant = of.partition("/")
    return name not in _WITHOUT_GPU and (name != "generate" or computes_on(Variant(variant).backend, "cuda"))


def _needed(name: str, of: str) -> list[Key]:
    model, *presets = of.split("/")
    if name in _NEEDS:
        before, shared = _NEEDS[name]
        return [(before, "/".join([model, *presets[:shared]]))]
    if name == "generate" and presets == [_FULL_PRECISION]:
        return [("convert-checkpoint", model)]
    if name == "generate":
        return [("reconstruct", "/".join([model, *presets[:_QUANTIZED]]))]
    images = [of, f"{model}/{_FULL_PRECISION}"] if name in (_FEATURES, "evaluate") else []
    features = [(_FEATURES, of)] if name == "evaluate" else []
    return [*(("generate", each) for each in images), *features]


def _ready(stage: _Stage, done: dict[Key, _Stage], free: list[float]) -> float:
    needed = max((done[key].ends for key in stage.needs), default=0.0)
    return max(needed, min(free)) if stage.on_gpu else needed
