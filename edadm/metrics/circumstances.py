"""With which programs and on what kind of device numbers of images were computed."""

from __future__ import annotations

from importlib.metadata import version

import torch

_PROGRAMS = ("torch", "pillow", "torch-fidelity")


def circumstances(device: torch.device | str) -> dict[str, str]:
    """Versions of what decodes, resizes and computes, and the kind of device with its arithmetic."""
    kind = torch.device(device).type
    if kind == "cuda":
        kind += ", TF32" if torch.backends.cudnn.allow_tf32 else ", fp32"  # of convolutions
    return {"scored_on": kind, "versions": ", ".join(f"{name} {version(name)}" for name in _PROGRAMS)}
