"""The page as a reader sees it: in Chromium without scripts, light and dark, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.compare.report.html import html_page
from tests.compare.simulated_results import comparison, hostile
from tests.support.chromium import Chromium, chromium

pytestmark = pytest.mark.slow

PAGES = {"whole": comparison, "hostile": hostile}
WINDOWS = {"desk": 1280, "phone": 390}
STRETCH = 2000  # pixels of the page in one picture
MAX_PICTURES = 12

# What sticks out of the window, but for what has a scrollbar of its own.
_BEYOND = """[...document.querySelectorAll('body *')].filter(element => {
  const box = element.getBoundingClientRect();
  return box.width && box.right > document.documentElement.clientWidth + 1
    && !element.closest('.scroll, pre, .skip') && !element.closest('svg');
}).map(element => element.outerHTML.slice(0, 200))"""

# Texts that stick out of their plot.
_CUT = """[...document.querySelectorAll('svg')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => {
    const box = text.getBoundingClientRect();
    return box.width && (box.left < frame.left - 2 || box.right > frame.right + 2
      || box.top < frame.top - 2 || box.bottom > frame.bottom + 2);
  }).map(text => svg.getAttribute('aria-label').slice(0, 80) + ': ' + text.textContent);
})"""

# Texts with less contrast than WCAG 2.2 AA wants, 4.5 to 1, on the nearest ground that is painted.
_PALE = """[...document.querySelectorAll('body *')].filter(element => {
  const said = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  if (!said || !element.getBoundingClientRect().width) return false;
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(part => part / 255)
      .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const clear = 'rgba(0, 0, 0, 0)';
  let ground = element;
  while (ground.parentElement && getComputedStyle(ground).backgroundColor === clear) ground = ground.parentElement;
  const style = getComputedStyle(element);
  const ink = light(element.closest('svg') ? style.fill : style.color);
  const paper = light(getComputedStyle(ground).backgroundColor);
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05) < 4.5;
}).map(element => element.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    print(f"\npictures of the report: {folder}")
    return folder


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_readable(
    tab: Chromium, pictures: Path, tmp_path: Path, name: str, scheme: str, window: str
) -> None:
    width = WINDOWS[window]
    path = tmp_path / "report.html"
    path.write_text(html_page(PAGES[name]()), encoding="utf-8")
    assert (
        tab.open(path, scheme=scheme, width=width, is_phone=window == "phone") == []
    )  # asked for nothing, logged nothing
    tab.evaluate("document.querySelectorAll('details').forEach(element => { element.open = true })")
    height = tab.evaluate("document.documentElement.scrollHeight")
    for number, top in enumerate(range(0, min(height, STRETCH * MAX_PICTURES), STRETCH)):
        picture = pictures / f"{name}-{scheme}-{window}-{number:02}.png"
        tab.photograph(picture, top, width, min(STRETCH, height - top))
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert tab.evaluate(_BEYOND) == []
    assert tab.evaluate(_CUT) == []
    assert tab.evaluate(_PALE) == []


def test_dark_is_dark(tab: Chromium, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(html_page(comparison()), encoding="utf-8")
    grounds = []
    for scheme in ("light", "dark"):
        tab.open(path, scheme=scheme, width=1280)
        grounds.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(246, 247, 249)", "rgb(17, 21, 27)"]


def test_it_prints(tab: Chromium, pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(html_page(comparison()), encoding="utf-8")
    tab.open(path, scheme="dark", width=1280)
    tab.print_pdf(pictures / "report.pdf")
    assert (pictures / "report.pdf").read_bytes().startswith(b"%PDF")
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    tab.send("Emulation.setEmulatedMedia", media="print", features=dark)
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"  # saves ink
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert tab.evaluate(_PALE) == []
    tab.send("Emulation.setEmulatedMedia", media="")


def test_the_checks_see_faults(tab: Chromium, tmp_path: Path) -> None:
    path = tmp_path / "faulty.html"
    path.write_text(
        "<!DOCTYPE html><body style='background:#fff'><p style='width:3000px'>wide</p><p style='color:#ccc'>pale</p>"
        "<svg viewBox='0 0 100 20' aria-label='plot' width='100'><text x='90' y='15'>a long text</text></svg>"
        "<img src='https://elsewhere.example/a.png'>"
    )
    assert "https://elsewhere.example/a.png" in tab.open(path, scheme="light", width=390)
    assert [found.partition(">")[2] for found in tab.evaluate(_BEYOND)] == ["wide</p>"]
    assert [found.partition(">")[2] for found in tab.evaluate(_PALE)] == ["pale</p>"]
    assert tab.evaluate(_CUT) == ["plot: a long text"]
