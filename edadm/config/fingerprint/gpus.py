"""The code of a stage that only GPUs run, which counts for what a GPU made, whatever the machine that plans.

A rule's parameters are compared with those that Snakemake noted when the rule ran, before it was known which
device would do the work. So the parameter of an artifact that this code does not concern is what was noted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edadm.artifacts.making import code_beside
from edadm.artifacts.metadata import describe
from edadm.config.fingerprint.closure import PACKAGE, stage_fingerprint

_MARK = "code of GPUs "  # begins the parameter, which Snakemake notes without a name


def gpu_code(
    stage: str,
    artifact: Path,
    noted: Sequence[str] | None,
    package: Path = PACKAGE,
    also: tuple[str, ...] = (),
) -> str:
    """The parameter of a rule for the code that only GPUs run.

    Args:
        stage, package, also: see `stage_fingerprint`.
        artifact: what the rule makes.
        noted: the parameters with which it was made, as Snakemake notes them.
    """
    digest = stage_fingerprint(stage, package, also, gpu=True)
    before = next((text.strip("'") for text in noted or () if text.startswith(f"'{_MARK}")), None)
    if before is None or before == _MARK + digest:
        return _MARK + digest
    device = (describe(artifact) or {}).get("device") or ""
    concerned = device.startswith("cuda") and not (code_beside(artifact) or "").endswith(f"+{digest}")
    return _MARK + digest if concerned else before
