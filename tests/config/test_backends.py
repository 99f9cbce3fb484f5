"""Names of backends: what each means where, and that they stand nowhere but in the registry."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from edadm.config.backends import (
    ALIASES,
    BACKENDS,
    DEFAULT,
    INTEGER,
    backend_label,
    backend_names,
    computes_family,
    computes_on,
    device_for_images,
    is_exact,
    makers_of_images,
    precisions_of,
    resolved,
    variant_suffixes,
)
from edadm.config.fingerprint import PACKAGE
from edadm.config.layout import Variant
from edadm.errors import EdadmError
from edadm.networks.settings.families import FAMILIES

REGISTRY = "config/backends.py"
SUBCOMMAND = ("commands/timing.py", "integer")  # of `benchmark`
RUNTIME = ("config/exports.py", "openvino")  # that a file is written for


def test_what_a_backend_lacks_is_a_family_and_an_alias_lacks_what_its_first_one_does() -> None:
    assert {name for entry in BACKENDS.values() for name in entry.lacks} < FAMILIES.keys()
    assert not computes_family("openvino", "pixart")
    assert computes_family("integer", "pixart")
    assert computes_family("cuda_int8", "mmdit")


def test_an_alias_means_one_backend_on_each_kind_of_device() -> None:
    assert [resolved(INTEGER, kind).name for kind in ("cpu", "cuda")] == ["onednn", "cuda_int8"]
    assert [resolved(DEFAULT, kind).name for kind in ("cpu", "cuda", "xpu")] == ["simulated"] * 3
    with pytest.raises(EdadmError, match=r"device 'xpu'; load with 'cpu' or 'cuda', or with backend 'sim"):
        resolved(INTEGER, "xpu")
    assert all(set(alias.backends) <= BACKENDS.keys() for alias in ALIASES.values())


def test_images_are_made_where_a_backend_computes_the_checkpoints_network() -> None:
    assert [entry.name for entry in makers_of_images(INTEGER)] == ["onednn"]
    assert [device_for_images(name, "auto") for name in ("simulated", "integer")] == ["auto", "cpu"]
    assert device_for_images("simulated", "cuda:1") == "cuda:1"
    assert (precisions_of("simulated"), precisions_of("integer")) == ((), ("fp32",))


def test_a_backend_that_leaves_out_grids_makes_images_under_its_own_name_only() -> None:
    assert [entry.name for entry in makers_of_images("cuda_int8")] == ["cuda_int8"]
    asked = {"auto": "cuda", "auto/2": "cuda/2", "cuda/2": "cuda/2", "cuda:1": "cuda:1"}
    assert {device: device_for_images("cuda_int8", device) for device in asked} == asked
    assert device_for_images("integer", "auto/2") == "cpu"
    where = {name: [computes_on(name, kind) for kind in ("cpu", "cuda")] for name in backend_names()}
    assert where == {
        "simulated": [True, True],
        "integer": [True, False],
        "onednn": [True, False],
        "cuda_int8": [False, True],
        "openvino": [True, False],
    }
    assert [is_exact(name) for name in ("simulated", "integer", "onednn", "cuda_int8", "gone")] == [
        *(True, True, True),
        *(False, True),
    ]
    for device in ("cuda", "cuda:1", "cuda/2"):
        with pytest.raises(
            EdadmError,
            match=r"^backend 'integer' generates on a CPU only; use --device cpu, or backend 'simulated' "
            r"or 'cuda_int8', which leaves out some grids$",
        ):
            device_for_images("integer", device)
    with pytest.raises(
        EdadmError, match=r"'cuda_int8' generates on a GPU only; use --device cuda, or backend 'si"
    ):
        device_for_images("cuda_int8", "cpu")


def test_names_and_labels_follow_the_registry(toy_backend: str) -> None:
    assert backend_names()[:4] == ("simulated", "integer", "onednn", "cuda_int8")
    assert backend_names()[-1] == toy_backend
    assert variant_suffixes() == backend_names()[1:]
    assert [backend_label(name) for name in ("simulated", "integer", toy_backend)] == [
        "",
        "integers",
        "by a toy",
    ]
    variant = Variant(f"tdac/w4a8/fbr/{toy_backend}")
    assert (variant.backend, variant.checkpoint) == (toy_backend, Variant("tdac/w4a8/fbr"))


def test_names_stand_in_the_registry_only() -> None:
    """But for that of the default one, which is also a role of images and a kind of network with a cost."""
    names = set(variant_suffixes())
    found = set()
    for file in sorted(PACKAGE.rglob("*.py")):
        strings = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)]
        place = file.relative_to(PACKAGE).as_posix()
        found |= {(place, node.value) for node in strings if node.value in names}
    assert {entry for entry in found if entry[0] != REGISTRY} == {SUBCOMMAND, RUNTIME}
    rules = "".join(file.read_text() for file in (PACKAGE.parent / "workflow/rules").glob("*.smk"))
    assert not [name for name in names if f'"{name}"' in rules or f"/{name}" in rules]


def test_the_configuration_is_read_without_torch(tmp_path: Path) -> None:
    program = (
        "import sys, edadm; from edadm.config.load import load_config; from edadm.config.check import problems;"
        "problems(load_config()); print([name for name in ('torch', 'diffusers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
