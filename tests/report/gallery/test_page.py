"""The gallery as a whole, as its HTML says it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from edadm.report.gallery.images import MOST

from ..fakes import MODEL, VARIANTS, Fake, make_results, write
from .conftest import add_errors, add_weights, gallery_of

VOID = {"meta", "img", "input"}


class Page(HTMLParser):
    """Elements with their attributes, text, and whether what was opened was closed."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.pieces: list[str] = []
        self.opened: list[str] = []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.pieces))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def parsed(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_every_image_is_inside_the_page_and_says_what_it_is(gallery: Path):
    page = parsed(gallery)
    assert page.opened == []
    images = page.all("img")
    assert len(images) == MOST * (len(VARIANTS) + 3)  # and a map of the error for each quantized one
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert len({image["alt"] for image in images}) == len(images)
    assert "error of W4A8 · TDAC + fbr_w4, noise 0: PSNR 42.1 dB, mean error 2.0 grey levels" in {
        image["alt"] for image in images
    }


def test_nothing_is_fetched_and_no_identifier_stands_twice(gallery: Path):
    page = parsed(gallery)
    html = re.sub('base64,[^"]*', "", gallery.read_text(encoding="utf-8"))
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    addresses = [
        attributes[name]
        for _, attributes in page.elements
        for name in ("href", "xlink:href", "srcset", "action")
        if name in attributes
    ]
    assert {address for address in addresses if not address.startswith("#")} == {"index.html"}
    assert [one for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert {"link", "iframe", "object"}.isdisjoint(tag for tag, _ in page.elements)
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    named = {
        attributes[key]
        for _, attributes in page.elements
        for key in ("for", "aria-labelledby")
        if key in attributes
    }
    assert named <= set(identifiers)


def test_numbers_stand_on_the_page(gallery: Path):
    text = parsed(gallery).text
    for words in (
        "16 of 20 images of every variant, evenly spaced over their noises.",
        "34.8 dB",
        "7.13× smaller",
        "over 8 states of full-precision trajectories",
        "1 500 0.4",  # step, timestep, percent
        "down_blocks.0.resnets.0 0.2 kB",
        "0.16 before",
    ):
        assert words in text


def test_the_page_is_a_few_megabytes_however_large_images_are(fake: Fake):
    random = np.random.default_rng(0)
    names = ["fp32", "uniform/w4a8/none"]
    for name in names:
        for shard in (0, 1):
            noise = random.integers(0, 256, (10, 3, 300, 300), dtype=np.uint8)
            np.save(fake.file(name, "samples", f"{shard}.npy"), noise)
    page = gallery_of(Fake(fake.results, [fake.runs[0] | {"variants": names}]))
    assert "of 300 × 300 pixels, averaged down by 2" in parsed(page).text
    assert page.stat().st_size < 8e6


def test_equal_results_give_equal_bytes(gallery: Path, fake: Fake):
    add_weights(fake)
    add_errors(fake, "tdac/w4a8/fbr_w4")
    assert gallery_of(fake).read_bytes() == gallery.read_bytes()


def test_texts_of_users_are_escaped(tmp_path: Path):
    fake = make_results(tmp_path / "results")
    word = '<b onclick="x">&'
    write(fake.file("prompts.json"), json.dumps([f"{word} {index}" for index in range(20)]))
    model = f"{MODEL}<i>"
    fake.file().rename(fake.results / model)
    page = parsed(gallery_of(Fake(fake.results, [fake.runs[0] | {"model": model}])))
    assert f"{word} 5" in page.text
    assert model in page.text
    assert not page.all("b")


def test_one_variant_alone_has_no_viewer(fake: Fake):
    page = parsed(gallery_of(Fake(fake.results, [fake.runs[0] | {"variants": ["fp32"]}])))
    assert len(page.all("img")) == MOST
    assert not page.all("input")
    assert "Not measured." in page.text


def test_errors_of_another_checkpoint_are_left_out_which_is_said(
    fake: Fake, capsys: pytest.CaptureFixture[str]
):
    add_weights(fake)
    path = add_errors(fake, "tdac/w4a8/fbr_w4", of="another digest")
    assert "Not measured." in parsed(gallery_of(fake)).text
    assert f"{path} is of another checkpoint than" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["gallery.html", "index.html"])
def test_what_scrolls_has_a_name_for_who_hears_the_page(gallery: Path, name: str):
    page = parsed(gallery.with_name(name))
    scrolled = [(tag, given) for tag, given in page.elements if "scroll" in given.get("class", "").split()]
    assert scrolled
    for tag, given in scrolled:
        assert given["tabindex"] == "0"
        assert tag == "figure" or given.keys() & {"aria-label", "aria-labelledby"}
    assert all(given["aria-label"] for given in page.all("svg"))
    assert all("alt" in given for given in page.all("img"))
