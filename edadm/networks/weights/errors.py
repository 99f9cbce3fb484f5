"""What is wrong with a file of weights, and how its names stand in a sentence."""

from __future__ import annotations

from pathlib import Path

from edadm.errors import EdadmError

_LONGEST = 80


class CheckpointError(EdadmError):
    """A checkpoint that cannot be used, with a sentence that names the fix."""


def quoted(name: object) -> str:
    """A name out of a foreign file in quotes: printable, on one line, cut where it is endless."""
    plain = isinstance(name, str | int | float)
    shown = ascii(str(name) if plain else f"<{type(name).__name__}>")
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}...'"


def clean_line(tensor: str = "tensor.detach()") -> str:
    """The line of Python that writes tensors alone, for the program that made a file.

    Args:
        tensor: how the line writes one of the tensors.
    """
    return f"`torch.save({{name: {tensor} for name, tensor in model.state_dict().items()}}, 'clean.pt')`"


def unreadable(path: Path, reason: str) -> CheckpointError:
    """The error for a file whose bytes are not what they should be."""
    ask = "is it complete, and from a source you trust?"
    return CheckpointError(f"{path} cannot be read as a checkpoint ({reason}); {ask}")
