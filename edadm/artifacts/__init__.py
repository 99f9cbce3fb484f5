"""Artifacts: whole or absent, made once, and saying what they were made from."""

from edadm.artifacts.clock import date_now
from edadm.artifacts.errors import BusyError, DamagedError, PlaceError, StaleError
from edadm.artifacts.failures import placing, reading
from edadm.artifacts.files import as_json, read_tensors, save_tensors, writing_json
from edadm.artifacts.making import Work, gpu_beside, making, refuse_to_replace
from edadm.artifacts.metadata import Facts, describe, facts, intact, refuse_other
from edadm.artifacts.whole import writing

__all__ = [
    "BusyError",
    "DamagedError",
    "Facts",
    "PlaceError",
    "StaleError",
    "Work",
    "as_json",
    "date_now",
    "describe",
    "facts",
    "gpu_beside",
    "intact",
    "making",
    "placing",
    "read_tensors",
    "reading",
    "refuse_other",
    "refuse_to_replace",
    "save_tensors",
    "writing",
    "writing_json",
]
