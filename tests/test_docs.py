"""The documents hold what the code, and they themselves, refer to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edadm.config.schema import json_schema

ROOT = Path(__file__).parents[1]
METHOD = (ROOT / "docs/method.md").read_text()
FOLDERS = ("edadm", "tests", "workflow", "docs")
SUFFIXES = {".j2", ".json", ".md", ".py", ".smk", ".yaml"}
PAGES = [f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md"))]
KINDS = {"models": "Model", "calibrations": "Calibration", "bits": "Bits"}
KINDS |= {"reconstructions": "Reconstruction", "evaluations": "Evaluation"}
SECTION, QUIRK = (re.compile(pattern, re.MULTILINE) for pattern in (r"^### (\d\.\d) ", r"^- \*\*(Q\d+)\*\* "))
OTHER_FORMS = re.compile(r"[Mm]ethod:?\s+(section )?\d\.\d|[Mm]ethod, section")


def texts() -> Iterator[tuple[Path, str]]:
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in SUFFIXES and file.is_file():
                yield file.relative_to(ROOT), file.read_text()


def referred(text: str) -> set[str]:
    """The sections (4.3) and quirks (Q14) of the method that a text refers to, wherever its lines end."""
    flat = re.sub(r"\s*\n[\s#]*", " ", text)
    numbers = re.findall(r"\bmethod(?:\.md)?, (\d\.\d(?:(?:,| and| to) \d\.\d)*)", flat)
    quirks = re.findall(r"\bquirks? (Q\d+(?:(?:,| and) Q\d+)*)", flat)
    return set(re.findall(r"\d\.\d|Q\d+", " ".join(numbers + quirks)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a step (method, 4.3, step 2) of 7.1 s", {"4.3"}),
        ("(FBR; method, 4.3 to 4.5)", {"4.3", "4.5"}),
        ("(docs/method.md, 1.1, 3.4 and\n    # 4.1); see quirk\n    Q9", {"1.1", "3.4", "4.1", "Q9"}),
        ("quirks Q2, Q3 and Q14", {"Q2", "Q3", "Q14"}),
        ("method=method, steps=4.3", set()),
    ],
)
def test_references_are_found_in_every_form(text: str, expected: set[str]) -> None:
    assert referred(text) == expected


def test_every_reference_to_the_method_is_held_by_its_page() -> None:
    places = {reference: path for path, text in texts() for reference in referred(text)}
    assert {"2.3", "3.4", "4.3", "5.1", "7.1", "Q6", "Q14", "Q40"} <= places.keys()
    held = {*SECTION.findall(METHOD), *QUIRK.findall(METHOD)}
    assert {reference: path for reference, path in places.items() if reference not in held} == {}


def test_no_reference_to_the_method_has_another_form() -> None:
    assert [str(path) for path, text in texts() if OTHER_FORMS.search(text)] == []


def test_the_page_has_all_42_quirks_in_order() -> None:
    assert QUIRK.findall(METHOD) == [f"Q{number}" for number in range(1, 43)]


def test_every_setting_that_the_page_names_exists() -> None:
    definitions = json_schema()["$defs"]
    named = set(re.findall(r"\b(\w+)\.\*\.([a-z_]+(?:\.[a-z_]+)*)", METHOD))
    assert ("bits", "weight_zero_point") in named
    for kind, path in named:
        node = definitions[KINDS[kind]]
        for key in path.split("."):
            assert key in node["properties"], f"{kind}.*.{path}"
            inner = re.search(r"#/\$defs/(\w+)", json.dumps(node["properties"][key]))
            node = definitions[inner[1]] if inner else {"properties": {}}


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_links_between_documents_lead_to_files(document: str) -> None:
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", (ROOT / document).read_text())
    assert [target for target in targets if not ((ROOT / document).parent / target).exists()] == []
