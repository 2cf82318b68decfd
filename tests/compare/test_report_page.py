"""The HTML page: whole, escaped, in need of nothing, and with the comparison's own numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from corral.compare.report.html import html_page
from corral.compare.results import Comparison, EngineRow
from tests.compare import simulated_results
from tests.compare.simulated_results import PLAIN, comparison, empty, hostile, run

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Collects what the tests ask for, and fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.headings: list[int] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def with_errors_only() -> Comparison:
    made = comparison(1)
    made.runs = [run(load, "corral", PLAIN, 0, ["503 busy"] * 64) for load in simulated_results.LOADS.values()]
    return made


CASES = {
    "whole": comparison,
    "one repeat": lambda: comparison(1),
    "empty": empty,
    "hostile": hostile,
    "errors only": with_errors_only,
}


@pytest.mark.parametrize("name", CASES)
def test_the_page_is_sound_and_needs_nothing(name: str) -> None:
    text = html_page(CASES[name]())
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "foreignobject"}
    for tag, attributes in page.tags:
        assert not [key for key in attributes if key.startswith("on")], tag
        assert not {"src", "srcset", "style"} & set(attributes), tag
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in text
    assert "@import" not in text
    words = page.text.replace(" ".join(simulated_results.HOSTILE.split()), "")
    assert not re.search(r"\b(nan|inf)\b", words)
    assert not re.search(r">\s*None\s*<", text)


@pytest.mark.parametrize("name", CASES)
def test_the_page_can_be_read_aloud(name: str) -> None:
    page = Page(html_page(CASES[name]()))
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    steps = zip(page.headings, page.headings[1:], strict=False)
    assert all(later <= earlier + 1 for earlier, later in steps), "a level of headings is left out"
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in page.all("svg"))
    assert len(page.all("desc")) == len(page.all("svg"))
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"] for attributes in page.all("a")} <= {f"#{name}" for name in ids}


def test_hostile_texts_stay_texts() -> None:
    text = html_page(hostile())
    assert "<script" not in text.lower()
    assert "49" not in re.findall(r"\{\{.*?\}\}|(?<=onload=&#39;x&#39; )\d+", text)
    assert simulated_results.HOSTILE.split(" | ")[0] in Page(text).text  # readable all the same


def test_no_coordinate_is_beyond_numbers() -> None:
    for picture in re.findall(r"<svg.*?</svg>", html_page(hostile()), flags=re.S):
        drawn = "".join(re.findall(r' (?:d|x|y|width|height|viewBox|dy)="([^"]*)"', picture))
        assert not re.search(r"nan|inf|e[+-]?\d", drawn), drawn


def test_a_missing_engine_is_a_row_with_the_reason() -> None:
    page = Page(html_page(comparison()))
    assert "not run: no program called ollama on the path" in page.text
    assert all("ollama" not in (attributes["aria-label"] or "") for attributes in page.all("svg"))


def test_simulated_results_say_so_first() -> None:
    made = comparison()
    text = Page(html_page(made)).text
    assert text.index("Simulated.") < text.index("Summary")
    made.is_simulated = False
    assert "Simulated." not in Page(html_page(made)).text


def test_what_differs_is_marked() -> None:
    text = html_page(comparison())
    row = re.search(r"<tr><th scope=\"row\">\s*Threads\s*</th>(.*?)</tr>", text, flags=re.S)
    assert row is not None
    cells = re.findall(r"<td(.*?)>(.*?)</td>", row[1], flags=re.S)
    assert ["bad" in attributes for attributes, _ in cells] == [False, False, True]
    assert 'aria-label="bad"' in cells[2][1]  # not by colour alone


def test_where_two_differ_both_are_marked() -> None:
    made = comparison()
    del made.engines[2]
    made.starts = [start for start in made.starts if start.engine != "vllm"]
    made.runs = [run for run in made.runs if run.engine != "vllm"]
    made.starts[-1].settings = replace(made.starts[-1].settings, kv_type="q8_0")
    row = re.search(r"<tr><th scope=\"row\">\s*Type of keys and values\s*</th>(.*?)</tr>", html_page(made), flags=re.S)
    assert row is not None
    assert row[1].count('class="bad"') == 2


def test_one_engine_alone_and_too_few_repeats_are_no_choice() -> None:
    made = comparison(2)
    assert "Fewer than 3 repeats" in Page(html_page(made)).text
    assert "leads in nothing" not in Page(html_page(made)).text
    made.engines = made.engines[:1]
    made.runs = [run for run in made.runs if run.engine == "corral"]
    made.starts = [start for start in made.starts if start.engine == "corral"]
    assert "One engine alone was run" in Page(html_page(made)).text


def test_other_weights_are_told() -> None:
    made = comparison()
    made.engines[1].digest = "cd" * 32
    assert "llama.cpp: it read other weights" in Page(html_page(made)).text


def test_doubtful_counts_of_tokens_are_told() -> None:
    made = comparison()
    for answer in made.runs[0].answers:
        answer.completion_tokens = 1
    row = re.search(r"Tokens of the answers.*?</table>", html_page(made), flags=re.S)
    assert row is not None
    assert 'class="bad"' in row[0]


def test_agreement_that_was_not_measured_is_said_to_be() -> None:
    made = comparison()
    made.agreements = []
    assert "was not measured" in Page(html_page(made)).text


def test_every_chapter_is_there() -> None:
    titles = {attributes["id"] for attributes in Page(html_page(empty())).all("section")}
    assert titles == {
        *("summary", "machine", "same-work", "speed", "resources", "cold", "overcommit"),
        *("probes", "ease", "faults", "raw", "method"),
    }


def test_numbers_come_from_the_comparison() -> None:
    """A figure that changes in the comparison changes on the page, and the old one is gone."""
    made = empty()
    made.engines = [EngineRow("corral", install_bytes=123_456_789)]
    assert "123 MB" in html_page(made)
    made.engines[0].install_bytes = 987_654_321
    assert "988 MB" in html_page(made)
    assert "123 MB" not in html_page(made)


def test_the_figures_of_a_run_by_hand() -> None:
    """One request, tokens at 0.5, 1.0, 1.5 and 2.0 seconds, asked for at zero, ended at two."""
    made = empty()
    made.engines = [EngineRow("corral")]
    one = run(simulated_results.LOADS["story-1"], "corral", PLAIN, 0)
    one.answers = one.answers[:1]
    one.answers[0].content_times = [0.5, 1.0, 1.5, 2.0]
    one.answers[0].ended = one.duration_s = 2.0
    one.answer_tokens = [4]
    made.runs = [one]
    text = Page(html_page(made)).text
    for figure in (
        "Output tokens per second 2.00 tok/s",
        "First token, median 500 ms",
        "Time per token, median 500 ms",
    ):
        assert figure in text
    assert "Whole answer, median 2.00 s one repeat" in text


def test_answers_that_come_whole_have_no_first_token() -> None:
    made = comparison()
    made.loads = [replace(load, is_streamed=False) for load in made.loads]
    page = html_page(made)
    speed = re.search(r'<section id="speed".*?</section>', page, flags=re.S)
    assert speed is not None
    assert "First token, median" not in speed[0]
    assert "not streamed" in speed[0]


def test_conduct_under_too_much_work_is_counted() -> None:
    made = comparison(1)
    load = simulated_results.LOADS["story-50"]
    made.runs = [run(load, "corral", PLAIN, 0, ["503: the queue is full"] * 20)]
    page = html_page(made)
    assert re.search(r"30 of 50 ! 20 20: 503: the queue is full 0 ", Page(page).text)
    made.runs[0].answers[0].status = 500
    page = html_page(made)
    assert re.search(r"30 of 50 ! 19 19: 503: the queue is full \u2717 1 1: 503: the queue is full", Page(page).text)
