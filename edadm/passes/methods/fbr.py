"""FBR, the method of EDA-DM."""

from __future__ import annotations

from edadm.learning.chain import Task, learn_chain


def fbr(task: Task) -> None:
    """Fine-grained block reconstruction (EDA-DM): unit by unit, the unit's error and its inner layers' errors together.

    The official code loses the inner layers' errors in checkpointed blocks by accident (quirk Q6); the
    setting `without_layer_errors` does the same on purpose.
    """
    learn_chain(task)
