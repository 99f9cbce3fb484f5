"""One artifact, several jobs that would make it: the newest wish is fulfilled, and once.

Beside an artifact `NAME` lies `.NAME.lock`. It says which work was asked for last, and which was finished.
Whoever publishes holds it for a moment, and gives up where something else was asked for since: so an orphaned
job of an older setting cannot replace the newer one's artifact. While a job works it holds
`.NAME.KEY.making`, whose key is a digest of settings, inputs and code; others with the same key wait for it
and take its artifact as theirs, others with another key neither wait nor touch what it has so far.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edadm.artifacts.digest import canonical
from edadm.artifacts.errors import StaleError
from edadm.artifacts.failures import placing
from edadm.artifacts.locks import holder, if_free, locked, rewrite
from edadm.artifacts.metadata import Facts, describe, forget, lock_beside, remember
from edadm.artifacts.whole import partial_file, publish, sync_tree
from edadm.console import say
from edadm.devices.lease import held

_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Work:
    """The work on an artifact, and the right to publish it while nothing else was asked for.

    Attributes:
        output: the artifact; others of the same work may lie beside it.
        facts: what it is and what it is made from, without digests (`metadata.facts`).
        key: a digest of that and of the code.
        folder: for finished pieces, from which a killed job goes on; made only where `progress` was given.
    """

    output: Path
    facts: Facts
    key: str
    folder: Path

    @contextmanager
    def publishing(self, path: Path | None = None, beside: Facts | None = None) -> Iterator[Path]:
        """A path to write to, which becomes an artifact of the work if the block ends well.

        Args:
            path: the other file.
            beside: facts for a file that has no room for them; they get its digest, and a file of their own.

        Raises:
            StaleError: something else was asked for since.
        """
        target = path or self.output

        def place(partial: Path) -> None:
            with self._while_wanted():
                forget(target)
                publish(partial, target)
                if beside is not None:
                    remember(target, beside)

        with partial_file(target, place) as partial:
            yield partial

    def publish_folder(self, folder: Path) -> None:
        """Renames a finished folder to the artifact.

        Raises:
            StaleError: something else was asked for since, or another folder is there.
        """
        with placing(self.output):
            sync_tree(folder)
        with self._while_wanted(), placing(self.output):
            refuse_to_replace(self.output, self.facts)
            self.output.parent.mkdir(parents=True, exist_ok=True)
            publish(folder, self.output)

    @contextmanager
    def _while_wanted(self) -> Iterator[None]:
        with locked(lock_beside(self.output), str(self.output)) as file:
            if _state(file.read()).get("wanted", self.key) != self.key:
                since = "was asked for with other settings since this job began"
                raise StaleError(f"{self.output} {since}; it leaves that to the newer one")
            yield


@contextmanager
def making(
    outputs: Sequence[Path], facts: Facts, code: str, progress: Path | None = None
) -> Iterator[Work | None]:
    """The right to make an artifact, or None if it is there already, made from exactly this.

    A living job that makes the same is waited for. Pieces of a killed one are found in `Work.folder`; they go
    when the block ends well. Snakemake deletes declared outputs before it reruns a job, so `progress` must
    not be one.

    Args:
        outputs: the files of this work; the first one is its artifact.
        facts: see `Work`.
        code: what tells the stage's code from other versions of it.
        progress: a folder for finished pieces, kept apart by key.
    """
    output = outputs[0]
    key = hashlib.sha256(canonical([facts["kind"], facts["made_from"], code]).encode()).hexdigest()[:16]
    with locked(lock_beside(output), str(output)) as file:
        rewrite(file, canonical(_state(file.read()) | {"wanted": key}))
    with locked(_mark(output, key), str(output)) as mark:
        rewrite(mark, holder())
        if _finished(outputs, facts, key):
            say(f"{output} is there already, made from the same settings and inputs")
            _mark(output, key).unlink(missing_ok=True)
            yield None
            return
        try:
            yield Work(output, facts, key, _folder(output, key, progress))
        except BaseException:
            if progress is None:
                _mark(output, key).unlink(missing_ok=True)
            raise
        with locked(lock_beside(output), str(output)) as file:
            rewrite(file, canonical(_finished_state(_state(file.read()), key, code)))
            _tidy(output, key, progress)


def refuse_to_replace(folder: Path, facts: Mapping[str, Any]) -> None:
    """Refuses work whose folder is there already; what took days is not overwritten.

    Raises:
        StaleError: it is there.
    """
    if folder.exists():
        there = describe(folder)
        other = (
            ""
            if there is None or there.get("made_from") == facts["made_from"]
            else ", made from something else"
        )
        raise StaleError(f"{folder} is there already{other}; remove it, or name another --output")


def code_beside(output: Path) -> str | None:
    """The code that an artifact was finished with, as `making` was told; None where that is not known."""
    with suppress(OSError):
        return _state(lock_beside(output).read_text()).get("code")
    return None


def gpu_beside(output: Path) -> str | None:
    """The GPU that an artifact was finished on, as `edadm.devices.lease.held` calls it.

    None where it was none, or that is not known.
    """
    with suppress(OSError):
        return _state(lock_beside(output).read_text()).get("gpu")
    return None


def _finished_state(before: dict[str, str], key: str, code: str) -> dict[str, str]:
    """What a lock file says once work is finished.

    The GPU stands here, since in the artifact, whose bytes do not depend on it, it cannot.
    """
    gpu = held()
    kept = {name: value for name, value in before.items() if name != "gpu"}
    return kept | {"finished": key, "code": code} | ({"gpu": gpu} if gpu else {})


def _mark(output: Path, key: str) -> Path:
    return output.with_name(f".{output.name}.{key}.making")


def _state(text: str) -> dict[str, str]:
    """What a lock file says; nothing if it is new, or was torn."""
    with suppress(ValueError):
        state, _ = json.JSONDecoder().raw_decode(text)  # a killed process may have left the end of another
        return state if isinstance(state, dict) else {}
    return {}


def _folder(output: Path, key: str, progress: Path | None) -> Path:
    """The folder for finished pieces of this work; made under the lock, since others remove what is empty."""
    if progress is None:
        return output.with_name(f".{output.name}.progress") / key
    with locked(lock_beside(output), str(output)), placing(progress / key):
        (progress / key).mkdir(parents=True, exist_ok=True)
    return progress / key


def _finished(outputs: Sequence[Path], facts: Facts, key: str) -> bool:
    """Whether the files of this work lie there, made by it."""
    with suppress(OSError):
        said = _state(lock_beside(outputs[0]).read_text())
        there = describe(outputs[0]) or {}
        same = all(there.get(name) == facts[name] for name in ("kind", "made_from", "device"))
        return said.get("finished") == key and same and all(output.exists() for output in outputs)
    return False


def _tidy(output: Path, key: str, progress: Path | None) -> None:
    """Removes the pieces of this work, and those that dead jobs left of other work on the same artifact."""
    begin, end = f".{output.name}.", ".making"
    marks = [
        entry
        for entry in output.parent.iterdir()
        if entry.name.startswith(begin) and entry.name.endswith(end)
    ]
    for mark in marks:
        other = mark.name[len(begin) : -len(end)]
        with nullcontext(True) if other == key else if_free(mark) as free:
            if free and progress is not None:
                shutil.rmtree(progress / other, ignore_errors=True)
            if free:
                mark.unlink(missing_ok=True)
    if progress is None:
        return
    old = progress / ".lock"  # of a version that had one folder, and one lock, for all work
    with if_free(old) if old.exists() else nullcontext(True) as free:
        if free:
            for entry in [entry for entry in progress.iterdir() if not _KEY.fullmatch(entry.name)]:
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
    with suppress(OSError):
        progress.rmdir()
