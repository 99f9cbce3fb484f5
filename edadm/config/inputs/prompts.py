"""Prompts: one reader for every place that names a file of them."""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edadm.artifacts import reading
from edadm.errors import EdadmError

FORMS = "a text file with a prompt per line, a JSON list, JSON lines with a 'prompt', or COCO captions (JSON)"
_KEYS = ("prompt", "caption", "text")
_TABLES = (".csv", ".tsv", ".yaml", ".yml", ".xml", ".html", ".md")
_STANDING_IN = ("version https://git-lfs", "<!doctype", "<html")
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Prompts:
    """Prompts in the order of their file.

    Attributes:
        texts: the prompts, without white space around them.
        annotations: whether they are COCO's captions, of which images take some in shuffled order.
    """

    texts: list[str]
    annotations: bool = False


def prompts_in(path: Path, per_image: bool = False) -> Prompts:
    """The prompts in a file of captions (`.json`, `.jsonl`, `.ndjson`) or of text, one per line.

    Suffixes of tables and markup are refused.

    Lines end at a line feed, and at nothing else: form feeds and U+2028 stay inside a prompt, as models see
    them. A text whose lines are JSON, or end at carriage returns alone, is refused.

    Args:
        path: of the file.
        per_image: line i is the prompt of image i, so that a blank line among the others is refused; else
            blank lines count as none.

    Raises:
        EdadmError: absent, not UTF-8, or of another form; says which line or entry.
    """
    text = _text(path)
    if text[:64].lstrip().lower().startswith(_STANDING_IN):
        raise EdadmError(f"{path} is a web page or a Git-LFS pointer in place of the file; fetch that again")
    if path.suffix.lower() == ".json":
        return _of_json(path, text)
    lines = [line.strip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if per_image and "" in lines:
        raise EdadmError(
            f"{path}: line {lines.index('') + 1} is blank; write the prompt of its image there, or remove it"
        )
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line]
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        _refuse_other_text(path, text, [line for _, line in numbered])
        return Prompts([line for _, line in numbered])
    return Prompts(
        [
            _of_entry(path, f"line {number}", _parsed(path, line, f": line {number}"))
            for number, line in numbered
        ]
    )


def prompts_per_image(path: Path, images: int) -> list[str]:
    """The prompts of exactly `images` images, in order.

    Raises:
        EdadmError: as `prompts_in`, or there are fewer or more; COCO's captions belong to no image of ours.
    """
    found = prompts_in(path, per_image=True)
    if found.annotations:
        raise EdadmError(
            f"{path} holds captions to draw from; as prompts of images give a JSON list or a text file, one "
            "for each image"
        )
    if len(found.texts) != images:
        raise EdadmError(
            f"{path} holds {len(found.texts)} prompts for {images} images; give exactly one per image, in "
            "their order"
        )
    return found.texts


def _text(path: Path) -> str:
    with reading(path, f"give {FORMS}", EdadmError, "prompts"):
        data = path.read_bytes()
    if data.startswith(_WIDE):
        raise EdadmError(f"{path} is UTF-16 text; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise EdadmError(f"{path}: line {line} is no UTF-8 text; save the file as UTF-8") from None
    if "\0" in text:
        raise EdadmError(f"{path} is no text file; give {FORMS}")
    return text


def _refuse_other_text(path: Path, text: str, lines: list[str]) -> None:
    """Refuses text whose lines are not prompts themselves."""
    if (suffix := path.suffix.lower()) in _TABLES:
        raise EdadmError(
            f"{path}: the columns or marks of a {suffix} file would become part of prompts; give {FORMS}"
        )
    if "\r" in text.strip() and "\n" not in text:
        raise EdadmError(
            f"{path} ends its lines with carriage returns alone, so that all are one prompt; save it with "
            "line feeds"
        )
    if lines and (_is_json(text) or all(map(_is_json, lines))):
        raise EdadmError(
            f"{path} holds JSON in a text file; call it .json if it is one list, or .jsonl if each line is "
            "an entry"
        )


def _is_json(text: str) -> bool:
    """Whether a text is an object or a list of JSON, which no prompt is."""
    if not text.strip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(path: Path, text: str, where: str = "") -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EdadmError(f"{path}{where} is not valid JSON ({error}); mend it, or give {FORMS}") from None


def _of_json(path: Path, text: str) -> Prompts:
    found = _parsed(path, text)
    annotated = isinstance(found, dict)
    entries = found.get("annotations") if isinstance(found, dict) else found
    if not isinstance(entries, list):
        raise EdadmError(
            f"{path} is neither a list of prompts nor COCO captions (a list 'annotations' of objects with a "
            "'caption')"
        )
    kind = "annotation" if annotated else "entry"
    return Prompts(
        [_of_entry(path, f"{kind} {index}", entry) for index, entry in enumerate(entries)], annotated
    )


def _of_entry(path: Path, where: str, entry: Any) -> str:
    """A string, or the caption, prompt or text of an object."""
    text = entry
    if isinstance(entry, dict):
        given = [key for key in _KEYS if key in entry]
        if len(given) != 1:
            has = f"has {' and '.join(given)}" if given else "has none"
            raise EdadmError(f"{path}: {where} {has} of 'prompt', 'caption' and 'text'; it needs one of them")
        text = entry[given[0]]
    if not isinstance(text, str):
        raise EdadmError(f"{path}: {where} holds {json.dumps(text)[:40]} where a prompt belongs; write text")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise EdadmError(f"{path}: {where} holds half a character (\\ud800 to \\udfff); write it whole")
    return text.strip()
