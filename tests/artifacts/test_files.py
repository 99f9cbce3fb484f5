"""JSON artifacts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from edadm.artifacts.files import writing_json
from edadm.errors import EdadmError


def test_json_is_valid_json(tmp_path: Path) -> None:
    writing_json(tmp_path / "a.json", {"fid": 1.5, "list": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"fid": 1.5, "list": [1, None]}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_named_and_nothing_is_written(number: float, tmp_path: Path) -> None:
    with pytest.raises(
        EdadmError,
        match=rf"^rows\.1\.fid \({number}\) is not finite, which JSON cannot hold; look at what it was",
    ):
        writing_json(tmp_path / "a.json", {"rows": [{"fid": 1.0}, {"fid": number}]})
    assert list(tmp_path.glob("*.json")) == []
