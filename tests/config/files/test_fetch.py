"""Downloads from a server on this machine: whole, resumed, refused."""

from __future__ import annotations

import fcntl
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edadm.artifacts import BusyError
from edadm.config.files.downloads import UNKNOWN, Download
from edadm.config.files.fetch import DownloadError, fetch, find_download

from .server import Site, serving

CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(CONTENT) as site:
        yield site


@pytest.fixture
def entry(site: Site) -> Download:
    return Download(
        "a model", site.url, "weights/m.ckpt", "its README", f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    )


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_nothing_else_stays(entry: Download, tmp_path: Path) -> None:
    fetch(entry, tmp_path / "new" / "m.ckpt")
    assert (tmp_path / "new" / "m.ckpt").read_bytes() == CONTENT
    assert left(tmp_path / "new") == ["m.ckpt"]


def test_a_file_that_broke_off_is_told_and_resumed(entry: Download, site: Site, tmp_path: Path) -> None:
    site.cut_after = 1000
    with pytest.raises(
        DownloadError, match="broke off after 1,000 of 1,280,000 bytes; try again to go on from there"
    ):
        fetch(entry, tmp_path / "m.ckpt")
    assert left(tmp_path) == ["m.ckpt.partial", "m.ckpt.partial.etag"]
    site.cut_after = None
    fetch(entry, tmp_path / "m.ckpt")
    assert (site.asked[-1]["Range"], site.asked[-1]["If-Range"]) == ("bytes=1000-", '"one"')
    assert (tmp_path / "m.ckpt").read_bytes() == CONTENT
    assert left(tmp_path) == ["m.ckpt"]


def test_a_file_that_changed_meanwhile_starts_anew(entry: Download, site: Site, tmp_path: Path) -> None:
    (tmp_path / "m.ckpt.partial").write_bytes(b"of the older file")
    (tmp_path / "m.ckpt.partial.etag").write_text('"older"')
    fetch(entry, tmp_path / "m.ckpt")
    assert (tmp_path / "m.ckpt").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(entry: Download, site: Site, tmp_path: Path) -> None:
    site.ranges, site.etag = False, None
    (tmp_path / "m.ckpt.partial").write_bytes(CONTENT[:10])
    fetch(entry, tmp_path / "m.ckpt")
    assert (tmp_path / "m.ckpt").read_bytes() == CONTENT


@pytest.mark.parametrize("partial", [CONTENT, CONTENT + b"more"])
def test_a_partial_file_that_is_long_enough(partial: bytes, entry: Download, tmp_path: Path) -> None:
    """Complete but not yet renamed, or of something else."""
    (tmp_path / "m.ckpt.partial").write_bytes(partial)
    fetch(entry, tmp_path / "m.ckpt")
    assert (tmp_path / "m.ckpt").read_bytes() == CONTENT


def test_an_unknown_length_is_no_obstacle(entry: Download, site: Site, tmp_path: Path) -> None:
    site.tells_length = False
    fetch(entry, tmp_path / "m.ckpt")
    assert (tmp_path / "m.ckpt").read_bytes() == CONTENT


def test_another_file_than_expected_is_not_kept(entry: Download, tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError,
        match=r"sent another file than expected \(sha256 .*, not abc\); get a model by hand \(its README\)",
    ):
        fetch(replace(entry, checksum="sha256:abc"), tmp_path / "m.ckpt")
    assert left(tmp_path) == []


def test_the_beginning_of_a_checksum_suffices(entry: Download, tmp_path: Path) -> None:
    fetch(replace(entry, checksum=f"sha256:{hashlib.sha256(CONTENT).hexdigest()[:8]}"), tmp_path / "m.ckpt")
    assert (tmp_path / "m.ckpt").exists()


def test_without_a_published_checksum_its_own_is_told(
    entry: Download, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(replace(entry, checksum=UNKNOWN), tmp_path / "m.ckpt")
    assert (
        f"no checksum is published for this file; its sha256 is {hashlib.sha256(CONTENT).hexdigest()}"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("status", "sentence"),
    [(404, "has no such file any more"), (401, "asks to log in"), (403, "denies access"), (500, "refused")],
)
def test_a_refusal_says_how_to_get_the_file_otherwise(
    status: int, sentence: str, entry: Download, site: Site, tmp_path: Path
) -> None:
    site.status = status
    expected = (
        rf"{sentence} \(HTTP {status}\) \(accept its licence\); get a model by hand \(its README\) and put "
        r"it at weights/m\.ckpt"
    )
    with pytest.raises(DownloadError, match=expected):
        fetch(replace(entry, remark="accept its licence"), tmp_path / "m.ckpt")
    assert not (tmp_path / "m.ckpt").exists()


def test_a_refused_connection_is_told(tmp_path: Path) -> None:
    with serving(b"") as gone:
        pass
    entry = Download("a model", gone.url, "weights/m.ckpt", "its README")
    with pytest.raises(DownloadError, match=r"cannot be reached \(.*refused.*\); get a model by hand"):
        fetch(entry, tmp_path / "m.ckpt")


def test_a_file_that_is_there_is_checked_and_not_fetched(entry: Download, site: Site, tmp_path: Path) -> None:
    (tmp_path / "m.ckpt").write_bytes(CONTENT)
    fetch(entry, tmp_path / "m.ckpt")
    assert site.asked == []
    (tmp_path / "m.ckpt").write_bytes(b"mine")
    with pytest.raises(
        DownloadError, match=r"m\.ckpt is another file than a model .*; move it away and try again"
    ):
        fetch(entry, tmp_path / "m.ckpt")
    assert (tmp_path / "m.ckpt").read_bytes() == b"mine"


def test_two_processes_do_not_write_one_file(entry: Download, tmp_path: Path) -> None:
    with open(tmp_path / "m.ckpt.partial", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="another process is downloading"):
            fetch(entry, tmp_path / "m.ckpt")


def test_a_member_is_taken_out_of_an_archive(site: Site, entry: Download, tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("inner/model.ckpt", b"tensors")
    site.content = archive.getvalue()
    packed = replace(entry, checksum=UNKNOWN, member="inner/model.ckpt")
    fetch(packed, tmp_path / "m.ckpt")
    assert (tmp_path / "m.ckpt").read_bytes() == b"tensors"
    assert left(tmp_path) == ["m.ckpt"]
    with pytest.raises(DownloadError, match="is no archive with other"):
        fetch(replace(packed, member="other"), tmp_path / "n.ckpt")
    damaged = bytearray(archive.getvalue())
    damaged[damaged.index(b"tensors")] ^= 1
    for content in (b"an error page", bytes(damaged), archive.getvalue()[:-8]):
        site.content = content
        with pytest.raises(DownloadError, match=r"is no archive with inner/model\.ckpt"):
            fetch(packed, tmp_path / "o.ckpt")
    assert left(tmp_path) == ["m.ckpt"]


def test_names_are_looked_up_with_the_nearest() -> None:
    assert find_download("sd14_coco").path == "checkpoints/sd-v1-4.ckpt"
    with pytest.raises(DownloadError, match="there is no download 'ddim_cifar'; did you mean 'ddim_cifar10'"):
        find_download("ddim_cifar")
    with pytest.raises(DownloadError, match="known are ddim_cifar10, "):
        find_download("zzzz")
