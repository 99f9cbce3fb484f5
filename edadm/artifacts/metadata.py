"""The metadata of an artifact: kind, format, what it was made from, and digests of both and its content.

In safetensors files these facts are the metadata entry `edadm`, in JSON objects and zarr groups the key or
attribute `edadm`, beside any other file `NAME` they are `NAME.made.json`. `docs/artifacts.md` lists the
kinds. Nothing in them tells when, where or by whom an artifact was made, so equal inputs give equal bytes.
Artifacts of edadm 0.1.0 say nothing, and are read as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edadm.artifacts.digest import canonical, file_digest, read_header, safetensors_digest, sha256_of
from edadm.artifacts.errors import DamagedError, StaleError
from edadm.artifacts.failures import reading
from edadm.artifacts.whole import writing
from edadm.version import __version__

KEY = "edadm"
UNITS = "units.json"  # the facts of a folder of finished units
VERSIONS = {  # of each kind of file; a reader refuses newer ones than it knows
    **dict.fromkeys(
        ("weights", "calibration", "selection", "ranges", "unit", "losses", "samples", "prompts"), 1
    ),
    **dict.fromkeys(("trajectories", "features", "statistics", "metrics", "speed", "units", "quantized"), 1),
    "errors": 1,
}
Facts = dict[str, Any]


def facts(kind: str, made_from: Mapping[str, Any], device: str = "cpu") -> Facts:
    """The facts of an artifact whose content is not yet known.

    Args:
        kind: one of `VERSIONS`.
        made_from: settings by the names of presets (`model`, `bits`, ...), and under `inputs` digests of
            files by their roles.
        device: the kind of device that computed it.
    """
    plain = json.loads(canonical(made_from))
    told = {"kind": kind, "format": VERSIONS[kind], "edadm": __version__, "device": device}
    return told | {"made_from": plain}


def stamped(known: Facts, content: str) -> Facts:
    """Facts with the digest of the artifact's content, and a digest of themselves."""
    complete = known | {"content": content}
    return complete | {"sha256": sha256_of(complete)}


def describe(path: Path) -> Facts | None:
    """What a file or folder says of itself, unchecked; None if it says nothing, or cannot be read.

    A quantized checkpoint has facts in a form of its own, `docs/checkpoint_format.md`; they gain `kind` and
    `made_from` here.
    """
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        found = _stated(path)
        if isinstance(found, dict) and "format_version" in found:
            return _quantized(found)
        return found if isinstance(found, dict) and isinstance(found.get("kind"), str) else None
    return None


def _quantized(found: Facts) -> Facts:
    provenance = found.get("provenance", {})
    made_from = {"model": {"architecture": found["architecture"]}, "bits": found["bits"]}
    made_from |= {name: provenance[name] for name in ("reconstruction", "inputs") if name in provenance}
    return found | {"kind": "quantized", "made_from": made_from, "device": provenance.get("device")}


def _stated(path: Path) -> Any:
    if path.is_dir() and (path / UNITS).is_file():
        return json.loads((path / UNITS).read_text())[KEY]
    if path.is_dir():
        return json.loads((path / "zarr.json").read_text())["attributes"][KEY]
    if beside(path).is_file():
        return json.loads(beside(path).read_text())
    if path.suffix == ".json":
        return json.loads(path.read_text())[KEY]
    return json.loads(read_header(path).metadata[KEY])


def beside(path: Path) -> Path:
    """Where the facts of a file lie that has no room for them."""
    return path.with_name(f"{path.name}.made.json")


def lock_beside(path: Path) -> Path:
    """Where the lock of an artifact lies, which tells of work on it (`edadm.artifacts.making`)."""
    return path.with_name(f".{path.name}.lock")


def remember(path: Path, known: Facts) -> None:
    """Writes the facts of a file that has no room for them, as it lies there."""
    with writing(beside(path)) as partial:
        partial.write_text(json.dumps(stamped(known, file_digest(path)), indent=1) + "\n")


def forget(path: Path) -> None:
    """Removes the facts beside a file before another takes its place.

    A killed writer leaves none then, not wrong ones.
    """
    beside(path).unlink(missing_ok=True)


def content_digest(path: Path) -> str:
    """The digest of a file's content; what it says of itself does not count.

    Raises:
        DamagedError: it cannot be read.
    """
    with reading(path):
        if path.suffix == ".safetensors":
            return safetensors_digest(path)
        if path.suffix == ".json" and isinstance(content := json.loads(path.read_text()), dict):
            return sha256_of({key: value for key, value in content.items() if key != KEY})
        if path.suffix == ".npy":
            _check_size(path)
        return file_digest(path)


def _check_size(path: Path) -> None:
    """Compares the size of a NumPy file with that of the array it says it holds.

    Raises ValueError, or what NumPy raises.
    """
    import numpy as np

    array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.size and (more := path.stat().st_size - array.offset - array.nbytes):
        raise ValueError(f"{more} bytes follow its array")


def intact(path: Path, kind: str | None = None, stage: str | None = None) -> str:
    """The digest of a file's content, after it was compared with what the file says of itself.

    Args:
        kind: what the file should be, if only one kind will do.
        stage: the command that makes it, for whoever must make it again.

    Raises:
        DamagedError: it cannot be read, has another digest than it says, or is of another kind.
        StaleError: of a newer format.
    """
    found = describe(path)
    try:
        content = content_digest(path)
        if found is not None and found["kind"] == "quantized":
            _check_quantized(path)
        elif found is not None:
            check_facts(path, found, content)
        elif reason := _lost(path):
            raise DamagedError(f"{path} is damaged ({reason}); remove it and make it again")
        if found is not None and kind not in (None, found["kind"]):
            raise DamagedError(f"{path} holds {found['kind']}, not {kind}; name the file that does")
    except DamagedError as error:
        if stage is None:
            raise
        reason = str(error).rpartition(";")[0]
        raise DamagedError(f"{reason}; remove it, and make it again with `edadm {stage}`") from None
    return content


def _lost(path: Path) -> str | None:
    """Why a file that says nothing of itself should; None for those of edadm 0.1.0 and of others."""
    if beside(path).exists():
        return f"{beside(path).name}, which says what it is, cannot be read"
    with suppress(OSError, ValueError, TypeError):
        if "finished" in json.loads(lock_beside(path).read_text()):
            return "it does not say what it was made from, as all that this edadm makes does"
    return None


def check_facts(path: Path, found: Facts, content: str | None = None) -> None:
    """Compares facts with their own digest and with the digest of a content.

    Raises:
        DamagedError: one differs.
        StaleError: of a newer format.
    """
    again = "remove it and make it again"
    if found.get("sha256") != sha256_of({key: value for key, value in found.items() if key != "sha256"}):
        raise DamagedError(
            f"{path} is damaged (what it says of itself has another digest than it says); {again}"
        )
    if content is not None and found.get("content") != content:
        raise DamagedError(f"{path} is damaged (its content has another digest than it says); {again}")
    known = VERSIONS.get(found["kind"], 0)
    if not isinstance(found.get("format"), int) or found["format"] > known:
        its = f"format {found.get('format')} of {found['kind']}"
        raise StaleError(f"{path} has {its}, this edadm reads up to {known}; upgrade edadm")


def _check_quantized(path: Path) -> None:
    """Compares a quantized checkpoint with its own digest, which its first format had not."""
    found = _stated(path)
    rest = canonical({key: value for key, value in found.items() if key != "sha256"})
    if "sha256" in found and safetensors_digest(path, rest) != found["sha256"]:
        raise DamagedError(f"{path} is damaged (its content has another digest than it says); make it again")


def refuse_other(path: Path, wanted: Mapping[str, Any], stage: str, found: Facts | None = None) -> None:
    """Refuses an artifact that was made from other settings or files than a reader wants.

    What it does not say is not compared.

    Args:
        wanted: as in `facts`; settings that the reader does not know are left out.
        stage: the command that makes the artifact.
        found: its facts, if they were read already.

    Raises:
        StaleError: names the first setting that differs, and both values.
    """
    said = found or describe(path) or {}
    wanted = json.loads(canonical(wanted))
    if (other := first_difference(said.get("made_from", {}), wanted)) is None:
        return
    name, its, ours = other
    again = f"name the file that fits, or remove it and make it again with `edadm {stage}`"
    if name.startswith("inputs."):
        role = name.removeprefix("inputs.").replace("_", " ")
        raise StaleError(
            f"{path} was made from another {role} (digest {_short(its)}, here {_short(ours)}); {again}"
        )
    raise StaleError(f"{path} was made with {name}: {_short(its)}, here it is {_short(ours)}; {again}")


def first_difference(said: Any, wanted: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The first leaf, by name, at which two trees of settings differ, of those that both have."""
    if isinstance(said, dict) and isinstance(wanted, dict):
        for key in sorted(said.keys() & wanted.keys()):
            if found := first_difference(said[key], wanted[key], f"{name}.{key}".lstrip(".")):
                return found
        return None
    return None if said == wanted else (name, said, wanted)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else canonical(value)
    return text if len(text) < 40 else f"{text[:12]}..."
