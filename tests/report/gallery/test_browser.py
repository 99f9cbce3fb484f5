"""The gallery in a browser: what its keys do, and whether it fits a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..browser import needs_browser, open_page

KEYS = """
const slider = document.querySelector("[type=range]");
const press = (key) => slider.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true, bubbles: true }));
const [quantized, original] = document.querySelectorAll(".pair img");
const error = document.querySelector(".error img");
const said = () => document.querySelector("output").textContent;
tell("start", said());
tell("alt", quantized.alt);
tell("stopped", !press("ArrowDown"));
tell("down", said());
press("ArrowUp"); press("ArrowUp");
tell("around", said());
slider.value = 30; slider.dispatchEvent(new Event("input"));
tell("clip", original.style.clipPath);
tell("value", slider.getAttribute("aria-valuetext"));
document.querySelectorAll("[type=radio]")[2].click();
tell("variant", document.querySelector(".named").textContent);
tell("error", error.alt);
document.querySelectorAll("tbody tr")[VARIANTS + 3].querySelectorAll("td")[1].click();
tell("clicked", said() + " " + quantized.alt);
const reached = [...document.querySelectorAll("a, input, button, summary, [tabindex='0']")];
tell("unnamed", reached.filter((one) => !(one.textContent.trim() || one.labels?.length || one.ariaLabel)).length);
"""


@needs_browser
def test_keys_and_clicks_do_what_the_page_says(gallery: Path):
    told = open_page(gallery, KEYS.replace("VARIANTS", "4"))
    assert told == {
        "start": "1 of 16, noise 0",
        "alt": "W8A8 · TDAC + fbr_w8, noise 0",
        "stopped": "true",
        "down": "2 of 16, noise 1",
        "around": "16 of 16, noise 18",
        "clip": "inset(0px 70% 0px 0px)",
        "value": "30 % full precision",
        "variant": "right: W4A8 · uniform, rounded to nearest",
        "error": "error of W4A8 · uniform, rounded to nearest, noise 18: PSNR 38.6 dB, mean error 3.0 grey levels",
        "clicked": "4 of 16, noise 3 W8A8 · TDAC + fbr_w8, noise 3",
        "unnamed": "0",
    }


LAYOUT = """
const root = document.documentElement;
tell("width", root.clientWidth);
tell("over", root.scrollWidth - root.clientWidth);
tell("paper", getComputedStyle(document.body).backgroundColor);
"""


@needs_browser
@pytest.mark.parametrize("page", ["gallery.html", "index.html"])
def test_a_phone_scrolls_sideways_inside_tables_alone(gallery: Path, page: str):
    told = open_page(gallery.with_name(page), LAYOUT, 320)
    assert (told["width"], told["over"]) == ("320", "0")


@needs_browser
def test_there_is_a_dark_mode(gallery: Path):
    dark = "--blink-settings=preferredColorScheme=0"
    papers = [open_page(gallery, LAYOUT, 1280, *flags)["paper"] for flags in ((), (dark,))]
    assert papers == ["rgb(252, 251, 248)", "rgb(23, 23, 22)"]
