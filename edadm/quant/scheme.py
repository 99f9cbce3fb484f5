"""Schemes: how a tensor is quantized, and which of them are computed here. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from edadm.errors import EdadmError
from edadm.quant.format import FORMATS, NumberFormat

Granularity = Literal["tensor", "channel", "token", "group", "step"]
SMOOTH = "smooth"  # the transform of `edadm.quant.transforms`
HADAMARD, REGULAR_HADAMARD = "hadamard", "regular_hadamard"  # those of `edadm.quant.rotation`
ROTATIONS = (HADAMARD, REGULAR_HADAMARD)
LOW_RANK = "low_rank"  # of a weight: what a product of two small matrices beside it computes is taken off it


class SchemeError(EdadmError):
    """A scheme that no code here computes, or no scheme at all."""


@dataclass(frozen=True)
class Scheme:
    """How a tensor is quantized; each of its segments has grids of its own.

    Args:
        format: of the codes.
        granularity: what has a scale and a zero point of its own: the tensor, an output channel of a weight,
            a token (all channels at one place of a linear layer's input), a group of channels, or a sampler
            step.
        is_dynamic: whether scales are found from each tensor as it comes, and not from calibration rows.
        is_symmetric: whether the zero point is the middle of the codes, and so not stored; affine otherwise.
        transforms: names of what is done to the tensor before it is quantized, in order.
    """

    format: NumberFormat
    granularity: Granularity
    is_dynamic: bool = False
    is_symmetric: bool = False
    transforms: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = "dynamic" if self.is_dynamic else "static"
        zero = "symmetric" if self.is_symmetric else "affine"
        after = f" after {', '.join(self.transforms)}" if self.transforms else ""
        return f"{kind} {zero} {self.format.name} per {self.granularity}{after}"

    def to_json(self) -> dict[str, Any]:
        """The scheme as a JSON object, as headers of checkpoints hold it."""
        return {
            "format": self.format.name,
            "granularity": self.granularity,
            "dynamic": self.is_dynamic,
            "symmetric": self.is_symmetric,
            "transforms": list(self.transforms),
        }

    @classmethod
    def from_json(cls, told: Any) -> Scheme:
        """The scheme that a JSON value describes, be it computed here or not.

        Raises:
            SchemeError: another number format, granularity or key than those known here.
        """
        if not isinstance(told, Mapping) or told.keys() != _KEYS:
            raise SchemeError(f"{told!r} is no scheme, which has the keys {', '.join(sorted(_KEYS))}")
        number_format, granularity = told["format"], told["granularity"]
        if number_format not in FORMATS:
            raise SchemeError(f"there is no number format '{number_format}'; known are {', '.join(FORMATS)}")
        if granularity not in get_args(Granularity):
            known = ", ".join(get_args(Granularity))
            raise SchemeError(f"there is no granularity '{granularity}'; known are {known}")
        flags = told["dynamic"], told["symmetric"]
        transforms = told["transforms"]
        plain = isinstance(transforms, list) and all(isinstance(name, str) for name in transforms)
        if not plain or not all(isinstance(flag, bool) for flag in flags):
            raise SchemeError(
                f"{told!r} is no scheme: dynamic and symmetric are true or false, transforms names"
            )
        return cls(FORMATS[number_format], granularity, *flags, tuple(transforms))


_KEYS = {"format", "granularity", "dynamic", "symmetric", "transforms"}


@dataclass(frozen=True)
class SiteScheme:
    """How one site of a network is quantized.

    Args:
        scheme: of each of its segments.
        segments: sizes of the channel segments with grids of their own; none where one grid (or one of each
            output channel) covers the whole tensor.
    """

    scheme: Scheme
    segments: tuple[int, ...]


def refuse_unknown(scheme: Scheme, role: str, where: str) -> None:
    """Refuses a scheme that no code here computes.

    Args:
        scheme: of a site.
        role: of the site; a `weight` has grids per output channel, everything else per tensor.
        where: the site's name, for the message.

    Raises:
        SchemeError: anything but static affine integers of one tensor, or of one output channel of a weight,
            or dynamic symmetric ones of a token of an input; with transforms that are known, in their order.
    """
    granularity: Granularity = "channel" if role == "weight" else "tensor"
    transforms = scheme.transforms if _is_known(scheme.transforms, role) else ()
    static = Scheme(scheme.format, granularity, transforms=transforms)
    dynamic = Scheme(scheme.format, "token", is_dynamic=True, is_symmetric=True, transforms=transforms)
    if scheme != static and not (role == "input" and scheme == dynamic):
        raise SchemeError(
            f"{where}: no code here computes {scheme}; "
            f"take static affine {scheme.format.name} per {granularity}"
        )


def _is_known(transforms: tuple[str, ...], role: str) -> bool:
    """Whether transforms are computed at sites of a role: smoothing, a rotation, a branch, or some."""
    left = transforms[1:] if transforms[:1] == (SMOOTH,) else transforms
    left = left[1:] if left and left[0] in ROTATIONS else left
    return role in ("weight", "input") and left in ((), (LOW_RANK,) if role == "weight" else ())


def to_table(schemes: Mapping[str, SiteScheme]) -> dict[str, Any]:
    """`schemes`, the distinct ones, and `sites`: by name the index of a site's scheme and its segments."""
    distinct: list[Scheme] = []
    sites = {}
    for name in sorted(schemes):
        scheme = schemes[name].scheme
        if scheme not in distinct:
            distinct.append(scheme)
        sites[name] = [distinct.index(scheme), list(schemes[name].segments)]
    return {"schemes": [scheme.to_json() for scheme in distinct], "sites": sites}


def from_table(told: Mapping[str, Any]) -> dict[str, SiteScheme]:
    """The schemes of all sites by name; what follows index and segments of a site is left alone.

    Raises:
        SchemeError: there is no such table, or a scheme in it is none.
    """
    try:
        distinct = [Scheme.from_json(scheme) for scheme in told["schemes"]]
        return {name: _site_scheme(distinct, *entry[:2]) for name, entry in told["sites"].items()}
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise SchemeError(f"its table of schemes is none ({error!r})") from None


def _site_scheme(distinct: list[Scheme], index: int, segments: list[int]) -> SiteScheme:
    if not (isinstance(index, int) and 0 <= index < len(distinct)):
        raise SchemeError(f"its table of schemes has no scheme {index!r}")
    if not all(isinstance(size, int) and size > 0 for size in segments):
        raise SchemeError(f"its table of schemes has the segments {segments!r}, which are no sizes")
    return SiteScheme(distinct[index], tuple(segments))
