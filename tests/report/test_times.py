"""Snakemake's benchmark files."""

from __future__ import annotations

from edadm.report.times import read_times

from .fakes import MODEL, Fake, write


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


def test_without_times_there_are_none(fake: Fake):
    assert read_times(fake.results / MODEL) == []


def test_units_of_other_jobs_stand_before_what_puts_them_together(fake: Fake):
    for stage in ("reconstruct", "reconstruct-part", "set-ranges"):
        write(fake.results / "times" / stage / "a.tsv", "s\th:m:s\tmax_rss\n1\t0:00:01\t1\n")
    stages = [time.stage for time in read_times(fake.results)]
    assert stages == ["convert-checkpoint", "set-ranges", "reconstruct-part", "reconstruct", "generate"]
