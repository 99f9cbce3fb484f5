"""BRECQ: every block by itself."""

from __future__ import annotations

import dataclasses

from edadm.learning.chain import Task, learn_chain


def block(task: Task) -> None:
    """Each block learns to reproduce its output, whatever its inner layers do (BRECQ, arXiv 2102.05426): FBR with gamma 0."""
    settings = task.settings.model_copy(update={"layer_weight": 0.0})
    learn_chain(dataclasses.replace(task, settings=settings))
