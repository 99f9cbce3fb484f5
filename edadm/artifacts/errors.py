"""Why an artifact is not used."""

from __future__ import annotations

from edadm.errors import EdadmError


class BusyError(EdadmError):
    """Another process works on the same artifact."""


class DamagedError(EdadmError):
    """An artifact that cannot be read, or whose content is not what it says."""


class StaleError(EdadmError):
    """An artifact that is whole, but was made from other settings or files, or is no longer wanted."""


class PlaceError(EdadmError):
    """A file that cannot be written where it should be: a full disk, a quota, a missing right."""
