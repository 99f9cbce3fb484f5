"""The parameters of a unit while it learns: the rounding of its weights and its activation step sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edadm.config.schema import Reconstruction
from edadm.nn.insert import undecided
from edadm.nn.quantizer import Quantizer
from edadm.quant.affine import SMALLEST_SCALE
from edadm.quant.streams import Stream


class StepSizes:
    """The activation step sizes of a unit as parameters: themselves (method, 3.7), or their logarithms."""

    def __init__(self, quantizers: Iterable[Quantizer], logarithmic: bool):
        self._quantizers = list(quantizers)
        self._logarithmic = logarithmic
        start = (
            q.scale.detach().log() if logarithmic else q.scale.detach().clone() for q in self._quantizers
        )
        self.parameters = [values.requires_grad_(True) for values in start]

    def put(self) -> None:
        """Hands the quantizers their step sizes for the next forward."""
        for quantizer, parameter in zip(self._quantizers, self.parameters, strict=True):
            quantizer.scale = parameter.exp() if self._logarithmic else parameter

    @torch.no_grad()
    def keep_positive(self) -> None:
        """Nothing else keeps a step size above zero (quirk Q15); logarithms need no help."""
        if self.parameters and not self._logarithmic:
            torch._foreach_clamp_min_(self.parameters, SMALLEST_SCALE)

    def settle(self) -> None:
        """Step sizes become constants."""
        with torch.no_grad():
            self.put()
        for quantizer in self._quantizers:
            quantizer.scale = quantizer.scale.detach()


@contextmanager
def learning(
    unit: nn.Module, settings: Reconstruction, stream: Stream
) -> Iterator[tuple[list[Tensor], StepSizes]]:
    """Inside the context a unit's rounding and step sizes are parameters, and its activations are dropped.

    Yields the rounding variables and the step sizes. On leaving, step sizes are constants again; roundings
    stay soft until they are hardened.
    """
    layers, quantizers = undecided(unit)
    alphas = [layer.start_rounding() for layer in layers.values()]
    for name, quantizer in quantizers.items():
        quantizer.drop(settings.drop_probability, stream.child(name))
    sizes = StepSizes(quantizers.values(), settings.scale_parameter == "log")
    try:
        yield alphas, sizes
    finally:
        sizes.settle()
        for quantizer in quantizers.values():
            quantizer.drop(0.0, None)
