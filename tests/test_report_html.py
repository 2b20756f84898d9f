from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from html import unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from edgepack.report.html import render_page
from edgepack.report.summary import (
    BenchmarkSummary,
    Condition,
    DeployReport,
    Fact,
    PushSummary,
)
from tests.fixtures.report import HOSTILE, benchmark, deploy_report, pack, search_pack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fixtures.browser import Browser

_VOID = {"meta", "br", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """Collects what a page holds, and finds tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.faults: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data + " "


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.faults == []
    assert reader.open == []
    return reader


def several_devices() -> DeployReport:
    base = deploy_report()
    throttled = replace(
        benchmark(device="pi@shed"), verdict="throttled", reasons=("the clock fell by 40%",)
    )
    lost = BenchmarkSummary(device="pi@attic", model="digits", error="no answer within 10 s")
    bare = benchmark(recipe=None, device="local:", center_ns=310_000)
    failed = PushSummary(device="pi@attic", error="no answer within 10 s")
    return replace(
        base, benchmarks=(*base.benchmarks, throttled, bare, lost), pushes=(*base.pushes, failed)
    )


def hostile_report() -> DeployReport:
    base, name = pack(), HOSTILE
    fact = Fact(name=name, value=name)
    rows = tuple(
        replace(row, recipe=name, skipped_reason=None, reasons=(name,))
        if row.recipe == "int8"
        else row
        for row in base.variants
    )
    assert base.parity is not None
    parity = replace(
        base.parity, reference=name, rows=tuple(replace(e, output=name) for e in base.parity.rows)
    )
    measured = replace(
        benchmark(),
        device=name,
        board=name,
        model=name,
        recipe=name,
        engine=name,
        verdict=name,
        reasons=(name,),
        facts=(fact,),
        conditions=(Condition(name=name, before=name, after=name),),
        provenance=(fact,),
    )
    packed = replace(
        base,
        model=name,
        target=name,
        target_description=name,
        variants=rows,
        chosen=name,
        chosen_reason=name,
        bundle=name,
        latency_on=name,
        objective=name,
        parity=parity,
        provenance=(fact,),
        warnings=(name,),
    )
    push = PushSummary(device=name, release=name)
    failed = PushSummary(device=name, error=name)
    lost = BenchmarkSummary(device=name, model=name, error=name)
    return DeployReport(
        title=name,
        pack=packed,
        pushes=(push, failed),
        benchmarks=(measured, lost),
        created=name,
        tool_version=name,
    )


def unknown_states() -> DeployReport:
    reason = "no cpufreq in /sys/devices/system/cpu (a virtual machine or a fixed clock)"
    both = Condition(name="Governor", before=reason, after=reason, is_known=False)
    apart = Condition(name="Clock", before=reason, after="no vcgencmd here", is_known=False)
    same = Condition(name="Throttling", before="none", after="none")
    measured = replace(benchmark(), conditions=(both, apart, same))
    return DeployReport(title="u", pack=pack(), benchmarks=(measured,))


REPORTS: dict[str, Callable[[], DeployReport]] = {
    "deploy": deploy_report,
    "several": several_devices,
    "hostile": hostile_report,
    "bare": lambda: DeployReport(title="m.tflite", benchmarks=(benchmark(recipe=None),)),
    "unknown": unknown_states,
    "pack only": lambda: DeployReport(title="p", pack=replace(pack(), measured_on=None)),
    "search": lambda: DeployReport(title="s", pack=search_pack()),
    "empty": lambda: DeployReport(title="nothing"),
}


@cache  # drawing takes a second
def page_of(name: str) -> str:
    return render_page(REPORTS[name]())


def test_a_runtime_without_xnnpack_is_marked_among_measurements() -> None:
    base = deploy_report()
    old = replace(benchmark(device="old"), lacks_xnnpack=True)
    mixed = read(render_page(replace(base, benchmarks=(*base.benchmarks, old))))
    marked = "not to be compared with those of runtimes that have it."
    assert mixed.text.count(marked) == 1
    assert marked not in read(render_page(several_devices())).text


@pytest.mark.parametrize("name", REPORTS)
def test_page_is_well_formed_and_loads_nothing(name: str) -> None:
    page = page_of(name)
    reader = read(page)
    assert not {"script", "link", "iframe", "object", "embed", "img", "base"} & set(reader.tags)
    for tag, attribute, value in reader.attributes:
        assert not attribute.startswith("on"), (tag, attribute)
        if attribute in {"src", "href", "xlink:href", "action", "data", "srcset", "poster"}:
            assert value.startswith("#"), (tag, attribute, value)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "@import" not in style
    assert "url(" not in style


@pytest.mark.parametrize("name", REPORTS)
def test_page_can_be_read_by_a_screen_reader(name: str) -> None:
    page = page_of(name)
    reader = read(page)
    assert reader.tags.count("h1") == 1
    assert ("html", "lang", "en") in reader.attributes
    assert reader.tags.count("table") == reader.tags.count("caption")
    scopes = [tag for tag, attribute, _ in reader.attributes if attribute == "scope"]
    assert scopes.count("th") == reader.tags.count("th")
    labels = [v for _, a, v in reader.attributes if a == "aria-label"]
    assert all(labels)
    assert reader.tags.count("figure") == reader.tags.count("figcaption")
    assert page.count('role="img"') == reader.tags.count("figure")


def test_ids_are_unique() -> None:
    ids = [v for _, name, v in read(page_of("several")).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_page_holds_what_was_found() -> None:
    text = " ".join(read(page_of("deploy")).text.split())
    for part in (
        "digits-3f786850-raspberry-pi-4 · int8 takes 1.250 ms on pi@kitchen",
        "2.598–2.640 ms",  # noqa: RUF001 - a range
        "no kernel for int16 activations of op SOFTMAX in this runtime",
        "SQNR of 'probabilities' is 11.8 dB, below the floor of 20 dB",
        "50.0% of the weights are zero",
        "3 computed densely by XNNPACK: it computes with int8, not float32",
        "Chosen: int8 is the quickest of 4 variants inside the floors on pi@kitchen.",
        "SQNR of at least 20 dB, at least 90.0% agreement with float",
        "against Keras 3.12.0 on 64 given samples; at least 60 dB was required",
        "41.2 dB to the host, 34.1 dB to float, max abs error 0.0039",
        "46.3 °C 52.1 °C",
        "The 10 launches in numbers",
        "3f786850e387",
        "38.4 MB",
        "5.96e-08",
    ):
        assert part in text


def test_of_many_candidates_the_best_come_first_and_all_are_there() -> None:
    reader = read(page_of("search"))
    text = " ".join(reader.text.split())
    first, _, rest = text.partition("The other candidates, by the same numbers")
    table = first.partition("compared with float on 72 samples")[2]
    assert "1. int8-" in table
    assert "float16" in table
    assert "dynamic_range" not in table
    assert "other candidates: " in table
    assert "39. dynamic_range dynamic int8 5.08 MB 4.42 MB packed 16.8 dB worst 9.3 dB" in rest
    assert "output 'logits': SQNR 16.8 dB is below 20 dB" in rest
    assert "41. int8-tuned int8 — — — — skipped no kernel for it" in rest
    numbers = [int(each) for each in re.findall(r" (\d+)\. (?:int8|float|weight|dyn|int16)", text)]
    assert {*numbers} == {*range(1, 42)}


def test_the_recipe_can_be_copied_from_the_page() -> None:
    page = page_of("search")
    shown = page[page.index("<pre>") + 5 : page.index("</pre>")]
    assert unescape(shown) == search_pack().recipe_toml


def test_the_chart_says_what_its_marks_mean() -> None:
    text = " ".join(read(page_of("search")).text.split())
    for words in ("Pareto front: no other", "outside the floors Numbers are those of the table"):
        assert words in text


def test_a_state_unknown_for_one_reason_says_it_once() -> None:
    reader = read(page_of("unknown"))
    assert reader.text.count("no cpufreq in") == 2
    assert ("td", "colspan", "2") in reader.attributes
    assert "Throttling none none" in " ".join(reader.text.split())


def test_doubt_stands_before_the_figures() -> None:
    text = read(page_of("several")).text
    assert text.index("throttled: the device slowed itself down") < text.index("Median latency")
    assert text.index("was not measured") < text.index("Median latency")


def test_hostile_names_are_shown_and_not_obeyed() -> None:
    page = page_of("hostile")
    assert "<script" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "<script>alert(1)</script>\"'&$\\frac{" in read(page).text


def test_the_same_report_is_the_same_page() -> None:
    assert page_of("deploy") == render_page(deploy_report())


def contrast(one: str, other: str) -> float:
    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_text_has_the_contrast_of_wcag_aa_in_every_palette() -> None:
    style = render_page(DeployReport(title="t")).split("<style>")[1]
    palettes = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]
    assert len(palettes) == 3  # light, dark, print
    for palette in palettes:
        for text, paper in (
            *(("ink", p) for p in ("paper", "panel", "warn-paper", "bad-paper")),
            *(("muted", p) for p in ("paper", "panel")),
            ("accent", "paper"),
            ("warn", "paper"),
            *((name, f"{name}-paper") for name in ("good", "warn", "bad")),
        ):
            assert contrast(palette[text], palette[paper]) >= 4.5, (text, paper)


@pytest.mark.browser
@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("width", [390, 768, 1100])
def test_browser_shows_it_without_requests_messages_or_overflow(
    browser: Browser, tmp_path: Path, name: str, width: int
) -> None:
    path = tmp_path / "report.html"
    path.write_text(page_of(name), encoding="utf-8")
    browser.open(path, width=width)
    assert browser.requests == [path.as_uri()]
    assert browser.messages == []
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate("document.scripts.length") == 0


@pytest.mark.browser
@pytest.mark.parametrize("name", ["deploy", "several", "unknown", "search"])
@pytest.mark.parametrize("width", [390, 768, 1100])
def test_browser_cuts_no_table(browser: Browser, tmp_path: Path, name: str, width: int) -> None:
    path = tmp_path / "report.html"
    path.write_text(page_of(name).replace("<details>", "<details open>"), encoding="utf-8")
    browser.open(path, width=width)
    frames = "[...document.querySelectorAll('.scroll')]"
    assert browser.evaluate(f"{frames}.length") != 0
    cut = f"{frames}.filter(e => e.scrollWidth > e.clientWidth).map(e => e.ariaLabel)"
    # A matrix is as wide as its variants are many: on a phone it scrolls in its frame.
    matrix = "Median latency with its 95% interval, and whether the measurement can be believed"
    found = browser.evaluate(cut)
    assert found == ([matrix] if (name, width) == ("several", 390) else [])
    assert browser.evaluate(f"document.documentElement.scrollWidth <= {width}") is True


@pytest.mark.browser
def test_browser_names_each_value_of_a_stacked_row_on_a_phone(
    browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(page_of("deploy"), encoding="utf-8")
    browser.open(path, width=390)
    names = browser.evaluate(
        "[...document.querySelector('tr.chosen').cells].slice(1)"
        ".map(e => getComputedStyle(e, '::before').content)"
    )
    assert names == [
        *('"Size"', '"SQNR"', '"Agreement"', '"Median latency"', '"Standing"'),
    ]


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_browser_without_scripts_draws_plots_in_the_pages_colors(
    browser: Browser, tmp_path: Path, *, dark: bool
) -> None:
    path = tmp_path / "report.html"
    path.write_text(page_of("deploy"), encoding="utf-8")
    browser.open(path, dark=dark, scripts=False)
    assert browser.messages == []
    find = "[...document.querySelectorAll('svg text')].find(e => e.textContent == '1. int8')"
    ink = browser.evaluate(f"getComputedStyle({find}).fill")
    assert ink == ("rgb(233, 235, 238)" if dark else "rgb(22, 25, 29)")
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(18, 21, 25)" if dark else "rgb(255, 255, 255)")
    heights = browser.evaluate(
        "[...document.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect().height)"
    )
    assert isinstance(heights, list)
    assert len(heights) == 6
    assert all(200 < height < 500 for height in heights)
    assert browser.screenshot().startswith(b"\x89PNG")


@pytest.mark.browser
def test_browser_prints_it(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page_of("deploy"), encoding="utf-8")
    browser.open(path)
    assert browser.print_pdf().startswith(b"%PDF")
