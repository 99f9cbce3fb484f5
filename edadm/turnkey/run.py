"""Snakemake as a child: what it is told, on which device, and how both end together."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from edadm.devices.listed import VISIBLE, visible_gpus
from edadm.errors import EdadmError

PATIENCE = 10.0  # seconds that Snakemake has after an interruption which the terminal told it as well


def environment_for(device: str) -> tuple[dict[str, str], bool]:
    """The variables of the workflow's processes, and whether it computes on a GPU.

    Args:
        device: `auto`, `cpu`, `cuda`, or `cuda:N`, the N-th of those that may be used.

    Raises:
        EdadmError: there is no such device.
    """
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not (kind == "cuda" and number.isdecimal())):
        raise EdadmError(
            f"there is no device '{device}'; name auto, cpu, cuda, or cuda:N for one GPU of several"
        )
    if kind == "cpu":
        return {VISIBLE: ""}, False
    found = visible_gpus()
    if kind == "auto":
        return {}, bool(found)
    if len(found) <= int(number or 0):
        there = f"{len(found)} GPUs" if found else "no GPU"
        raise EdadmError(
            f"--device {device}: `nvidia-smi -L` lists {there} here; name another, or --device cpu"
        )
    return ({VISIBLE: found[int(number)].uuid} if number else {}), True


def run_in(folder: Path, command: Sequence[str], variables: Mapping[str, str]) -> int:
    """Runs a command in a folder, and returns its exit status.

    SIGTERM is passed on. After SIGINT, which a terminal sends to both, the command is waited for.

    Raises:
        KeyboardInterrupt: by either, once the command has ended.
    """
    process = subprocess.Popen(command, cwd=folder, env=os.environ | variables, stdin=subprocess.DEVNULL)
    passed_on = []

    def pass_on(number: int, _frame: object) -> None:
        passed_on.append(number)
        process.send_signal(number)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        status = process.wait()
        if status and passed_on:
            raise KeyboardInterrupt
        return status
    except KeyboardInterrupt:
        if process.returncode is not None:
            raise
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
