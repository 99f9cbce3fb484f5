"""An order of labels and captions that a key decides."""

from __future__ import annotations

import hashlib


def shuffled(count: int, *key: int | str) -> list[int]:
    """0 .. count - 1 in an order that is a function of the key alone, on any machine and version."""
    prefix = "/".join(map(str, key))
    return sorted(range(count), key=lambda index: hashlib.sha256(f"{prefix}/{index}".encode()).digest())
