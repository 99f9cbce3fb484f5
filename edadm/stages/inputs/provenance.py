"""The provenance of a stage's artifact: the settings, files, code and kind of device it comes from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edadm.config.stated import settings_of
from edadm.errors import EdadmError

_STAGES = dict.fromkeys(("samples", "references", "simulated"), "generate")  # which make inputs, by role
_STAGES |= {"unet": "convert-checkpoint", "calibration_set": "select-calibration", "ranges": "set-ranges"}
SAMPLING = "sampling"  # of a quantized checkpoint's provenance, where it has a correction
_GUIDANCE = ("guidance", "image_guidance")
_STAGES |= {part: f"convert-checkpoint --part {part}" for part in ("autoencoder", "condition")}


def digests(**files: Path | Sequence[Path] | None) -> dict[str, Any]:
    """The digest of each input by its role, after it was compared with what the file says of itself.

    Args:
        files: roles with a file, with files in order, or with nothing.

    Raises:
        DamagedError: a file is damaged.
    """
    from edadm.artifacts import date_now, intact

    def digest(file: Path, role: str) -> str:
        date_now(file)
        return intact(file, stage=_STAGES.get(role))

    found: dict[str, Any] = {}
    for role, given in files.items():
        if isinstance(given, Path):
            found[role] = digest(given, role)
        elif given:
            found[role] = [digest(file, role) for file in given]
    return found


def facts_of(kind: str, made_from: dict[str, Any], device: Any = None) -> Any:
    """The facts of an artifact: what it is, and which settings, files and kind of device it comes from."""
    from edadm.artifacts import facts
    from edadm.devices.named import kind_of_device

    return facts(kind, made_from, "cpu" if device is None else kind_of_device(device))


def code_of(stage: str, device: Any = None, also: tuple[str, ...] = ()) -> str:
    """The fingerprint of a stage's code; on a GPU with that of the kernels.

    A job of the workflow finds both where the workflow noted them.
    """
    from edadm.config.fingerprint import noted_in, stage_fingerprint

    noted_in(os.environ.get("EDADM_NOTES"))
    code = stage_fingerprint(stage, also=also)
    of_gpus = device is not None and device.type == "cuda"
    return f"{code}+{stage_fingerprint(stage, also=also, gpu=True)}" if of_gpus else code


def refuse_other_calibration(calibration_set: Path, model: Any, unet: str) -> None:
    """Refuses a calibration set that was made for another network.

    Raises:
        StaleError: it was.
    """
    from edadm.artifacts import refuse_other

    wanted = {"model": settings_of(model, "architecture"), "inputs": {"unet": unet}}
    refuse_other(calibration_set, wanted, "select-calibration")


def sampling_of(model: Any) -> dict[str, Any]:
    """How a model is sampled, by setting: what a correction in the sampler was fitted for, and holds for."""
    found = settings_of(model, "sampler", "schedule", "prediction")
    conditioning = settings_of(model, "conditioning")["conditioning"] or {}
    found["conditioning"] = {key: part for key, part in conditioning.items() if key in _GUIDANCE}
    return {
        f"{name}.{key}" if key else name: part
        for name, value in found.items()
        for key, part in (value.items() if isinstance(value, dict) else [("", value)])
    }


def refuse_other_sampling(checkpoint: Path, model: Any) -> None:
    """Refuses a checkpoint whose correction was fitted for a model that is sampled otherwise.

    Raises:
        EdadmError: it was; names the setting. What a checkpoint does not say is not compared.
    """
    from edadm.artifacts import describe

    fitted = (describe(checkpoint) or {}).get("provenance", {}).get(SAMPLING, {})
    here = sampling_of(model)
    if other := next((name for name, value in fitted.items() if here.get(name) != value), None):
        raise EdadmError(
            f"the correction in {checkpoint} was fitted for {other} = {fitted[other]}, and this model has "
            f"{here.get(other)}; sample as it was made, or reconstruct without `correction`"
        )
