"""Reconstruction: a unit's rounding and step sizes are learned until its output is that of the float unit.

One pass serves four methods, which differ in their rows of `edadm.config.methods.METHODS`.

- `fbr`, the method of EDA-DM: unit by unit, the unit's error and its inner layers' errors together. The
  official code loses the inner layers' errors in checkpointed blocks by accident (quirk Q6); the setting
  `without_layer_errors` does the same on purpose.
- `block` (BRECQ, arXiv 2102.05426): each block learns to reproduce its output, whatever its inner layers do;
  FBR with gamma 0.
- `layer` (AdaRound, arXiv 2004.10568): each convolution and linear layer learns to reproduce its own output,
  with the same joint step sizes, mixed inputs and drops as the other methods. The operands of attention
  belong to no layer and keep their searched step sizes; the official code's layer mode learns them as one
  more unit. Errors of query, key, value and output projections sum over tokens here, since they are linear
  layers; that scales a unit's whole objective and no more.
- `fbr_float_inputs`: FBR whose units see the float network's activations, not those of the quantized units
  before them. So they do not correct errors made upstream, and each can be learned by another job
  (`settings.jobs`, `Task.chosen`).
"""

from __future__ import annotations

from edadm.learning.chain import learn_chain, learn_independently
from edadm.passes.base import Pass, State

_READS: frozenset[State] = frozenset({"weights", "ranges", "rows"})
_WRITES: frozenset[State] = frozenset({"codes", "ranges"})

RECONSTRUCT = Pass(_READS, _WRITES, run=learn_chain, inputs="chain")
RECONSTRUCT_FROM_FLOAT = Pass(_READS, _WRITES, run=learn_independently, inputs="float")
