"""Prints files that say again what requirements.lock says, from which they are made.

`python3 .ci/environment.py conda > envs/edadm.yaml`: for `snakemake --software-deployment-method conda`.
`python3 .ci/environment.py cpu > cpu.txt`: the lock without CUDA's libraries (docs/environments.md).
"""

import re
import sys
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+?)(?: ; (.+?))?(?: \\)?$", re.MULTILINE)
OF_CUDA = ("nvidia-", "cuda-")
HAS_CPU_BUILDS = ("torch", "torchvision")  # in PyTorch's own index, under hashes of their own
CONDA = """\
# For `snakemake --software-deployment-method conda`: requirements.lock without hashes, by .ci/environment.py.
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python=3.11.14
  - pip=25.3
  - pip:
"""


def conda(lock: str) -> str:
    """An environment with every pin of the lock. Snakemake copies it, so it can name no file beside it."""
    pins = [
        f"{name}=={version}" + (f" ; {marker}" if marker else "")
        for name, version, marker in PIN.findall(lock)
    ]
    return CONDA + "".join(f'      - "{pin}"\n' for pin in pins)


def cpu(lock: str) -> str:
    """The lock without the libraries of CUDA; PyTorch without hashes, since builds for CPUs have others."""
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    kept = [entry for entry in entries if not entry.startswith(OF_CUDA)]
    return "".join(
        entry.split(" \\\n")[0] + "\n" if entry.split("==")[0] in HAS_CPU_BUILDS else entry for entry in kept
    )


if __name__ == "__main__":
    sys.stdout.write({"conda": conda, "cpu": cpu}[sys.argv[1]](LOCK.read_text(encoding="utf-8")))
