#!/usr/bin/env bash
# FINDING: a patch release of diffusers no longer imports the package that a pipeline's model_index.json names for one of its parts.
# Seen with: diffusers==0.42.0 and 0.42.1, torch==2.13.0, numpy==2.4.6 (Python 3.11, x86-64), 2026-11-30.
# Guess before running: a pipeline whose network is of a class in an installed package is loaded by DiffusionPipeline.from_pretrained in a new process, since
#   save_pretrained writes ["package", "Class"], and 0.42.1 differs from 0.42.0 by mended errors alone.
# Seen: 0.42.0 imports the package and loads; 0.42.1 refuses until the program imports it itself. Output:
#     diffusers 0.42.0 saves unet as ['own_networks', 'OwnUNet']
#     diffusers 0.42.0, package installed: OwnUNet
#     diffusers 0.42.1, package installed: ValueError: own_networks is not one of the libraries Diffusers can load components from
#     diffusers 0.42.1, package imported before: OwnUNet
# Matters because: pipelines that were saved with a class of another package stop loading by an update within "~=0.42.0", and their README's two lines no longer
#   suffice. edadm's docs say `import edadm` first, which is enough with every version (tests/deploy/test_quantizer.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip"
"$pip" install -q "torch==2.13.0" "numpy==2.4.6" "diffusers==0.42.0"
cat > "$("$folder/venv/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")/own_networks.py" <<'PY'
from diffusers import ModelMixin, UNet2DModel  # the former is where diffusers looks for how parts of this package are saved


class OwnUNet(UNet2DModel):
    pass
PY
cat > "$folder/load.py" <<'PY'
import importlib
import sys

import diffusers

before = "package imported before" if sys.argv[2:] else "package installed"
for name in sys.argv[2:]:
    importlib.import_module(name)
try:
    found = type(diffusers.DiffusionPipeline.from_pretrained(sys.argv[1]).unet).__name__
except ValueError as error:
    found = f"ValueError: {str(error).split(' (')[0]}"
print(f"diffusers {diffusers.__version__}, {before}: {found}")
PY
cat > "$folder/save.py" <<'PY'
import json
import sys
from pathlib import Path

import diffusers
from own_networks import OwnUNet

unet = OwnUNet(
    sample_size=8,
    block_out_channels=(8, 16),
    layers_per_block=1,
    norm_num_groups=4,
    down_block_types=("DownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D"),
)
diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(sys.argv[1])
index = json.loads((Path(sys.argv[1]) / "model_index.json").read_text())
print(f"diffusers {diffusers.__version__} saves unet as {index['unet']}")
PY
cd "$folder"
python="$folder/venv/bin/python"
{
    "$python" save.py pipeline
    "$python" load.py pipeline
    "$pip" install -q --no-deps "diffusers==0.42.1"
    "$python" load.py pipeline
    "$python" load.py pipeline own_networks
} 2>"$folder/errors" | tee "$folder/seen" || { cat "$folder/errors"; exit 1; }
grep -q "0.42.0, package installed: OwnUNet" "$folder/seen"
grep -q "0.42.1, package installed: ValueError: own_networks is not one of" "$folder/seen"
grep -q "0.42.1, package imported before: OwnUNet" "$folder/seen"
