"""One reader of prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edadm.config.inputs.prompts import Prompts, prompts_in, prompts_per_image
from edadm.errors import EdadmError

CAPTIONS = {"annotations": [{"image_id": 1, "caption": "A cat\n sits "}, {"image_id": 2, "caption": "  "}]}


@pytest.mark.parametrize(
    ("name", "content", "prompts"),
    [
        ("p.txt", b"a cat\na dog\n", ["a cat", "a dog"]),
        ("p.txt", b"a cat\r\na dog", ["a cat", "a dog"]),
        ("p.txt", b" a cat \n\n  \na dog\n\n\n", ["a cat", "a dog"]),
        ("p.txt", "\ufeffa cat\na dög\n".encode(), ["a cat", "a dög"]),
        (
            "p.txt",
            "a\u2028cat\na\x85dog\nb\x0bi\x0cr\x1cd\rs\n".encode(),
            ["a\u2028cat", "a\x85dog", "b\x0bi\x0cr\x1cd\rs"],
        ),
        ("p.prompts", b"a, b\n", ["a, b"]),
        ("p.txt", b'[a cat]\n{"a": 1} dog', ["[a cat]", '{"a": 1} dog']),
        ("p.txt", b"", []),
        ("p.json", json.dumps(["a cat", " a\ndog ", ""]).encode(), ["a cat", "a\ndog", ""]),
        (
            "p.json",
            json.dumps([{"prompt": "a"}, {"caption": "b"}, {"text": "c", "id": 3}, "d"]).encode(),
            ["a", "b", "c", "d"],
        ),
        ("p.JSONL", b'{"prompt": "a cat"}\n"a dog"\n\n{"caption": "x", "id": 3}\n', ["a cat", "a dog", "x"]),
        ("p.ndjson", '{"text": "a\u2028b"}\n'.encode(), ["a\u2028b"]),
        ("p.json", b"[]", []),
    ],
)
def test_prompts_come_in_the_order_of_their_file(
    name: str, content: bytes, prompts: list[str], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert prompts_in(tmp_path / name) == Prompts(prompts)


def test_captions_are_known_as_such(tmp_path: Path) -> None:
    (tmp_path / "captions.json").write_text(json.dumps(CAPTIONS))
    assert prompts_in(tmp_path / "captions.json") == Prompts(["A cat\n sits", ""], annotations=True)
    with pytest.raises(
        EdadmError, match=r"captions\.json holds captions to draw from; as prompts of images give a JSON list"
    ):
        prompts_per_image(tmp_path / "captions.json", 2)


def test_a_file_per_image_holds_exactly_one_each(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("a\nb\n\n")
    assert prompts_per_image(file, 2) == ["a", "b"]
    for images in (1, 3):
        with pytest.raises(
            EdadmError, match=rf"p\.txt holds 2 prompts for {images} images; give exactly one per image"
        ):
            prompts_per_image(file, images)
    file.write_text("a\n\nb\n")
    with pytest.raises(
        EdadmError, match=r"p\.txt: line 2 is blank; write the prompt of its image there, or remove it"
    ):
        prompts_per_image(file, 2)
    (tmp_path / "p.json").write_text('["a", ""]')
    assert prompts_per_image(tmp_path / "p.json", 2) == ["a", ""]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "p.txt",
            None,
            "cannot be read as prompts (no such file or directory); give a text file with a prompt per line",
        ),
        ("p.txt", "a cat\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        ("p.txt", b"a\nb\ncaf\xe9\n", "line 3 is no UTF-8 text; save the file as UTF-8"),
        ("p.txt", b"a\0b", "is no text file"),
        ("p.json", b"", "is not valid JSON"),
        ("p.json", b'["a", ', "is not valid JSON"),
        ("p.json", b'{"a": 1}', "is neither a list of prompts nor COCO captions"),
        ("p.json", b'{"annotations": {}}', "is neither a list of prompts nor COCO captions"),
        ("p.json", b"3", "is neither a list of prompts"),
        ("p.json", b'["a", 1]', "entry 1 holds 1 where a prompt belongs; write text"),
        ("p.json", b'["a", null]', "entry 1 holds null where a prompt belongs"),
        ("p.json", b'[["a"]]', 'entry 0 holds ["a"] where a prompt belongs'),
        (
            "p.json",
            b'[{"id": 1}]',
            "entry 0 has none of 'prompt', 'caption' and 'text'; it needs one of them",
        ),
        (
            "p.json",
            b'[{"prompt": "a", "text": "b"}]',
            "entry 0 has prompt and text of 'prompt', 'caption' and 'text'; it needs one",
        ),
        ("p.json", b'{"annotations": [{"caption": 3}]}', "annotation 0 holds 3 where a prompt belongs"),
        ("p.json", b'["\\ud800"]', "entry 0 holds half a character"),
        (
            "p.txt",
            b'{"prompt": "a"}\n{"prompt": "b"}\n',
            "holds JSON in a text file; call it .json if it is one list, or .jsonl if",
        ),
        ("p.txt", b'[\n"a",\n"b"\n]', "holds JSON in a text file"),
        (
            "p.txt",
            b"a cat\ra dog\r",
            "ends its lines with carriage returns alone, so that all are one prompt",
        ),
        (
            "p.txt",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "is a web page or a Git-LFS pointer in place of",
        ),
        (
            "p.json",
            b"<!DOCTYPE html><html>",
            "is a web page or a Git-LFS pointer in place of the file; fetch that again",
        ),
        (
            "p.csv",
            b"prompt,category\na cat,animals\n",
            "the columns or marks of a .csv file would become part of prompts",
        ),
        ("p.TSV", b"Prompt\tCategory\n", "of a .tsv file"),
        ("p.jsonl", b'{"prompt": "a"}\na cat\n', "line 2 is not valid JSON"),
        ("p.jsonl", b'\n{"prompt": []}\n', "line 2 holds [] where a prompt belongs"),
    ],
)
def test_other_files_are_refused(name: str, content: bytes | None, sentence: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(EdadmError) as caught:
        prompts_in(tmp_path / name)
    assert sentence in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_a_folder_holds_no_prompts(tmp_path: Path) -> None:
    with pytest.raises(EdadmError, match="cannot be read as prompts"):
        prompts_in(tmp_path)
