#!/usr/bin/env bash
# FINDING: diffusers' `EMAModel.save_pretrained` writes its decay and its step counters into the *network's* config.json.
# Seen with: diffusers==0.42.1, torch==2.13.0 (Python 3.11), 2026-11-30.
# Guess before running: the folder of averaged weights has the same config.json as the network; the averaging keeps its own state elsewhere.
# Seen: the folder holds two files, and config.json has seven keys that no U-Net takes (decay, inv_gamma, min_decay, optimization_step, power,
#   update_after_step, use_ema_warmup). `UNet2DModel.from_pretrained` takes the folder with a warning about "unexpected" settings. Output:
#     files: ['config.json', 'diffusion_pytorch_model.safetensors']
#     keys beside the network's: ['decay', 'inv_gamma', 'min_decay', 'optimization_step', 'power', 'update_after_step', 'use_ema_warmup']
#     loads as a network: True
# Matters because: whoever compares configurations, or builds `UNet2DModel(**json)`, refuses good weights; and these keys are the only mark
#   by which a folder says that its weights are averages. edadm reads them as that mark.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "diffusers==0.42.1" "torch==2.13.0" "numpy==2.4.6" "safetensors==0.8.0"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder/average" <<'PY'
import json
import sys
from pathlib import Path

from diffusers import UNet2DModel
from diffusers.training_utils import EMAModel

sizes = {"sample_size": 8, "block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
network = UNet2DModel(**sizes, **blocks)
EMAModel(network.parameters(), model_cls=UNet2DModel, model_config=network.config).save_pretrained(sys.argv[1])
folder = Path(sys.argv[1])
print("files:", sorted(file.name for file in folder.iterdir()))
extra = sorted(set(json.loads((folder / "config.json").read_text())) - set(network.config) - {"_class_name", "_diffusers_version"})
print("keys beside the network's:", extra)
print("loads as a network:", isinstance(UNet2DModel.from_pretrained(folder), UNet2DModel))
assert {"decay", "optimization_step", "update_after_step"} <= set(extra)
PY
