"""The fastest backend that computes a quantized network exactly on this machine, measured once and noted."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from edadm.config.backends import BACKENDS, DEFAULT, FASTEST
from edadm.deploy.backends.base import implementation, lower
from edadm.deploy.backends.kept import digest_of_text, remembered
from edadm.errors import EdadmError
from edadm.networks.families import family_of, network_call
from edadm.networks.family import Network
from edadm.version import __version__

ROUNDS = 3  # of a backend, after one that does not count
TOLERANCE = 0.05  # of a prediction's standard deviation, by which one may differ from the simulated one


def meant(backend: str, unet: Network, dtype: torch.dtype = torch.float32, batch: int = 1) -> str:
    """The backend that a name means for a network: itself, unless it is `auto`.

    Among the exact ones of the network's device that are installed and run its schemes, the fastest one. That
    is measured once for a processor, number of threads, versions, shape of network and batch, and noted where
    `kept` says: the next process takes the same one.

    Args:
        backend: a name of `edadm.config.backends`, or `auto`.
        unet: from `edadm.deploy.checkpoint.load_quantized`, left as it was.
        dtype: of what stays in floating point; another one than fp32 leaves simulation alone.
        batch: rows of the call that is timed.
    """
    if backend != FASTEST:
        return backend
    kind = next(unet.parameters()).device.type
    names = _exact(kind) if dtype == torch.float32 else [DEFAULT]
    if names == [DEFAULT]:
        return DEFAULT
    known = remembered("fastest", _key(unet, names, batch), lambda: measured(unet, names, batch))
    return str(known["backend"])


def _exact(kind: str) -> list[str]:
    """The names of the exact backends of a kind of device that are installed, the default one first."""
    found = []
    for name, entry in BACKENDS.items():
        if entry.exact and (kind in entry.devices or not entry.devices):
            with suppress(EdadmError):
                implementation(entry)
                found.append(name)
    return found


def _key(unet: Network, names: list[str], batch: int) -> str:
    extras = [BACKENDS[name].extra for name in names if BACKENDS[name].extra]
    versions = [__version__, torch.__version__, *map(metadata.version, extras)]
    machine = [_processor(), torch.get_num_threads(), batch, *names]
    shapes = [(name, tuple(tensor.shape)) for name, tensor in unet.named_parameters()]
    network = [sorted(getattr(unet, "config", {}).items()), repr(unet), shapes]
    return digest_of_text(repr([versions, machine, network]))


def _processor() -> list[str]:
    """The processor by name, and the instructions that libraries may use."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    named = [line for line in lines if line.startswith(("model name", "flags", "Features"))][:2]
    told = [os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")]
    return [*named, torch.backends.cpu.get_cpu_capability(), *told]


@torch.no_grad()
def measured(unet: Network, names: list[str], batch: int) -> dict[str, Any]:
    """Seconds of a call by each backend, how far its prediction is from the simulated one, and the choice.

    One that is too far, does not run the network's schemes or cannot compute the network is no choice.

    Args:
        unet: simulated.
        names: of backends, the default one among them.
        batch: rows of the call.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rows = family_of(unet).inputs(unet).random(batch, "cpu")
    simulated = network_call(unet, rows)
    seconds, differences = {}, {}
    for name in names:
        with suppress(EdadmError):
            network = unet if name == DEFAULT else lower(unet, backend=name)
            apart = (network_call(network, rows) - simulated).abs().mean() / simulated.std()
            differences[name] = apart.item()
            if differences[name] <= TOLERANCE:
                seconds[name] = min(_seconds(network, rows) for _ in range(ROUNDS))
    fastest = min(seconds, key=lambda name: seconds[name])
    return {"backend": fastest, "seconds": seconds, "difference_to_simulated": differences}


def _seconds(network: Network, rows: Any) -> float:
    begin = time.perf_counter()
    network_call(network, rows)
    return time.perf_counter() - begin
