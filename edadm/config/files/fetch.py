"""Downloads on request: resumed where they broke off, checked, and whole or absent."""

from __future__ import annotations

import difflib
import hashlib
import http.client
import os
import re
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

from edadm.artifacts import BusyError, writing
from edadm.artifacts.locks import attempt
from edadm.config.files.downloads import DOWNLOADS, UNKNOWN, Download
from edadm.console import progress_bar, say
from edadm.errors import EdadmError

CHUNK = 1 << 20
MEGABYTE = 10**6
PATIENCE = 60.0


class DownloadError(EdadmError):
    """A download that did not succeed, with a sentence that says what to do."""


def find_download(name: str) -> Download:
    """An entry of the table.

    Raises:
        DownloadError: there is none; the nearest is named.
    """
    if name in DOWNLOADS:
        return DOWNLOADS[name]
    close = difflib.get_close_matches(name, DOWNLOADS, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(DOWNLOADS)}"
    raise DownloadError(f"there is no download '{name}'; {hint}")


def fetch(entry: Download, output: Path) -> None:
    """Downloads a file to `output`, which exists only when it is complete and its checksum is right.

    What has arrived waits in `OUTPUT.partial` (with the server's ETag in `OUTPUT.partial.etag`), and the next
    call goes on from there.

    Raises:
        DownloadError: the server cannot be reached, has no such file, broke off, or sent another file than
            expected.
        BusyError: another process downloads to the same place.
    """
    if output.exists():
        if entry.member is None:
            _check(entry, output)
        say(f"{output} is there already")
        return
    partial = output.with_name(f"{output.name}.partial")
    output.parent.mkdir(parents=True, exist_ok=True)
    with open(partial, "ab") as file:
        if attempt(file) is False:
            raise BusyError(f"another process is downloading to {partial}; wait for it to end")
        try:
            _receive(entry, file, partial)
        except urllib.error.HTTPError as error:
            raise DownloadError(_refusal(entry, error.code)) from None
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise DownloadError(
                f"{entry.url} cannot be reached ({reason}); {_by_hand(entry)}, or try again to go on"
            ) from None
        except OSError as error:
            raise DownloadError(
                f"{partial} cannot be written ({error.strerror}); make room, and try again to go on"
            ) from None
        _check(entry, partial)
        if entry.member is None:
            os.replace(partial, output)
        else:
            _unpack(entry, partial, output)
    _etag_of(partial).unlink(missing_ok=True)


def _receive(entry: Download, file: IO[bytes], partial: Path) -> None:
    """Appends what is missing to the partial file.

    Raises:
        DownloadError: the connection ended before the file did.
    """
    have, etag = file.tell(), _etag_of(partial)
    request = urllib.request.Request(entry.url, headers={"User-Agent": "edadm"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if etag.exists():
            request.add_header("If-Range", etag.read_text())
    try:
        response = urllib.request.urlopen(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
            return  # all of it was there
        _empty(file, etag)
        return _receive(entry, file, partial)
    with response:
        if response.status != 206 or _start(response) != have:
            have = 0  # the server sends all of it, or its file is another one by now
            _empty(file, etag)
        if response.headers.get("ETag"):
            etag.write_text(response.headers["ETag"])
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        _copy(response, file, have, total, entry.what)
    have = file.tell()
    if total is not None and have != total:
        raise DownloadError(
            f"{entry.url} broke off after {have:,} of {total:,} bytes; try again to go on from there"
        )
    return None


def _start(response: Any) -> int:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


def _empty(file: IO[bytes], etag: Path) -> None:
    """Forgets what has arrived."""
    file.seek(0)
    file.truncate()
    etag.unlink(missing_ok=True)


def _copy(response: Any, file: IO[bytes], have: int, total: int | None, label: str) -> None:
    """With a bar in megabytes, or none where the server does not tell how many there are."""
    megabytes = -(-(total or 0) // MEGABYTE)
    with progress_bar(label, megabytes, "MB") if total else nullcontext(lambda _: None) as advance:
        shown = 0
        while chunk := response.read(CHUNK):
            file.write(chunk)
            have += len(chunk)
            arrived = megabytes if have == total else min(have // MEGABYTE, megabytes)
            if arrived > shown:
                advance(arrived - shown)
                shown = arrived
    file.flush()


def _check(entry: Download, file: Path) -> None:
    """Compares a file with the published checksum; a wrong partial file is removed.

    Raises:
        DownloadError: it is another file.
    """
    if entry.checksum == UNKNOWN:
        with open(file, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        say(f"{entry.url}: no checksum is published for this file; its sha256 is {digest}")
        return
    kind, _, expected = entry.checksum.partition(":")
    with open(file, "rb") as content:
        found = hashlib.file_digest(content, kind).hexdigest()
    if not found.startswith(expected):
        if file.suffix == ".partial":
            _drop(file)
            raise DownloadError(
                f"{entry.url} sent another file than expected ({kind} {found}, not {expected}); "
                f"{_by_hand(entry)}"
            )
        raise DownloadError(
            f"{file} is another file than {entry.what} ({kind} {found}, not {expected}); move it away and "
            "try again"
        )


def _unpack(entry: Download, archive: Path, output: Path) -> None:
    try:
        with (
            zipfile.ZipFile(archive) as content,
            content.open(str(entry.member)) as member,
            writing(output) as partial,
            open(partial, "wb") as file,
        ):
            shutil.copyfileobj(member, file, CHUNK)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError) as error:  # damaged, or locked
        _drop(archive)
        raise DownloadError(
            f"{entry.url} is no archive with {entry.member} ({error}); {_by_hand(entry)}"
        ) from None
    _drop(archive)


def _drop(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _etag_of(partial).unlink(missing_ok=True)


def _refusal(entry: Download, code: int) -> str:
    reason = {401: "asks to log in", 403: "denies access", 404: "has no such file any more"}.get(
        code, "refused"
    )
    remark = f" ({entry.remark})" if entry.remark else ""
    return f"{entry.url} {reason} (HTTP {code}){remark}; {_by_hand(entry)}"


def _by_hand(entry: Download) -> str:
    return f"get {entry.what} by hand ({entry.source}) and put it at {entry.path}"


def _etag_of(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.etag")
