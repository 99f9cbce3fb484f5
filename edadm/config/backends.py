"""The registry of backends, by which quantized networks can be computed: a table that imports no torch.

Command lines, variants of a configuration, reserved names, checks, rules and the report read names of
backends here and nowhere else. The code of one is its module, which `edadm.deploy.backends.base` imports when
it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from edadm.errors import EdadmError

_ARTICLES = {"cpu": "a CPU", "cuda": "a GPU"}


@dataclass(frozen=True)
class BackendEntry:
    """What is known of a backend before its code is imported.

    Attributes:
        name: of the backend in variants, on command lines and in `edadm.load`.
        module: the dotted name of the module whose `BACKEND` is its `edadm.deploy.backends.base.Backend`.
        label: what a report adds to the name of a variant computed by it.
        devices: kinds of devices on which it computes; all if empty.
        exact: whether it computes the network of the checkpoint with all its grids, so that its images must
            be near those of the default one, and an alias may mean it where images are made.
        precisions: values of `evaluations.NAME.precision` with which it makes images; all if empty.
        extra: the extra of edadm that installs what its module imports; empty if edadm itself does.
        transforms: whether it computes linear layers with grids of tokens, rotations or branches.
        lacks: families of networks that it does not compute.
    """

    name: str
    module: str
    label: str
    devices: tuple[str, ...] = ()
    exact: bool = True
    precisions: tuple[str, ...] = ()
    extra: str = ""
    transforms: bool = True
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class BackendAlias:
    """A name that stands for one backend per kind of device.

    Attributes:
        label: as that of a `BackendEntry`.
        backends: names of backends; the first one that computes on a device is meant there.
    """

    label: str
    backends: tuple[str, ...]


DEFAULT = "simulated"
INTEGER = "integer"
FASTEST = "auto"  # the fastest exact one, as measured; where a name is given by hand, not in variants
_ENTRIES = (
    BackendEntry(DEFAULT, "edadm.deploy.backends.simulated", ""),
    BackendEntry(
        "onednn", "edadm.deploy.backends.onednn", "integers by oneDNN", ("cpu",), precisions=("fp32",)
    ),
    BackendEntry(
        "cuda_int8",
        "edadm.deploy.backends.cuda_int8",
        "integers on a GPU, attention in floating point",
        ("cuda",),
        exact=False,  # attention's operands lose their grids
        precisions=("fp32",),
        transforms=False,
    ),
    BackendEntry(
        "openvino",
        "edadm.deploy.backends.openvino",
        "integers by OpenVINO",
        ("cpu",),
        precisions=("fp32",),
        extra="openvino",
        transforms=False,
        lacks=("inpainting", "instruct_pix2pix", "dit", "pixart", "mmdit"),
    ),
)
BACKENDS = {entry.name: entry for entry in _ENTRIES}
ALIASES = {INTEGER: BackendAlias("integers", ("onednn", "cuda_int8"))}


def backend_names() -> tuple[str, ...]:
    """All names of backends that a user can write, the default one first."""
    return tuple(dict.fromkeys((DEFAULT, *ALIASES, *BACKENDS)))


def variant_suffixes() -> tuple[str, ...]:
    """The names of all backends but the default one: those that can follow the presets of a variant."""
    return backend_names()[1:]


def backend_label(name: str) -> str:
    """What a report adds to the name of a variant computed by a backend."""
    return ALIASES[name].label if name in ALIASES else BACKENDS[name].label


def resolved(name: str, kind: str) -> BackendEntry:
    """The backend that a name means on a kind of device, such as `cpu`.

    Raises:
        EdadmError: there is no such backend, or it does not compute there.
    """
    entries = _meant_by(name)
    if found := next((entry for entry in entries if kind in entry.devices or not entry.devices), None):
        return found
    there = " or ".join(f"'{device}'" for entry in entries for device in entry.devices)
    raise EdadmError(
        f"there is no {name} arithmetic for the device '{kind}'; load with {there}, "
        f"or with backend '{DEFAULT}'"
    )


def makers_of_images(name: str) -> list[BackendEntry]:
    """The backends that a name means where images are made.

    An alias means those that compute the network of the checkpoint with all its grids. One that leaves out
    some is meant by its own name alone, and its images say how far they are from those with all.

    Raises:
        EdadmError: there is no such backend.
    """
    return [entry for entry in _meant_by(name) if entry.exact or name in BACKENDS]


def modules_of(*names: str) -> tuple[str, ...]:
    """The modules that compute images where variants name these backends.

    None for the default one, which is always there.
    """
    entries = [entry for name in names if name != DEFAULT for entry in makers_of_images(name)]
    return tuple(dict.fromkeys(entry.module for entry in entries))


def device_for_images(name: str, device: str) -> str:
    """The device on which a backend makes images: the one a user named; for `auto` the only one it has.

    Raises:
        EdadmError: as `makers_of_images`; the named device is of a kind on which the backend makes none.
    """
    entries = makers_of_images(name)
    kinds = _kinds(entries)
    kind, share = re.fullmatch("([^:/]*)(.*)", device, re.DOTALL).groups()  # type: ignore[union-attr]
    if not kinds or (kind == "auto" and len(kinds) > 1):
        return device
    if kind == "auto":
        return kinds[0] if kinds[0] == "cpu" else kinds[0] + share
    if kind not in kinds:
        where = " or ".join(_ARTICLES.get(kind, kind) for kind in kinds)
        others = [entry.name for entry in _meant_by(name) if kind in entry.devices]
        others = [f"'{DEFAULT}'", *(f"'{other}', which leaves out some grids" for other in others)]
        raise EdadmError(
            f"backend '{name}' generates on {where} only; use --device {kinds[0]}, or backend "
            f"{' or '.join(others)}"
        )
    return device


def computes_on(name: str, kind: str) -> bool:
    """Whether a backend makes images on a kind of device, such as `cpu`.

    Raises:
        EdadmError: as `makers_of_images`.
    """
    kinds = _kinds(makers_of_images(name))
    return not kinds or kind in kinds


def is_exact(name: str) -> bool:
    """Whether a backend computes with all grids; names that are not here any more count as such."""
    return name not in BACKENDS or BACKENDS[name].exact


def precisions_of(name: str) -> tuple[str, ...]:
    """The values of `precision` with which a backend makes images; all if empty."""
    return makers_of_images(name)[0].precisions


def computes_family(name: str, family: str) -> bool:
    """Whether a backend makes images of a family of networks.

    Raises:
        EdadmError: as `makers_of_images`.
    """
    return family not in makers_of_images(name)[0].lacks


def computes_transforms(name: str) -> bool:
    """Whether a backend makes images of linear layers with grids of tokens, rotations or branches.

    Raises:
        EdadmError: as `makers_of_images`.
    """
    return makers_of_images(name)[0].transforms


def _meant_by(name: str) -> list[BackendEntry]:
    if name not in backend_names():
        raise EdadmError(f"there is no backend '{name}'; known are {', '.join(backend_names())}")
    return [BACKENDS[member] for member in (ALIASES[name].backends if name in ALIASES else (name,))]


def _kinds(entries: Iterable[BackendEntry]) -> list[str]:
    """The kinds of devices on which backends compute; none if one computes on all."""
    kinds = [entry.devices for entry in entries]
    return list(dict.fromkeys(kind for each in kinds for kind in each)) if all(kinds) else []
