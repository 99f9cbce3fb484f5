"""What a file or folder is, in lines for its owner; no tensor is read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edadm.artifacts import describe, reading
from edadm.config.files.first_bytes import foreign
from edadm.networks.weights.errors import CheckpointError, quoted
from edadm.networks.weights.known.identify import Identity, identify
from edadm.networks.weights.reading import open_container
from edadm.quant.scheme import SMOOTH, Scheme, SchemeError, from_table

_LONGEST = 160
_MOST_FILES = 40
_WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".pkl", ".gguf", ".onnx", ".msgpack")
_KINDS = {
    "quantized": "a quantized U-Net of edadm",
    "weights": "floating-point weights of a part of a model, converted by edadm",
    "calibration": "a calibration set of edadm",
    "ranges": "activation ranges of edadm",
    "unit": "learned weights of one unit, of edadm",
    "samples": "images made by edadm",
    "trajectories": "recorded sampler runs of edadm",
    "statistics": "statistics of images, of edadm",
}


def lines_on(path: Path) -> list[str]:
    """What a file or folder is, and what edadm can do with it.

    Raises:
        CheckpointError: a damaged file, or a folder without anything that is known here.
    """
    if not path.is_dir() and not path.is_file():
        raise CheckpointError(
            f"{path} is neither a file nor a folder (a pipe, a device or a dead link); name another"
        )
    facts = describe(path)
    if facts is not None:
        return [str(path), *_of_ours(facts)]
    if not path.is_dir():
        return [str(path), *_of_foreign(path)]
    if (path / "zarr.json").is_file():
        return [str(path), *_of_store(path)]
    inside = [entry for entry in _walk(path) if _is_told(entry)]
    if not inside:
        nothing = "holds no file of weights and nothing that edadm made"
        raise CheckpointError(f"{path} {nothing}; name a file, or another folder")
    told = f", of which the first {_MOST_FILES}" if len(inside) > _MOST_FILES else ""
    lines = [f"{path}: {len(inside)} files of weights or of edadm{told}"]
    return lines + [_short(entry, entry.relative_to(path)) for entry in inside[:_MOST_FILES]]


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder, in order; a zarr store stands for what is in it."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not (entry / "zarr.json").is_file() and not entry.name.startswith("."):
            yield from _walk(entry)
        elif not entry.name.startswith("."):
            yield entry


def _is_told(entry: Path) -> bool:
    """Whether a file or store of a folder is worth a line; a pipe would never end."""
    if not entry.is_dir() and not entry.is_file():
        return False
    if entry.is_dir() or describe(entry) is not None or entry.name == "model_index.json":
        return True
    return entry.suffix in _WEIGHTS and entry.is_file()


def _short(file: Path, name: Path) -> str:
    """One line on a file of a folder."""
    try:
        lines = [line.strip() for line in lines_on(file)[1:]]
    except CheckpointError as error:
        lines = [str(error).replace(str(file), "it")]
    return f"  {name}: {lines[0].removeprefix('what it is: ')}"


def _of_ours(facts: Mapping[str, Any]) -> list[str]:
    """Lines on an artifact that says what it was made from."""
    kind = str(facts["kind"])
    version = facts.get("format_version", facts.get("format"))
    provenance = facts.get("provenance")
    origin = provenance if isinstance(provenance, dict) else facts
    by = f" {origin['edadm']}" if isinstance(origin.get("edadm"), str) else ""
    lines = [f"what it is: {_KINDS.get(kind, f'{kind} of edadm')} (format {version}, written by edadm{by})"]
    if kind == "quantized":
        lines += _of_quantized(facts)
    made_from = facts.get("made_from")
    settings = dict(made_from) if isinstance(made_from, dict) else {}
    if isinstance(provenance, dict):
        settings |= {name: value for name, value in provenance.items() if name != "made_from"}
    inputs = settings.pop("inputs", None)
    lines += [f"made from {name}: {_in_short(value)}" for name, value in settings.items()]
    if isinstance(inputs, dict):
        given = {name: str(digest)[:12] for name, digest in inputs.items() if digest}
        lines += [f"made from the file {name}: digest {digest}" for name, digest in given.items()]
    if facts.get("device"):
        lines += [f"computed on: {_in_short(facts['device'])}"]
    return [f"  {line}" for line in lines]


def _of_quantized(facts: Mapping[str, Any]) -> list[str]:
    """Lines on the network, the bits and the layers of a quantized checkpoint."""
    architecture, bits = (facts.get(name) for name in ("architecture", "bits"))
    lines = []
    if isinstance(architecture, dict):
        wanted = ("family", "image_size", "in_channels", "channels", "multipliers", "context_channels")
        sizes = {name: architecture[name] for name in wanted if architecture.get(name) is not None}
        lines += ["network: " + ", ".join(f"{name} {_in_short(size)}" for name, size in sizes.items())]
    if isinstance(bits, dict):
        widths = [f"{name} {bits.get(name)}" for name in ("weights", "activations", "softmax")]
        lines += [f"bits: {', '.join(widths)}"]
    if layers := _widths_of_weights(facts):
        counts = Counter(layers.values())
        told = ", ".join(f"{width} bits in {counts[width]}" for width in sorted(counts))
        lines += [f"layers: {len(layers)} quantized; weights of {told}"]
        usual = counts.most_common(1)[0][0]
        others = [name for name, width in layers.items() if width != usual]
        lines += [f"layers of other bits: {_in_short(', '.join(others))}"] if others else []
    return lines + _of_linear_layers(facts)


def _of_linear_layers(facts: Mapping[str, Any]) -> list[str]:
    """Lines on layers with grids of tokens, rotations or branches, as many as there are kinds of them."""
    counts: Counter[tuple[Scheme, Scheme]] = Counter()
    with suppress(SchemeError):
        schemes = from_table(facts)
        for name in schemes:
            weight = schemes.get(f"{name.removesuffix('.input')}.weight") if name.endswith(".input") else None
            if weight is not None and (
                schemes[name].scheme.is_dynamic or set(weight.scheme.transforms) - {SMOOTH}
            ):
                counts[weight.scheme, schemes[name].scheme] += 1
    return [f"{count} linear layers: weights {pair[0]}; inputs {pair[1]}" for pair, count in counts.items()]


def _widths_of_weights(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Bits of the weights by layer: from a checkpoint's schemes, or from the table that format 2 had."""
    tables = facts.get("weights")
    if isinstance(tables, dict) and all(isinstance(layer, list) and layer for layer in tables.values()):
        return {name: layer[0] for name, layer in tables.items()}
    with suppress(SchemeError):
        schemes = from_table(facts)
        weights = (name for name in schemes if name.endswith(".weight"))
        return {name.removesuffix(".weight"): schemes[name].scheme.format.bits for name in weights}
    return {}


def _of_store(path: Path) -> list[str]:
    """Lines on a zarr store that says nothing of itself."""
    arrays = ", ".join(quoted(entry.parent.name) for entry in sorted(path.glob("*/zarr.json"))) or "none"
    what = "a zarr store that does not say what it was made from (edadm 0.1.0 wrote such)"
    return [f"  what it is: {what}; arrays: {arrays}"]


def _of_foreign(path: Path) -> list[str]:
    """Lines on a file of somebody else."""
    with reading(path, "name another file", CheckpointError):
        found = foreign(path)
    if found:
        return [f"  what it is: {found[0]}", f"  with edadm: {found[1]}"]
    container = open_container(path)
    identity = identify(container, path)
    unknown = f"nothing known here; its first tensors are {identity.first}"
    first = unknown if identity.tensors else "a file without tensors"
    sizes = f"{len(identity.tensors):,}, in all {identity.numbers:,} numbers"
    types = ", ".join(f"{_in_short(dtype)} ({count:,})" for dtype, count in sorted(identity.dtypes.items()))
    place = _averages(identity)
    lines = [
        f"what it is: {identity.kind.what if identity.kind else first}",
        f"packed as: {identity.packed} of {path.stat().st_size:,} bytes",
        *([f"tensors: {sizes}; {types}"] if identity.tensors else []),
        *([f"averaged weights: {place}"] if place else []),
        *(f"says of itself: {line}" for line in _stated(container.metadata)),
        f"with edadm: {_use(identity, path)}",
    ]
    return [f"  {line}" for line in lines]


def _averages(identity: Identity) -> str:
    if not identity.tensors or (identity.kind and not identity.kind.part):
        return ""
    if not identity.averaged:
        return "none"
    return f"{identity.averaged}; `ema: auto` or `true` takes them, `false` those as trained"


def _stated(metadata: Mapping[str, str]) -> list[str]:
    """What a safetensors file says of itself, as far as people write it for others."""
    wanted = (
        "modelspec.architecture",
        "modelspec.title",
        "modelspec.prediction_type",
        "ss_base_model_version",
        "format",
    )
    return [f"{key} {quoted(metadata[key])}" for key in wanted if key in metadata]


def _use(identity: Identity, path: Path) -> str:
    """What can be done with a file."""
    kind = identity.kind
    if identity.problem and (kind is None or kind.part):
        return identity.problem.removeprefix(f"{path} ").removeprefix(f"{path}: ")
    if kind is None:
        return "nothing, unless it belongs to a file or folder that says more"
    if kind.advice:
        return kind.advice
    if kind.layout == "diffusers":
        return "`edadm describe` prints its entry under `models:`, with its config.json beside it"
    return f"set layout: {kind.layout}; `edadm describe {path}` prints the whole entry under `models:`"


def _in_short(value: Any) -> str:
    """A setting on one line."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    shown = text.encode("unicode_escape").decode()
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
