"""What two processes must have in common."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has servers")


def test_every_file_of_the_package_counts_but_what_python_compiled(tmp_path: Path) -> None:
    from edadm.warm.alike import _stamps

    (tmp_path / "part" / "__pycache__").mkdir(parents=True)
    file, compiled = tmp_path / "part" / "code.py", tmp_path / "part" / "__pycache__" / "code.pyc"
    file.write_text("one")
    (tmp_path / "gone").symlink_to("nowhere")
    before = _stamps(str(tmp_path))
    assert [(name, size) for name, size, _ in before] == [(str(file), 3)]
    compiled.write_text("any")
    assert _stamps(str(tmp_path)) == before
    file.write_text("two")
    os.utime(file, ns=(0, before[0][2] + 1))
    assert _stamps(str(tmp_path)) != before


def test_an_environment_counts_but_what_differs_from_job_to_job(monkeypatch: pytest.MonkeyPatch) -> None:
    from edadm.warm.alike import likeness

    before = likeness()
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1")
    assert likeness() == before
    monkeypatch.setenv("TORCH_HOME", "/elsewhere")
    assert likeness() != before
