"""Stages are read without what they compute with."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import importlib, sys
import edadm.stages
for name in ("convert", "collect", "select", "set_ranges", "reconstruct", "generate", "evaluate", "benchmark", "report"):
    assert callable(importlib.import_module(f"edadm.stages.{name}").run)
import edadm.cli, edadm.config.fingerprint, edadm.config.load
print(sorted({"torch", "numpy", "diffusers", "transformers", "zarr"} & set(sys.modules)))
"""


def test_stages_and_the_configuration_import_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
