"""The quantized checkpoint: a safetensors file with integer codes, grids and what rebuilds the network.

`docs/checkpoint_format.md` describes it for readers in other programs.
"""

from edadm.deploy.checkpoint.corrections import read_correction, say_that_none_applies
from edadm.deploy.checkpoint.header import FORMAT_VERSION, Facts, digest, is_quantized, read_metadata
from edadm.deploy.checkpoint.read import load_quantized
from edadm.deploy.checkpoint.write import save_quantized

__all__ = [
    "FORMAT_VERSION",
    "Facts",
    "digest",
    "is_quantized",
    "load_quantized",
    "read_correction",
    "read_metadata",
    "save_quantized",
    "say_that_none_applies",
]
