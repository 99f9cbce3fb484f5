"""The page as a whole."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from edadm.errors import EdadmError
from edadm.report.page import write_page

from .fakes import MODEL, VARIANTS, Fake, make_results, write_speed
from .times import without_times


class Page(HTMLParser):
    """Collects tags, addresses and text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.pieces: list[str] = []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.pieces))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data", "srcset")
        ]

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)


def render(fake: Fake) -> Page:
    output = fake.results / "report" / "index.html"
    write_page(fake.results, fake.runs, output)
    return Page(output.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fake, Page]:
    """An unspoilt results folder and its page, which tests only look at."""
    fake = make_results(tmp_path_factory.mktemp("written") / "results")
    return fake, render(fake)


def test_numbers_stand_on_the_page_formatted(written: tuple[Fake, Page]):
    text = written[1].text
    for number in (
        "24.31",
        "34.88",
        "+2.70",
        "7.42",
        "22.5 dB",
        "13.41 MB",
        "7.13× smaller",
        "0.64×",
        "625 ms , 300–900 ms",
    ):
        assert number in text
    for words in (
        "full precision fp32",
        "W4A8 · TDAC + fbr_w4 tdac/w4a8/fbr_w4",
        "Every row scores 256 images",
        "Step 0 is pure noise",
    ):
        assert words in text


def test_page_needs_nothing_but_itself(written: tuple[Fake, Page]):
    fake, page = written
    assert page.addresses
    outside = {one for one in page.addresses if not one.startswith(("data:image/png;base64,", "#"))}
    assert outside == {"gallery.html"}
    assert not {"script", "link", "iframe"} & set(page.tags)
    html = (fake.results / "report" / "index.html").read_text(encoding="utf-8")
    assert "http" not in re.sub('base64,[^"]*', "", html)
    assert "@import" not in html
    assert str(fake.results) not in html


def test_pages_differ_in_nothing_but_times_whichever_network_was_faster(tmp_path):
    pages = []
    for name, seconds in (("fast", 0.2), ("slow", 2.0)):  # bf16 takes half of it, fp32 0.4 s
        fake = make_results(tmp_path / name / "results")
        write_speed(fake.file(), VARIANTS, integer=seconds)
        render(fake)
        pages.append((fake.results / "report" / "index.html").read_text(encoding="utf-8"))
    assert ["and so is slower than in fp32" in page for page in pages] == [False, True]
    assert without_times(pages[0]) == without_times(pages[1])


def test_figures_are_there(written: tuple[Fake, Page]):
    page = written[1]
    # All selectors, the one with curves, and two learned variants; four strips of images and three
    # differences.
    assert page.tags.count("svg") == 4
    assert page.tags.count("img") == 7
    assert "mid_block.attentions.0" in page.text
    assert "Without learning: W4A8 · uniform, rounded to nearest." in page.text


def test_every_unit_stands_in_numbers(written: tuple[Fake, Page]):
    text = written[1].text
    assert "Unit before soft after soft to hard held-out before held-out after flipped scale drift" in text
    assert "conv_in 0.004 0.001 0.0011 +10.0% – – 5.00% 1.01%" in text
    assert "conv_in 0.004 0.001 0.0011 +10.0% 0.005 0.002 5.00% 1.01%" in text
    assert "On held-out samples learning multiplied it by 0.40 (median), and it grew in 1." in text


def test_settings_and_times_are_there(written: tuple[Fake, Page]):
    page = written[1]
    assert page.tags.count("details") == 1 + 2 + 2 + 3 + 1 + 2  # presets, and two tables of units
    assert "iterations 4321" in page.text
    assert "architecture.multipliers 1, 2, 3, 5" in page.text
    assert "generate 2 3 min 20 s 1,234 MB" in page.text


def test_tables_lie_beside_the_page(written: tuple[Fake, Page]):
    folder = written[0].results / "report"
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        assert [row["variant"] for row in csv.DictReader(file)] == VARIANTS
    assert f"## {MODEL}" in (folder / "metrics.md").read_text(encoding="utf-8")


def test_equal_results_give_equal_bytes(written: tuple[Fake, Page], fake: Fake):
    (times := fake.results / "times" / "report").mkdir()
    (times / "page.tsv").write_text(
        "s\th:m:s\tmax_rss\n5.1\t0:00:05\t300\n"
    )  # an earlier report must not change the next
    render(fake)
    for name in ("index.html", "metrics.csv", "metrics.md", "ablation.csv", "ablation.md"):
        assert (fake.results / "report" / name).read_bytes() == (
            written[0].results / "report" / name
        ).read_bytes()


def test_optional_artifacts_leave_their_sections_out(written: tuple[Fake, Page], fake: Fake):
    sections = {"Checkpoint sizes", "Time and memory", "Speed", "Size"}
    assert sections <= set(written[1].pieces)
    fake.file("speed.json").unlink()
    for path in (fake.results / "times").rglob("*.tsv"):
        path.unlink()
    page = render(Fake(fake.results, [fake.runs[0] | {"variants": ["fp32", "uniform/w4a8/none"]}]))
    assert not sections & set(page.pieces)
    assert "24.31" in page.text


def test_full_precision_alone_makes_a_page(fake: Fake):
    page = render(Fake(fake.results, [fake.runs[0] | {"variants": ["fp32"]}]))
    assert "Reconstruction" not in page.pieces
    assert "Calibration" not in page.pieces
    assert "input" not in page.tags


def test_names_are_escaped(fake: Fake):
    fake.runs[0]["presets"] = fake.runs[0]["presets"] | {
        "model": fake.runs[0]["presets"]["model"] | {"checkpoint": "<script>&"}
    }
    page = render(Fake(fake.results, [fake.runs[0] | {"variants": ["fp32"]}]))
    assert "script" not in page.tags
    assert "<script>&" in page.text


def test_missing_scores_are_told_and_nothing_is_written(fake: Fake):
    fake.file("fp32", "metrics.json").unlink()
    with pytest.raises(EdadmError, match=r"there is no .*metrics\.json; make it with `snakemake "):
        render(fake)
    assert not (fake.results / "report").exists()


def test_runs_are_checked_at_the_door(fake: Fake):
    with pytest.raises(EdadmError, match="name at least one run"):
        write_page(fake.results, [], fake.results / "page.html")
    with pytest.raises(EdadmError, match="lacks evaluation_settings, presets"):
        write_page(
            fake.results,
            [{"model": MODEL, "variants": VARIANTS, "evaluation": "quick"}],
            fake.results / "page.html",
        )


def test_the_report_needs_no_torch():
    code = "import sys, edadm.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
