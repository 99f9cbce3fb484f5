"""A small vocabulary in CLIP's form: bytes, and the merges that make given words one token each."""

from __future__ import annotations

import gzip
import io
import json
from functools import cache
from itertools import pairwise
from pathlib import Path

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
    """The merges as open_clip's tokenizer reads them."""
    return io.BytesIO(gzip.compress(_lines(words).encode()))


def _lines(words: tuple[str, ...]) -> str:
    return "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges_of(words))])


def write_tokenizer(words: tuple[str, ...], tokens: int, folder: Path) -> None:
    """Writes the folder that transformers' `CLIPTokenizer` reads.

    Args:
        words: of the vocabulary.
        tokens: length to which prompts are padded or cut.
        folder: is made if it is not there.
    """
    from open_clip.tokenizer import SimpleTokenizer

    *known, _, _ = SimpleTokenizer(merges_file(words)).encoder
    begin, end = "<|startoftext|>", "<|endoftext|>"
    special = {"bos_token": begin, "eos_token": end, "unk_token": end, "pad_token": end}
    vocabulary = {token: number for number, token in enumerate([*known, begin, end])}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": tokens, "do_lower_case": True}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "merges.txt").write_text(f"{_lines(words)}\n")
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | special, indent=2))
