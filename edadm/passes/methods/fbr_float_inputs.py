"""FBR on inputs of the float network: units do not wait for each other."""

from __future__ import annotations

from edadm.learning.chain import Task, learn_independently


def fbr_float_inputs(task: Task) -> None:
    """FBR whose units see the float network's activations, not those of the quantized units before them.

    So they do not correct errors made upstream, and each can be learned by another job (`settings.jobs`).
    """
    learn_independently(task, range(len(task.units)))


def fbr_float_inputs_part(task: Task, part: int) -> None:
    """One job's share: every `settings.jobs`-th unit from `part` on; the others are left as they are."""
    learn_independently(task, range(part, len(task.units), task.settings.jobs))
