"""The notebook's form, and that it asks for what there is; `.ci/long` runs its cells."""

from __future__ import annotations

import ast
import base64
import json
import re
from pathlib import Path

import pytest

import edadm
from edadm.library.presets import preset

FILE = Path(__file__).parents[1] / "docs" / "quantize_your_own_unet.ipynb"
CELLS = json.loads(FILE.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
TREES = [ast.parse(source) for source in CODE]


def test_it_is_small_and_every_cell_has_its_own_identifier():
    assert FILE.stat().st_size < 300_000
    assert len({cell["id"] for cell in CELLS}) == len(CELLS) > 10
    images = [
        base64.b64decode(output["data"]["image/png"])
        for cell in CELLS
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert all(image.startswith(b"\x89PNG") for image in images)
    assert not [line for line in FILE.read_text().splitlines() if "/tmp" in line or "/root" in line]


def test_what_it_calls_is_public():
    names = {
        node.attr
        for tree in TREES
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "edadm"
    }
    assert names == set(edadm.__all__) - {"__version__"}
    imported = [
        (node.module or "").split(".")[0]
        for tree in TREES
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
    ]
    assert "edadm" not in imported


def test_its_presets_validate():
    found = [
        (kind, given)
        for tree in TREES
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict) and "base" in (given := _literal(node))
        for kind in [{"tdac": "calibrations", "fbr_w4": "reconstructions"}[given["base"]]]
    ]
    assert [kind for kind, given in found if preset(kind, given)] == ["calibrations", "reconstructions"]


def _literal(node: ast.Dict) -> dict[str, object]:
    try:
        return dict(ast.literal_eval(node))
    except ValueError:
        return {}


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell["cell_type"] == "markdown"])
def test_its_links_lead_to_files(cell: dict):
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", "".join(cell["source"]))
    assert [target for target in targets if not (FILE.parent / target).exists()] == []
