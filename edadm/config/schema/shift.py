"""How a flow-matching sampler moves its levels of noise: more steps where there is much noise."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edadm.networks.settings.strict import Count, Strict

Shift = Annotated[float, Field(gt=0, le=1000)]


class DynamicShift(Strict):
    """A shift that grows with the image, as diffusers' `use_dynamic_shifting` has it.

    Its logarithm (exponential), or the shift (linear), lies on the line through `base_shift` at `base_tokens`
    and `max_shift` at `max_tokens`.
    """

    tokens: Count = Field(description="patches of an image, by which diffusers' pipelines choose the shift")
    base_shift: float = Field(0.5, ge=-10, le=10)
    max_shift: float = Field(1.15, ge=-10, le=10)
    base_tokens: Count = 256
    max_tokens: Count = 4096
    kind: Literal["exponential", "linear"] = "exponential"

    @model_validator(mode="after")
    def _shifts_to_something(self) -> DynamicShift:
        if self.base_tokens == self.max_tokens:
            raise ValueError(
                "base_tokens and max_tokens are equal, so that no line leads through them; mend one"
            )
        if not 0 < self.factor <= 1000:
            raise ValueError(
                f"images of {self.tokens} tokens would be shifted by {self.factor:g}, which must lie above 0 "
                "and be 1000 at most; mend base_shift and max_shift"
            )
        return self

    @property
    def factor(self) -> float:
        """The shift of images with this number of tokens."""
        slope = (self.max_shift - self.base_shift) / (self.max_tokens - self.base_tokens)
        mu = self.base_shift + slope * (self.tokens - self.base_tokens)
        return math.exp(min(mu, 100.0)) if self.kind == "exponential" else mu


def shifted(sigma: float, factor: float) -> float:
    """A level of noise in (0, 1] moved towards 1 by a factor above 1 (arXiv 2403.03206, eq. 23)."""
    return factor * sigma / (1 + (factor - 1) * sigma)
