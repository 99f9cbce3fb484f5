"""The code of a stage as one hash, which Snakemake sees in `params`, and reruns the stage when it changes."""

from edadm.config.fingerprint.closure import PACKAGE, noted_in, remember, stage_files, stage_fingerprint
from edadm.config.fingerprint.content import content_digest, images_digest
from edadm.config.fingerprint.gpus import gpu_code

__all__ = [
    "PACKAGE",
    "content_digest",
    "gpu_code",
    "images_digest",
    "noted_in",
    "remember",
    "stage_files",
    "stage_fingerprint",
]
