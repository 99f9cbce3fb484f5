"""What the artifact of a subcommand is made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edadm.config.stated import OF_NOISE, OF_SCORES, settings_of

_STAGES = dict.fromkeys(("samples", "references", "simulated"), "generate")  # which make inputs, by role
_STAGES |= {"unet": "convert-checkpoint", "calibration_set": "select-calibration", "ranges": "set-ranges"}
_STAGES |= {part: f"convert-checkpoint --part {part}" for part in ("autoencoder", "condition")}
_OF_IMAGES = ("model", "bits", "reconstruction", "resolved_backend")  # what scores say of their images


def digests(**files: Path | Sequence[Path] | None) -> dict[str, Any]:
    """The digest of each input's content by its role, after it was compared with what the file says of itself.

    Args:
        files: roles with a file, with files in order, or with nothing.

    Raises:
        DamagedError: a file is damaged.
    """
    from edadm.artifacts import intact

    found: dict[str, Any] = {}
    for role, given in files.items():
        if isinstance(given, Path):
            found[role] = intact(given, stage=_STAGES.get(role))
        elif given:
            found[role] = [intact(file, stage=_STAGES.get(role)) for file in given]
    return found


def facts_of(kind: str, made_from: dict[str, Any], device: Any = None) -> Any:
    """The facts of an artifact: what it is, and which settings, files and kind of device it comes from."""
    from edadm.artifacts import facts
    from edadm.devices import kind_of_device

    return facts(kind, made_from, "cpu" if device is None else kind_of_device(device))


def code_of(stage: str) -> str:
    """What tells the code of a subcommand from other versions of it."""
    from edadm.config.fingerprint import stage_fingerprint

    return stage_fingerprint(stage)


def source_of(path: Path) -> list[Any]:
    """What tells a checkpoint from another without reading it: its place, and names, sizes and times of its files."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [
        str(path.resolve()),
        *([file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files),
    ]


def of_weights(model: Any, part: str) -> dict[str, Any]:
    """What tells converted weights from others: the network, and nothing of the file that they came in."""
    from edadm.networks.settings.parts import Conditioning

    setting = {"unet": "architecture", "autoencoder": "autoencoder", "condition": "conditioning"}[part]
    settings = settings_of(model, setting)
    if part == "condition":
        used = {"kind", "classes", "encoder"} & set(Conditioning.model_fields)
        settings["conditioning"] = {name: settings["conditioning"][name] for name in used}
    return {"part": part, "model": settings}


def of_task(model: Any, widths: Any, unet: Path, calibration_set: Path, ranges: Path) -> dict[str, Any]:
    """What a reconstruction is made from, whose inputs must be made for each other.

    Raises:
        DamagedError: one is damaged.
        StaleError: one was made from other settings or files.
    """
    from edadm.artifacts import refuse_other

    made_from: dict[str, Any] = {"model": settings_of(model, "architecture"), "bits": settings_of(widths)}
    inputs = digests(unet=unet, calibration_set=calibration_set, ranges=ranges)
    refuse_other_calibration(calibration_set, model, inputs["unet"])
    of_ranges = {role: inputs[role] for role in ("unet", "calibration_set")}
    refuse_other(ranges, made_from | {"inputs": of_ranges}, "set-ranges")
    return made_from | {"inputs": inputs}


def of_scores(
    settings: Any, files: Any, samples: list[Path], references: list[Path], simulated: list[Path]
) -> dict[str, Any]:
    """What scores are made from, whose images must belong together.

    Args:
        settings: of the evaluation.
        files: where its networks and statistics lie (`edadm.config.scoring`).

    Raises:
        DamagedError: a file is damaged.
        StaleError: images were made from other settings or files than those they are compared with.
    """
    from edadm.metrics.provenance import check_samples

    given = settings.model_fields_set & set(OF_NOISE)
    wanted = settings_of(settings, *given) if given else {}
    made_from = check_samples(samples, references, simulated, wanted)
    prompts = Path(settings.prompts).expanduser() if settings.prompts else None
    images = digests(samples=samples, references=references, simulated=simulated)
    scoring = digests(
        statistics=files.reference, weights=files.weights, clip_weights=files.clip_weights, prompts=prompts
    )
    made_from = {name: made_from[name] for name in _OF_IMAGES if name in made_from} | {
        "evaluation": made_from.get("evaluation", {}) | settings_of(settings, *OF_SCORES)
    }
    return made_from | {"inputs": images | scoring}


def refuse_other_calibration(calibration_set: Path, model: Any, unet: str) -> None:
    """Refuses a calibration set of another network.

    Raises:
        StaleError: it is.
    """
    from edadm.artifacts import refuse_other

    wanted = {"model": settings_of(model, "architecture"), "inputs": {"unet": unet}}
    refuse_other(calibration_set, wanted, "select-calibration")
