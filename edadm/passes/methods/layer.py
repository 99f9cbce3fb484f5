"""AdaRound: every layer by itself."""

from __future__ import annotations

from edadm.learning.chain import Task, learn_chain


def layer(task: Task) -> None:
    """Each convolution and linear layer learns to reproduce its own output (AdaRound, arXiv 2004.10568).

    With the same joint step sizes, mixed inputs and drops as the other methods. The operands of attention
    belong to no layer and keep their searched step sizes; the official code's layer mode learns them as one
    more unit. Errors of query, key, value and output projections sum over tokens here, since they are linear
    layers; that scales a unit's whole objective and no more.
    """
    learn_chain(task)
