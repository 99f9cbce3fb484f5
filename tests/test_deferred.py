"""What is left until it is used is there when it is used, and the same as ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.abc import Loader
from pathlib import Path
from types import ModuleType

import pytest

from edadm.deferred import COMPILER, _OfMarks

from .faults.project import stages, write_presets

HERE = str(Path(__file__).parents[1])
HEAVY = (
    "transformers",
    "scipy",
    "sympy",
    "torch._dynamo",
    "torch._inductor",
    "triton",
    "diffusers.models.unets.unet_1d",
)
SCRIPT = f"""
import sys
from edadm.deferred import defer
defer()
defer()
from diffusers.models.unets.unet_2d import UNet2DModel
print(len([finder for finder in sys.meta_path if type(finder).__module__ == "edadm.deferred"]))
print([name for name in {HEAVY} if name in sys.modules])
import torch
network = UNet2DModel(sample_size=8, in_channels=3, out_channels=3, block_out_channels=[8, 8], layers_per_block=1,
    norm_num_groups=4, down_block_types=["DownBlock2D"] * 2, up_block_types=["UpBlock2D"] * 2).to("cpu")
with torch.no_grad():
    network(torch.zeros(1, 3, 8, 8), torch.zeros(1))
print("torch._dynamo" in sys.modules)
import torchvision.transforms
print("torchvision.ops" in sys.modules, torchvision.__version__ == torchvision.version.__version__, "torchvision.ops" in sys.modules)
print(torchvision.ops.nms.__module__)
import torch._dynamo.config
from torch._dynamo.trace_rules import is_callable_allowed
from diffusers.models.attention_processor import Attention
print(is_callable_allowed(Attention), is_callable_allowed(UNet2DModel))
import diffusers.models.unets, diffusers.models.transformers
from diffusers import UNet2DModel as same
print(same is UNet2DModel is diffusers.models.unets.UNet2DModel, diffusers.models.unets.UNet1DModel.__name__)
print(diffusers.models.transformers.DiTTransformer2DModel.__module__)
from diffusers.hooks.group_offloading import ModuleGroup
print(ModuleGroup.onload_.__name__, hasattr(diffusers.models.unets, "nothing_of_that_name"))
"""


def test_packages_are_imported_when_a_name_of_theirs_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "1",
        "[]",
        "False",
        "False True False",
        "torchvision.ops.boxes",
        "True False",
        "True UNet1DModel",
        "diffusers.models.transformers.dit_transformer_2d",
        "onload_ False",
    ], done.stderr


# What may stand in sys.modules once all that a stage's work names is imported, the cheapest stage first.
STAGES = """
import importlib, sys
from edadm.config.fingerprint.closure import PACKAGE, _entry
from edadm.deferred import defer
defer()
heavy = ("torch", "zarr", "diffusers", "h5py", "torchvision.ops", "transformers", "scipy", "open_clip", "torch._dynamo", "sympy")
for stage in sys.argv[1:]:
    for file in sorted(_entry(stage, PACKAGE)[1]):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        importlib.import_module(".".join(part for part in parts if part != "__init__"))
    print(stage, *[name for name in heavy if name in sys.modules])
"""


def test_a_stage_imports_what_it_computes_with() -> None:
    stages = ("report", "evaluate", "select", "convert", "set_ranges", "reconstruct", "generate")
    done = subprocess.run(
        [sys.executable, "-c", STAGES, *stages], capture_output=True, text=True, check=False
    )
    with_networks = [f"{stage} torch zarr diffusers h5py" for stage in stages[3:]]
    expected = ["report", "evaluate torch h5py", "select torch zarr h5py", *with_networks]
    assert done.stdout.splitlines() == expected, done.stderr


# What stands in sys.modules once a stage has done its work, one after another in one process.
RUNS = """
import json, sys
from edadm import cli
heavy = ("torch._dynamo", "sympy", "torchvision.ops", "transformers", "scipy", "triton.runtime", "matplotlib", "pandas")
for sys.argv in json.loads(sys.argv[1]):
    name = sys.argv[1]
    try:
        cli.main()
    except SystemExit as ended:
        assert ended.code == 0
    print(name, *[module for module in heavy if module in sys.modules])
"""


def test_a_stage_imports_nothing_heavy_while_it_works(tmp_path: Path) -> None:
    write_presets(tmp_path)
    lines = [stage.argv for stage in stages()]
    lines = lines[: next(at for at, words in enumerate(lines) if words[1] == "evaluate")]
    command = [sys.executable, "-c", RUNS, json.dumps(lines)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": HERE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert list(dict.fromkeys(done.stdout.splitlines())) == [
        "convert-checkpoint",
        "collect-trajectories",
        "select-calibration",
        "set-ranges",
        "reconstruct",
        "generate",
    ], done.stderr


KEPT_OUT = """
import sys
from edadm.deferred import defer
defer()
import torch
def number():
    return 1
shown = torch._disable_dynamo(number)
print(shown(), "torch._dynamo" in sys.modules)
import torch._dynamo
print(shown(), number.__dict__["__dynamo_disable"] is not number)
@torch.compile(backend="eager")
def twice(value):
    return shown() + value * 2
print(twice(torch.ones(1)).item())
"""


def test_the_compiler_is_kept_out_of_what_asks_for_it_once_it_is_there() -> None:
    done = subprocess.run([sys.executable, "-c", KEPT_OUT], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["1 False", "1 True", "3.0"], done.stderr


@pytest.mark.parametrize("arguments", [["reconstruct", "--help"], ["--help"]])
def test_help_is_told_without_what_commands_work_with(arguments: list[str]) -> None:
    script = (
        f"import sys; sys.argv = ['edadm', *{arguments}]\nfrom edadm.cli import main\n"
        "try: main()\nfinally: print([name for name in ('torch', 'numpy', 'diffusers', 'zarr', 'scipy', 'yaml', 'rich', "
        "'edadm.config.schema', 'edadm.stages.cost') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert "Usage" in done.stdout


def test_a_mark_is_noted_while_a_module_of_marks_imports_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `diffusers.hooks.group_offloading` does when it is the first to import attentions."""
    monkeypatch.delitem(sys.modules, COMPILER, raising=False)
    marked: list[type] = []

    class Own(Loader):
        def exec_module(self, module: ModuleType) -> None:
            assert loader._note(int) is int

    loader = _OfMarks(Own(), marked, [])
    loader.exec_module(ModuleType("outer"))
    assert marked == [int]
    assert COMPILER not in sys.modules
