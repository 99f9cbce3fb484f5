"""Artifacts: whole or absent, made once, and saying what they were made from."""

from edadm.artifacts.errors import BusyError, DamagedError, StaleError
from edadm.artifacts.files import as_json, read_tensors, save_tensors, writing_json
from edadm.artifacts.holding import finished, holding, same_work
from edadm.artifacts.making import Work, making
from edadm.artifacts.metadata import Facts, describe, facts, intact, refuse_other
from edadm.artifacts.whole import writing

__all__ = [
    "BusyError",
    "DamagedError",
    "Facts",
    "StaleError",
    "Work",
    "as_json",
    "describe",
    "facts",
    "finished",
    "holding",
    "intact",
    "making",
    "read_tensors",
    "refuse_other",
    "same_work",
    "save_tensors",
    "writing",
    "writing_json",
]
