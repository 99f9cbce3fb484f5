#!/usr/bin/env bash
# FINDING: `import diffusers`, which promises to import lazily, asks torch for an accelerator: on a machine with a GPU of NVIDIA's that starts the driver.
# Seen with: diffusers==0.42.1, torch==2.13.0, numpy==2.4.6 (Python 3.11, x86-64), 2026-11-30; with torch 2.11 on an H200 the process then has a
#   second thread, of the driver, and /dev/nvidia0 open.
# Guess before running: importing the package, or one class of layers from it, defines classes; devices are asked when something is computed, since
#   torch itself takes care to ask for none while it is imported.
# Seen: diffusers/utils/torch_utils.py finds its device at the end of the module. Output:
#     import torch: accelerator asked 0 times
#     import diffusers: accelerator asked 1 times
#     who sets CUDA_VISIBLE_DEVICES between import and first use: asked before
# Matters because: what forks after importing (fork servers, data loaders, test runners) forks a process with a second thread and a started driver; what
#   chooses its GPU by setting CUDA_VISIBLE_DEVICES must do so before `import diffusers`, not before the first tensor. edadm takes its GPU before it
#   imports diffusers, and its server answers in torch's place while it imports (`edadm/warm/server.py`).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "torch==2.13.0" "numpy==2.4.6" "diffusers==0.42.1"
"$folder/venv/bin/python" - <<'PY'
import os

import torch

asked: list[str | None] = []
available = torch.accelerator.is_available


def noted() -> bool:
    asked.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
    return available()


torch.accelerator.is_available = noted
print(f"import torch: accelerator asked {len(asked)} times")
assert not asked
import diffusers  # noqa: E402

print(f"import diffusers: accelerator asked {len(asked)} times")
assert len(asked) == 1 and diffusers.__version__ == "0.42.1"
os.environ["CUDA_VISIBLE_DEVICES"] = "0"
from diffusers.models.attention_processor import Attention  # noqa: E402

assert Attention(4) is not None and asked == [None]
print("who sets CUDA_VISIBLE_DEVICES between import and first use: asked before")
PY
