"""Snakemake's benchmark files."""

from __future__ import annotations

import pytest

from edadm.artifacts import facts, making
from edadm.report.page import write_page
from edadm.report.times import read_devices, read_times

from .fakes import MODEL, Fake, write
from .times import without_times


def test_times_sum_seconds_count_jobs_and_keep_the_largest_memory(fake: Fake):
    write(fake.results / "times" / "report" / "page.tsv", "s\th:m:s\tmax_rss\n5\t0:00:05\t1\n")
    write(fake.results / "times" / "own-stage" / "a.tsv", "s\th:m:s\tmax_rss\nNA\tNA\t-\n")
    convert, generate, own = read_times(fake.results)
    assert (convert.stage, convert.jobs, convert.seconds, convert.peak_mb) == (
        "convert-checkpoint",
        1,
        0.8,
        None,
    )
    assert (generate.stage, generate.jobs, generate.seconds, generate.peak_mb) == (
        "generate",
        2,
        200.0,
        1234.4,
    )
    assert (own.stage, own.jobs, own.seconds, own.peak_mb) == ("own-stage", 1, None, None)


def test_a_gpu_is_said_to_have_made_what_it_finished(fake: Fake, monkeypatch: pytest.MonkeyPatch):
    """And no more once a CPU has made it again; the artifact says nothing of it."""
    file, gpu = fake.results / MODEL / "fp32" / "samples" / "0.npy", "GPU 2 (H200, GPU-22)"
    content = file.read_bytes()

    def make(seed: int) -> None:
        known = facts("samples", {"seed": seed}, "cuda (H200)")
        with making([file], known, "code") as work:
            assert work is not None
            with work.publishing(beside=known) as partial:
                partial.write_bytes(content)

    assert read_devices(fake.results) == {}
    monkeypatch.setenv("EDADM_GPU", gpu)
    make(0)
    assert read_devices(fake.results) == {gpu: {"samples": 1}}
    assert "GPU-22" not in file.with_name("0.npy.made.json").read_text()
    output = fake.results / "report" / "index.html"
    write_page(fake.results, fake.runs, output)
    assert f"<td>{gpu}</td><td>1 samples</td>" in output.read_text()
    assert "GPU-22" not in without_times(output.read_text())
    monkeypatch.delenv("EDADM_GPU")
    make(1)
    assert read_devices(fake.results) == {}


def test_without_times_there_are_none(fake: Fake):
    assert read_times(fake.results / MODEL) == []


def test_units_of_other_jobs_stand_before_what_puts_them_together(fake: Fake):
    for stage in ("reconstruct", "reconstruct-part", "set-ranges"):
        write(fake.results / "times" / stage / "a.tsv", "s\th:m:s\tmax_rss\n1\t0:00:01\t1\n")
    stages = [time.stage for time in read_times(fake.results)]
    assert stages == ["convert-checkpoint", "set-ranges", "reconstruct-part", "reconstruct", "generate"]
