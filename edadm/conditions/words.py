"""A small vocabulary in CLIP's form: bytes, and the merges that make given words one token each."""

from __future__ import annotations

import gzip
import io
from functools import cache
from itertools import pairwise

_END = "</w>"  # stands behind the last letter of a word
_BYTES = 512  # tokens of single bytes, inside and at the end of words
_SPECIAL = 2  # start and end of text, the last ones
CLIPS = 49408


@cache
def merges_of(words: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Pairs of tokens that become one, the earlier before the later.

    A word is encoded by the merges of those before it, and what is left becomes one token from its beginning;
    these merges come later, so that no earlier word is changed by them.
    """
    merges: dict[tuple[str, str], int] = {}
    for word in words:
        parts = _encoded([*word[:-1], f"{word[-1]}{_END}"], merges)
        while len(parts) > 1:
            merges[parts[0], parts[1]] = len(merges)
            parts = [parts[0] + parts[1], *parts[2:]]
    return tuple(merges)


def _encoded(parts: list[str], merges: dict[tuple[str, str], int]) -> list[str]:
    """Tokens of a word, the earliest merge first."""
    while known := [pair for pair in pairwise(parts) if pair in merges]:
        first = min(known, key=merges.__getitem__)
        joined: list[str] = []
        for part in parts:
            if joined and (joined[-1], part) == first:
                joined[-1] += part
            else:
                joined.append(part)
        parts = joined
    return parts


def vocabulary_size(words: tuple[str, ...] | None) -> int:
    """How many tokens there are with these words; None stands for CLIP's."""
    return CLIPS if words is None else _BYTES + len(merges_of(words)) + _SPECIAL


def merges_file(words: tuple[str, ...]) -> io.BytesIO:
    """The merges as CLIP's tokenizer reads them."""
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges_of(words))]
    return io.BytesIO(gzip.compress("\n".join(lines).encode()))
