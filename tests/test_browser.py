"""The report pages in a real browser: nothing asked for, nothing refused, readable by all, on a phone and on paper.

`make test-browser` installs what is needed but Chromium itself; CHROMIUM names one that is not on the PATH.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lightune
from lightune.artifact.finished import read_finished
from lightune.comparison.words import verdicts
from lightune.report.compare_page import compare_page
from lightune.report.page import run_page, write_page
from lightune.reporting import make_report
from tests.conftest import TINY_SETTINGS
from tests.pages import comparison, write_folder
from tests.test_page import HOSTILE, LABELS, hostile_words

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
LIBRARIES = ("playwright", "axe_playwright_python")
MISSING = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)}: pip install 'lightune[browser]'"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium, or CHROMIUM=path"),
]
PAGES = ("whole", "hostile", "many", "old", "versus", "texts", "words", "compare", "search")


@pytest.fixture(scope="module")
def browser() -> Any:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # the sandbox refuses to start as root, as CI often is; the pages are our own
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(reviews, tiny_bert, tmp_path_factory) -> dict[str, Path]:
    """Page name -> file."""
    root = tmp_path_factory.mktemp("pages")
    folders = {
        "whole": write_folder(root / "whole", LABELS, more=True),
        "hostile": write_folder(root / "<b>hostile", HOSTILE, more=True),
        "many": write_folder(root / "many", [f"card_payment_number_{i}" for i in range(77)], more=True, n_test=400),
        "old": write_folder(root / "old", LABELS, seed=1),
    }
    made = {name: Path(make_report(folder)["page"]) for name, folder in folders.items()}
    versus = make_report(folders["whole"], folders["old"], output=root / "versus.html")
    run = read_finished(folders["whole"])
    texts = dict.fromkeys(run.predictions.rows.tolist(), "A text that is quite long. " * 20)
    write_page(run_page(replace(run, texts=texts)), root / "texts.html")
    write_page(run_page(replace(run, texts=texts, attributions=hostile_words(run))), root / "words.html")
    compared = comparison(model="<script>alert(1)</script>")
    write_page(compare_page(compared | {"verdicts": verdicts(compared)}), root / "compare.html")
    sizes = ["search.rows=24", "data.dev_rows=32", "evidence.doctor=false"]
    settings = [f"model={tiny_bert}", *TINY_SETTINGS, *sizes]
    search = lightune.tune(reviews, trials=4, no_baselines=True, settings=settings, output=root / "search")
    made |= {"versus": Path(versus["page"]), "search": Path(search.folder) / "search.html"}
    return made | {name: root / f"{name}.html" for name in ("texts", "words", "compare")}


def opened(browser: Any, path: Path, **look: Any) -> tuple[Any, list[str]]:
    """The page in a context of its own, and what was asked for or said on the console meanwhile."""
    page = browser.new_context(**look).new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url))
    page.on("dialog", lambda dialog: heard.append(dialog.message))
    page.goto(path.as_uri())
    return page, [each for each in heard if each != path.as_uri()]


def serious(page: Any) -> list[str]:
    """What axe finds that is serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_for_nothing_and_says_nothing(name, browser, pages):
    page, heard = opened(browser, pages[name])
    assert heard == []
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(name, scheme, browser, pages):
    page, _ = opened(browser, pages[name], color_scheme=scheme)
    assert serious(page) == []
    page.context.close()


def test_axe_finds_what_is_wrong(browser, pages, tmp_path):
    """The control: grey on white, and a table that a keyboard cannot scroll."""
    text = pages["whole"].read_text(encoding="utf-8").replace("--soft: #57626d", "--soft: #b7bbc0")
    (tmp_path / "pale.html").write_text(text.replace('<html lang="en">', "<html>"), encoding="utf-8")
    page, _ = opened(browser, tmp_path / "pale.html")
    assert {each.split(":")[0] for each in serious(page)} >= {"color-contrast", "html-has-lang"}
    page.context.close()


def test_the_dark_scheme_is_dark(browser, pages):
    def ground(scheme: str) -> str:
        page, _ = opened(browser, pages["whole"], color_scheme=scheme)
        return str(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))

    assert ground("light") == "rgb(255, 254, 251)"
    assert ground("dark") == "rgb(20, 24, 28)"


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_the_window(name, width, browser, pages):
    page, _ = opened(browser, pages[name], viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('p, h1, h2, svg, .scroll, pre')]"
    assert page.evaluate(f"Math.max(...{wide}.map(each => each.getBoundingClientRect().right))") <= width
    page.context.close()


def test_a_keyboard_gets_to_the_content_and_scrolls_a_wide_table(browser, pages):
    page, _ = opened(browser, pages["hostile"], viewport={"width": 360, "height": 800})
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#content"
    wide = page.locator(".scroll").filter(has_text="Scores on").first
    wide.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("each => each.scrollLeft > 0", arg=wide.element_handle())
    page.context.close()


@pytest.mark.parametrize("look", [{"color_scheme": "light"}, {"color_scheme": "dark"}])
def test_marked_words_differ_by_more_than_their_colour(look, browser, pages):
    page, _ = opened(browser, pages["words"], **look)
    for media in ("screen", "print"):
        page.emulate_media(media=media)
        drawn = "each => { const s = getComputedStyle(each); return [s.textDecorationStyle, s.backgroundColor]; }"
        one, other = (page.locator(f"mark.{side}").first.evaluate(drawn) for side in ("for", "against"))
        assert (one[0], other[0]) == ("solid", "dotted")
        assert one[1] != other[1]
    assert page.locator("mark.for").first.inner_text().endswith("+")
    page.context.close()


def test_on_paper_it_is_light_and_whole(browser, pages, tmp_path):
    page, _ = opened(browser, pages["many"], color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 254, 251)"
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    page.pdf(path=tmp_path / "page.pdf", format="A4", prefer_css_page_size=True)
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    page.set_viewport_size({"width": 680, "height": 1000})  # the printed width of A4 in CSS pixels
    assert page.evaluate("document.documentElement.scrollWidth") <= 680
    page.context.close()
