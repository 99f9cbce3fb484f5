"""What a running stage tells."""

from __future__ import annotations

import re

import pytest

from edadm import console


def test_a_sentence_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("Done.")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "Done.\n")


def test_in_a_log_progress_is_a_line_now_and_then_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 4.0, 12.0, 14.0, 40.0, 50.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with console.progress_bar("reconstruct", 8, "units") as advance:
        for _ in range(4):
            advance(2)
    assert capsys.readouterr().err.splitlines() == [
        "reconstruct: 4/8 units, about 12 s left",
        "reconstruct: 8/8 units, about 0 s left",
        "reconstruct: 8/8 units in 50.0 s",
    ]


def test_on_a_terminal_progress_is_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with console.progress_bar("collect", 3, "batches") as advance:
        advance(3)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "collect" in text
    assert "3/3" in text
    assert "batches" in text
