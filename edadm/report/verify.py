"""Whether what lies in a results folder is whole, and was made from what lies beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from edadm.artifacts import DamagedError, Facts, describe, intact, reading
from edadm.artifacts.digest import canonical, rows_digest
from edadm.artifacts.metadata import UNITS, first_difference
from edadm.config.backends import variant_suffixes
from edadm.config.schema import AUTO, Config
from edadm.config.sharding.split import stated
from edadm.config.stated import settings_of
from edadm.errors import EdadmError
from edadm.sampling.shards import collection_digest, open_whole

_DERIVED = {"report", "times"}  # folders that are made from artifacts in seconds, or hold times
_SUFFIXES = {".safetensors", ".npy", ".json", ".csv", ".h5"}
_BESIDE = ".made.json"
_IN_SHARDS = {  # inputs of one digest in several files, with the settings in which these state their number
    "trajectories": "model",
    "samples": "evaluation",
    "references": "evaluation",
    "simulated": "evaluation",
}
_KINDS = {  # of what belongs at a place, by its name, or the name of its folder
    "calibration.safetensors": "calibration",
    "selection.json": "selection",
    "ranges.safetensors": "ranges",
    "quantized.safetensors": "quantized",
    "losses.csv": "losses",
    "metrics.json": "metrics",
    "speed.json": "speed",
    "errors.json": "errors",
    "prompts.json": "prompts",
    "fp32": "weights",
    "trajectories": "trajectories",
    "samples": "samples",
    "features": "features",
    "units": "units",
    "references": "statistics",
}


class Finding(NamedTuple):
    """Something that is not as it should be, in a sentence."""

    what: Literal["damaged", "stale", "foreign"]
    sentence: str


@dataclass
class Results:
    """Artifacts of a results folder, each with what it says of itself and the digest of its content.

    Each is read in full, and shards that others were made from once more, for all of these.

    Attributes:
        together: the digests of what shards hold together.
        silent: those that say nothing of themselves, as those of edadm 0.1.0 did, so that only reading them
            was tried.
    """

    root: Path
    config: Config | None = None
    contents: dict[Path, str] = field(default_factory=dict)
    together: dict[tuple[Path, ...], str] = field(default_factory=dict)
    silent: list[Path] = field(default_factory=list)
    seen: int = 0

    def findings(self) -> Iterator[Finding]:
        """All that is damaged, then all that is stale or foreign."""
        known: dict[Path, Facts | None] = {}
        for path in artifacts_in(self.root):
            self.seen += 1
            try:
                self.contents[path] = _content(path)
                known[path] = describe(path)
            except EdadmError as error:
                yield Finding("damaged", str(error))
        for beside in sorted(self.root.rglob(f"*{_BESIDE}")):
            if not (described := beside.with_name(beside.name.removesuffix(_BESIDE))).exists():
                yield Finding(
                    "damaged",
                    f"{described} is gone, and {beside.name} is left of it; remove that, and make it again",
                )
        self.silent = [path for path, found in known.items() if found is None]
        for path, found in known.items():
            yield from self._of_another_place(path, found)
            yield from self._of_other_inputs(path, found)
            yield from self._of_other_settings(path, found)

    def _of_another_place(self, path: Path, found: Facts | None) -> Iterator[Finding]:
        expected = _KINDS.get(path.name) or _KINDS.get(path.parent.name)
        if expected is None:
            yield Finding("foreign", f"{path} is no artifact of edadm; move it elsewhere")
        elif found and found["kind"] != expected:
            yield Finding(
                "foreign", f"{path} holds {found['kind']}, where {expected} belongs; move it elsewhere"
            )
        place = found and found["made_from"].get("shard", found["made_from"].get("part"))
        if isinstance(place, int) and path.stem != str(place):
            yield Finding("foreign", f"{path} is number {place}; move it elsewhere")

    def _of_other_inputs(self, path: Path, found: Facts | None) -> Iterator[Finding]:
        inputs = (found or {}).get("made_from", {}).get("inputs", {})
        for role, digests in inputs.items():
            if role in _IN_SHARDS and isinstance(digests, str):
                yield from self._of_other_shards(path, role, digests)
                continue
            for number, digest in _numbered(digests).items():
                source = input_of(self.root, path, role, number)
                if source in self.contents and self.contents[source] != digest:
                    yield Finding("stale", f"{path} was made from another {source}; make it again")

    def _of_other_shards(self, path: Path, role: str, digest: str) -> Iterator[Finding]:
        first = input_of(self.root, path, role)
        assert first is not None
        files = self._shards(first, _IN_SHARDS[role])
        if not files or not self.contents.keys() >= set(files):
            return  # gone, or damaged, which is told of the shard itself
        if files not in self.together:
            stores = first.suffix == ".zarr"
            self.together[files] = (
                collection_digest([open_whole(file)[0] for file in files]) if stores else rows_digest(files)
            )
        if self.together[files] != digest:
            source = files[0] if len(files) == 1 else first.parent
            yield Finding("stale", f"{path} was made from another {source}; make it again")

    def _shards(self, first: Path, preset: str) -> tuple[Path, ...]:
        """The shards of a folder, as many as its first says: others may lie there, of an earlier number.

        All where it does not say, as of edadm 0.1.0; none where it is gone or damaged.
        """
        if first not in self.contents:
            return ()
        if division := stated(first, preset):
            return tuple(first.with_name(f"{shard}{first.suffix}") for shard in range(division.shards))
        there = [file for file in self.contents if (file.parent, file.suffix) == (first.parent, first.suffix)]
        return tuple(sorted((file for file in there if file.stem.isdigit()), key=lambda file: int(file.stem)))

    def _of_other_settings(self, path: Path, found: Facts | None) -> Iterator[Finding]:
        if self.config is None or not found:
            return
        wanted = _wanted(self.config, self.root, path)
        for settings in (wanted.get("model", {}).get("trajectories", {}), wanted.get("evaluation", {})):
            if settings.get("shards") == AUTO:
                del settings["shards"]
        if difference := first_difference(found["made_from"], wanted):
            name, its, ours = difference
            said = f"{name}: {canonical(its)}, the configuration says {canonical(ours)}"
            yield Finding("stale", f"{path} was made with {said}; make it again")


def _numbered(digests: Any) -> dict[int, Any]:
    """The digests of an input by the numbers of its files; those of some shards state these themselves."""
    if isinstance(digests, dict):
        return {int(number): digest for number, digest in digests.items()}
    return dict(enumerate(digests if isinstance(digests, list) else [digests]))


def artifacts_in(root: Path) -> Iterator[Path]:
    """Files and folders of the kinds that edadm makes, in order; hidden ones are work in progress."""
    for parent, folders, files in os.walk(root):
        here = Path(parent)
        whole = [
            name for name in sorted(folders) if name.endswith(".zarr") or (here / name / UNITS).is_file()
        ]
        yield from (here / name for name in whole)
        skipped = {*whole, *(_DERIVED if here == root else ())}
        folders[:] = [name for name in sorted(folders) if name not in skipped and not name.startswith(".")]
        for name in sorted(files):
            artifact = (
                Path(name).suffix in _SUFFIXES and not name.endswith(_BESIDE) and not name.startswith(".")
            )
            if artifact:
                yield here / name


def input_of(root: Path, path: Path, role: str, number: int = 0) -> Path | None:
    """Where an input of an artifact lies, by its role; None if that is outside the folder."""
    model = root / path.relative_to(root).parts[0]
    variant = path.parents[1] if path.parent.name in ("samples", "features") else path.parent
    checkpoint = variant.parent if variant.name in variant_suffixes() else variant
    folders = list(path.parents)[: len(path.relative_to(model).parts)]
    calibration = folders[-2] if len(folders) > 1 else model
    bits = folders[-3] if len(folders) > 2 else model
    quantized = checkpoint / "quantized.safetensors"
    places = {
        "unet": model / "fp32/unet.safetensors",
        "autoencoder": model / "fp32/autoencoder.safetensors",
        "condition": model / "fp32/condition.safetensors",
        "trajectories": model / "trajectories" / f"{number}.zarr",
        "calibration_set": calibration / "calibration.safetensors",
        "ranges": bits / "ranges.safetensors",
        "quantized": quantized,
        "weights": model / "fp32/unet.safetensors" if variant.name == "fp32" else quantized,
        "samples": variant / "samples" / f"{number}.npy",
        "references": model / "fp32/samples" / f"{number}.npy",
        "simulated": checkpoint / "samples" / f"{number}.npy",
    }
    if role == "weights" and (path.name == "metrics.json" or path.parent.name == "features"):
        return None  # of the network that scores
    return places.get(role)


def _content(path: Path) -> str:
    if path.suffix == ".zarr":
        return open_whole(path)[1]
    if not path.is_dir():
        return intact(path)
    listed = path / UNITS
    content = intact(listed, "units")
    units = _units(listed)
    for name, digest in units.items():
        if intact(path / name, "unit") != digest:
            raise DamagedError(
                f"{path / name} is another unit than {listed} says; remove {path} and make it again"
            )
    if extra := sorted(file.name for file in path.glob("*.safetensors") if file.name not in units):
        raise DamagedError(f"{path / extra[0]} is not listed in {listed}; remove {path} and make it again")
    return content


def _units(listed: Path) -> dict[str, str]:
    with reading(listed):
        content: dict[str, str] = json.loads(listed.read_text())["units"]
        return dict(content)


def _wanted(config: Config, root: Path, path: Path) -> dict[str, Any]:
    """The settings that shape an artifact by its place, of those presets that the configuration has."""
    parts = path.relative_to(root).parts
    if parts[0] not in config.models:
        return {}
    wanted = {"model": settings_of(config.models[parts[0]])}
    presets: tuple[Mapping[str, Any], ...] = (config.calibrations, config.bits, config.reconstructions)
    kinds = ("calibration", "bits", "reconstruction")
    for kind, known, name in zip(kinds, presets, parts[1:-1], strict=False):
        if name in known:
            wanted[kind] = settings_of(known[name])
    evaluations = [run.evaluation for run in config.runs if run.model == parts[0]]
    if evaluations and evaluations[0] in config.evaluations:
        wanted["evaluation"] = settings_of(config.evaluations[evaluations[0]])
    return wanted
